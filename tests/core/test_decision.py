"""Decisions on the wire: CloudEvents 1.0 in structured JSON, readable by anyone and the same after a round trip."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh import Decision
from mesh.clock import iso
from mesh.decision import (
    Basis,
    CloudEvent,
    Origin,
    cloud_event,
    decode_event,
    digest,
    encode_event,
    event_id,
    schema_uri,
    type_of,
)
from mesh.errors import AgentError

REQUIRED = ("id", "source", "specversion", "type")
OPTIONAL = ("datacontenttype", "dataschema", "subject", "time")


class CellSleep(Decision):
    cell: str
    asleep: bool
    share: float = 0.0


class KPIAlert(Decision):
    version = 3

    text: str


class Sleep(Decision):
    hour: datetime


ORIGIN = Origin("metro", "edge", "north", "sleeper")

seconds = st.floats(0.0, 4e9)
bases = st.builds(
    Basis,
    input_digest=st.binary(max_size=8).map(digest),
    observed_time=seconds.map(iso),
    model_digest=st.none() | st.binary(max_size=8).map(digest),
    confidence=st.none() | st.floats(0.0, 1.0),
    lineage=st.sampled_from(["", "first", "second"]),
)
decisions = st.builds(CellSleep, cell=st.text(), asleep=st.booleans(), share=st.floats(-1e300, 1e300))
origins = st.builds(Origin, *(st.sampled_from(["metro", "edge", "a-b", "x_1"]) for _ in range(4)))
keys = st.text(min_size=1)
events = st.builds(cloud_event, origins, decisions, keys, bases, seconds, st.integers(0, 10))


@given(events)
@settings(deadline=None)
def test_required_attributes_are_texts_that_are_not_empty(event: CloudEvent) -> None:
    found = json.loads(encode_event(event))
    assert found["specversion"] == "1.0"
    assert all(isinstance(found[name], str) and found[name] for name in REQUIRED)


@given(events)
@settings(deadline=None)
def test_optional_attributes_are_texts_that_are_not_empty_where_they_are_there(event: CloudEvent) -> None:
    found = json.loads(encode_event(event))
    assert all(isinstance(found[name], str) and found[name] for name in OPTIONAL if name in found)
    assert found["datacontenttype"] == "application/json"


@given(events)
@settings(deadline=None)
def test_extension_attributes_have_names_and_types_that_the_specification_allows(event: CloudEvent) -> None:
    """Names are lower-case letters and digits, 20 at most; values are booleans, integers or texts, never fractions."""
    found = json.loads(encode_event(event))
    extensions = {name: value for name, value in found.items() if name not in (*REQUIRED, *OPTIONAL, "data")}
    assert {"inputdigest", "observedtime"} <= set(extensions)
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in extensions)
    assert all(isinstance(value, str) for value in extensions.values())


@given(events)
@settings(deadline=None)
def test_attributes_without_a_value_are_left_out(event: CloudEvent) -> None:
    found = json.loads(encode_event(event))
    assert None not in found.values()
    assert ("confidence" in found) == (event.confidence is not None)
    assert ("modeldigest" in found) == (event.modeldigest is not None)


@given(events)
@settings(deadline=None)
def test_event_is_the_same_after_a_round_trip(event: CloudEvent) -> None:
    again = decode_event(encode_event(event))
    assert encode_event(again) == encode_event(event)
    assert {n: getattr(again, n) for n in event.__struct_fields__ if n != "data"} == {
        n: getattr(event, n) for n in event.__struct_fields__ if n != "data"
    }


@given(decisions)
@settings(deadline=None)
def test_data_is_the_decision(decision: CellSleep) -> None:
    event = cloud_event(ORIGIN, decision, "1", Basis(digest(b""), iso(0.0)), 0.0)
    assert CellSleep.model_validate_json(bytes(decode_event(encode_event(event)).data)) == decision


@given(seconds, seconds)
@settings(deadline=None)
def test_times_are_rfc_3339_in_utc(now: float, observed: float) -> None:
    event = cloud_event(ORIGIN, CellSleep(cell="1", asleep=True), "1", Basis(digest(b""), iso(observed)), now)
    for text, moment in ((event.time, now), (event.observedtime, observed)):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
        assert datetime.fromisoformat(text).timestamp() == pytest.approx(moment, abs=1e-6)


@given(st.floats(0.0, 1.0))
@settings(deadline=None)
def test_confidence_is_a_decimal_text_between_0_and_1(confidence: float) -> None:
    basis = Basis(digest(b""), iso(0.0), None, confidence)
    text = cloud_event(ORIGIN, CellSleep(cell="1", asleep=True), "1", basis, 0.0).confidence
    assert text is not None
    assert re.fullmatch(r"[01]\.\d{4}", text)
    assert float(text) == pytest.approx(confidence, abs=5e-5)


def test_source_names_mesh_tier_site_and_agent() -> None:
    assert ORIGIN.uri == "mesh://metro/edge/north/sleeper"


@pytest.mark.parametrize(
    ("decision", "expected"),
    [(CellSleep, "mesh.cell-sleep.v1"), (KPIAlert, "mesh.kpi-alert.v3"), (Sleep, "mesh.sleep.v1")],
)
def test_type_comes_from_the_class_name_and_version(decision: type[Decision], expected: str) -> None:
    assert type_of(decision) == expected


def test_schema_is_named_by_mesh_and_type() -> None:
    assert schema_uri("metro", KPIAlert) == "mesh://metro/schema/mesh.kpi-alert.v3"
    event = cloud_event(ORIGIN, KPIAlert(text="x"), "1", Basis(digest(b""), iso(0.0)), 0.0)
    assert event.dataschema == "mesh://metro/schema/mesh.kpi-alert.v3"


identities = st.tuples(
    origins, st.sampled_from(["mesh.a.v1", "mesh.a.v2"]), st.text(max_size=4), bases, st.integers(0, 3)
)


@given(identities, identities)
@settings(deadline=None)
def test_event_ids_are_equal_exactly_when_all_that_makes_them_is(one: Any, other: Any) -> None:
    def without_confidence(identity: Any) -> Any:
        origin, type_, key, basis, ordinal = identity
        return origin, type_, key, (basis.input_digest, basis.observed_time, basis.model_digest, basis.lineage), ordinal

    assert (event_id(*one) == event_id(*other)) == (without_confidence(one) == without_confidence(other))


@given(identities)
@settings(deadline=None)
def test_event_id_is_short_enough_for_a_header_and_plain(identity: Any) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", event_id(*identity))


def test_memory_begun_anew_decides_anew() -> None:
    first, second = (Basis(digest(b"x"), iso(1.0), lineage=lineage) for lineage in ("first", "second"))
    assert event_id(ORIGIN, "mesh.a.v1", "1", first, 0) != event_id(ORIGIN, "mesh.a.v1", "1", second, 0)


def test_event_id_does_not_depend_on_when_the_decision_was_made() -> None:
    basis = Basis(digest(b"x"), iso(1.0))
    first, second = (cloud_event(ORIGIN, CellSleep(cell="1", asleep=True), "1", basis, now) for now in (1.0, 2.0))
    assert first.id == second.id
    assert first.time != second.time


def test_digest_names_its_algorithm() -> None:
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_attributes_of_other_makers_are_passed_over() -> None:
    event = cloud_event(ORIGIN, CellSleep(cell="1", asleep=True), "1", Basis(digest(b""), iso(0.0)), 0.0)
    foreign = {**json.loads(encode_event(event)), "traceparent": "00-1-2-3", "partition": 7}
    again = decode_event(json.dumps(foreign).encode())
    assert (again.id, again.subject, again.inputdigest) == (event.id, event.subject, event.inputdigest)


@pytest.mark.parametrize("missing", ["id", "source", "type", "data", "observedtime"])
def test_event_without_what_we_need_is_refused(missing: str) -> None:
    event = cloud_event(ORIGIN, CellSleep(cell="1", asleep=True), "1", Basis(digest(b""), iso(0.0)), 0.0)
    fields = json.loads(encode_event(event))
    del fields[missing]
    with pytest.raises(msgspec.ValidationError):
        decode_event(json.dumps(fields).encode())


def test_key_must_name_a_field() -> None:
    with pytest.raises(AgentError, match="use one of cell"):

        class Misnamed(Decision):
            key = "area"

            cell: str


def test_key_must_name_a_field_also_where_there_is_none() -> None:
    with pytest.raises(AgentError, match="it has none"):

        class Empty(Decision):
            key = "area"


def test_decision_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        CellSleep(cell="1", asleep=True).cell = "2"  # type: ignore[misc]
