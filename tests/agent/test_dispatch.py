"""From bytes to decisions: every refusal has its reason, nothing else escapes, and the agent goes on afterwards."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import field_validator

from mesh import Agent, CloudEvent, Decision, Observation, every, observe
from mesh.agent.agent import Context
from mesh.agent.dispatch import Accepted, Dispatcher, Limits
from mesh.agent.memory import Memory
from mesh.agent.model import ConfidenceRule, Tensors
from mesh.agent.observation import Reason, Rejected
from mesh.clock import ManualClock, iso
from mesh.decision import Basis, Origin, cloud_event, digest, encode_event

NOW = 1_700_000_000.0
BYTES_MAX = 64 * 1024
IDS_MAX = 100


class Kpi(Observation):
    cell: str
    load: float


class Verdict(Decision):
    cell: str
    load: float


class Alarm(Decision):
    key = "area"

    area: str


class Judge(Agent):
    """Decides on every observation and is quiet about other agents' decisions."""

    @observe("cell", Kpi)
    async def judge(self, kpi: Kpi) -> Verdict:
        return Verdict(cell=kpi.cell, load=kpi.load)

    @observe("alarm", Alarm, id="area")
    async def listen(self, alarm: Alarm) -> Verdict:
        return Verdict(cell=alarm.area, load=0.0)

    @every("1s")
    async def report(self) -> Verdict:
        return Verdict(cell="all", load=0.0)


class EchoModel:
    """Answers its two features as value and spread."""

    def __init__(self, tolerance: float = 1.0) -> None:
        self.rule = ConfidenceRule("value", "spread", tolerance, "percent")
        self.digest = "sha256:echo"
        self.features = ("value", "spread")

    async def run(self, inputs: Tensors) -> Tensors:
        (rows,) = inputs.values()
        await asyncio.sleep(0)
        return {"value": rows[:, :1], "spread": rows[:, 1:]}

    async def run_features(self, rows: np.ndarray) -> Tensors:
        return await self.run({"features": rows})


def dispatcher(
    agent: type[Agent] = Judge,
    *,
    model: EchoModel | None = None,
    ids: dict[str, frozenset[str]] | None = None,
    site: str = "north",
    name: str = "judge",
    lineage: str = "first",
) -> Dispatcher:
    memory = Memory(lineage=lineage)
    context = Context(name, site, "edge", ManualClock(NOW), Random(0), memory, model)
    return Dispatcher(agent, context, "metro", Limits(BYTES_MAX, ids or {}, IDS_MAX))


def agent_doing(act: Callable[[Agent, Kpi], Awaitable[Any]]) -> type[Agent]:
    class Scripted(Agent):
        @observe("cell", Kpi)
        async def handle(self, kpi: Kpi) -> Any:
            return await act(self, kpi)

    return Scripted


def agent_returning(answer: Any) -> type[Agent]:
    async def act(agent: Agent, kpi: Kpi) -> Any:
        return answer

    return agent_doing(act)


def kpi(cell: str = "1", time: float = NOW, load: float = 50.0) -> bytes:
    return json.dumps({"cell": cell, "time": iso(time), "load": load}).encode()


def kpi_with(**texts: str) -> bytes:
    """An observation whose fields are given as they stand in the JSON text."""
    parts = {"cell": '"1"', "time": f'"{iso(NOW)}"', "load": "50.0", **texts}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in parts.items()) + "}").encode()


def alarm(area: str = "west", time: float = NOW, ordinal: int = 0) -> bytes:
    origin = Origin("metro", "edge", "south", "watch")
    return encode_event(cloud_event(origin, Alarm(area=area), area, Basis(digest(b""), iso(time)), NOW, ordinal))


def alarm_with(**fields: Any) -> bytes:
    return json.dumps({**json.loads(alarm()), **fields}).encode()


def handle(judge: Dispatcher, payload: bytes, *, kind: str = "cell", id: str | None = None) -> list[CloudEvent]:
    """What a replica does with an observation."""
    accepted = judge.accept_telemetry(kind, payload, id=id)
    judge.admit(accepted)
    return asyncio.run(judge.decide(accepted))


