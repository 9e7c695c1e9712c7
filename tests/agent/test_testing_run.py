"""`mesh.testing.run`: the agent alone, in virtual time, by the same code that a replica runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.capacity import CapacityPlanner
from agents.forecasting import CellForecast
from agents.overload import RegionalOverload
from mesh import Agent, Decision, Memory, Observation, every, observe
from mesh.agent.observation import Reason
from mesh.clock import iso
from mesh.decision import decode_event, encode_event
from mesh.errors import AgentError, ModelError, UsageError
from mesh.testing import Run, run

MODEL = Path(__file__).parents[2] / "agents" / "models" / "cell-load.onnx"
START = datetime(2024, 1, 1, tzinfo=UTC)


class Kpi(Observation):
    cell: str
    load: float


class Link(Observation):
    link: str
    load: float


class Said(Decision):
    what: str
    time: float
    monotonic: float = 0.0


class Diary(Agent):
    """Tells when it is called and by what."""

    @observe("cell", Kpi)
    async def note(self, kpi: Kpi) -> Said:
        return Said(what=kpi.cell, time=self.clock.now(), monotonic=self.clock.monotonic())

    @every("20s")
    async def slow(self) -> Said:
        return Said(what="slow", time=self.clock.now(), monotonic=self.clock.monotonic())

    @every("15s")
    async def fast(self) -> Said:
        return Said(what="fast", time=self.clock.now(), monotonic=self.clock.monotonic())


class Echo(Agent):
    @observe("cell", Kpi)
    async def echo(self, kpi: Kpi) -> Said:
        return Said(what=f"{kpi.cell}={kpi.load}", time=kpi.time.timestamp())


class Two(Agent):
    @observe("cell", Kpi)
    async def cell(self, kpi: Kpi) -> Said:
        return Said(what="cell", time=0.0)

    @observe("link", Link)
    async def link(self, link: Link) -> Said:
        return Said(what="link", time=0.0)


def at(seconds: float, cell: str = "1", load: float = 1.0) -> Kpi:
    return Kpi(cell=cell, time=START + timedelta(seconds=seconds), load=load)


def cell_loads(hours: int, *cells: str, load: float = 50.0) -> list[dict[str, Any]]:
    return [
        {"cell": cell, "time": iso(START.timestamp() + 3600 * hour), "prb_dl": load}
        for hour in range(hours)
        for cell in cells
    ]


def since_start(found: Run) -> list[tuple[str, float]]:
    return [(one["what"], one["time"] - START.timestamp()) for one in found.decisions]


def test_the_clock_stands_at_the_event_time_of_each_observation() -> None:
    assert since_start(run(Diary, [at(0), at(3.5), at(10)])) == [("1", 0.0), ("1", 3.5), ("1", 10.0)]


def test_clocked_methods_fire_in_between_in_the_order_of_their_times() -> None:
    assert since_start(run(Diary, [at(0), at(50, "2")])) == [
        ("1", 0.0),
        ("fast", 15.0),
        ("slow", 20.0),
        ("fast", 30.0),
        ("slow", 40.0),
        ("fast", 45.0),
        ("2", 50.0),
    ]


def test_clocked_method_that_is_due_with_an_observation_fires_before_it() -> None:
    assert since_start(run(Diary, [at(0), at(15, "2")])) == [("1", 0.0), ("fast", 15.0), ("2", 15.0)]


def test_clocked_methods_do_not_fire_after_the_last_observation() -> None:
    assert since_start(run(Diary, [at(0)])) == [("1", 0.0)]


def test_monotonic_time_runs_on_as_virtual_time_does() -> None:
    decisions = run(Diary, [at(0), at(50)]).decisions
    times = [one["time"] - decisions[0]["time"] for one in decisions]
    monotonic = [one["monotonic"] - decisions[0]["monotonic"] for one in decisions]
    assert monotonic == pytest.approx(times)


def test_late_observation_is_refused_and_does_not_turn_the_clock_back() -> None:
    found = run(Diary, [at(10), at(5), at(12)])
    assert since_start(found) == [("1", 10.0), ("1", 12.0)]
    assert [rejected.reason for rejected in found.rejections] == [Reason.LATE]


def test_older_observation_of_another_id_does_not_turn_the_clock_back() -> None:
    assert since_start(run(Diary, [at(10, "1"), at(5, "2")])) == [("1", 10.0), ("2", 10.0)]


def test_failure_of_a_clocked_method_is_kept_and_the_run_goes_on() -> None:
    class Failing(Echo):
        @every("1s")
        async def tick(self) -> None:
            raise ValueError("broken")

    found = run(Failing, [at(0), at(2.5)])
    assert [rejected.reason for rejected in found.rejections] == [Reason.AGENT_ERROR] * 2
    assert len(found.decisions) == 2


def test_observation_may_be_an_instance_a_mapping_or_bytes() -> None:
    mapping = {"cell": "1", "time": iso(START.timestamp()), "load": 1.0}
    forms = [at(0), mapping, json.dumps(mapping).encode()]
    assert [run(Echo, [form]).decisions for form in forms] == [run(Echo, [at(0)]).decisions] * 3


def test_refused_observations_are_kept_with_their_reasons() -> None:
    found = run(Echo, [at(0), at(0), b"{", {"cell": "1"}, at(1)])
    assert [rejected.reason for rejected in found.rejections] == ["duplicate", "malformed_json", "wrong_schema"]
    assert len(found.decisions) == 2


def test_instance_goes_to_the_method_that_observes_its_model() -> None:
    link = Link(link="l", time=START, load=1.0)
    assert [one["what"] for one in run(Two, [at(0), link]).decisions] == ["cell", "link"]


def test_mapping_that_could_go_to_two_methods_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="fits 2 of the agent's observed kinds"):
        run(Two, [{"cell": "1"}])


def test_instance_that_no_method_observes_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="fits 0 of the agent's observed kinds"):
        run(Echo, [Link(link="l", time=START, load=1.0)])


def test_what_is_no_agent_is_refused() -> None:
    with pytest.raises(AgentError, match="Kpi is no agent class"):
        run(Kpi, [])  # type: ignore[arg-type]


def test_model_of_other_features_is_refused_before_anything_runs() -> None:
    class Misfit(Echo):
        features = ("load",)

    with pytest.raises(ModelError, match="has load in excess"):
        run(Misfit, [at(0)], model=MODEL)


def test_nothing_observed_is_nothing_decided() -> None:
    found = run(Diary, [])
    assert (found.events, found.rejections) == ([], [])


def test_run_works_where_a_loop_is_running() -> None:
    async def in_a_notebook() -> Run:
        return run(Echo, [at(0)])

    assert asyncio.run(in_a_notebook()).events == run(Echo, [at(0)]).events


def test_memory_of_one_run_is_that_of_the_next() -> None:
    class Counter(Agent):
        @observe("cell", Kpi)
        async def count(self, kpi: Kpi) -> Said:
            seen = self.memory.append("seen", kpi.cell, kpi.time.timestamp(), kpi.load, length=10)
            return Said(what=str(len(seen)), time=0.0)

    first = run(Counter, [at(0), at(1)])
    second = run(Counter, [at(2)], memory=first.memory)
    assert [one["what"] for one in second.decisions] == ["3"]


def test_empty_memory_that_is_given_is_used() -> None:
    memory = Memory()
    assert run(CellForecast, cell_loads(1, "1"), model=MODEL, memory=memory).memory is memory
    assert memory.keys("prb_dl") == ("1",)


def test_parameters_site_and_tier_are_handed_to_the_agent() -> None:
    class Asks(Agent):
        @observe("cell", Kpi)
        async def tell(self, kpi: Kpi) -> Said:
            return Said(what=f"{self.site} {self.tier} {self.parameters['limit']}", time=0.0)

    found = run(Asks, [at(0)], site="north", tier="regional", parameters={"limit": 7})
    assert found.decisions[0]["what"] == "north regional 7"
    assert found.events[0].source == "mesh://test/regional/north/Asks"


def test_random_numbers_follow_the_seed() -> None:
    class Dice(Agent):
        @observe("cell", Kpi)
        async def roll(self, kpi: Kpi) -> Said:
            return Said(what=str(self.random.random()), time=0.0)

    rolls = [run(Dice, [at(0), at(1)], seed=seed).decisions for seed in (1, 1, 2)]
    assert rolls[0] == rolls[1] != rolls[2]


def test_two_runs_over_the_same_observations_give_the_same_bytes() -> None:
    given = cell_loads(30, "1", "2")
    first, second = run(CellForecast, given, model=MODEL), run(CellForecast, given, model=MODEL)
    assert len(first.events) == 60
    assert [encode_event(event) for event in first.events] == [encode_event(event) for event in second.events]


def test_decisions_given_as_instances_reach_the_agent() -> None:
    class Listens(Agent):
        @observe("said", Said, id="what")
        async def hear(self, said: Said) -> Said:
            return said

    said = [Said(what="a", time=1.0), Said(what="b", time=2.0)]
    assert run(Listens, said).decisions == [one.model_dump() for one in said]


class Chain:
    """Forecasts of eight cells at two edges, the regions that gather them, the cloud that plans."""

    def __init__(self) -> None:
        loads = cell_loads(3, *"1234", load=120.0), cell_loads(3, *"5678", load=20.0)
        self.edges = [
            run(CellForecast, found, model=MODEL, site=site)
            for found, site in zip(loads, ("north-a", "north-b"), strict=True)
        ]
        in_order = sorted((e for edge in self.edges for e in edge.events), key=lambda event: event.observedtime)
        self.region = run(RegionalOverload, in_order, site="north", tier="regional", parameters={"hot": 50.0})
        self.cloud = run(CapacityPlanner, self.region.events, site="core", tier="cloud")


@pytest.fixture(scope="module")
def chain() -> Chain:
    return Chain()


def test_chain_refuses_nothing_of_its_own(chain: Chain) -> None:
    assert [rejected for found in (*chain.edges, chain.region, chain.cloud) for rejected in found.rejections] == []


def test_region_sees_the_forecasts_of_all_its_edges(chain: Chain) -> None:
    last = chain.region.decisions[-1]
    assert (last["region"], last["cells"]) == ("north", 8)
    assert sorted(last["hot"]) == ["1", "2", "3", "4"]
    assert sorted(last["relief"]) == ["5", "6", "7", "8"]


def test_region_decides_once_a_second_between_the_first_and_the_last_forecast(chain: Chain) -> None:
    times = [event.time for event in chain.region.events]
    assert len(times) == len(set(times)) == 2 * 3600


def test_cloud_plans_once_per_region_and_hour(chain: Chain) -> None:
    plans = chain.cloud.decisions
    assert [plan["region"] for plan in plans] == ["north"] * len(plans)
    assert [plan["hour"] for plan in plans] == sorted({load["hour"] for load in chain.region.decisions})


def test_every_event_of_the_chain_can_be_read_again(chain: Chain) -> None:
    events = [event for found in (*chain.edges, chain.region, chain.cloud) for event in found.events]
    assert len(events) == len({event.id for event in events})
    for event in events[:: len(events) // 50]:
        assert decode_event(encode_event(event)).id == event.id
