"""Laws of an agent's memory: bounded, ordered by event time, and the same after it went through a file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field

from mesh.agent.memory import Address, Memory, Series
from mesh.errors import AgentError

HOUR = 3600.0


class Last(BaseModel):
    value: float
    note: str = ""


class Other(BaseModel):
    count: int


times = st.integers(0, 100).map(float)
points = st.lists(st.tuples(times, st.floats(allow_nan=False)), max_size=40)
names = st.sampled_from(["n", "m"])
keys = st.sampled_from(["1", "2", "3"])
writes = st.lists(
    st.tuples(st.just("append"), names, keys, st.tuples(times, st.floats(allow_nan=False)))
    | st.tuples(st.just("put"), names, keys, st.builds(Last, value=st.floats(-1e9, 1e9), note=st.text(max_size=3)))
    | st.tuples(st.just("flush"), names, keys, st.none()),
    max_size=40,
)
LENGTH = 4


def series_of(found: Iterable[tuple[float, float]], length: int = 1000) -> Series:
    memory = Memory()
    for time, value in found:
        memory.append("n", "1", time, value, length=length)
    return memory.series("n", "1", length=length)


def write(memory: Memory, file: dict[Address, bytes], step: tuple) -> None:
    what, name, key, value = step
    if what == "append":
        memory.append(name, key, *value, length=LENGTH)
    elif what == "put":
        memory.put(name, key, value)
    else:
        flush(memory, file)


def flush(memory: Memory, file: dict[Address, bytes]) -> None:
    """What the replica's memory file does."""
    for address, payload in memory.take_changes().items():
        if payload is None:
            file.pop(address, None)
        else:
            file[address] = payload


def told(memory: Memory) -> dict[str, object]:
    """Everything that can be read of a memory."""
    return {
        f"{name} {key}": (list(memory.series(name, key, length=LENGTH)), memory.get(name, key, Last))
        for name in "nm"
        for key in "123"
    }


@given(points, st.integers(1, 10))
@settings(deadline=None)
def test_history_holds_the_newest_times_in_order_each_with_its_last_value(
    found: list[tuple[float, float]], length: int
) -> None:
    """Given every point lies above what was trimmed, the history is a sorted, bounded dictionary."""
    in_order = sorted(found, key=lambda point: point[0])
    series = series_of(in_order, length)
    assert list(series) == sorted(dict(in_order).items())[-length:]


@given(points, st.integers(1, 10))
@settings(deadline=None)
def test_history_is_bounded_and_sorted_whatever_the_order(found: list[tuple[float, float]], length: int) -> None:
    memory = Memory()
    for time, value in found:
        series = memory.append("n", "1", time, value, length=length)
        at = [time for time, _ in series]
        assert at == sorted(set(at))
        assert len(series) <= length


@given(points)
@settings(deadline=None)
def test_history_with_room_does_not_depend_on_the_order_of_different_times(found: list[tuple[float, float]]) -> None:
    distinct = list(dict(found).items())
    assert list(series_of(distinct)) == list(series_of(reversed(distinct)))


@given(points)
@settings(deadline=None)
def test_known_time_is_overwritten(found: list[tuple[float, float]]) -> None:
    assert dict(series_of(found)) == dict(found)


def test_last_is_the_newest_by_event_time() -> None:
    assert series_of([(2.0, 20.0), (3.0, 30.0), (1.0, 10.0)]).last == (3.0, 30.0)


def test_empty_history_has_no_last() -> None:
    assert series_of([]).last is None


def test_point_older_than_a_full_history_is_not_kept() -> None:
    assert list(series_of([(2.0, 2.0), (3.0, 3.0), (1.0, 1.0)], length=2)) == [(2.0, 2.0), (3.0, 3.0)]


@given(points, st.integers(-5, 30), st.integers(0, 30), st.sampled_from([1.0, 3.0, 7.5]))
@settings(deadline=None)
def test_window_shows_the_newest_value_of_each_step_and_nan_for_gaps(
    found: list[tuple[float, float]], newest: int, count: int, step_s: float
) -> None:
    series = series_of(found)
    expected = [math.nan] * count
    for time, value in series:
        age = newest - math.floor(time / step_s)
        if 0 <= age < count:
            expected[age] = value
    np.testing.assert_array_equal(series.window(step_s, newest, count), expected)


def test_window_shows_the_newest_step_first() -> None:
    series = series_of([(10 * HOUR, 1.0), (11 * HOUR, 2.0), (13 * HOUR, 3.0)])
    np.testing.assert_array_equal(series.window(HOUR, 13, 5), [3.0, np.nan, 2.0, 1.0, np.nan])


