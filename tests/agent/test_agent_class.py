"""What an agent class may declare and do; mistakes are told when the class is made, in one sentence with a remedy."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from mesh import Agent, Decision, Memory, Observation, every, observe
from mesh.agent.agent import CALL, Call, Context, Observed
from mesh.agent.annotations import decided
from mesh.agent.declare import Every, Observes
from mesh.agent.dispatch import ensure_agent
from mesh.agent.model import ConfidenceRule, Tensors, prediction
from mesh.clock import ManualClock
from mesh.errors import AgentError, ModelError, NotYetError, UnitError


class Kpi(Observation):
    cell: str
    load: float
    users: float = 0.0


class Plain(BaseModel):
    cell: str


class Verdict(Decision):
    cell: str


class Alarm(Decision):
    area: str


class StubModel:
    """Has the given features and answers the sum of each row."""

    def __init__(self, *features: str) -> None:
        self.features = features
        self.digest = "sha256:stub"
        self.rule: ConfidenceRule | None = None

    async def run(self, inputs: Tensors) -> Tensors:
        (rows,) = inputs.values()
        return {"value": rows.sum(axis=1)}

    async def run_features(self, rows: np.ndarray) -> Tensors:
        return await self.run({"features": rows})


class Watch(Agent):
    features = ("load", "users")

    @observe("cell", Kpi)
    async def watch(self, kpi: Kpi) -> Verdict | None: ...


def context(model: StubModel | None = None) -> Context:
    return Context("watch", "north", "edge", ManualClock(), Random(0), Memory(), model, {"limit": 3})


def kpi(load: float = 1.0, users: float = 2.0) -> Kpi:
    return Kpi(cell="1", time=datetime(2024, 1, 1, tzinfo=UTC), load=load, users=users)


def in_a_call(work: Any) -> Any:
    """The result of a coroutine that runs as a method's would."""

    async def run() -> Any:
        CALL.set(Call(Observed("cell", "1", "north", 0.0)))
        return await work

    return asyncio.run(run())


@pytest.mark.parametrize("model", [Plain, dict, "Kpi", None, 3, BaseModel])
def test_observing_what_is_no_observation_and_no_decision_is_refused(model: Any) -> None:
    with pytest.raises(AgentError, match=r"subclass mesh\.Observation"):
        observe("cell", model)


def test_observing_a_model_without_the_id_field_is_refused_and_its_fields_are_named() -> None:
    with pytest.raises(AgentError, match=r"no field 'router'.*cell, load, users"):
        observe("router", Kpi)


def test_id_may_be_another_field_than_the_kind() -> None:
    class Named(Agent):
        @observe("radio", Kpi, id="cell")
        async def handle(self, kpi: Kpi) -> None: ...

    (handler,) = Named.handlers
    assert isinstance(handler, Observes)
    assert (handler.kind, handler.id_field) == ("radio", "cell")


@pytest.mark.parametrize("on_full", ["drop", "", "LATEST_PER_ID", None])
def test_unknown_on_full_is_refused_and_the_choices_are_named(on_full: Any) -> None:
    with pytest.raises(AgentError, match="latest_per_id, drop_oldest, reject"):
        observe("cell", Kpi, on_full=on_full)


@pytest.mark.parametrize("capacity", [0, -1])
def test_inlet_without_room_is_refused(capacity: int) -> None:
    with pytest.raises(AgentError, match="at least 1"):
        observe("cell", Kpi, capacity=capacity)


@pytest.mark.parametrize("period", ["1us", "9ms", "0s"])
def test_clock_that_calls_too_often_is_refused(period: str) -> None:
    with pytest.raises(AgentError, match="at least 10ms"):
        every(period)


@pytest.mark.parametrize("period", ["soon", "1", "", 5])
def test_period_that_is_no_duration_is_refused(period: Any) -> None:
    with pytest.raises(UnitError):
        every(period)


@given(st.integers(10, 10**7))
@settings(deadline=None)
def test_period_is_kept_in_seconds(milliseconds: int) -> None:
    class Ticking(Agent):
        @every(f"{milliseconds}ms")
        async def tick(self) -> None: ...

    assert Ticking.handlers == (Every("tick", pytest.approx(milliseconds / 1000.0)),)