def handle_decision(judge: Dispatcher, payload: bytes, site: str = "south") -> list[CloudEvent]:
    accepted = judge.accept_decision(site, payload)
    judge.admit(accepted)
    return asyncio.run(judge.decide(accepted))


REFUSED: dict[str, tuple[bytes, Reason]] = {
    "nothing at all": (b"", Reason.MALFORMED_JSON),
    "half an object": (b'{"cell": "1", ', Reason.MALFORMED_JSON),
    "two objects": (kpi() + kpi(), Reason.MALFORMED_JSON),
    "no UTF-8": (kpi().replace(b'"1"', b'"\xff"'), Reason.MALFORMED_JSON),
    "half a surrogate pair": (kpi_with(cell=r'"\ud800"'), Reason.MALFORMED_JSON),
    "nesting without end": (b"[" * 60_000, Reason.MALFORMED_JSON),
    "no object": (b"[1, 2]", Reason.WRONG_SCHEMA),
    "a missing field": (json.dumps({"cell": "1", "time": iso(NOW)}).encode(), Reason.WRONG_SCHEMA),
    "an unknown field": (kpi_with(colour='"red"'), Reason.WRONG_SCHEMA),
    "text for a number": (kpi_with(load='"much"'), Reason.WRONG_SCHEMA),
    "null for a number": (kpi_with(load="null"), Reason.WRONG_SCHEMA),
    "a time without offset": (kpi_with(time='"2024-01-01T00:00:00"'), Reason.WRONG_SCHEMA),
    "a day that never was": (kpi_with(time='"2024-02-30T00:00:00Z"'), Reason.WRONG_SCHEMA),
    "NaN": (kpi_with(load="NaN"), Reason.NOT_FINITE),
    "infinity": (kpi_with(load="Infinity"), Reason.NOT_FINITE),
    "minus infinity": (kpi_with(load="-Infinity"), Reason.NOT_FINITE),
    "a number that overflows": (kpi_with(load="1e999"), Reason.NOT_FINITE),
    "NaN as time": (kpi_with(time="NaN"), Reason.NOT_FINITE),
    "NaN deep inside": (kpi_with(load='[{"x": [NaN]}]'), Reason.NOT_FINITE),
    "a byte too many": (kpi() + b" " * (BYTES_MAX + 1 - len(kpi())), Reason.TOO_LARGE),
}

REFUSED_EVENTS: dict[str, tuple[bytes, Reason]] = {
    "nothing at all": (b"", Reason.MALFORMED_JSON),
    "half an object": (alarm()[:-1], Reason.MALFORMED_JSON),
    "no UTF-8": (alarm().replace(b'"sha256:', b'"\xff', 1), Reason.MALFORMED_JSON),
    "half a surrogate pair": (alarm().replace(b'"west"}', rb'"\ud800"}'), Reason.MALFORMED_JSON),
    "nesting without end": (b'{"x":' + b"[" * 60_000, Reason.MALFORMED_JSON),
    "nesting that ends": (
        alarm().replace(b'{"area":"west"}', b"[" * 20_000 + b"]" * 20_000),
        Reason.MALFORMED_JSON,
    ),
    "no object": (b"[1, 2]", Reason.WRONG_SCHEMA),
    "no event": (b'{"area": "west"}', Reason.WRONG_SCHEMA),
    "an observed time without offset": (alarm_with(observedtime="2024-01-01T00:00:00"), Reason.WRONG_SCHEMA),
    "an observed time that is none": (alarm_with(observedtime="yesterday"), Reason.WRONG_SCHEMA),
    "data of another form": (alarm_with(data={"zone": "west"}), Reason.WRONG_SCHEMA),
    "a decision nobody waits for": (alarm_with(type="mesh.other.v1"), Reason.WRONG_TYPE),
    "another version of the decision": (alarm_with(type="mesh.alarm.v2"), Reason.WRONG_TYPE),
    "NaN": (alarm().replace(b'"west"}', b"NaN}"), Reason.MALFORMED_JSON),
    "a number that overflows": (alarm().replace(b'"west"}', b"1e999}"), Reason.NOT_FINITE),
    "a byte too many": (alarm() + b" " * (BYTES_MAX + 1 - len(alarm())), Reason.TOO_LARGE),
}