def test_window_takes_the_newest_of_several_values_in_a_step() -> None:
    series = series_of([(10 * HOUR + 1800, 2.0), (10 * HOUR, 1.0), (10 * HOUR + 3599, 3.0)])
    np.testing.assert_array_equal(series.window(HOUR, 10, 1), [3.0])


def test_window_leaves_out_what_is_newer() -> None:
    series = series_of([(10 * HOUR, 1.0), (11 * HOUR, 2.0)])
    np.testing.assert_array_equal(series.window(HOUR, 10, 2), [1.0, np.nan])


def test_window_of_an_empty_history_is_all_gaps() -> None:
    assert np.isnan(series_of([]).window(HOUR, 10, 3)).all()


def test_history_of_another_length_keeps_the_newest_points() -> None:
    memory = Memory()
    for time in range(5):
        memory.append("n", "1", float(time), 0.0, length=5)
    shorter = memory.append("n", "1", 5.0, 0.0, length=2)
    assert [time for time, _ in shorter] == [4.0, 5.0]
    assert [time for time, _ in memory.append("n", "1", 6.0, 0.0, length=9)] == [4.0, 5.0, 6.0]


@pytest.mark.parametrize("length", [0, -1])
def test_history_without_room_is_refused(length: int) -> None:
    with pytest.raises(AgentError, match="1 to 1000000"):
        Memory().append("n", "1", 0.0, 0.0, length=length)


def test_reading_a_history_does_not_make_one() -> None:
    memory = Memory()
    memory.series("n", "1", length=3)
    assert memory.keys("n") == ()
    assert memory.take_changes() == {}


def test_value_that_was_never_put_is_none() -> None:
    assert Memory().get("n", "1", Last) is None


def test_value_is_found_again_and_replaced() -> None:
    memory = Memory()
    memory.put("n", "1", Last(value=1.0))
    memory.put("n", "1", Last(value=2.0))
    assert memory.get("n", "1", Last) == Last(value=2.0)


def test_value_of_another_form_counts_as_absent() -> None:
    memory = Memory()
    memory.put("n", "1", Last(value=1.0))
    assert memory.get("n", "1", Other) is None


def test_value_of_another_form_counts_as_absent_after_a_restart() -> None:
    memory, restored = Memory(), Memory()
    memory.put("n", "1", Last(value=1.0))
    restored.restore((address, payload) for address, payload in memory.take_changes().items() if payload)
    assert restored.get("n", "1", Other) is None
    assert restored.get("n", "1", Last) == Last(value=1.0)


def test_keys_are_those_of_histories_and_values_sorted_and_once() -> None:
    memory = Memory()
    memory.put("n", "b", Last(value=1.0))
    memory.append("n", "a", 0.0, 0.0, length=1)
    memory.append("n", "b", 0.0, 0.0, length=1)
    memory.append("other", "c", 0.0, 0.0, length=1)
    assert memory.keys("n") == ("a", "b")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9).map(str)), max_size=60), st.integers(1, 5))
@settings(deadline=None)
def test_memory_never_holds_more_than_its_bound(written: list[tuple[bool, str]], entries_max: int) -> None:
    memory = Memory(entries_max)
    for is_history, key in written:
        if is_history:
            memory.append("history", key, 0.0, 0.0, length=1)
        else:
            memory.put("value", key, Last(value=0.0))
        assert len(memory.keys("history")) + len(memory.keys("value")) <= entries_max


@given(st.lists(st.integers(0, 9).map(str), max_size=60), st.integers(1, 5))
@settings(deadline=None)
def test_least_recently_written_entry_is_forgotten_first(written: list[str], entries_max: int) -> None:
    memory = Memory(entries_max)
    for key in written:
        memory.put("n", key, Last(value=0.0))
    newest_first = list(dict.fromkeys(reversed(written)))
    assert memory.keys("n") == tuple(sorted(newest_first[:entries_max]))


@given(st.lists(st.integers(0, 9).map(str), unique=True), st.integers(1, 5))
@settings(deadline=None)
def test_memory_restored_from_more_than_its_bound_holds_no_more_than_that(kept: list[str], entries_max: int) -> None:
    """Given the bound was lowered between two starts."""
    before, after = Memory(), Memory(entries_max)
    for key in kept:
        before.put("n", key, Last(value=0.0))
    after.restore((address, payload) for address, payload in before.take_changes().items() if payload)
    assert len(after.keys("n")) <= entries_max


