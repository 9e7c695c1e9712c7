"""What crosses links and what does not, between seven real servers, also with a hostile one among them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from fabric_mesh import Fabric, fabric, metro, until
from nats.aio.client import Client
from nats.aio.msg import Msg
from raw_leaf import RawLeaf

from mesh.fabric import permissions
from mesh.fabric.config import RELOADABLE
from mesh.fabric.permissions import Permissions
from mesh.subjects import SITE_FAMILIES
from mesh.topology.model import Topology
from mesh.topology.tree import parent, region

HOLES = ("$JS.ACK.DECISIONS.name.1.1.1.1.0", "_R_.x", "_GR_.x.y.z")
"""What nats-server lets pass the permissions of a leaf connection."""
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
        *HOLES,
    ):
        yield stray, never


async def heard_everywhere(mesh: Fabric, wide: bool) -> set[tuple[str, str, str]]:
    """(sender, listener, subject) of everything that crossed when every site published every subject.

    What is published last from each site to each other, over the same links, is a fence: when it has come through,
    whatever else was going to come through has. `wide` lets the probe of north-a listen to everything.
    """
    heard: set[tuple[str, str, str]] = set()
    fences: set[tuple[str, str, str]] = set()
    probes: dict[str, Client] = {}
    subjects = [subject for subject, _ in catalogue(mesh.topology)]
    for site in mesh.servers:
        probes[site] = await mesh.probe(site, pending_size=2**24)

        async def note(message: Msg, site: str = site) -> None:
            sender, _, phase = message.data.decode().partition(" ")
            if phase:
                fences.add((sender, site, phase))
            elif sender in mesh.servers and sender != site:
                heard.add((sender, site, message.subject))

        for subject in [*([">"] if wide and site == "north-a" else subjects), f"metro.infer.fence.{site}"]:
            await probes[site].subscribe(subject, cb=note)
        await probes[site].flush()

    async def fenced(phase: str) -> bool:
        for sender in probes:
            for listener in probes:
                await probes[sender].publish(f"metro.infer.fence.{listener}", f"{sender} {phase}".encode())
        await asyncio.gather(*(probe.flush() for probe in probes.values()))
        return {(a, b, phase) for a in probes for b in probes} <= fences

    await until(lambda: fenced("before"), "interest known at every site")
    for sender, probe in probes.items():
        for subject in subjects:
            await probe.publish(subject, sender.encode())
        await probe.flush()
    await until(lambda: fenced("after"), "fences behind everything published")
    return heard


@contextlib.asynccontextmanager
async def hostile(mesh: Fabric, claims: dict[str, object]) -> AsyncIterator[RawLeaf]:
    raw = RawLeaf()
    await raw.open(mesh.ports["north"].leaf, mesh.identities.get("leaf", "north-a").seed_file, **claims)
    try:
        yield raw
    finally:
        await raw.aclose()


async def hear_hostile(mesh: Fabric, claims: dict[str, object]) -> None:
    """Every site publishes everything; the hostile leaf listens as widely as it can."""
    probes = {site: await mesh.probe(site, pending_size=2**24) for site in mesh.servers}
    subjects = [subject for subject, _ in catalogue(mesh.topology)]
    allowed = {one for one in expected(mesh.topology) if one[1] == "north-a"}
    near = {"north", "north-b"} if "is_hub" in claims else set(mesh.servers)  # a hub's interest goes to leaves only
    async with hostile(mesh, claims) as raw:
        raw.listen([">", "*.>", "metro.>", "_INBOX.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$MQTT.>", "_R_.>"])
        raw.listen(sorted({subject for _, _, subject in allowed} | {"metro.infer.fence.north-a"}))
        assert await raw.settle()

        async def fenced(phase: str) -> bool:
            for site, probe in probes.items():
                await probe.publish("metro.infer.fence.north-a", f"{site} {phase}".encode())
            await asyncio.gather(*(probe.flush() for probe in probes.values()))
            assert await raw.settle()
            return {f"{site} {phase}".encode() for site in near} <= {data for _, data in raw.heard}

        await until(lambda: fenced("before"), "interest known at every site")
        for site, probe in probes.items():
            for subject in subjects:
                await probe.publish(subject, site.encode())
        await until(lambda: fenced("after"), "fences behind everything published")
    heard = {(data.decode(), "north-a", subject) for subject, data in raw.heard if data.decode() in probes}
    assert {one for one in allowed if one[0] in near} <= heard <= allowed


async def send_hostile(mesh: Fabric, claims: dict[str, object]) -> None:
    """The hostile leaf sends everything, each on a connection of its own, for what is refused ends the connection."""
    heard: set[tuple[str, str, str]] = set()
    fences: set[str] = set()
    subjects = [subject for subject, _ in catalogue(mesh.topology)]
    for site in mesh.servers:
        probe = await mesh.probe(site)

        async def note(message: Msg, site: str = site) -> None:
            if message.data == b"fence":
                fences.add(site)
            else:
                heard.add(("north-a", site, message.subject))

        for subject in [*subjects, f"metro.infer.fence.{site}"]:
            await probe.subscribe(subject, cb=note)
        await probe.flush()

    async def fenced() -> bool:
        async with hostile(mesh, claims) as raw:
            for site in mesh.servers:
                raw.send(f"metro.infer.fence.{site}", b"fence")
            assert await raw.settle()
        return fences >= set(mesh.servers)

    await until(fenced, "interest known at every site")
    ended: set[str] = set()
    for subject in subjects:
        async with hostile(mesh, claims) as raw:
            raw.send(subject, b"?")
            if not await raw.settle():
                ended.add(subject)
    fences.clear()
    await until(fenced, "fences behind everything sent")
    allowed = {one for one in expected(mesh.topology) if one[0] == "north-a"}
    assert {one for one in heard if one[2] not in HOLES} == allowed
    refused = {*subjects} - {*HOLES} - {subject for _, _, subject in allowed}
    assert ended - {*HOLES} == (set() if "is_hub" in claims else refused)


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject falls under a pattern with `*` and `>`."""
    parts = (re.escape(token).replace(r"\*", "[^.]+") for token in pattern.removesuffix(".>").split("."))
    return re.fullmatch(r"\.".join(parts) + (r"\..+" if pattern.endswith(".>") else ""), subject) is not None


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


