"""Latencies are right to 5 %, add up in any order, and can be told apart by when they were measured."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.health import (
    Latencies,
    LinkStatus,
    ReplicaHealth,
    SiteStatus,
    decode_replica,
    decode_site,
    encode,
)

FLOOR_S = 1e-5
values = st.lists(st.floats(FLOOR_S, 1000.0), max_size=50)
some_values = st.lists(st.floats(FLOOR_S, 1000.0), min_size=1, max_size=50)
quantiles = st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 1.0]) | st.floats(0.0, 1.0)


def latencies(found: list[float]) -> Latencies:
    made = Latencies()
    for value in found:
        made.add(value)
    return made


def exact(found: list[float], q: float) -> float:
    """The smallest value that at least the share `q` of all does not exceed."""
    return next(value for rank, value in enumerate(sorted(found), 1) if rank >= q * len(found))


@given(some_values, quantiles)
@settings(deadline=None)
def test_quantile_is_right_to_5_percent_and_never_too_low(found: list[float], q: float) -> None:
    told = latencies(found).quantile(q)
    assert told is not None
    assert exact(found, q) * (1 - 1e-9) <= told <= exact(found, q) * 1.05 * (1 + 1e-9)


@given(some_values, quantiles, quantiles)
@settings(deadline=None)
def test_quantile_rises_with_its_share(found: list[float], one: float, other: float) -> None:
    made = latencies(found)
    low, high = made.quantile(min(one, other)), made.quantile(max(one, other))
    assert low is not None
    assert high is not None
    assert low <= high


@given(quantiles)
@settings(deadline=None)
def test_quantile_of_nothing_is_none(q: float) -> None:
    assert Latencies().quantile(q) is None


@given(st.floats(-1.0, FLOOR_S))
@settings(deadline=None)
def test_everything_below_the_floor_counts_as_the_floor(seconds: float) -> None:
    assert latencies([seconds]).quantile(0.5) == FLOOR_S


@given(st.lists(values, max_size=5))
@settings(deadline=None)
def test_sum_of_parts_is_the_histogram_of_all_values(parts: list[list[float]]) -> None:
    together = [value for part in parts for value in part]
    assert Latencies.sum(latencies(part) for part in parts) == latencies(together)


@given(values, values)
@settings(deadline=None)
def test_sum_changes_none_of_its_parts(one: list[float], other: list[float]) -> None:
    first, second = latencies(one), latencies(other)
    Latencies.sum([first, second]).add(1.0)
    assert (first, second) == (latencies(one), latencies(other))


def test_two_histograms_share_nothing() -> None:
    one, other = Latencies(), Latencies()
    one.add(1.0)
    assert other.counts == {}


def test_bins_are_as_wide_as_promised() -> None:
    edges = [latencies([FLOOR_S * 1.05**n]).quantile(1.0) for n in (1, 10, 100, 300)]
    assert edges == [pytest.approx(FLOOR_S * 1.05**n, rel=0.0501) for n in (1, 10, 100, 300)]
    assert all(edge is not None and math.isfinite(edge) for edge in edges)


def replica(state: str = "ready", **fields: object) -> ReplicaHealth:
    return ReplicaHealth(agent="a", index=0, spec="s", incarnation="i", pid=1, state=state, **fields)  # type: ignore[arg-type]


@given(values)
@settings(deadline=None)
def test_heartbeat_is_the_same_after_a_round_trip(found: list[float]) -> None:
    health = replica(rejected={"late": 2}, latencies=latencies(found), reason="žluťoučký")
    assert decode_replica(encode(health)) == health


def test_status_is_the_same_after_a_round_trip() -> None:
    link = LinkStatus(to="core", up=True, rtt_s=0.01)
    status = SiteStatus(
        site="north", tier="edge", pid=1, time=2.0, nats_up=True, wanted=1, replicas=[replica()], link=link
    )
    assert decode_site(encode(status)) == status


def test_errors_are_failures_of_the_agents_own_code() -> None:
    assert replica(rejected={"agent_error": 3, "late": 5}).errors == 3
    assert replica().errors == 0


@pytest.mark.parametrize(
    ("nats_up", "wanted", "states", "ready"),
    [
        (True, 2, ["ready", "ready"], True),
        (True, 2, ["ready", "starting"], False),
        (True, 2, ["ready", "failed"], False),
        (True, 1, ["ready", "draining"], True),
        (False, 1, ["ready"], False),
        (True, 0, [], True),
    ],
)
def test_site_is_ready_when_its_server_and_all_wanted_replicas_are(
    nats_up: bool, wanted: int, states: list[str], ready: bool
) -> None:
    replicas = [replica(state) for state in states]
    status = SiteStatus(site="n", tier="edge", pid=1, time=0.0, nats_up=nats_up, wanted=wanted, replicas=replicas)
    assert status.ready is ready
