"""An agent's memory on disk: what was written is there after a restart, and a broken file is told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mesh.agent.memory import Address, Memory
from mesh.errors import AgentError
from mesh.runtime.memory_file import MemoryFile


class Last(BaseModel):
    value: float


def entries(path: Path) -> dict[Address, bytes]:
    """What the next start of the replica would find."""
    file = MemoryFile(path)
    try:
        return dict(file.entries())
    finally:
        file.close()


addresses = st.tuples(st.text(max_size=3), st.text(max_size=3))
changes = st.dictionaries(addresses, st.none() | st.binary(max_size=5), max_size=6)


@given(st.lists(changes, max_size=6))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_holds_what_the_changes_add_up_to(tmp_path: Path, written: list[dict[Address, bytes | None]]) -> None:
    path = tmp_path / "memory.db"
    path.unlink(missing_ok=True)
    file, expected = MemoryFile(path), dict[Address, bytes]()
    for one in written:
        file.write(one)
        expected |= {address: value for address, value in one.items() if value is not None}
        expected = {address: value for address, value in expected.items() if one.get(address, b"") is not None}
    file.close()
    assert entries(path) == expected


def test_new_file_is_empty_and_its_folder_is_made(tmp_path: Path) -> None:
    assert entries(tmp_path / "site" / "memory" / "a-0.db") == {}


def test_deleting_what_was_never_there_is_harmless(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "memory.db")
    file.write({("n", "1"): None})
    file.close()
    assert entries(tmp_path / "memory.db") == {}


def test_what_was_written_is_there_without_an_orderly_end(tmp_path: Path) -> None:
    """Another connection sees it while the first is still open, as after a kill."""
    file = MemoryFile(tmp_path / "memory.db")
    file.write({("n", "1"): b"x"})
    try:
        assert entries(tmp_path / "memory.db") == {("n", "1"): b"x"}
    finally:
        file.close()


def test_changes_are_written_all_or_not_at_all(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "memory.db")
    file.write({("n", "1"): b"old"})
    with pytest.raises(AgentError):
        file.write({("n", "1"): b"new", ("n", "2"): object()})  # type: ignore[dict-item]
    file.close()
    assert entries(tmp_path / "memory.db") == {("n", "1"): b"old"}


def lineage(path: Path) -> str:
    file = MemoryFile(path)
    try:
        return file.lineage()
    finally:
        file.close()


def test_lineage_is_that_of_the_file_whoever_opens_it(tmp_path: Path) -> None:
    assert lineage(tmp_path / "memory.db") == lineage(tmp_path / "memory.db") != ""


def test_file_made_anew_has_another_lineage(tmp_path: Path) -> None:
    first = lineage(tmp_path / "memory.db")
    (tmp_path / "memory.db").unlink()
    assert lineage(tmp_path / "memory.db") != first


def test_agents_memory_goes_through_the_file(tmp_path: Path) -> None:
    memory, file = Memory(), MemoryFile(tmp_path / "memory.db")
    memory.put("last", "1", Last(value=1.5))
    memory.append("load", "1", 1.0, 2.0, length=3)
    file.write(memory.take_changes())
    file.close()
    restored = Memory()
    restored.restore(entries(tmp_path / "memory.db").items())
    assert restored.get("last", "1", Last) == Last(value=1.5)
    assert list(restored.series("load", "1", length=3)) == [(1.0, 2.0)]


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "header"])
def test_file_that_is_no_database_is_told_by_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(content)
    with pytest.raises(AgentError, match=r"memory\.db cannot be used \(.*remove the file"):
        MemoryFile(path)


def test_database_of_another_form_is_told(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE memory (other TEXT)")
    database.close()
    file = MemoryFile(path)
    with pytest.raises(AgentError, match="cannot be used"):
        file.entries()
    file.close()


def test_folder_in_the_files_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="cannot be used"):
        MemoryFile(tmp_path)


def test_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("not a folder")
    with pytest.raises(AgentError, match="cannot be used"):
        MemoryFile(tmp_path / "memory" / "a-0.db")


def test_writing_after_closing_is_told(tmp_path: Path) -> None:
    file = MemoryFile(tmp_path / "memory.db")
    file.close()
    with pytest.raises(AgentError, match="cannot be used"):
        file.write({("n", "1"): b"x"})