@given(writes)
@settings(deadline=None)
def test_memory_restored_from_its_changes_tells_the_same(steps: list[tuple]) -> None:
    memory, file = Memory(), dict[Address, bytes]()
    for step in steps:
        write(memory, file, step)
    flush(memory, file)
    restored = Memory()
    restored.restore(file.items())
    assert told(restored) == told(memory)


@given(writes, st.integers(1, 3))
@settings(deadline=None)
def test_what_a_full_memory_forgot_is_not_in_its_file_either(steps: list[tuple], entries_max: int) -> None:
    memory, file = Memory(entries_max), dict[Address, bytes]()
    for step in steps:
        write(memory, file, step)
    flush(memory, file)
    restored = Memory()
    restored.restore(file.items())
    assert told(restored) == told(memory)


@given(writes, writes)
@settings(deadline=None)
def test_restored_memory_goes_on_as_if_there_had_been_no_restart(before: list[tuple], after: list[tuple]) -> None:
    whole, file = Memory(), dict[Address, bytes]()
    for step in before:
        write(whole, file, step)
    flush(whole, file)
    restarted = Memory()
    restarted.restore(file.items())
    for step in after:
        write(whole, {}, step)
        write(restarted, file, step)
    assert told(restarted) == told(whole)


@given(writes)
@settings(deadline=None)
def test_changes_are_told_once(steps: list[tuple]) -> None:
    memory = Memory()
    for step in steps:
        write(memory, {}, step)
    memory.take_changes()
    assert memory.take_changes() == {}


def test_restored_entries_are_no_changes() -> None:
    memory, restored = Memory(), Memory()
    memory.put("n", "1", Last(value=1.0))
    restored.restore((address, payload) for address, payload in memory.take_changes().items() if payload)
    assert restored.get("n", "1", Last)
    assert restored.take_changes() == {}


def test_changes_that_were_not_kept_are_given_again() -> None:
    memory = Memory()
    memory.append("history", "1", 1.0, 2.0, length=3)
    changes = memory.take_changes()
    memory.not_kept(changes)
    assert memory.take_changes() == changes


def test_value_that_cannot_be_kept_is_refused_when_it_is_put() -> None:
    """Later it would be the replica's failure to write its memory, and no longer the agent's."""

    class Holder(BaseModel):
        thing: Any

    with pytest.raises(AgentError, match="'n' of '1'"):
        Memory().put("n", "1", Holder(thing=object()))


def test_forgotten_entry_is_told_as_none() -> None:
    memory = Memory(entries_max=1)
    memory.put("n", "1", Last(value=1.0))
    memory.take_changes()
    memory.put("n", "2", Last(value=2.0))
    changes = memory.take_changes()
    assert changes[("n", "1")] is None
    assert changes[("n", "2")] is not None


@given(st.binary(max_size=12))
@example(msgspec.msgpack.encode((-1, [], None)))
@example(msgspec.msgpack.encode((2, [[1.0]], None)))
@example(msgspec.msgpack.encode((2**60, [], None)))
@settings(deadline=None)
def test_bytes_that_were_never_given_are_read_or_refused_and_nothing_else(payload: bytes) -> None:
    memory = Memory()
    with suppress(AgentError):
        memory.restore([(("n", "1"), payload)])
    assert len(memory.keys("n")) <= 1


def test_refusal_of_unreadable_bytes_names_the_entry() -> None:
    with pytest.raises(AgentError, match="'n' of '1' cannot be read; delete the replica's memory file"):
        Memory().restore([(("n", "1"), b"\xff")])


class Aliased(BaseModel):
    value: float = Field(alias="Value of it")


class Derived(BaseModel):
    model_config = ConfigDict(extra="forbid")

    value: float

    @computed_field  # type: ignore[prop-decorator]
    @property
    def twice(self) -> float:
        return 2.0 * self.value


@pytest.mark.parametrize(
    "value",
    [Last(value=math.inf), Last(value=-math.inf), Aliased.model_validate({"Value of it": 1.0}), Derived(value=1.0)],
    ids=["infinity", "minus infinity", "a field with an alias", "a computed field"],
)
def test_value_of_any_model_survives_a_restart(value: BaseModel) -> None:
    memory, restored = Memory(), Memory()
    memory.put("n", "1", value)
    restored.restore((address, payload) for address, payload in memory.take_changes().items() if payload)
    assert restored.get("n", "1", type(value)) == value


def test_key_that_is_no_text_is_refused_since_it_would_not_be_found_again() -> None:
    with pytest.raises(AgentError, match="use strings"):
        Memory().append("history", 7, 1.0, 2.0, length=3)  # type: ignore[arg-type]
