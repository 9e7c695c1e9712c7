"""An agent's class is found beside the topology file first, and what is wrong with it is told in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.forecasting import CellForecast
from mesh.errors import AgentError
from mesh.runtime.load import load_class

AGENT = """
from mesh import Agent, every

class {name}(Agent):
    @every("1s")
    async def tick(self) -> None: ...
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module of a user's; afterwards the process knows neither it nor its folder."""
    known = set(sys.modules)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def one(text: str, module: str = "users_agent", folder: str = "project") -> str:
        path = tmp_path / folder / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(tmp_path / folder)

    yield one
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_class_beside_the_topology_is_found(write: Write) -> None:
    folder = write(AGENT.format(name="Mine"))
    found = load_class("users_agent:Mine", [folder])
    assert (found.__module__, found.__name__) == ("users_agent", "Mine")


def test_class_in_a_package_beside_the_topology_is_found(write: Write) -> None:
    folder = write(AGENT.format(name="Mine"), "users_package.deep.agent")
    assert load_class("users_package.deep.agent:Mine", [folder]).__name__ == "Mine"


def test_class_on_the_python_path_is_found_without_folders() -> None:
    assert load_class("agents.forecasting:CellForecast", []) is CellForecast


def test_first_folder_wins(write: Write) -> None:
    first = write(AGENT.format(name="Mine") + "WHERE = 1\n", folder="first")
    second = write(AGENT.format(name="Mine") + "WHERE = 2\n", folder="second")
    load_class("users_agent:Mine", [first, second])
    assert sys.modules["users_agent"].WHERE == 1


def test_folder_wins_over_the_python_path(write: Write) -> None:
    on_the_path = write(AGENT.format(name="Mine") + "WHERE = 'path'\n", folder="path")
    sys.path.insert(0, on_the_path)
    beside = write(AGENT.format(name="Mine") + "WHERE = 'beside'\n", folder="beside")
    load_class("users_agent:Mine", [beside])
    assert sys.modules["users_agent"].WHERE == "beside"


def test_folder_that_is_on_the_python_path_already_wins_over_what_stands_before_it(write: Write) -> None:
    before = write(AGENT.format(name="Mine") + "WHERE = 'before'\n", folder="before")
    beside = write(AGENT.format(name="Mine") + "WHERE = 'beside'\n", folder="beside")
    sys.path[:0] = [before, beside]
    load_class("users_agent:Mine", [beside])
    assert sys.modules["users_agent"].WHERE == "beside"


def test_neighbours_of_the_module_can_be_imported(write: Write) -> None:
    write("LIMIT = 7\n", "users_neighbour")
    folder = write("from users_neighbour import LIMIT\n" + AGENT.format(name="Mine"))
    assert load_class("users_agent:Mine", [folder])
    assert sys.modules["users_agent"].LIMIT == 7


def test_folders_are_added_once(write: Write) -> None:
    folder = write(AGENT.format(name="Mine"))
    for _ in range(3):
        load_class("users_agent:Mine", [folder])
    assert sys.path.count(folder) == 1


def test_module_that_was_written_after_a_failed_search_is_found(write: Write, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with pytest.raises(AgentError):
        load_class("users_agent:Mine", [str(tmp_path / "project")])
    write(AGENT.format(name="Mine"))
    assert load_class("users_agent:Mine", [str(tmp_path / "project")])


@pytest.mark.parametrize("reference", ["no_such_module_anywhere:Mine", ":Mine", "agents.nothing:Mine", "..x:Mine"])
def test_module_that_is_not_there_is_told(reference: str) -> None:
    with pytest.raises(AgentError, match="cannot be imported"):
        load_class(reference, [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("def broken(:\n", "SyntaxError"),
        ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("from mesh import Agent\n\nclass A(Agent):\n    def __init__(self): ...\n", "use setup"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
    ],
    ids=["a failing module", "bad syntax", "a missing import", "a refused class", "a module that exits"],
)
def test_module_that_cannot_be_imported_is_told_with_the_reason(write: Write, text: str, told: str) -> None:
    folder = write(text)
    with pytest.raises(AgentError, match="users_agent cannot be imported") as raised:
        load_class("users_agent:A", [folder])
    assert told in str(raised.value)


@pytest.mark.parametrize("reference", ["users_agent:Other", "users_agent:", "users_agent"])
def test_class_that_is_not_there_is_told(write: Write, reference: str) -> None:
    folder = write(AGENT.format(name="Mine"))
    with pytest.raises(AgentError, match="users_agent has no class"):
        load_class(reference, [folder])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mine = 7\n", "users_agent:Mine is no agent class"),
        ("class Mine: ...\n", "users_agent:Mine is no agent class"),
        ("from mesh import Agent as Mine\n", "users_agent:Mine is no agent class"),
        ("from mesh import Agent\n\nclass Mine(Agent): ...\n", "users_agent:Mine waits for nothing"),
    ],
    ids=["a number", "another class", "the base class", "an agent without methods"],
)
def test_what_is_no_agent_is_told_by_its_reference(write: Write, text: str, told: str) -> None:
    folder = write(text)
    with pytest.raises(AgentError, match=told):
        load_class("users_agent:Mine", [folder])
