"""The telecom agents that are shipped, each alone, by `mesh.testing.run` and the committed model."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.anomaly import LEARNING_HOURS, CellAnomaly
from agents.capacity import HOURS_KEPT, CapacityPlanner
from agents.forecasting import CellForecast, CellLoadForecast
from agents.load_features import HISTORY_HOURS
from agents.overload import RegionalLoad, RegionalOverload
from mesh import CloudEvent, Memory
from mesh.agent.annotations import decided
from mesh.agent.dispatch import ensure_agent
from mesh.clock import iso
from mesh.decision import Basis, Origin, cloud_event, digest, type_of
from mesh.inference.onnx_model import OnnxModel, load_model
from mesh.testing import Run, run

MODEL = Path(__file__).parents[2] / "agents" / "models" / "cell-load.onnx"
START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def model() -> OnnxModel:
    return load_model(MODEL)


def kpi(hour: float, load: float, cell: str = "1") -> dict[str, Any]:
    return {"cell": cell, "time": (START + hour * HOUR).isoformat(), "prb_dl": load}


def daily(hour: int) -> float:
    """A load with the shape of a day."""
    return 50.0 + 30.0 * math.sin(2.0 * math.pi * (hour - 8) / 24.0)


def days(count: int, cell: str = "1") -> list[dict[str, Any]]:
    return [kpi(hour, daily(hour), cell) for hour in range(24 * count)]


def restarted(memory: Memory) -> Memory:
    """The memory after it went through the replica's file."""
    again = Memory()
    again.restore((address, payload) for address, payload in memory.take_changes().items() if payload is not None)
    return again


@pytest.mark.parametrize("agent", [CellForecast, CellAnomaly, RegionalOverload, CapacityPlanner])
def test_shipped_agent_is_an_agent_that_decides_something(agent: Any) -> None:
    assert ensure_agent(agent, agent.__name__) is agent
    assert decided(agent)


