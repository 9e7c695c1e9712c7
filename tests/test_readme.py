"""What the README shows works: the agent decides as said, commands and make targets are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

from mesh.cli.main import app
from mesh.testing import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _tested(name: str) -> str:
    """The Python block after `<!-- tested: NAME -->`."""
    found = re.findall(rf"^<!-- tested: {name} -->\n```python\n(.*?)^```$", README, re.M | re.S)
    assert len(found) == 1
    return str(found[0])


def test_the_agent_decides_as_its_comment_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = _tested("agent")
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), names)
    promised = re.findall(r"^print\(.*\)  # (.+)$", code, re.M)
    assert ast.literal_eval(capsys.readouterr().out) == ast.literal_eval(promised[0])


def test_the_agent_forgets_no_cell() -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(_tested("agent"), "README.md", "exec"), names)
    agent = names["JumpDetector"]
    assert isinstance(agent, type)
    loads = [("a", 10.0), ("b", 90.0), ("a", 20.0), ("b", 50.0)]
    times = ["2026-01-05T00:00:00Z", "2026-01-05T00:00:00Z", "2026-01-05T01:00:00Z", "2026-01-05T01:00:00Z"]
    given = [{"cell": c, "time": t, "prb_dl": v} for (c, v), t in zip(loads, times, strict=True)]
    result = run(agent, given)
    assert result.decisions == [{"cell": "b", "change": -40.0}]
    assert result.rejections == []


def test_the_application_is_ten_lines_of_nats_alone() -> None:
    lines = [line for line in _tested("application").splitlines() if line.strip()]
    imported = {alias.name for node in ast.parse("\n".join(lines)).body if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    assert imported <= {"asyncio", "json", "sys", "nats"}
    assert len(lines) <= 10


def test_every_command_it_shows_exists() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S))
    shown = re.findall(r"^(?:\.venv/bin/)?mesh ((?:[a-z]+ ?){1,2})", blocks, re.M)
    assert shown
    for words in (line.split() for line in shown):
        assert words[0] in commands, words
        inner = getattr(commands[words[0]], "commands", None)
        assert inner is None or words[1] in inner, words


def test_every_make_target_it_shows_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M)) <= targets