def test_method_with_two_declarations_is_refused() -> None:
    with pytest.raises(AgentError, match="two declarations"):

        class Twice(Agent):
            @every("1s")
            @observe("cell", Kpi)
            async def handle(self, kpi: Kpi) -> None: ...


def test_method_that_is_not_async_is_refused() -> None:
    with pytest.raises(AgentError, match=r"Sync\.handle is not async"):

        class Sync(Agent):
            @observe("cell", Kpi)
            def handle(self, kpi: Kpi) -> None: ...


def test_constructor_of_ones_own_is_refused() -> None:
    with pytest.raises(AgentError, match=r"setup\(self\)"):

        class Own(Agent):
            def __init__(self) -> None: ...


def test_two_methods_for_one_kind_are_refused() -> None:
    with pytest.raises(AgentError, match="one method per kind"):

        class Twice(Agent):
            @observe("cell", Kpi)
            async def one(self, kpi: Kpi) -> None: ...

            @observe("cell", Kpi)
            async def other(self, kpi: Kpi) -> None: ...


def test_telemetry_and_decisions_of_one_kind_have_a_method_each() -> None:
    class Both(Agent):
        @observe("cell", Kpi)
        async def one(self, kpi: Kpi) -> None: ...

        @observe("cell", Verdict)
        async def other(self, verdict: Verdict) -> None: ...

    assert {(h.method, h.takes_decisions) for h in Both.handlers if isinstance(h, Observes)} == {
        ("one", False),
        ("other", True),
    }


def test_declarations_are_inherited() -> None:
    class Narrower(Watch):
        @every("1s")
        async def tick(self) -> None: ...

    assert {handler.method for handler in Narrower.handlers} == {"watch", "tick"}
    assert {handler.method for handler in Watch.handlers} == {"watch"}


@pytest.mark.parametrize("found", [None, "Watch", Kpi, Agent, Watch(context())])
def test_what_is_no_agent_class_is_refused(found: object) -> None:
    with pytest.raises(AgentError, match="is no agent class"):
        ensure_agent(found, "agents.x:X")


def test_agent_that_waits_for_nothing_is_refused() -> None:
    class Deaf(Agent):
        pass

    with pytest.raises(AgentError, match="waits for nothing"):
        ensure_agent(Deaf, "agents.x:Deaf")


def test_attribute_set_in_setup_is_kept() -> None:
    class Prepared(Watch):
        def setup(self) -> None:
            self.limit = self.parameters["limit"]

    assert Prepared(context()).limit == 3


@pytest.mark.parametrize("name", ["count", "memory", "model", "_hidden"])
def test_attribute_set_after_setup_is_refused(name: str) -> None:
    agent = Watch(context())
    with pytest.raises(AgentError, match=rf"sets self\.{name}.*self\.memory"):
        setattr(agent, name, 1)


def test_agent_is_handed_its_context() -> None:
    given_ = context()
    agent = Watch(given_)
    assert (agent.name, agent.site, agent.tier) == ("watch", "north", "edge")
    assert agent.memory is given_.memory
    assert agent.clock is given_.clock
    assert agent.random is given_.random


def test_shared_state_is_not_there_yet_and_says_so() -> None:
    with pytest.raises(NotYetError, match=r"self\.state"):
        _ = Watch(context()).state


def test_escalation_is_not_there_yet_and_says_so() -> None:
    with pytest.raises(NotYetError, match=r"self\.escalate"):
        asyncio.run(Watch(context()).escalate(kpi()))


def test_features_in_the_models_order_fit() -> None:
    assert Watch(context(StubModel("load", "users"))).model.loaded.digest == "sha256:stub"


