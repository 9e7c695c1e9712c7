"""Laws of freshness: event time of an id never goes back, and nothing is admitted twice."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.agent.freshness import RETURNED_AFTER, Freshness
from mesh.agent.observation import Reason, Rejected

arrivals = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 5), st.sampled_from("mn")))
"""Kind, id, time and identity."""


def reason(fresh: Freshness, *arrival: object) -> Reason | None:
    try:
        fresh.admit(*arrival)  # type: ignore[arg-type]
    except Rejected as rejected:
        return rejected.reason
    return None


@given(arrivals)
@settings(deadline=None)
def test_freshness_behaves_as_its_model_says(found: list[tuple[str, str, int, str]]) -> None:
    """Late: older than the newest admitted of the id. Duplicate: the same time and identity were admitted."""
    fresh = Freshness(ids_max=100)
    admitted: list[tuple[str, str, int, str]] = []
    for arrival in found:
        newest = max((one[2] for one in admitted if one[:2] == arrival[:2]), default=-1)
        expected = Reason.LATE if arrival[2] < newest else Reason.DUPLICATE if arrival in admitted else None
        assert reason(fresh, *arrival) is expected
        if expected is None:
            admitted.append(arrival)


@given(arrivals)
@settings(deadline=None)
def test_admitting_again_is_always_refused(found: list[tuple[str, str, int, str]]) -> None:
    fresh = Freshness(ids_max=100)
    for arrival in found:
        with suppress(Rejected):
            fresh.admit(*arrival)
        assert reason(fresh, *arrival) in (Reason.LATE, Reason.DUPLICATE)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40), st.integers(1, 4))
@settings(deadline=None)
def test_exactly_the_ids_seen_last_are_remembered(seen: list[tuple[str, bool]], ids_max: int) -> None:
    """Given time goes on between some observations, and stands still between others."""
    fresh, time = Freshness(ids_max), 0.0
    for number, (id, later) in enumerate(seen):
        time += later
        fresh.admit("cell", id, time, f"identity {number}")
    last_seen = list(dict.fromkeys(id for id, _ in reversed(seen)))
    remembered, forgotten = last_seen[:ids_max], last_seen[ids_max:]
    assert all(reason(fresh, "cell", id, -1.0) is Reason.LATE for id in remembered)
    assert all(reason(fresh, "cell", id, -1.0) is None for id in forgotten[:1])


def test_id_that_is_seen_again_at_the_same_time_counts_as_seen_last() -> None:
    fresh = Freshness(ids_max=2)
    for id, identity in (("a", "first"), ("b", "first"), ("a", "second"), ("c", "first")):
        fresh.admit("cell", id, 1.0, identity)
    assert reason(fresh, "cell", "a", 0.0) is Reason.LATE


def test_telemetry_of_one_time_is_a_duplicate() -> None:
    fresh = Freshness(ids_max=10)
    fresh.admit("cell", "1", 5.0)
    with pytest.raises(Rejected, match="seen before"):
        fresh.admit("cell", "1", 5.0)


def test_decisions_of_one_time_are_told_apart_by_their_identity() -> None:
    fresh = Freshness(ids_max=10)
    fresh.admit("cell", "1", 5.0, "first")
    fresh.admit("cell", "1", 5.0, "second")
    assert reason(fresh, "cell", "1", 5.0, "first") is Reason.DUPLICATE


def test_refused_observation_changes_nothing() -> None:
    fresh = Freshness(ids_max=10)
    fresh.admit("cell", "1", 5.0)
    assert reason(fresh, "cell", "1", 4.0) is Reason.LATE
    assert reason(fresh, "cell", "1", 4.5) is Reason.LATE
    assert reason(fresh, "cell", "1", 6.0) is None


def test_late_observation_is_told_by_how_much() -> None:
    fresh = Freshness(ids_max=10)
    fresh.admit("cell", "1", 5.0)
    with pytest.raises(Rejected, match=r"cell 1: 1\.5 s older"):
        fresh.admit("cell", "1", 3.5)


def test_one_observation_from_the_far_future_does_not_silence_its_id_for_ever() -> None:
    fresh = Freshness(10)
    fresh.admit("cell", "1", 1e9)
    refused = 0
    for time in range(1, 100):
        try:
            fresh.admit("cell", "1", float(time))
        except Rejected:
            refused += 1
    assert refused == RETURNED_AFTER


def test_late_observations_between_fresh_ones_are_always_refused() -> None:
    fresh = Freshness(10)
    for step in range(3 * RETURNED_AFTER):
        fresh.admit("cell", "1", 1000.0 + step)
        with pytest.raises(Rejected):
            fresh.admit("cell", "1", 1.0 + step)
