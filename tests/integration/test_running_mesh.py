"""What the shipped mesh of seven sites does while all is well, seen from outside."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest
from live_mesh import ROOT, Live, running, until, view, wait_until

from mesh.clock import iso
from mesh.decision import digest
from mesh.site.forwarder import SCOPE, TOPIC, Answer, Batch, Carried

MODEL = ROOT / "agents" / "models" / "cell-load.onnx"
TIERS = {"edge", "regional", "cloud"}


def check_cloud_event(event: dict[str, Any]) -> None:
    """CloudEvents 1.0.2: required attributes, their types, and names and types of extensions."""
    assert event["specversion"] == "1.0"
    for name in ("id", "source", "type", "subject"):
        assert isinstance(event[name], str)
        assert event[name]
    assert event["datacontenttype"] == "application/json"
    assert event["dataschema"].startswith("mesh://metro/schema/mesh.")
    for name in ("time", "observedtime"):
        assert datetime.fromisoformat(event[name]).utcoffset() == timedelta(0)
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event)
    assert all(isinstance(value, str | bool | int) for name, value in event.items() if name != "data")
    assert isinstance(event["data"], dict)


def test_it_is_ready_soon(metro: Live) -> None:
    ready_s = metro.ready()
    print(f"ready after {ready_s} s")  # noqa: T201
    assert ready_s < 60


def test_decisions_of_all_three_tiers_reach_one_subscriber_outside(metro: Live) -> None:
    events: dict[str, dict[str, Any]] = {}
    inputs: set[str] = set()

    async def scenario() -> None:
        async with view(metro) as seen:
            edge = await seen.as_role("operator", "north-a")

            async def note(message: Any) -> None:
                inputs.add(digest(message.data))

            await edge.subscribe("metro.telemetry.north-a.cell.*", note)
            client = await seen.outside("core", "dashboard")
            subscription = await client.subscribe("metro.decision.>")
            await until(lambda: inputs, "telemetry", 10.0)
            async with asyncio.timeout(30):
                async for message in subscription.messages:
                    _, _, tier, site, agent, key = message.subject.split(".")
                    event = json.loads(message.data)
                    assert event["source"] == f"mesh://metro/{tier}/{site}/{agent}"
                    assert event["subject"] == key
                    if event["type"] != "mesh.cell-load-forecast.v1" or event["inputdigest"] in inputs:
                        events[tier] = event
                    if set(events) == TIERS:
                        return

    asyncio.run(scenario())
    for event in events.values():
        check_cloud_event(event)
    forecast = events["edge"]
    assert forecast["modeldigest"] == "sha256:" + sha256(MODEL.read_bytes()).hexdigest()
    assert 0.0 <= float(forecast["confidence"]) <= 1.0
    assert forecast["inputdigest"] in inputs
    assert forecast["data"]["cell"] == forecast["subject"]
    assert events["regional"]["data"]["region"] in {"north", "south"}
    assert events["cloud"]["type"] == "mesh.capacity-plan.v1"


def test_the_readme_application_prints_decisions(metro: Live, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"^<!-- tested: application -->\n```python\n(.*?)^```$", text, re.M | re.S)[0]
    (tmp_path / "application.py").write_text(code)
    credential = metro.command("credentials", "app", "--json")
    (tmp_path / "credential.json").write_text(credential.stdout)
    log = tmp_path / "application"
    with (
        (tmp_path / "credential.json").open("rb") as stdin,
        running([sys.executable, "application.py"], log, cwd=tmp_path, stdin=stdin),
    ):
        wait_until(lambda: log.with_suffix(".out").read_text().count("\n") >= 50, "printed decisions", 30.0)
    lines = log.with_suffix(".out").read_text().splitlines()[:50]
    assert all(re.match(r"\d{4}-\S+Z mesh://metro/\w+/[\w-]+/[\w-]+ mesh\.[\w.-]+ \{", line) for line in lines)


@pytest.mark.parametrize(
    ("options", "source"),
    [
        (("--tier", "regional"), r"mesh://metro/regional/\w+/overload"),
        (("--site", "south-b", "--at", "south-b"), r"mesh://metro/edge/south-b/.*"),
        (("--agent", "capacity"), r"mesh://metro/cloud/core/capacity"),
        (("--tier", "edge", "--stored"), r"mesh://metro/edge/.*"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_decisions_command_prints_those_that_are_asked_for(
    metro: Live, options: tuple[str, ...], source: str
) -> None:
    done = metro.command("decisions", "--count", "3", "--json", *options)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) == 3
    assert all(re.fullmatch(source, event["source"]) for event in events)
    for event in events:
        check_cloud_event(event)


def test_the_decisions_command_prints_stored_ones_from_the_beginning_for_people(metro: Live) -> None:
    first = json.loads(metro.command("decisions", "--count", "1", "--stored", "--json").stdout)
    shown = metro.command("decisions", "--count", "2", "--stored").stdout.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith(first["time"][11:23])
    assert first["source"].rpartition("/")[2] in shown[0]


def test_an_application_at_the_core_asks_an_agent_at_an_edge(metro: Live) -> None:
    async def scenario() -> None:
        async with view(metro) as seen:
            client = await seen.outside("core")
            observation = {"cell": "1", "time": iso(seen.statuses.clock.now()), "prb_dl": 40.0}
            request = json.dumps(observation).encode()
            reply = await client.request("metro.infer.cell-forecast.north-a", request, timeout=10)
            event = json.loads(reply.data)
            check_cloud_event(event)
            assert event["source"] == "mesh://metro/edge/north-a/cell-forecast"
            assert event["inputdigest"] == digest(request)
            wrong = await client.request("metro.infer.cell-forecast.north-a", b"{}", timeout=10)
            assert wrong.headers is not None
            assert wrong.headers["Nats-Service-Error-Code"] == "400"
            with pytest.raises(nats.errors.NoRespondersError):
                await client.request("metro.infer.overload", request, timeout=10)

    asyncio.run(scenario())


def test_a_parent_refuses_decisions_of_a_site_outside_the_sender_s_subtree(metro: Live) -> None:
    async def scenario() -> None:
        async with view(metro) as seen:
            inbox = metro.subjects.link_inbox(SCOPE, "north-a", "north")
            sender = await seen.as_role("site", "north-a", inbox)
            begin = {site: await seen.last(site) for site in ("north", "core")}
            data = (await seen.stored("core", max(0, begin["core"] - 20)))[0].data
            subjects = {
                "outside": metro.subjects.decision("edge", "south-a", "cell-forecast", "1012"),
                "above": metro.subjects.decision("regional", "north", "overload", "north"),
                "none": "metro.telemetry.north-a.cell.1",
                "inside": metro.subjects.decision("edge", "north-a", "cell-forecast", "1"),
            }
            forged = [
                Carried(number, subject, f"forged-{name}", data)
                for number, (name, subject) in enumerate(subjects.items(), start=1)
            ]
            batch = msgspec.msgpack.encode(Batch("forged", forged))
            reply = await sender.request(metro.subjects.link(SCOPE, "north-a", "north", TOPIC), batch, 10.0)
            answer = msgspec.msgpack.decode(reply.data, type=Answer)
            assert answer == Answer(4, refused=3)
            for site, after in begin.items():
                ids = await seen.arrived(site, after, {"forged-inside"})
                assert [one for one in ids if one.startswith("forged")] == ["forged-inside"]

    asyncio.run(scenario())


def test_statuses_add_up(metro: Live) -> None:
    """Every forecast stands for one observation, and what an edge counted as stored its stream holds."""

    async def scenario() -> None:
        async with view(metro) as seen:
            health = seen.replica("south-b", "cell-forecast")
            assert health.decisions + sum(health.rejected.values()) + health.dropped <= health.observations + 1
            assert await seen.last("south-b") >= health.stored
            assert seen.status("south-b").forwarded > 0

    asyncio.run(scenario())