MISFITS = {
    "order": (("users", "load"), "orders its features otherwise"),
    "missing": (("load", "users", "hour"), "lacks hour"),
    "several missing": (("load", "users", "hour", "day"), "lacks hour, day"),
    "in excess": (("load",), "has users in excess"),
    "both": (("load", "hour"), "lacks hour and has users in excess"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_features_that_do_not_fit_the_model_are_told(misfit: str) -> None:
    features, sentence = MISFITS[misfit]
    with pytest.raises(ModelError, match=sentence) as raised:
        Watch(context(StubModel(*features)))
    assert "agent 'watch' (Watch)" in raised.value.problem
    assert raised.value.remedy


def test_model_that_does_not_name_its_features_fits_any_agent() -> None:
    assert Watch(context(StubModel())).model.loaded


def test_features_of_an_observation_are_the_fields_that_the_class_names() -> None:
    assert in_a_call(Watch(context(StubModel())).predict(kpi(load=3.0, users=4.0))).value == 7.0


def test_prepare_may_make_features_of_its_own() -> None:
    class Doubled(Watch):
        def prepare(self, observation: BaseModel) -> np.ndarray:
            return 2.0 * np.asarray(super().prepare(observation))

    assert in_a_call(Doubled(context(StubModel())).predict(kpi(load=3.0, users=4.0))).value == 14.0


def test_predicting_without_a_model_says_where_one_is_named() -> None:
    with pytest.raises(ModelError, match="`model:` in the topology"):
        in_a_call(Watch(context()).predict(kpi()))


def test_running_without_a_model_says_where_one_is_named() -> None:
    with pytest.raises(ModelError, match="`model:` in the topology"):
        asyncio.run(Watch(context()).model.run({}))


def test_decisions_of_an_agent_are_those_of_its_annotations_in_order_and_once() -> None:
    class Several(Agent):
        @observe("cell", Kpi)
        async def alone(self, kpi: Kpi) -> Verdict | None: ...

        @every("1s")
        async def several(self) -> list[Alarm | Verdict]:
            return []

        @every("2s")
        async def nothing(self) -> None: ...

    assert sorted(one.__name__ for one in decided(Several)) == ["Alarm", "Verdict"]


def test_decision_refuses_what_is_no_number() -> None:
    class Level(Decision):
        level: float

    with pytest.raises(ValidationError):
        Level(level=float("nan"))


def test_decision_whose_key_is_no_field_is_refused() -> None:
    with pytest.raises(AgentError, match=r"'area', which is no field of it; use one of cell"):

        class Misnamed(Decision):
            key = "area"

            cell: str


RULE = ConfidenceRule("value", "spread", 10.0, "percent")


def outputs(**tensors: Any) -> Tensors:
    return {name: np.asarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}


def test_prediction_reads_the_outputs_that_the_rule_names() -> None:
    found = prediction(outputs(other=[[9.0]], spread=[[10.0]], value=[[5.0]]), RULE)
    assert (found.value, found.spread) == (5.0, 10.0)
    assert found.confidence == pytest.approx(0.6827, abs=1e-4)


def test_prediction_without_a_rule_is_the_first_output_and_has_no_confidence() -> None:
    found = prediction(outputs(first=[3.0], second=[4.0]), None)
    assert (found.value, found.spread, found.confidence) == (3.0, None, None)


def test_prediction_keeps_all_outputs_of_its_row() -> None:
    found = prediction(outputs(value=[[1.0]], more=[[1.0, 2.0]]), None)
    assert found.outputs["more"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "value", [[[1.0, 2.0]], 1.0, [[]]], ids=["two numbers in a row", "no batch dimension", "nothing in a row"]
)
def test_output_that_is_not_one_number_per_row_is_a_model_error(value: Any) -> None:
    with pytest.raises(ModelError, match=r"not one number per row.*self\.model\.run"):
        prediction(outputs(value=value), None)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["value", "spread"])
def test_output_that_is_not_finite_is_a_model_error(name: str, bad: float) -> None:
    with pytest.raises(ModelError, match="check its inputs"):
        prediction(outputs(**{"value": [[1.0]], "spread": [[1.0]], name: [[bad]]}), RULE)


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6), st.floats(0.01, 1e3))
@settings(deadline=None)
def test_confidence_is_a_probability_that_falls_with_the_spread(one: float, other: float, tolerance: float) -> None:
    rule = ConfidenceRule("value", "spread", tolerance, "percent")
    wide, narrow = rule.confidence(max(one, other)), rule.confidence(min(one, other))
    assert 0.0 <= wide <= narrow <= 1.0


@pytest.mark.parametrize("name", ["setup", "prepare"])
def test_method_that_nothing_awaits_is_refused_when_it_is_async(name: str) -> None:
    async def method(self: Agent, *arguments: object) -> None: ...

    with pytest.raises(AgentError, match="without 'async'"):
        type("Waiting", (Agent,), {name: method})
