"""Laws of the bounded queue: it never holds too much, loses nothing uncounted and keeps the order of each id."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.agent.declare import ON_FULL, OnFull
from mesh.agent.inlet import Inlet
from mesh.agent.observation import Reason, Rejected

on_full_choices = st.sampled_from(ON_FULL)
steps = st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=60)
"""Ids that are offered; None takes."""


class Counted:
    """An inlet with an account of all that went in and out; items are (id, number of the offer)."""

    def __init__(self, capacity: int, on_full: OnFull) -> None:
        self.inlet = Inlet[tuple[str, int]](capacity, on_full)
        self.offered = 0
        self.rejected = 0
        self.taken: list[tuple[str, int]] = []

    def step(self, id: str | None) -> None:
        if id is None:
            item = self.inlet.take()
            if item is not None:
                self.taken.append(item)
            return
        self.offered += 1
        try:
            self.inlet.offer(id, (id, self.offered))
        except Rejected:
            self.rejected += 1

    def drain(self) -> None:
        while len(self.inlet):
            self.step(None)


@given(st.integers(1, 5), on_full_choices, steps)
@settings(deadline=None)
def test_never_more_wait_than_the_capacity(capacity: int, on_full: OnFull, ids: list[str | None]) -> None:
    counted = Counted(capacity, on_full)
    for id in ids:
        counted.step(id)
        assert len(counted.inlet) <= capacity


@given(st.integers(1, 5), on_full_choices, steps)
@settings(deadline=None)
def test_nothing_is_lost_uncounted(capacity: int, on_full: OnFull, ids: list[str | None]) -> None:
    counted = Counted(capacity, on_full)
    for id in ids:
        counted.step(id)
        inlet = counted.inlet
        assert counted.offered == len(counted.taken) + len(inlet) + inlet.dropped + counted.rejected


@given(st.integers(1, 5), on_full_choices, steps)
@settings(deadline=None)
def test_items_of_one_id_leave_in_the_order_they_came(capacity: int, on_full: OnFull, ids: list[str | None]) -> None:
    counted = Counted(capacity, on_full)
    for id in ids:
        counted.step(id)
    counted.drain()
    for id in "abcd":
        numbers = [number for found, number in counted.taken if found == id]
        assert numbers == sorted(set(numbers))


@given(st.integers(1, 5), on_full_choices, steps)
@settings(deadline=None)
def test_drained_inlet_is_empty(capacity: int, on_full: OnFull, ids: list[str | None]) -> None:
    counted = Counted(capacity, on_full)
    for id in ids:
        counted.step(id)
    counted.drain()
    assert counted.inlet.take() is None


@given(st.integers(1, 5), on_full_choices, st.lists(st.sampled_from("abcd"), max_size=60))
@settings(deadline=None)
def test_with_room_for_everything_nothing_is_rejected(capacity: int, on_full: OnFull, ids: list[str]) -> None:
    counted = Counted(capacity + len(ids), on_full)
    for id in ids:
        counted.step(id)
    assert counted.rejected == 0
    assert len(counted.inlet) == (len(set(ids)) if on_full == "latest_per_id" else len(ids))


@given(st.integers(1, 5), steps)
@settings(deadline=None)
def test_latest_per_id_behaves_as_its_model_says(capacity: int, ids: list[str | None]) -> None:
    """The newest per id waits at the place of the oldest; a new id pushes out the id that has waited longest."""
    counted = Counted(capacity, "latest_per_id")
    waiting: OrderedDict[str, tuple[str, int]] = OrderedDict()
    for id in ids:
        expected = [*counted.taken, waiting.popitem(last=False)[1]] if id is None and waiting else counted.taken[:]
        counted.step(id)
        if id is not None:
            if id not in waiting and len(waiting) == capacity:
                waiting.popitem(last=False)
            waiting[id] = (id, counted.offered)
        assert counted.taken == expected
    rest = list(waiting.values())
    before = len(counted.taken)
    counted.drain()
    assert counted.taken[before:] == rest


@given(st.integers(1, 5), st.lists(st.sampled_from("abcd"), max_size=60))
@settings(deadline=None)
def test_drop_oldest_keeps_the_newest(capacity: int, ids: list[str]) -> None:
    counted = Counted(capacity, "drop_oldest")
    for id in ids:
        counted.step(id)
    counted.drain()
    assert counted.taken == list(zip(ids, range(1, len(ids) + 1), strict=True))[-capacity:]


@given(st.integers(1, 5), st.lists(st.sampled_from("abcd"), max_size=60))
@settings(deadline=None)
def test_reject_keeps_the_oldest(capacity: int, ids: list[str]) -> None:
    counted = Counted(capacity, "reject")
    for id in ids:
        counted.step(id)
    counted.drain()
    assert counted.taken == list(zip(ids, range(1, len(ids) + 1), strict=True))[:capacity]
    assert counted.inlet.dropped == 0


def test_refusal_tells_how_many_wait() -> None:
    inlet = Inlet[int](1, "reject")
    inlet.offer("a", 1)
    with pytest.raises(Rejected, match="1 observations are waiting") as refused:
        inlet.offer("b", 2)
    assert refused.value.reason is Reason.QUEUE_FULL


def test_after_a_refusal_there_is_room_again_as_soon_as_one_is_taken() -> None:
    inlet = Inlet[int](1, "reject")
    inlet.offer("a", 1)
    with pytest.raises(Rejected):
        inlet.offer("a", 2)
    assert inlet.take() == 1
    inlet.offer("a", 3)
    assert inlet.take() == 3


def test_busy_id_does_not_lose_its_place() -> None:
    inlet = Inlet[str](3, "latest_per_id")
    for id, item in (("busy", "old"), ("calm", "only"), ("busy", "new")):
        inlet.offer(id, item)
    assert [inlet.take(), inlet.take()] == ["new", "only"]