OUT_OF_RANGE = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59.9999999Z"]
"""Well-formed times that no clock in UTC can show."""


@pytest.mark.parametrize("mistake", REFUSED)
def test_observation_is_refused_with_its_reason(mistake: str) -> None:
    payload, reason = REFUSED[mistake]
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(), payload)
    assert refused.value.reason is reason
    assert refused.value.detail


@pytest.mark.parametrize("mistake", REFUSED_EVENTS)
def test_decision_of_another_agent_is_refused_with_its_reason(mistake: str) -> None:
    payload, reason = REFUSED_EVENTS[mistake]
    with pytest.raises(Rejected) as refused:
        handle_decision(dispatcher(), payload)
    assert refused.value.reason is reason
    assert refused.value.detail


@pytest.mark.parametrize("mistake", REFUSED)
def test_after_a_refused_observation_the_agent_decides_as_if_it_had_not_been(mistake: str) -> None:
    judge = dispatcher()
    with pytest.raises(Rejected):
        handle(judge, REFUSED[mistake][0])
    assert handle(judge, kpi()) == handle(dispatcher(), kpi())


@pytest.mark.parametrize("time", OUT_OF_RANGE)
def test_observation_beyond_the_calendar_is_refused(time: str) -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(), kpi_with(time=f'"{time}"'))
    assert refused.value.reason is Reason.WRONG_SCHEMA


@pytest.mark.parametrize("time", OUT_OF_RANGE)
def test_decision_observed_beyond_the_calendar_is_refused(time: str) -> None:
    with pytest.raises(Rejected) as refused:
        handle_decision(dispatcher(), alarm_with(observedtime=time))
    assert refused.value.reason is Reason.WRONG_SCHEMA


def test_observation_of_the_largest_size_is_taken() -> None:
    assert handle(dispatcher(), kpi() + b" " * (BYTES_MAX - len(kpi())))


def test_id_that_differs_from_the_subject_is_refused() -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(), kpi("1"), id="2")
    assert refused.value.reason is Reason.WRONG_ID


def test_id_of_another_site_is_refused_where_the_ids_are_known() -> None:
    judge = dispatcher(ids={"cell": frozenset({"1"})})
    assert handle(judge, kpi("1"))
    with pytest.raises(Rejected) as refused:
        handle(judge, kpi("2"))
    assert refused.value.reason is Reason.UNKNOWN_ID


def test_any_id_is_taken_where_none_are_known() -> None:
    assert handle(dispatcher(ids={"other": frozenset({"1"})}), kpi("2"))


@pytest.mark.parametrize("kind", ["router", "alarm"])
def test_kind_that_no_method_observes_as_telemetry_is_refused(kind: str) -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(), kpi(), kind=kind)
    assert refused.value.reason is Reason.WRONG_TYPE


def test_repeated_observation_is_refused_once_per_repetition() -> None:
    judge = dispatcher()
    assert handle(judge, kpi())
    for _ in range(2):
        with pytest.raises(Rejected) as refused:
            handle(judge, kpi())
        assert refused.value.reason is Reason.DUPLICATE
    assert handle(judge, kpi(time=NOW + 1))


def test_older_observation_of_one_id_is_refused_as_late_and_of_another_id_is_not() -> None:
    judge = dispatcher()
    assert handle(judge, kpi("1", NOW))
    with pytest.raises(Rejected) as refused:
        handle(judge, kpi("1", NOW - 1))
    assert refused.value.reason is Reason.LATE
    assert handle(judge, kpi("2", NOW - 1))


def test_two_decisions_on_one_observation_are_no_duplicates() -> None:
    judge = dispatcher()
    assert handle_decision(judge, alarm(ordinal=0))
    assert handle_decision(judge, alarm(ordinal=1))


def test_repeated_decision_is_refused_as_a_duplicate() -> None:
    judge = dispatcher()
    assert handle_decision(judge, alarm())
    with pytest.raises(Rejected) as refused:
        handle_decision(judge, alarm())
    assert refused.value.reason is Reason.DUPLICATE


def test_decisions_of_two_sites_on_one_id_do_not_make_each_other_late() -> None:
    judge = dispatcher()
    assert handle_decision(judge, alarm(time=NOW), site="south")
    assert handle_decision(judge, alarm(time=NOW - 1), site="east")