class TestCellForecast:
    def test_every_observation_gives_a_forecast_for_the_hour_after_it(self, model: OnnxModel) -> None:
        found = run(CellForecast, days(2), model=model)
        hours = [datetime.fromisoformat(one["hour"]) for one in found.decisions]
        assert hours == [START + (hour + 1) * HOUR for hour in range(48)]
        assert found.rejections == []

    def test_first_observation_is_enough(self, model: OnnxModel) -> None:
        (forecast,) = run(CellForecast, [kpi(0, 55.0)], model=model).decisions
        assert (forecast["cell"], forecast["observed"]) == ("1", 55.0)
        assert 10.0 < forecast["prb_dl"] < 110.0
        assert forecast["spread"] > 0.0

    def test_event_is_keyed_by_the_cell_and_says_how_sure_it_is(self, model: OnnxModel) -> None:
        (event,) = run(CellForecast, [kpi(0, 55.0, "7")], model=model).events
        assert event.subject == "7"
        assert event.modeldigest == model.digest
        assert event.confidence is not None
        assert 0.0 < float(event.confidence) < 1.0

    def test_history_makes_forecasts_of_a_regular_load_better(self, model: OnnxModel) -> None:
        found = run(CellForecast, days(9), model=model).decisions
        errors = [abs(one["prb_dl"] - daily(hour + 1)) for hour, one in enumerate(found)]
        assert sum(errors[-24:]) < 0.8 * sum(errors[:24])

    def test_forecast_does_not_depend_on_what_is_older_than_the_history(self, model: OnnxModel) -> None:
        recent = [kpi(hour, daily(hour)) for hour in range(10, 10 + HISTORY_HOURS)]
        older = [kpi(hour, 150.0) for hour in range(10)]
        whole, short = run(CellForecast, older + recent, model=model), run(CellForecast, recent, model=model)
        assert whole.decisions[-1] == short.decisions[-1]

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.0, 200.0)), min_size=1, max_size=12))
    @settings(max_examples=15, deadline=None)
    def test_cells_do_not_influence_each_other(self, model: OnnxModel, loads: list[tuple[str, float]]) -> None:
        both = [kpi(hour, load, cell) for hour, (cell, load) in enumerate(loads)]
        alone = [one for one in both if one["cell"] == "a"]
        mixed = run(CellForecast, both, model=model).decisions
        assert [one for one in mixed if one["cell"] == "a"] == run(CellForecast, alone, model=model).decisions

    @given(st.lists(st.floats(0.0, 200.0), min_size=2, max_size=20), st.data())
    @settings(max_examples=15, deadline=None)
    def test_restart_changes_nothing(self, model: OnnxModel, loads: list[float], data: st.DataObject) -> None:
        given_ = [kpi(hour, load) for hour, load in enumerate(loads)]
        cut = data.draw(st.integers(1, len(loads) - 1))
        first = run(CellForecast, given_[:cut], model=model)
        second = run(CellForecast, given_[cut:], model=model, memory=restarted(first.memory))
        assert first.events + second.events == run(CellForecast, given_, model=model).events

    def test_hours_may_be_missing(self, model: OnnxModel) -> None:
        found = run(CellForecast, [kpi(0, 50.0), kpi(30, 50.0), kpi(1000, 50.0)], model=model)
        assert len(found.decisions) == 3

    @pytest.mark.parametrize(
        ("spoilt", "reason"),
        [
            ({"prb_dl": -1.0}, "wrong_schema"),
            ({"prb_dl": 1001.0}, "wrong_schema"),
            ({"cell": ""}, "wrong_schema"),
            ({"cell": "x" * 65}, "wrong_schema"),
            ({"users": 3}, "wrong_schema"),
            ({"time": "2024-01-01T00:00:00"}, "wrong_schema"),
        ],
        ids=str,
    )
    def test_impossible_observation_is_refused(self, model: OnnxModel, spoilt: dict[str, Any], reason: str) -> None:
        found = run(CellForecast, [{**kpi(0, 50.0), **spoilt}, kpi(1, 50.0)], model=model)
        assert [rejected.reason for rejected in found.rejections] == [reason]
        assert len(found.decisions) == 1

    def test_without_a_model_it_says_so(self) -> None:
        (rejected,) = run(CellForecast, [kpi(0, 50.0)]).rejections
        assert "has no model" in rejected.detail


