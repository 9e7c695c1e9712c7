"""What each role may do at its own server, and that seeds and identities are what they claim."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fabric_mesh import Fabric, fabric, metro, new_seed
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig

from mesh.fabric import permissions
from mesh.subjects import Subjects

NORTH_SAYS = {
    "replica": {
        "metro.decision.regional.north.overload.k",
        "metro.reject.north.overload",
        "metro.health.north.overload.0",
    },
    "site": {
        "metro.decision.regional.north.overload.k",
        "metro.decision.edge.north-a.cell-forecast.k",
        "metro.decision.edge.south-a.cell-forecast.k",
        "metro.telemetry.north.cell.1",
        "metro.status.north",
        "metro.link.global.north.core.decisions.1",
        "metro.link.global.north.north-a.x",
        "metro.link.region.north.north-a.x",
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.DECISIONS",
        "$JS.API.STREAM.INFO.DECISIONS",
        "$JS.API.CONSUMER.CREATE.DECISIONS.c.metro.decision.>",
        "$JS.API.CONSUMER.MSG.NEXT.DECISIONS.c",
    },
    "app": {
        "metro.infer.overload",
        "metro.infer.overload.south",
        "metro.telemetry.north.cell.1",
        "metro.outcome.north.overload",
        "$SRV.PING",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.DECISIONS",
        "$JS.API.CONSUMER.CREATE.DECISIONS.c.metro.decision.>",
        "$JS.API.CONSUMER.MSG.NEXT.DECISIONS.c",
        "$JS.FC.DECISIONS.c.1",
    },
    "operator": {
        "metro.control.north.drain",
        "metro.infer.overload",
        "metro.infer.overload.south",
        "$SRV.PING",
        "$JS.API.INFO",
        "$JS.API.STREAM.CREATE.DECISIONS",
        "$JS.API.STREAM.INFO.DECISIONS",
        "$JS.API.CONSUMER.CREATE.DECISIONS.c.metro.decision.>",
        "$JS.API.CONSUMER.MSG.NEXT.DECISIONS.c",
        "$JS.FC.DECISIONS.c.1",
    },
}
NORTH_HEARS = {
    "replica": {
        "metro.telemetry.north.cell.1",
        "metro.decision.>",
        "metro.decision.edge.north-a.*.*",
        "metro.infer.overload",
        "metro.infer.overload.north",
        "$SRV.PING",
        "_INBOX.north.replica.a.>",
    },
    "site": {
        "metro.health.north.*.*",
        "metro.control.north.*",
        "metro.link.global.core.north.>",
        "metro.link.region.north-a.north.>",
        "metro.link.global.north-a.north.reply.x.*",
        "_INBOX.north.site.a.>",
    },
    "app": {
        "metro.decision.>",
        "metro.decision.edge.north-a.*.*",
        "metro.status.north",
        "metro.reject.north.*",
        "_INBOX.north.app.default.a.>",
    },
    "operator": {
        "metro.>",
        "metro.decision.>",
        "metro.decision.edge.north-a.*.*",
        "metro.telemetry.north.cell.1",
        "metro.health.north.*.*",
        "metro.control.north.*",
        "metro.infer.overload",
        "metro.infer.overload.north",
        "metro.infer.overload.south",
        "metro.status.north",
        "metro.reject.north.*",
        "metro.link.global.core.north.>",
        "metro.link.*.*.north.>",
        "metro.link.region.north-a.north.>",
        "metro.link.global.north-a.north.reply.x.*",
        "metro.telemetry.south.cell.1",
        "_INBOX.north.operator.a.>",
    },
}
NOBODY_SAYS = {
    "metro.decision.regional.south.overload.k",
    "metro.decision.edge.north.overload.k",
    "metro.telemetry.south.cell.1",
    "metro.status.south",
    "metro.control.south.drain",
    "metro.link.region.north.core.x",
    "metro.link.global.core.north.x",
    "metro.link.global.north-a.north.x",
    "metro.state.north.x",
    "$JS.ACK.DECISIONS.c.1.1.1.1.0",
    "$JS.FC.OTHER.c.1",
    "$JS.core.API.INFO",
    "$KV.b.k",
    "$SYS.REQ.SERVER.PING",
    "_INBOX.north.app.default.x",
    "_INBOX.north.site.x",
    "other",
}
NOBODY_HEARS = {
    ">",
    "*.>",
    "_INBOX.>",
    "_INBOX.north.>",
    "_INBOX.north.app.other.>",
    "_INBOX.north-a.replica.>",
    "$JS.>",
    "$JS.API.>",
    "$KV.>",
    "$SYS.>",
    "other",
}


@pytest.mark.parametrize("role", ["replica", "site", "app", "operator"])
def test_a_role_may_do_its_own_and_nothing_else(nats_server: Path, tmp_path: Path, role: str) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=["north"]) as mesh:
            client = await mesh.connect("north", role)
            every = NOBODY_SAYS.union(*NORTH_SAYS.values())
            widened = {"metro.decision.regional.south.overload.k", "metro.decision.edge.north.overload.k"}
            says = NORTH_SAYS[role] | (widened if role == "site" else set())
            assert await mesh.may_publish(client, every) == says
            every = NOBODY_HEARS.union(*NORTH_HEARS.values())
            assert await mesh.may_subscribe(client, every) == NORTH_HEARS[role]

    asyncio.run(scenario())


def test_a_role_reads_no_other_roles_answers() -> None:
    topology, subjects = metro(), Subjects("metro")
    roles = {
        "replica": permissions.replica(subjects, topology, "north"),
        "site": permissions.site_process(subjects, topology, "north"),
        "app": permissions.application(subjects, topology, "north", "one"),
        "operator": permissions.operator(subjects, topology, "north"),
    }
    inboxes = {role: [s for s in one.subscribe if s.startswith("_INBOX")] for role, one in roles.items()}
    assert inboxes == {
        "replica": ["_INBOX.north.replica.>"],
        "site": ["_INBOX.north.site.>"],
        "app": ["_INBOX.north.app.one.>"],
        "operator": ["_INBOX.north.operator.>"],
    }


def test_region_does_not_cross_to_a_parent_outside_the_region() -> None:
    assert permissions.scopes(metro(), "north", "core") == ("global",)
    assert permissions.scopes(metro(), "north-a", "north") == ("global", "region")
    assert permissions.scopes(metro(), "north", "north-b") == ("global", "region")


def test_a_foreign_or_misplaced_credential_is_refused(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=["north"]) as mesh:
            new_seed(tmp_path / "foreign.nk")
            wrong = [tmp_path / "foreign.nk", mesh.identities.get("replica", "south").seed_file]
            wrong.append(mesh.identities.get("leaf", "north-a").seed_file)
            for seed in wrong:
                with pytest.raises(NatsError, match=r"(?i)authorization"):
                    await mesh.join("north", seed, "_INBOX.north.app.x")

    asyncio.run(scenario())


async def decisions(mesh: Fabric, site: str, count: int) -> Client:
    """A stream of decisions made by the site process, with `count` in it."""
    process = await mesh.connect(site, "site")
    stream = process.jetstream()
    await stream.add_stream(StreamConfig(name="DECISIONS", subjects=[mesh.subjects.decisions], max_bytes=2**26))
    for number in range(count):
        await stream.publish(f"metro.decision.edge.{site}.a.{number}", str(number).encode())
    return process


def test_an_application_resumes_decisions_and_cannot_alter_them(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=["north-a"]) as mesh:
            await decisions(mesh, "north-a", 5)
            app = await mesh.connect("north-a", "app")
            resume = ConsumerConfig(
                name="reader",
                ack_policy=AckPolicy.NONE,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=3,
                inactive_threshold=60.0,
            )
            await app.jetstream().add_consumer("DECISIONS", resume)
            pull = await app.jetstream().pull_subscribe_bind("reader", "DECISIONS")
            assert [message.data for message in await pull.fetch(3, timeout=5)] == [b"2", b"3", b"4"]
            await app.jetstream().delete_consumer("DECISIONS", "reader")
            ordered = await app.jetstream().subscribe("metro.decision.>", stream="DECISIONS", ordered_consumer=True)
            assert [(await ordered.next_msg(5)).data for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            changes = [f"$JS.API.STREAM.{verb}.DECISIONS" for verb in ("DELETE", "PURGE", "UPDATE", "MSG.DELETE")]
            assert await mesh.may_publish(app, [*changes, "metro.decision.edge.north-a.a.9"]) == set()

    asyncio.run(scenario())


def test_a_replica_publishes_decisions_acknowledged_without_any_right_to_jetstream(
    nats_server: Path, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, metro(), sites=["north-a"]) as mesh:
            await decisions(mesh, "north-a", 1)
            replica = await mesh.connect("north-a", "replica")
            answer = await replica.request("metro.decision.edge.north-a.a.k", b"{}", timeout=5)
            assert b'"stream":"DECISIONS"' in answer.data
            assert b'"domain":"north-a"' in answer.data

    asyncio.run(scenario())
