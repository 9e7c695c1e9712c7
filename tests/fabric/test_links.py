"""What crosses links and what does not, between seven real servers, also with a hostile one among them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fabric_mesh import Fabric, fabric, metro, until
from mesh.fabric.config import RELOADABLE
from mesh.subjects import SITE_FAMILIES
from mesh.topology.model import Topology
from mesh.topology.tree import parent, region
from nats.aio.client import Client
from nats.aio.msg import Msg

Edit = Callable[[str], str]


def path(topology: Topology, start: str, end: str) -> set[str]:
    """Sites on the way from `start` to `end`, both included."""
    ways = []
    for site in (start, end):
        way: list[str] = []
        at: str | None = site
        while at is not None:
            way.append(at)
            at = parent(topology, at)
        ways.append(way)
    meeting = next(site for site in ways[0] if site in ways[1])
    return {*ways[0][: ways[0].index(meeting) + 1], *ways[1][: ways[1].index(meeting)]}


def catalogue(topology: Topology) -> Iterator[tuple[str, Callable[[str, str], bool]]]:
    """Every subject to try, and whether what `sender` publishes there must be heard at `listener`."""

    def never(sender: str, listener: str) -> bool:
        return False

    for site in sorted(topology.sites):
        for family in SITE_FAMILIES:
            yield f"metro.{family}.{site}.a.b", never
            yield f"metro.{family}.edge.{site}.a.b", never
        for role in ("app", "operator"):
            yield f"_INBOX.{site}.{role}.x.1", lambda a, b, z=site: b in path(topology, a, z)
        for role in ("replica", "site", "leaf"):
            yield f"_INBOX.{site}.{role}.x.1", never
        yield f"metro.infer.agent.{site}", lambda a, b, z=site: b in path(topology, a, z)
        yield f"$JS.{site}.API.INFO", never
        for other in sorted(topology.sites):
            neighbours = parent(topology, site) == other or parent(topology, other) == site
            together = region(topology, site) is not None and region(topology, site) == region(topology, other)
            yield (
                f"metro.link.global.{site}.{other}.t.1",
                lambda a, b, n=neighbours, s=site, o=other: n and (a, b) == (s, o),
            )
            yield (
                f"metro.link.region.{site}.{other}.t.1",
                lambda a, b, n=neighbours and together, s=site, o=other: n and (a, b) == (s, o),
            )
            yield f"metro.link.local.{site}.{other}.t.1", never
    yield "$SRV.PING", lambda a, b: True
    for stray in (
        "metro.infer.agent",
        "metro.other.x",
        "other.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.NAMES",
        "$KV.bucket.key",
        "$O.bucket.C.x",
        "_INBOX.x.1",
        "_INBOX.core.1",
        "$MQTT.msgs.x",
    ):
        yield stray, never


async def heard_everywhere(mesh: Fabric, wide: bool) -> set[tuple[str, str, str]]:
    """(sender, listener, subject) of everything that crossed when every site published every subject."""
    heard: set[tuple[str, str, str]] = set()
    fences: set[tuple[str, str]] = set()
    probes: dict[str, Client] = {}
    subjects = [subject for subject, _ in catalogue(mesh.topology)]
    for site in mesh.servers:
        probes[site] = await mesh.probe(site, pending_size=2**24)

        async def note(message: Msg, site: str = site) -> None:
            sender = message.data.decode()
            if ".fence." in message.subject:
                fences.add((sender, site))
            elif sender in mesh.servers and sender != site:
                heard.add((sender, site, message.subject))

        for subject in [">"] if wide and site == "north-a" else [*subjects, f"metro.infer.fence.{site}"]:
            await probes[site].subscribe(subject, cb=note)
        await probes[site].flush()

    wanted = {(a, b) for a in mesh.servers for b in mesh.servers if not (wide and b == "north-a")}

    async def knows_all() -> bool:
        for sender in probes:
            for listener in probes:
                await probes[sender].publish(f"metro.infer.fence.{listener}", sender.encode())
        await asyncio.gather(*(probe.flush() for probe in probes.values()))
        return wanted <= fences

    await until(knows_all, "interest known at every site")
    fences.clear()
    for sender, probe in probes.items():
        for subject in subjects:
            await probe.publish(subject, sender.encode())
        await probe.flush()
    await until(knows_all, "fences behind everything published")
    return heard


def expected(topology: Topology) -> set[tuple[str, str, str]]:
    return {
        (sender, listener, subject)
        for subject, crosses in catalogue(topology)
        for sender in topology.sites
        for listener in topology.sites
        if sender != listener and crosses(sender, listener)
    }


def without_denials(text: str) -> str:
    return re.sub(r"^ +deny_(imports|exports): .*\n", "", text, flags=re.M)


def claiming_the_hub(text: str) -> str:
    text = without_denials(text).replace('domain: "north-a"', 'domain: "north"')
    return text.replace("url: ", "hub: true\n      url: ")


def without_leaf_permissions(text: str) -> str:
    links, mark, clients = text.partition(RELOADABLE)
    return re.sub(r"permissions \{\n.*\n.*\n +\}\n", "", links) + mark + clients


def test_only_what_may_cross_crosses(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True) as mesh:
            assert await heard_everywhere(mesh, wide=False) == expected(mesh.topology)

    asyncio.run(scenario())


@pytest.mark.parametrize("edit", [without_denials, claiming_the_hub])
@pytest.mark.parametrize("wide", [False, True])
def test_a_hostile_child_gets_and_sends_no_more(nats_server: Path, tmp_path: Path, edit: Edit, wide: bool) -> None:
    """It has the child's real seed, no denials of its own, claims its parent's domain, and listens to everything."""

    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True, edits={"north-a": edit}) as mesh:
            heard = await heard_everywhere(mesh, wide)
            allowed = expected(mesh.topology)
            assert heard <= allowed
            assert {one for one in allowed if "north-a" not in one[:2]} <= heard

    asyncio.run(scenario())


def test_a_hostile_parent_gets_and_sends_no_more(nats_server: Path, tmp_path: Path) -> None:
    """The child's own denials hold when its parent grants everything."""

    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True, edits={"north": without_leaf_permissions}) as mesh:
            heard = await heard_everywhere(mesh, wide=False)
            over = {one for one in heard - expected(mesh.topology) if {"north-a", "north-b"} & set(one[:2])}
            assert {subject for _, _, subject in over} <= {"metro.other.x", "other.x", "_INBOX.x.1", "_INBOX.core.1"}

    asyncio.run(scenario())