class TestCellAnomaly:
    def spike(self, load: float, day: int = 4, **changes: Any) -> list[dict[str, Any]]:
        """Regular days and then one hour of another load."""
        return [*days(day), {**kpi(24 * day, load), **changes}]

    def test_regular_load_is_no_anomaly(self, model: OnnxModel) -> None:
        found = run(CellAnomaly, days(9), model=model)
        assert found.decisions == []
        assert found.rejections == []

    def test_sudden_load_is_an_anomaly_with_a_positive_score(self, model: OnnxModel) -> None:
        (anomaly,) = run(CellAnomaly, self.spike(180.0), model=model).decisions
        assert (anomaly["cell"], anomaly["observed"]) == ("1", 180.0)
        assert anomaly["score"] >= 4.0
        assert anomaly["expected"] < 100.0

    def test_sudden_silence_is_an_anomaly_with_a_negative_score(self, model: OnnxModel) -> None:
        high = [kpi(hour, 90.0) for hour in range(96)]
        (anomaly,) = run(CellAnomaly, [*high, kpi(96, 0.0)], model=model).decisions
        assert anomaly["score"] <= -4.0

    def test_expectation_is_the_forecast_made_an_hour_before(self, model: OnnxModel) -> None:
        (anomaly,) = run(CellAnomaly, self.spike(180.0), model=model).decisions
        forecast = run(CellForecast, days(4), model=model).decisions[-1]
        assert anomaly["expected"] == pytest.approx(forecast["prb_dl"])
        assert anomaly["score"] == pytest.approx((180.0 - forecast["prb_dl"]) / max(forecast["spread"], 1.0))

    @pytest.mark.parametrize(("threshold", "anomalies"), [(1000.0, 0), (0.0, 97 - LEARNING_HOURS + 1)])
    def test_threshold_is_a_parameter(self, model: OnnxModel, threshold: float, anomalies: int) -> None:
        found = run(CellAnomaly, self.spike(180.0), model=model, parameters={"threshold": threshold})
        assert len(found.decisions) == anomalies

    def test_nothing_is_an_anomaly_before_a_day_was_seen(self, model: OnnxModel) -> None:
        wild = [kpi(hour, 200.0 if hour % 2 else 0.0) for hour in range(LEARNING_HOURS - 1)]
        assert run(CellAnomaly, wild, model=model, parameters={"threshold": 0.0}).decisions == []

    def test_hour_after_a_gap_is_not_judged(self, model: OnnxModel) -> None:
        after_a_gap = kpi(24 * 4 + 1, 180.0)
        assert run(CellAnomaly, [*days(4), after_a_gap], model=model).decisions == []

    def test_cells_are_judged_each_by_itself(self, model: OnnxModel) -> None:
        both = [one for hour in range(96) for one in (kpi(hour, daily(hour), "1"), kpi(hour, 90.0, "2"))]
        found = run(CellAnomaly, [*both, kpi(96, 180.0, "1"), kpi(96, 90.0, "2")], model=model)
        assert [one["cell"] for one in found.decisions] == ["1"]

    def test_restart_between_forecast_and_observation_changes_nothing(self, model: OnnxModel) -> None:
        given_ = self.spike(180.0)
        first = run(CellAnomaly, given_[:-1], model=model)
        second = run(CellAnomaly, given_[-1:], model=model, memory=restarted(first.memory))
        assert second.decisions == run(CellAnomaly, given_, model=model).decisions


def forecast(cell: str, load: float, second: float, hour: int = 1, site: str = "north-a") -> CloudEvent:
    """A forecast made `second` seconds after the start."""
    decision = CellLoadForecast(cell=cell, hour=START + hour * HOUR, prb_dl=load, spread=5.0, observed=load)
    time = START.timestamp() + second
    basis = Basis(digest(f"{cell} {second} {load}".encode()), iso(time))
    return cloud_event(Origin("test", "edge", site, "cell-forecast"), decision, cell, basis, time)


def overload(forecasts: list[CloudEvent], **parameters: float) -> Run:
    return run(RegionalOverload, forecasts, site="north", tier="regional", parameters=parameters)