def test_newer_telemetry_does_not_make_a_decision_of_the_same_kind_and_id_late() -> None:
    class Both(Agent):
        @observe("cell", Kpi)
        async def watch(self, kpi: Kpi) -> None: ...

        @observe("cell", Verdict)
        async def listen(self, verdict: Verdict) -> Verdict:
            return verdict

    judge = dispatcher(Both, site="south")
    handle(judge, kpi("1", NOW + 3600.0))
    origin = Origin("metro", "edge", "south", "other")
    verdict = cloud_event(origin, Verdict(cell="1", load=1.0), "1", Basis("sha256:0", iso(NOW)), NOW)
    assert handle_decision(judge, encode_event(verdict), site="south")


async def raises(agent: Agent, kpi: Kpi) -> None:
    raise KeyError("nothing here")


async def sets_an_attribute(agent: Agent, kpi: Kpi) -> None:
    agent.count = 1  # type: ignore[attr-defined]


async def asks_for_shared_state(agent: Agent, kpi: Kpi) -> None:
    agent.state.get("x")


async def predicts_without_a_model(agent: Agent, kpi: Kpi) -> None:
    await agent.predict(kpi)


async def decides_infinity(agent: Agent, kpi: Kpi) -> Verdict:
    return Verdict(cell=kpi.cell, load=float("inf"))


@pytest.mark.parametrize(
    "act", [raises, sets_an_attribute, asks_for_shared_state, predicts_without_a_model, decides_infinity]
)
def test_failure_of_the_agents_code_is_refused_as_its_error(act: Callable[[Agent, Kpi], Awaitable[Any]]) -> None:
    judge = dispatcher(agent_doing(act))
    for number in range(2):
        with pytest.raises(Rejected) as refused:
            handle(judge, kpi(time=NOW + number))
        assert refused.value.reason is Reason.AGENT_ERROR
        assert refused.value.detail


@pytest.mark.parametrize(
    "answer",
    [0, True, "text", {"cell": "1"}, Kpi.model_validate_json(kpi()), Verdict, [Verdict(cell="1", load=1.0), None]],
    ids=repr,
)
def test_what_is_no_decision_is_refused_as_the_agents_error(answer: Any) -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_returning(answer)), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


def test_decision_that_cannot_be_written_as_json_is_refused_as_the_agents_error() -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_returning(Alarm(area="\ud800"))), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


@pytest.mark.parametrize("area", ["", "x" * 201])
def test_decision_whose_key_is_no_subject_token_is_refused_as_the_agents_error(area: str) -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_returning(Alarm(area=area))), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


@pytest.mark.parametrize("cell", ["", "x" * 201])
def test_observation_whose_id_is_no_subject_token_is_refused(cell: str) -> None:
    """Such an id cannot come by a subject, but an inference request may hold it."""
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(), kpi(cell))
    assert refused.value.reason is Reason.WRONG_ID


def test_expected_failure_is_told_in_its_own_sentence() -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_doing(predicts_without_a_model)), kpi())
    assert refused.value.detail == "agent 'judge' has no model; name one with `model:` in the topology"


def test_unexpected_failure_is_told_with_the_method_and_the_error() -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_doing(raises)), kpi())
    assert refused.value.detail == "handle raised KeyError: 'nothing here'"


def test_what_was_observed_is_known_only_while_the_method_runs() -> None:
    judge = dispatcher()

    async def decide_and_look() -> None:
        await judge.decide(judge.accept_telemetry("cell", kpi()))
        with pytest.raises(LookupError):
            _ = judge.agent.observed

    asyncio.run(decide_and_look())


def test_agent_that_cancels_its_own_work_is_refused_and_cancels_nobody_else() -> None:
    async def gives_up(agent: Agent, kpi: Kpi) -> None:
        work = asyncio.ensure_future(asyncio.Event().wait())
        work.cancel()
        await work

    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_doing(gives_up)), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


