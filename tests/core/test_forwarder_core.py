"""The forwarder's pure parts: how a backlog is cut into batches, and the cursors that survive a restart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.errors import FabricError
from mesh.site.forwarder import Answer, Batch, Carried, Cursor, CursorFile, Cursors, batches
from mesh.transport.stream import Stored

in_one_folder = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

sizes = st.lists(st.integers(0, 30), max_size=40)
bounds = st.integers(1, 60)


def backlog(found: list[int]) -> list[Stored]:
    return [Stored(number, f"m.decision.{number}", b"x" * size, f"id-{number}") for number, size in enumerate(found, 1)]


def size(batch: list[Stored]) -> int:
    return sum(len(one.data) for one in batch)


@given(sizes, bounds)
@settings(deadline=None)
def test_batches_together_are_the_backlog_in_its_order(found: list[int], bytes_max: int) -> None:
    assert [one for batch in batches(backlog(found), bytes_max) for one in batch] == backlog(found)


@given(sizes, bounds)
@settings(deadline=None)
def test_no_batch_is_empty(found: list[int], bytes_max: int) -> None:
    assert all(batches(backlog(found), bytes_max))


@given(sizes, bounds)
@settings(deadline=None)
def test_no_batch_is_too_large_unless_it_is_a_single_decision(found: list[int], bytes_max: int) -> None:
    assert all(size(batch) <= bytes_max or len(batch) == 1 for batch in batches(backlog(found), bytes_max))


@given(sizes, bounds)
@settings(deadline=None)
def test_no_two_neighbouring_batches_would_have_fitted_into_one(found: list[int], bytes_max: int) -> None:
    cut = batches(backlog(found), bytes_max)
    assert all(size(one) + len(other[0].data) > bytes_max for one, other in pairwise(cut))


def test_backlog_that_fits_is_one_batch() -> None:
    assert batches(backlog([10, 10]), 20) == [backlog([10, 10])]


def test_large_decision_travels_alone() -> None:
    assert [len(batch) for batch in batches(backlog([5, 100, 5]), 20)] == [1, 1, 1]


cursor_values = st.builds(Cursor, incarnation=st.text(), sequence=st.integers(0, 2**63 - 1))
all_cursors = st.builds(Cursors, up=cursor_values, children=st.dictionaries(st.text(), cursor_values, max_size=5))


@given(all_cursors)
@in_one_folder
def test_cursors_are_the_same_after_a_restart(tmp_path: Path, cursors: Cursors) -> None:
    path = tmp_path / "cursors.json"
    CursorFile(path, cursors).save()
    again = CursorFile(path)
    again.load()
    assert again.cursors == cursors


def test_without_a_file_everything_is_carried_again(tmp_path: Path) -> None:
    file = CursorFile(tmp_path / "cursors.json", Cursors(Cursor("x", 7)))
    file.load()
    assert file.cursors == Cursors()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"up": 3}', '{"up": {"sequence": "seven"}}', '{"children": {"a": 1}}', "\x00\x01"],
)
def test_garbled_file_is_set_aside_and_everything_is_carried_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cursors.json"
    path.write_text(text)
    found = CursorFile(path)
    found.load()
    assert found.cursors == Cursors()
    assert not path.exists()
    assert path.with_suffix(".garbled").read_text() == text


@given(st.binary(max_size=40))
@in_one_folder
def test_arbitrary_bytes_are_cursors_or_garbled_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cursors.json"
    path.write_bytes(content)
    file = CursorFile(path)
    try:
        file.load()
    except FabricError:
        file.cursors = Cursors()
    assert isinstance(file.cursors, Cursors)


def test_saved_file_replaces_the_old_one_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "cursors.json"
    for sequence in (1, 2):
        CursorFile(path, Cursors(Cursor("x", sequence))).save()
    assert [file.name for file in tmp_path.iterdir()] == ["cursors.json"]


def test_two_cursor_files_share_nothing(tmp_path: Path) -> None:
    one, other = CursorFile(tmp_path / "1"), CursorFile(tmp_path / "2")
    one.cursors.children["a"] = Cursor("x", 1)
    assert other.cursors.children == {}


@given(
    st.text(), st.lists(st.builds(Carried, st.integers(0, 2**63 - 1), st.text(), st.text(), st.binary()), max_size=5)
)
@settings(deadline=None)
def test_batch_is_the_same_after_its_journey(incarnation: str, carried: list[Carried]) -> None:
    batch = Batch(incarnation, carried)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(batch), type=Batch) == batch


@given(st.integers(0, 2**63 - 1), st.integers(0, 1000))
@settings(deadline=None)
def test_answer_is_the_same_after_its_journey(sequence: int, refused: int) -> None:
    answer = Answer(sequence, refused)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=Answer) == answer


def test_answer_of_a_parent_that_counts_no_refusals_can_be_read() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([7]), type=Answer) == Answer(7, 0)