class TestRegionalOverload:
    def test_nothing_is_told_before_a_second_has_passed(self) -> None:
        assert overload([forecast("1", 95.0, 0.0), forecast("2", 20.0, 0.5)]).decisions == []

    def test_region_is_told_once_a_second(self) -> None:
        found = overload([forecast("1", 50.0, 0.0), forecast("1", 50.0, 3.5)])
        assert [event.time for event in found.events] == [iso(START.timestamp() + n) for n in (1, 2, 3)]

    def test_hot_cells_come_hottest_first_and_relief_least_loaded_first(self) -> None:
        loads = {"a": 91.0, "b": 120.0, "c": 50.0, "d": 10.0, "e": 30.0, "f": 95.0}
        found = overload([*(forecast(cell, load, 0.0) for cell, load in loads.items()), forecast("a", 91.0, 1.0)])
        last = found.decisions[-1]
        assert last["hot"] == ["b", "f", "a"]
        assert last["relief"] == ["d", "e", "c"]
        assert last["mean"] == pytest.approx(sum(loads.values()) / 6)

    def test_event_is_keyed_by_the_region(self) -> None:
        found = overload([forecast("1", 50.0, 0.0), forecast("1", 50.0, 1.0)])
        assert [event.subject for event in found.events] == ["north"]
        assert found.decisions[0]["region"] == "north"

    def test_load_at_the_limit_is_not_hot(self) -> None:
        found = overload([forecast("1", 90.0, 0.0), forecast("1", 90.0, 1.0)])
        assert found.decisions[-1]["hot"] == []

    def test_limit_is_a_parameter(self) -> None:
        found = overload([forecast("1", 50.0, 0.0), forecast("1", 50.0, 1.0)], hot=40.0)
        assert found.decisions[-1]["hot"] == ["1"]

    def test_newest_forecast_of_a_cell_counts(self) -> None:
        found = overload([forecast("1", 95.0, 0.0), forecast("1", 20.0, 1.5, hour=2), forecast("1", 20.0, 2.5)])
        assert [one["hot"] for one in found.decisions] == [["1"], []]
        assert [datetime.fromisoformat(one["hour"]) for one in found.decisions] == [START + HOUR, START + 2 * HOUR]

    @given(st.dictionaries(st.integers(1, 20).map(str), st.floats(0.0, 150.0), min_size=1, max_size=12))
    @settings(max_examples=40, deadline=None)
    def test_hot_and_relief_are_apart_and_relief_is_no_longer_than_hot(self, loads: dict[str, float]) -> None:
        given_ = [forecast(cell, load, 0.0) for cell, load in loads.items()]
        (last,) = overload([*given_, forecast("late", 50.0, 1.0)]).decisions
        assert set(last["hot"]) == {cell for cell, load in loads.items() if load > 90.0}
        assert not set(last["hot"]) & set(last["relief"])
        assert len(last["relief"]) == min(len(last["hot"]), len(loads) - len(last["hot"]))
        assert last["cells"] == len(loads)
        assert all(loads[one] >= loads[other] for one, other in pairwise(last["hot"]))
        assert all(loads[one] <= loads[other] for one, other in pairwise(last["relief"]))

    def test_cells_of_several_edges_are_gathered(self) -> None:
        given_ = [forecast("1", 95.0, 0.0), forecast("2", 20.0, 0.0, site="north-b"), forecast("1", 95.0, 1.0)]
        assert overload(given_).decisions[-1]["cells"] == 2

    def test_restart_keeps_what_was_gathered(self) -> None:
        first = overload([forecast("1", 95.0, 0.0)])
        given_ = [forecast("2", 20.0, 10.0), forecast("2", 20.0, 11.0)]
        second = run(RegionalOverload, given_, site="north", memory=restarted(first.memory))
        assert second.decisions[-1]["cells"] == 2


def region(hour: int, hot: int, cells: int = 10, name: str = "north", second: float | None = None) -> CloudEvent:
    decision = RegionalLoad(
        region=name,
        hour=START + hour * HOUR,
        cells=cells,
        mean=50.0,
        hot=[str(n) for n in range(hot)],
        relief=[],
    )
    time = START.timestamp() + (hour * 3600.0 if second is None else second)
    basis = Basis(digest(f"{name} {hour} {hot} {cells}".encode()), iso(time))
    return cloud_event(Origin("test", "regional", name, "overload"), decision, name, basis, time)