def test_cancelling_the_replica_cancels_the_agents_work() -> None:
    async def waits(agent: Agent, kpi: Kpi) -> None:
        await asyncio.Event().wait()

    judge = dispatcher(agent_doing(waits))

    async def cancelled() -> bool:
        task = asyncio.create_task(judge.decide(judge.accept_telemetry("cell", kpi())))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return task.cancelled()

    assert asyncio.run(cancelled())


def test_decision_without_its_key_is_refused_as_the_agents_error() -> None:
    with pytest.raises(Rejected) as refused:
        handle(dispatcher(agent_returning(Alarm.model_construct())), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


def test_agent_that_failed_once_decides_again() -> None:
    async def fails_on_zero(agent: Agent, kpi: Kpi) -> Verdict:
        return Verdict(cell=kpi.cell, load=1.0 / kpi.load)

    judge = dispatcher(agent_doing(fails_on_zero))
    with pytest.raises(Rejected):
        handle(judge, kpi(time=NOW, load=0.0))
    assert handle(judge, kpi(time=NOW + 1, load=2.0))


def test_validator_of_the_users_that_fails_is_a_refusal_and_nothing_else() -> None:
    class Fragile(Observation):
        cell: str

        @field_validator("cell")
        @classmethod
        def look_up(cls, cell: str) -> str:
            return {"1": "one"}[cell]

    class Keeper(Agent):
        @observe("cell", Fragile)
        async def handle(self, fragile: Fragile) -> None: ...

    with pytest.raises(Rejected):
        handle(dispatcher(Keeper), json.dumps({"cell": "2", "time": iso(NOW)}).encode())


def test_failure_of_a_clocked_method_is_refused_as_the_agents_error() -> None:
    class Ticking(Agent):
        @every("1s")
        async def tick(self) -> None:
            raise OSError("no disk")

    judge = dispatcher(Ticking)
    with pytest.raises(Rejected) as refused:
        asyncio.run(judge.tick(judge.clocked[0]))
    assert refused.value.reason is Reason.AGENT_ERROR


mutated = st.builds(
    lambda whole, begin, length, put: whole[:begin] + put + whole[begin + length :],
    st.sampled_from([kpi(), alarm()]),
    st.integers(0, 500),
    st.integers(0, 30),
    st.binary(max_size=8),
)
"""Valid messages with some bytes replaced."""


@given(st.binary() | mutated)
@example(b'{"x":' + b"[" * 60_000)
@example(b'{"id":"\xff"')
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_give_decisions_or_a_refusal_and_nothing_else(payload: bytes) -> None:
    judge = dispatcher()
    with suppress(Rejected):
        handle(judge, payload)
    with suppress(Rejected):
        handle_decision(judge, payload)
    assert handle(judge, kpi("known good", NOW + 1e6))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
times = (
    st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    | st.integers(-(10**12), 10**12)
    | st.sampled_from(OUT_OF_RANGE)
    | json_values
)


@given(st.fixed_dictionaries({"cell": st.text() | json_values, "time": times, "load": st.floats() | json_values}))
@settings(max_examples=200, deadline=None)
def test_arbitrary_json_in_an_observation_gives_decisions_or_a_refusal(fields: dict[str, Any]) -> None:
    judge = dispatcher()
    with suppress(Rejected):
        events = handle(judge, json.dumps(fields).encode())
        assert [event.subject for event in events] == [fields["cell"]]


@given(
    st.dictionaries(st.sampled_from(sorted(json.loads(alarm()))), json_values, max_size=2),
    st.fixed_dictionaries({"observedtime": times, "data": st.just({"area": "west"}) | json_values}),
)
@settings(max_examples=200, deadline=None)
def test_arbitrary_json_in_an_event_gives_decisions_or_a_refusal(spoilt: dict[str, Any], often: dict[str, Any]) -> None:
    with suppress(Rejected):
        assert (
            len(handle_decision(dispatcher(), alarm_with(**often, **{k: spoilt[k] for k in spoilt.keys() - often})))
            == 1
        )


def test_same_input_gives_the_same_event_id_in_every_process() -> None:
    first, second = handle(dispatcher(), kpi()), handle(dispatcher(), kpi())
    assert [event.id for event in first] == [event.id for event in second]


DIFFERENCES: dict[str, Callable[[], list[CloudEvent]]] = {
    "as it was": lambda: handle(dispatcher(), kpi()),
    "another id": lambda: handle(dispatcher(), kpi("2")),
    "another time": lambda: handle(dispatcher(), kpi(time=NOW + 1)),
    "another value": lambda: handle(dispatcher(), kpi(load=51.0)),
    "the same value written otherwise": lambda: handle(dispatcher(), kpi() + b" "),
    "another site": lambda: handle(dispatcher(site="south"), kpi()),
    "another agent": lambda: handle(dispatcher(name="judge-2"), kpi()),
    "a memory begun anew": lambda: handle(dispatcher(lineage="second"), kpi()),
    "a model": lambda: handle(dispatcher(model=EchoModel()), kpi()),
    "another type": lambda: handle(dispatcher(agent_returning(Alarm(area="1"))), kpi()),
}


def test_event_ids_differ_as_soon_as_anything_differs() -> None:
    ids = {name: make()[0].id for name, make in DIFFERENCES.items()}
    assert len(set(ids.values())) == len(DIFFERENCES)


def test_equal_decisions_on_one_input_are_told_apart() -> None:
    events = handle(dispatcher(agent_returning([Alarm(area="1"), Alarm(area="1")])), kpi())
    assert len({event.id for event in events}) == 2


@pytest.mark.parametrize("answer", [None, [], ()], ids=repr)
def test_agent_may_decide_nothing(answer: Any) -> None:
    assert handle(dispatcher(agent_returning(answer)), kpi()) == []


@pytest.mark.parametrize("kind", [list, tuple])
def test_agent_may_decide_several_things_in_order(kind: type) -> None:
    areas = ["b", "a", "c"]
    events = handle(dispatcher(agent_returning(kind(Alarm(area=area) for area in areas))), kpi())
    assert [event.subject for event in events] == areas


def test_key_is_the_observed_id_when_the_decision_names_no_field() -> None:
    (event,) = handle(dispatcher(), kpi("cell 7"))
    assert event.subject == "cell 7"


def test_key_is_the_field_that_the_decision_names() -> None:
    (event,) = handle(dispatcher(agent_returning(Alarm(area="west"))), kpi("7"))
    assert event.subject == "west"


def test_key_of_a_decision_by_the_clock_is_the_site() -> None:
    judge = dispatcher(site="south")
    (event,) = asyncio.run(judge.tick(judge.clocked[0]))
    assert event.subject == "south"


def test_id_is_looked_up_in_the_field_that_the_declaration_names() -> None:
    accepted: Accepted = dispatcher().accept_decision("south", alarm("west"))
    assert (accepted.observed.kind, accepted.observed.id, accepted.observed.site) == ("alarm", "west", "south")


def test_event_names_the_input_its_time_and_its_maker() -> None:
    (event,) = handle(dispatcher(), kpi(time=NOW - 60))
    assert event.source == "mesh://metro/edge/north/judge"
    assert event.inputdigest == digest(kpi(time=NOW - 60))
    assert (event.observedtime, event.time) == (iso(NOW - 60), iso(NOW))


def test_event_names_no_model_and_no_confidence_when_none_was_used() -> None:
    (event,) = handle(dispatcher(), kpi())
    assert (event.modeldigest, event.confidence) == (None, None)


def test_event_names_the_model() -> None:
    (event,) = handle(dispatcher(model=EchoModel()), kpi())
    assert event.modeldigest == "sha256:echo"


class Spread(Observation):
    cell: str
    value: float
    spread: float


@given(st.lists(st.floats(0.1, 100.0), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_confidence_of_a_decision_is_the_lowest_of_its_predictions(spreads: list[float]) -> None:
    model = EchoModel(tolerance=5.0)

    async def predict_all(agent: Agent, kpi: Kpi) -> Verdict:
        for spread in spreads:
            await agent.predict(Spread(cell="1", time=kpi.time, value=1.0, spread=spread))
        return Verdict(cell=kpi.cell, load=0.0)

    agent = agent_doing(predict_all)
    agent.features = ("value", "spread")
    (event,) = handle(dispatcher(agent, model=model), kpi())
    assert event.confidence is not None
    assert float(event.confidence) == pytest.approx(model.rule.confidence(max(spreads)), abs=1e-4)


def test_predictions_made_at_once_all_count_for_the_confidence() -> None:
    model = EchoModel()

    async def predict_at_once(agent: Agent, kpi: Kpi) -> Verdict:
        asked = (Spread(cell="1", time=kpi.time, value=1.0, spread=spread) for spread in (0.5, 3.0, 1.0))
        await asyncio.gather(*(agent.predict(one) for one in asked))
        return Verdict(cell=kpi.cell, load=0.0)

    agent = agent_doing(predict_at_once)
    agent.features = ("value", "spread")
    (event,) = handle(dispatcher(agent, model=model), kpi())
    assert event.confidence == f"{model.rule.confidence(3.0):.4f}"


def test_decisions_made_at_the_same_time_keep_their_own_confidence_and_observation() -> None:
    model = EchoModel()
    seen: dict[str, str] = {}

    async def predict_one(agent: Agent, kpi: Kpi) -> Verdict:
        await agent.predict(Spread(cell="1", time=kpi.time, value=1.0, spread=kpi.load))
        seen[kpi.cell] = agent.observed.id
        return Verdict(cell=kpi.cell, load=0.0)

    agent = agent_doing(predict_one)
    agent.features = ("value", "spread")
    judge = dispatcher(agent, model=model)
    spreads = {"1": 0.5, "2": 2.0, "3": 1.0}

    async def all_at_once() -> list[list[CloudEvent]]:
        accepted = [judge.accept_telemetry("cell", kpi(cell, load=spread)) for cell, spread in spreads.items()]
        return await asyncio.gather(*(judge.decide(one) for one in accepted))

    told = {event.subject: event.confidence for (event,) in asyncio.run(all_at_once())}
    assert told == {cell: f"{model.rule.confidence(spread):.4f}" for cell, spread in spreads.items()}
    assert seen == {cell: cell for cell in spreads}


def test_large_but_finite_features_are_predicted_with() -> None:
    async def predict_large(agent: Agent, kpi: Kpi) -> Verdict:
        found = await agent.predict(Spread(cell="1", time=kpi.time, value=3e38, spread=3e38))
        return Verdict(cell=kpi.cell, load=found.value)

    agent = agent_doing(predict_large)
    agent.features = ("value", "spread")
    assert handle(dispatcher(agent, model=EchoModel()), kpi())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_features_that_are_not_finite_are_the_agents_error(bad: float) -> None:
    async def predict_bad(agent: Agent, kpi: Kpi) -> Verdict:
        found = await agent.predict(Spread.model_construct(cell="1", time=kpi.time, value=bad, spread=1.0))
        return Verdict(cell=kpi.cell, load=found.value)

    agent = agent_doing(predict_bad)
    agent.features = ("value", "spread")
    with pytest.raises(Rejected, match="NaN or infinity") as refused:
        handle(dispatcher(agent, model=EchoModel()), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


def test_decision_that_is_too_large_to_be_read_by_others_is_refused_as_the_agents_error() -> None:
    class Essay(Decision):
        text: str

    with pytest.raises(Rejected, match="at most") as refused:
        handle(dispatcher(agent_returning(Essay(text="x" * 2_000_000))), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR


def test_answer_to_a_request_is_marked_and_no_other_agent_observes_it() -> None:
    judge = dispatcher(agent_returning(Alarm(area="west")))
    asked = asyncio.run(judge.decide(judge.accept_telemetry("cell", kpi()), requested=True))
    assert json.loads(encode_event(asked[0]))["requested"] is True
    with pytest.raises(Rejected) as refused:
        dispatcher().accept_decision("south", alarm_with(requested=True))
    assert refused.value.reason is Reason.REQUESTED


def test_decision_on_an_observation_carries_no_mark_of_a_request() -> None:
    assert "requested" not in json.loads(encode_event(handle(dispatcher(), kpi())[0]))


def test_agent_that_calls_exit_is_refused_and_ends_nothing() -> None:
    async def leaves(agent: Agent, kpi: Kpi) -> None:
        raise SystemExit(3)

    with pytest.raises(Rejected, match="SystemExit") as refused:
        handle(dispatcher(agent_doing(leaves)), kpi())
    assert refused.value.reason is Reason.AGENT_ERROR
