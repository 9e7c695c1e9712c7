"""Faults of single parts of the shipped mesh: what breaks, what goes on, and that it heals by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter

import pytest
from live_mesh import Live, View, until, view

from mesh.transport.connection import Message

AGAIN_S = 10.0
"""A killed part is back and at work within this, on a machine that has processors for what runs on it."""


def again_s() -> float:
    """AGAIN_S, longer by as much as the machine is overbooked; a minute at most."""
    overbooked = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(60.0, AGAIN_S * max(1.0, overbooked))


class Heard:
    """Counts decisions by site as they arrive at the root."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    async def follow(self, seen: View) -> None:
        connection = await seen.as_role("app", seen.live.root)
        await connection.subscribe(seen.live.subjects.decision("edge", None, None, None), self._note)
        await until(lambda: len(self.counts) == 4, "decisions of all edges", 20.0)

    async def _note(self, message: Message) -> None:
        self.counts[message.subject.split(".")[3]] += 1

    async def goes_on(self, sites: set[str], deadline_s: float = 20.0) -> None:
        """Waits until every one of `sites` has decided again, several times."""
        before = self.counts.copy()
        await until(lambda: all(self.counts[s] > before[s] + 10 for s in sites), f"decisions of {sites}", deadline_s)


EDGES = {"north-a", "north-b", "south-a", "south-b"}


def test_a_killed_replica_is_back_and_others_decide_meanwhile(well: Live) -> None:
    async def scenario() -> None:
        async with view(well) as seen:
            heard = Heard()
            await heard.follow(seen)
            before = seen.replica("south-b", "cell-forecast")
            counts, begin = heard.counts.copy(), time.monotonic()
            os.kill(before.pid, signal.SIGKILL)

            def decides_again() -> bool:
                now = seen.replica("south-b", "cell-forecast")
                return now.incarnation != before.incarnation and now.state == "ready" and now.decisions > 0

            await until(decides_again, "a new incarnation that decides", again_s())
            print(f"back after {time.monotonic() - begin:.1f} s")  # noqa: T201
            assert all(heard.counts[site] > counts[site] for site in EDGES - {"south-b"})
            assert seen.replica("south-b", "cell-anomaly").incarnation
            await heard.goes_on(EDGES)

    asyncio.run(scenario())


def test_a_killed_site_process_is_replaced_and_its_parts_are_adopted(well: Live) -> None:
    async def scenario() -> None:
        async with view(well) as seen:
            begin = {site: await seen.last(site) for site in ("core", "north-a")}  # the later one first
            before, server = seen.status("north-a"), well.nats_pid("north-a")
            os.kill(before.pid, signal.SIGKILL)
            await until(lambda: seen.status("north-a").pid != before.pid, "a new site process", 30.0)
            await seen.all_well()
            after = seen.status("north-a")
            parts = {(r.agent, r.pid, r.incarnation) for r in before.replicas}
            assert {(r.agent, r.pid, r.incarnation) for r in after.replicas} == parts
            assert well.nats_pid("north-a") == server
            made = await seen.stored("north-a", begin["north-a"])
            ids = {one.id for one in made}
            assert len(ids) == len(made) > 0
            arrived = Counter(await seen.arrived("core", begin["core"], ids))
            assert {id for id, count in arrived.items() if count > 1} == set()

    asyncio.run(scenario())


def test_a_killed_nats_server_pauses_its_site_alone_and_comes_back(well: Live) -> None:
    async def scenario() -> None:
        async with view(well) as seen:
            heard = Heard()
            await heard.follow(seen)
            incarnations = {r.incarnation for r in seen.status("south-a").replicas}
            server = well.nats_pid("south-a")
            assert server is not None
            counts = heard.counts.copy()
            os.kill(server, signal.SIGKILL)
            await until(lambda: well.nats_pid("south-a") not in (None, server), "a new nats-server", again_s())
            await heard.goes_on(EDGES)
            assert all(heard.counts[site] > counts[site] for site in EDGES)
            assert {r.incarnation for r in seen.status("south-a").replicas} == incarnations

    asyncio.run(scenario())


@pytest.mark.parametrize(("child", "parent"), [("north-a", "north"), ("south", "core")])
def test_behind_a_cut_link_a_site_decides_and_catches_up_once_it_is_healed(well: Live, child: str, parent: str) -> None:
    edge = "north-a" if child == "north-a" else "south-b"

    async def scenario() -> None:
        async with view(well) as seen:
            root = await seen.last("core")
            done = await asyncio.to_thread(well.command, "link", "cut", child, parent)
            assert done.returncode == 0, done.stderr
            try:
                await until(lambda: not _up(seen, child), "a link that is seen to be down", 15.0)
                assert (seen.status(child).link or None) is not None
                begin = await seen.last(edge)
                backlog = seen.status(child).backlog
                await until(lambda: seen.status(child).backlog > backlog + 150, "a backlog that grows", 30.0)
                made = {one.id for one in await seen.stored(edge, begin)}
                assert len(made) > 20
                assert made & {one.id for one in await seen.stored("core", root)} == set()
            finally:
                healed = await asyncio.to_thread(well.command, "link", "heal", parent, child)
            assert healed.returncode == 0, healed.stderr
            await until(lambda: _up(seen, child), "a link that is up", 20.0)
            everything = {one.id for one in await seen.stored(edge, begin)}
            assert made <= everything
            arrived = Counter(await seen.arrived("core", root, everything))
            assert {id for id, count in arrived.items() if count > 1} == set()

    asyncio.run(scenario())


def _up(seen: View, site: str) -> bool:
    link = seen.status(site).link
    return link is not None and link.up and not link.cut