class TestCapacityPlanner:
    def test_each_hour_of_a_region_is_planned_once(self) -> None:
        given_ = [region(0, 1), region(0, 2, second=1.0), region(0, 3, second=2.0), region(1, 1)]
        found = run(CapacityPlanner, given_)
        assert [datetime.fromisoformat(plan["hour"]) for plan in found.decisions] == [START, START + HOUR]
        assert found.rejections == []

    def test_last_account_of_an_hour_counts_for_the_hours_after(self) -> None:
        plans = run(CapacityPlanner, [region(0, 0), region(0, 5, second=1.0), region(1, 0)]).decisions
        assert plans[-1]["hot_share"] == pytest.approx(5 / 20)

    def test_acceptable_share_needs_no_carriers(self) -> None:
        plans = run(CapacityPlanner, [region(hour, 1 if hour == 0 else 0) for hour in range(3)]).decisions
        assert [plan["carriers"] for plan in plans] == [1, 0, 0]

    def test_carriers_cover_the_busiest_hour(self) -> None:
        plans = run(CapacityPlanner, [region(0, 2), region(1, 7), region(2, 3)]).decisions
        assert plans[-1]["carriers"] == 7

    def test_share_is_a_parameter(self) -> None:
        (plan,) = run(CapacityPlanner, [region(0, 4)], parameters={"share": 0.4}).decisions
        assert (plan["hot_share"], plan["carriers"]) == (0.4, 0)

    def test_only_the_last_day_counts(self) -> None:
        given_ = [region(0, 10), *(region(hour, 0) for hour in range(1, HOURS_KEPT + 1))]
        plans = run(CapacityPlanner, given_).decisions
        assert plans[-2]["hot_share"] > 0.0
        assert (plans[-1]["hours"], plans[-1]["hot_share"]) == (HOURS_KEPT, 0.0)

    def test_hour_older_than_the_last_day_is_not_planned_any_more(self) -> None:
        """Given a region that was cut off reports an old hour late; its event time is new, its hour is not."""
        recent = [region(hour, 0) for hour in range(10, 10 + HOURS_KEPT)]
        after = 3600.0 * (10 + HOURS_KEPT)
        late = [region(0, 5, second=after), region(0, 6, second=after + 1.0)]
        found = run(CapacityPlanner, [*recent, *late])
        assert len(found.decisions) == len(recent)

    def test_hour_of_the_last_day_that_comes_late_is_planned_too(self) -> None:
        found = run(CapacityPlanner, [region(5, 0, second=0.0), region(3, 2, second=1.0), region(3, 2, second=2.0)])
        assert [datetime.fromisoformat(plan["hour"]) for plan in found.decisions] == [
            START + 5 * HOUR,
            START + 3 * HOUR,
        ]

    def test_regions_are_planned_each_by_itself(self) -> None:
        given_ = [region(0, 5), region(0, 0, name="south"), region(1, 5), region(1, 0, name="south")]
        found = run(CapacityPlanner, given_)
        last = {plan["region"]: plan["carriers"] for plan in found.decisions}
        assert last == {"north": 5, "south": 0}
        assert [event.subject for event in found.events] == ["north", "south", "north", "south"]

    @given(st.lists(st.tuples(st.integers(0, 10), st.integers(10, 20)), min_size=1, max_size=30))
    @settings(max_examples=40, deadline=None)
    def test_share_is_that_of_the_cell_hours_of_the_last_day(self, hours: list[tuple[int, int]]) -> None:
        found = run(CapacityPlanner, [region(hour, hot, cells) for hour, (hot, cells) in enumerate(hours)])
        last, kept = found.decisions[-1], hours[-HOURS_KEPT:]
        assert last["hours"] == len(kept)
        assert last["hot_share"] == pytest.approx(sum(hot for hot, _ in kept) / sum(cells for _, cells in kept))
        assert last["carriers"] in (0, max(hot for hot, _ in kept))

    def test_restart_keeps_the_day(self) -> None:
        first = run(CapacityPlanner, [region(0, 5)])
        second = run(CapacityPlanner, [region(1, 5)], memory=restarted(first.memory))
        assert second.decisions[-1]["hours"] == 2

    def test_region_without_cells_is_no_failure_of_the_agent(self) -> None:
        found = run(CapacityPlanner, [region(0, 0, cells=0), region(1, 1)])
        assert "agent_error" not in [rejected.reason for rejected in found.rejections]
        assert found.decisions[-1]["hot_share"] == pytest.approx(0.1)


def test_event_types_of_the_shipped_agents_are_stable() -> None:
    """Applications subscribe by them."""
    agents: list[Any] = [CellForecast, CellAnomaly, RegionalOverload, CapacityPlanner]
    assert [type_of(one) for agent in agents for one in decided(agent)] == [
        "mesh.cell-load-forecast.v1",
        "mesh.cell-load-anomaly.v1",
        "mesh.regional-load.v1",
        "mesh.capacity-plan.v1",
    ]