def without_leaf_permissions(text: str) -> str:
    links, mark, clients = text.partition(RELOADABLE)
    return re.sub(r"permissions \{\n.*\n.*\n +\}\n", "", links) + mark + clients


def test_only_what_may_cross_crosses(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True) as mesh:
            assert await heard_everywhere(mesh, wide=False) == expected(mesh.topology)

    asyncio.run(scenario())


@pytest.mark.parametrize("wide", [False, True])
def test_a_child_without_denials_gets_and_sends_no_more(nats_server: Path, tmp_path: Path, wide: bool) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True, edits={"north-a": without_denials}) as mesh:
            assert await heard_everywhere(mesh, wide) == expected(mesh.topology)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "claims",
    [{}, {"is_hub": True, "domain": "north"}, {"domain": "core", "cluster": "other"}],
    ids=["plain", "as hub", "as another domain"],
)
def test_a_hostile_child_gets_and_sends_no_more(nats_server: Path, tmp_path: Path, claims: dict[str, object]) -> None:
    """A leaf by hand with the child's real seed, which obeys nothing it is told and listens to everything."""

    async def scenario() -> None:
        others = [site for site in metro().sites if site != "north-a"]
        async with fabric(tmp_path, metro(), probes=True, sites=others) as mesh:
            await hear_hostile(mesh, claims)
            await send_hostile(mesh, claims)

    asyncio.run(scenario())


BELOW = ("north-a", "north-b")


def roles_of(mesh: Fabric, site: str, side: Callable[[Permissions], tuple[str, ...]]) -> set[str]:
    """What the programs of a site may subscribe or publish (the operator, a person, may watch all of it)."""
    each = (
        permissions.site_process(mesh.subjects, mesh.topology, site),
        permissions.replica(mesh.subjects, mesh.topology, site),
        permissions.application(mesh.subjects, mesh.topology, site, "default"),
    )
    return {pattern for one in each for pattern in side(one)}


def test_a_hostile_parent_reaches_nobody_below(nats_server: Path, tmp_path: Path) -> None:
    """When the parent grants everything, the children's own denials and their roles' permissions still hold."""

    async def scenario() -> None:
        async with fabric(tmp_path, metro(), probes=True, edits={"north": without_leaf_permissions}) as mesh:
            heard = await heard_everywhere(mesh, wide=False)
            for sender, listener, subject in sorted(heard - expected(mesh.topology)):
                if listener in BELOW:
                    allowed = roles_of(mesh, listener, lambda permissions: permissions.subscribe)
                elif sender in BELOW:
                    allowed = roles_of(mesh, sender, lambda permissions: permissions.publish)
                else:
                    continue
                assert not any(matches(pattern, subject) for pattern in allowed), f"{sender} {listener} {subject}"

    asyncio.run(scenario())
