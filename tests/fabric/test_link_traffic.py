"""Traffic over live, cut and healed links, and a hostile child at the server's own exceptions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fabric_mesh import Fabric, fabric, metro, until
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from raw_leaf import RawLeaf

CHAIN = ("core", "north", "north-a")


async def echo(message: Msg) -> None:
    await message.respond(b"heard " + message.data)


async def answered(client: Client, subject: str, deadline_s: float = 10.0) -> bytes:
    """The answer to a request, once interest has spread; fails the test after the deadline."""
    answers: list[bytes] = []

    async def asked() -> bool:
        try:
            answers.append((await client.request(subject, b"x", timeout=0.5)).data)
        except (NoRespondersError, NatsTimeoutError):
            return False
        return True

    await until(asked, f"an answer on {subject}", deadline_s)
    return answers[-1]


def test_neighbours_ask_each_other_over_link_subjects(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=CHAIN, paced=True) as mesh:
            subjects = mesh.subjects
            north = await mesh.connect("north", "site")
            await north.subscribe(subjects.link("region", "north-a", "north", "state"), cb=echo)
            await north.flush()
            prefix = subjects.link_inbox("region", "north-a", "north")
            child = await mesh.join("north-a", mesh.identities.get("site", "north-a").seed_file, prefix)
            assert await answered(child, subjects.link("region", "north-a", "north", "state")) == b"heard x"
            assert mesh.relays["north-a"].bytes_up > 0
            assert mesh.relays["north-a"].bytes_down > 0
            assert mesh.errors == []

    asyncio.run(scenario())


def test_applications_reach_and_find_agents_at_other_sites(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=(*CHAIN, "south")) as mesh:
            for site in ("south", "north-a"):

                async def tell(message: Msg, site: str = site) -> None:
                    await message.respond(site.encode())

                replica = await mesh.connect(site, "replica")
                await replica.subscribe(mesh.subjects.infer("agent", site), queue="agent", cb=tell)
                await replica.subscribe("$SRV.PING", cb=tell)
                await replica.flush()
            app, operator = await mesh.connect("north-a", "app"), await mesh.connect("south", "operator")
            assert await answered(app, mesh.subjects.infer("agent", "south")) == b"south"
            assert await answered(operator, mesh.subjects.infer("agent", "north-a")) == b"north-a"
            found: set[bytes] = set()

            async def note(message: Msg) -> None:
                found.add(message.data)

            inbox = app.new_inbox()
            await app.subscribe(inbox, cb=note)

            async def both() -> bool:
                await app.publish("$SRV.PING", b"", reply=inbox)
                await app.flush()
                return found == {b"south", b"north-a"}

            await until(both, "discovery of both agents")
            assert mesh.errors == []

    asyncio.run(scenario())


async def noticed(mesh: Fabric, site: str, neighbour: str, there: bool) -> float:
    async def seen() -> bool:
        return (neighbour in {link.site for link in await mesh.servers[site].links()}) == there

    return await until(seen, f"{site} sees {neighbour} {'back' if there else 'gone'}", 6.0)


def test_a_cut_link_is_noticed_within_3_s_and_traffic_returns(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=CHAIN, paced=True) as mesh:
            replica = await mesh.connect("north", "replica")
            await replica.subscribe(mesh.subjects.infer("agent", "north"), cb=echo)
            await replica.flush()
            app = await mesh.connect("north-a", "app")
            subject = mesh.subjects.infer("agent", "north")
            assert await answered(app, subject) == b"heard x"
            mesh.relays["north-a"].cut()
            ends = (("north-a", "north"), ("north", "north-a"))
            gone = await asyncio.gather(*(noticed(mesh, *one, there=False) for one in ends))
            assert max(gone) < 3.0
            with pytest.raises(NoRespondersError):
                await app.request(subject, b"x", timeout=1)
            mesh.relays["north-a"].heal()
            back = await asyncio.gather(*(noticed(mesh, *one, there=True) for one in ends))
            assert await answered(app, subject) == b"heard x"
            assert max(back) < 3.0

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("policy", "leaks"), [(AckPolicy.NONE, False), (AckPolicy.EXPLICIT, True)], ids=["none", "explicit"]
)
def test_a_hostile_child_reads_nothing_of_a_consumer_without_acknowledgements(
    nats_server: Path, tmp_path: Path, policy: AckPolicy, leaks: bool
) -> None:
    """`$JS.ACK.>` passes every leaf permission; the consumer with acknowledgements shows that the attack is real."""

    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=["north"]) as mesh:
            process = await mesh.connect("north", "site")
            stream = process.jetstream()
            await stream.add_stream(StreamConfig(name="DECISIONS", subjects=[mesh.subjects.decisions]))
            for number in range(4):
                await stream.publish(f"metro.decision.regional.north.a.{number}", b"secret")
            await stream.add_consumer("DECISIONS", ConsumerConfig(durable_name="forwarder", ack_policy=policy))
            pull = await stream.pull_subscribe_bind("forwarder", "DECISIONS")
            assert len(await pull.fetch(1, timeout=5)) == 1
            app = await mesh.connect("north", "app")
            raw = RawLeaf()
            await raw.open(mesh.ports["north"].leaf, mesh.identities.get("leaf", "north-a").seed_file)
            raw.listen(["_INBOX.north-a.app.thief", mesh.subjects.infer("agent", "north-a")])
            for delivered in range(1, 5):
                token = f"$JS.ACK.DECISIONS.forwarder.1.{delivered}.{delivered}.1700000000000000000.0"
                raw.send(token, b"+NXT", reply="_INBOX.north-a.app.thief")
                raw.send(token.replace("$JS.ACK.", "$JS.ACK.north._."), b"+NXT", reply="_INBOX.north-a.app.thief")
            assert await raw.settle()
            if leaks:
                await until(lambda: stolen(raw), "what the attack yields")
            else:
                assert [message.data for message in await pull.fetch(3, timeout=5)] == [b"secret"] * 3
                await app.publish(mesh.subjects.infer("agent", "north-a"), b"fence")
                await until(lambda: fenced(raw), "a fence behind everything the attack could have yielded")
                assert [data for _, data in raw.heard] == [b"fence"]
            await raw.aclose()

    async def stolen(raw: RawLeaf) -> bool:
        return any(data == b"secret" for _, data in raw.heard)

    async def fenced(raw: RawLeaf) -> bool:
        return any(data == b"fence" for _, data in raw.heard)

    asyncio.run(scenario())
