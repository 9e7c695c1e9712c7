"""Bad input, stuck agents and overload at real replicas: each is refused, replaced or counted, and work goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from live_mesh import FIXTURES, Live, View, until, view
from nats.aio.client import Client
from nats.aio.msg import Msg

from mesh.clock import iso
from mesh.placement import partition

BEGIN = 1_700_000_000.0
HOUR = 3600.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One site with the agents of `fixtures/lab_agents.py`; nothing publishes telemetry but the tests."""
    live = Live(FIXTURES / "lab.yaml", tmp_path_factory.mktemp("lab"))
    try:
        live.start("--no-telemetry")
        live.ready()
        yield live
    finally:
        live.down()


def kpi(cell: str, hours: float, load: object = 40.0) -> bytes:
    return json.dumps({"cell": cell, "time": iso(BEGIN + hours * HOUR), "prb_dl": load}).encode()


def job(name: str, number: int, **more: Any) -> bytes:
    return json.dumps({"job": name, "time": iso(BEGIN + number), **more}).encode()


class Box:
    """Messages of one subject, as they come."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []

    async def listen(self, client: Client, subject: str) -> Box:
        async def take(message: Msg) -> None:
            self.messages.append(message)

        await client.subscribe(subject, cb=take)
        await client.flush()
        return self

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(message.data) for message in self.messages]


BAD = {
    "malformed_json": ("1", b'{"cell": "1", '),
    "wrong_schema": ("1", b'{"cell": "1", "time": "2023-11-14T00:00:00Z"}'),
    "not_finite": ("1", b'{"cell": "1", "time": "2023-11-14T00:00:00Z", "prb_dl": NaN}'),
    "not_finite infinity": ("1", b'{"cell": "1", "time": "2023-11-14T00:00:00Z", "prb_dl": -Infinity}'),
    "too_large": ("1", kpi("1", 1)[:-1] + b" " * 70_000 + b"}"),
    "unknown_id": ("3", kpi("3", 1)),
    "wrong_id": ("1", kpi("2", 1)),
    "duplicate": ("1", kpi("1", 0, 41.0)),
    "late": ("1", kpi("1", -1)),
}


def test_bad_observations_are_refused_with_their_reason_and_a_good_one_is_decided_after_each(lab: Live) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home", "sensors")
            refused = await Box().listen(client, "lab.reject.home.cell-forecast")
            decided = await Box().listen(client, "lab.decision.edge.home.cell-forecast.*")
            await client.publish("lab.telemetry.home.cell.1", kpi("1", 0))
            await until(lambda: decided.messages, "a first decision", 10.0)
            for number, (name, (cell, payload)) in enumerate(BAD.items(), start=1):
                reason = name.split()[0]
                before = dict(seen.replica("home", "cell-forecast").rejected)
                await client.publish(f"lab.telemetry.home.cell.{cell}", payload)
                await until(lambda n=number: len(refused.messages) == n, f"a refusal of {name}", 10.0)
                body = refused.bodies[-1]
                assert body["reason"] == reason, body
                assert body["detail"]
                assert body["bytes"] == len(payload)
                assert payload.decode().startswith(body["sample"])
                await until(
                    lambda r=reason, b=before: (
                        seen.replica("home", "cell-forecast").rejected.get(r, 0) == b.get(r, 0) + 1
                    ),
                    f"a counted {reason}",
                    10.0,
                )
                await client.publish("lab.telemetry.home.cell.2", kpi("2", number))
                await until(lambda n=number: len(decided.messages) == 1 + n, f"a decision after {name}", 10.0)
            assert len(refused.messages) == len(BAD)

    asyncio.run(scenario())


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("wrong_id", "duplicate", "late")])
def test_a_bad_inference_request_is_answered_with_an_error(lab: Live, name: str) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            reply = await client.request("lab.infer.cell-forecast", BAD[name][1], timeout=10)
            assert reply.headers is not None
            assert reply.headers["Nats-Service-Error-Code"] == "400"
            assert reply.headers["Nats-Service-Error"] == name.split()[0]
            assert json.loads(reply.data)["detail"]

    asyncio.run(scenario())


@pytest.mark.parametrize("subject", ["lab.infer.cell-forecast", "lab.infer.cell-forecast.home"])
def test_a_good_inference_request_is_answered_with_a_cloud_event_that_is_also_stored(lab: Live, subject: str) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            begin = await seen.last("home")
            # an older hour than any observation: who asks is not held to the order of telemetry
            reply = await client.request(subject, kpi("1", -5, 50.0 + len(subject)), timeout=10)
            assert reply.headers is not None
            assert reply.headers["Content-Type"] == "application/cloudevents+json"
            event = json.loads(reply.data)
            assert event["specversion"] == "1.0"
            assert event["data"]["cell"] == "1"
            await seen.arrived("home", begin, {event["id"]})

    asyncio.run(scenario())


def test_a_stuck_replica_is_noticed_and_replaced_and_decides_again(lab: Live) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            decided = await Box().listen(client, "lab.decision.edge.home.sticky.*")
            before = seen.replica("home", "sticky")
            await client.publish("lab.telemetry.home.job.a", job("a", 1))
            await until(lambda: decided.messages, "a decision before", 10.0)
            await client.publish("lab.telemetry.home.job.b", job("b", 1, stuck=True))

            def replaced() -> bool:
                now = seen.replica("home", "sticky")
                return now.incarnation != before.incarnation and now.state == "ready"

            took = await until(replaced, "a new incarnation", 40.0)
            print(f"replaced after {took:.1f} s")  # noqa: T201
            await client.publish("lab.telemetry.home.job.c", job("c", 1))
            await until(lambda: len(decided.messages) == 2, "a decision after", 10.0)
            assert [body["subject"] for body in decided.bodies] == ["a", "c"]
            assert decided.bodies[0]["data"]["pid"] != decided.bodies[1]["data"]["pid"]

    asyncio.run(scenario())


async def _burst(seen: View, client: Client, kind: str, count: int, names: int) -> None:
    for number in range(count):
        name = f"n{number % names}"
        await client.publish(f"lab.telemetry.home.{kind}.{name}", job(name, number))
    await client.flush()


@pytest.mark.parametrize("names", [3, 20])
def test_an_inlet_that_keeps_the_latest_per_id_decides_on_the_last_of_each(lab: Live, names: int) -> None:
    """With fewer ids than room the last of every id is decided; with more, the newest ids are."""

    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            decided = await Box().listen(client, "lab.decision.edge.home.latest.*")
            before = seen.replica("home", "latest")
            offset = 1000 * names  # later than what another case of this test sent
            for number in range(offset, offset + 60):
                name = f"n{number % names}"
                await client.publish(f"lab.telemetry.home.latest.{name}", job(name, number))

            def settled() -> bool:
                now = seen.replica("home", "latest")
                return now.observations == before.observations + 60 == now.decisions + now.dropped and now.waiting == 0

            await until(settled, "all observations decided or dropped", 15.0)
            now = seen.replica("home", "latest")
            assert now.dropped - before.dropped >= 40
            last = {name: iso(BEGIN + n) for n in range(offset, offset + 60) for name in [f"n{n % names}"]}
            told = {body["subject"]: body["observedtime"] for body in decided.bodies}
            newest = [f"n{n % names}" for n in range(offset + 60 - min(names, 5), offset + 60)]
            assert {name: told.get(name) for name in newest} == {name: last[name] for name in newest}

    asyncio.run(scenario())


def test_an_inlet_that_drops_the_oldest_decides_on_the_newest(lab: Live) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            decided = await Box().listen(client, "lab.decision.edge.home.oldest.*")
            await _burst(seen, client, "oldest", 60, 60)

            def settled() -> bool:
                now = seen.replica("home", "oldest")
                return now.observations == 60 == now.decisions + now.dropped and now.waiting == 0

            await until(settled, "all observations decided or dropped", 15.0)
            assert seen.replica("home", "oldest").dropped >= 40
            await until(lambda: len(decided.messages) == seen.replica("home", "oldest").decisions, "decisions", 5.0)
            assert [body["subject"] for body in decided.bodies][-5:] == [f"n{number}" for number in range(55, 60)]

    asyncio.run(scenario())


def test_an_inlet_that_rejects_tells_what_it_refused(lab: Live) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            refused = await Box().listen(client, "lab.reject.home.refusing")
            decided = await Box().listen(client, "lab.decision.edge.home.refusing.*")
            await _burst(seen, client, "refusing", 60, 60)

            def settled() -> bool:
                now = seen.replica("home", "refusing")
                taken = now.observations + now.rejected.get("queue_full", 0)
                return taken == 60 and now.decisions == now.observations and now.waiting == 0

            await until(settled, "all observations decided or refused", 15.0)
            now = seen.replica("home", "refusing")
            assert now.dropped == 0
            assert now.rejected["queue_full"] >= 40
            await until(lambda: len(refused.messages) == now.rejected["queue_full"], "all refusals told", 5.0)
            assert {body["reason"] for body in refused.bodies} == {"queue_full"}
            assert [body["subject"] for body in decided.bodies][:5] == [f"n{number}" for number in range(5)]

    asyncio.run(scenario())


def test_two_replicas_share_the_ids_and_each_id_is_decided_by_one(lab: Live) -> None:
    async def scenario() -> None:
        async with view(lab) as seen:
            client = await seen.outside("home")
            decided = await Box().listen(client, "lab.decision.edge.home.shared.*")
            for number in range(3):
                for name in range(20):
                    await client.publish(f"lab.telemetry.home.share.s{name}", job(f"s{name}", number))
            await until(lambda: len(decided.messages) >= 60, "all decisions", 15.0)
            pids = {seen.replica("home", "shared", index).pid: index for index in range(2)}
            assert len(pids) == 2
            assert len(decided.messages) == 60
            by_id = {(body["subject"], pids[body["data"]["pid"]]) for body in decided.bodies}
            assert by_id == {(f"s{name}", partition(f"s{name}", 2)) for name in range(20)}
            assert {index for _, index in by_id} == {0, 1}

    asyncio.run(scenario())
