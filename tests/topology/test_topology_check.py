"""Each check finds its mistake, at its place, and nothing else; none of them stumbles over another's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_expected import JUDGED

from mesh.topology.check import CHECKS, VALUE_CHECKS, WHOLE_CHECKS, Check, judge
from mesh.topology.checks.cycles import cycles
from mesh.topology.classes import find_module
from mesh.topology.load import inspect
from mesh.topology.model import Topology

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("mistake", JUDGED)
def test_mistake_is_told_with_its_place(mistake: str) -> None:
    path = FIXTURES / f"{mistake}.yaml"
    told = [str(finding).removeprefix(f"{path}:") for finding in inspect(path).findings]
    assert len(told) == len(JUDGED[mistake])
    for finding, expected in zip(told, JUDGED[mistake], strict=True):
        assert finding.startswith(expected)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.__module__.rpartition('.')[2]}.{check.__name__}")
def test_check_has_a_fixture(check: Check) -> None:
    topologies = (inspect(FIXTURES / f"{mistake}.yaml").topology for mistake in JUDGED)
    assert any(any(check(topology, FIXTURES)) for topology in topologies if topology is not None)


def test_checks_are_listed_once() -> None:
    assert len(set(CHECKS)) == len(CHECKS) == len(VALUE_CHECKS) + len(WHOLE_CHECKS)


def test_class_is_found_without_importing_it() -> None:
    assert inspect(FIXTURES / "slo-of-zero.yaml").topology is not None
    assert "fixture_agents" not in sys.modules


def test_class_is_found_beside_the_folder_of_the_file(tmp_path: Path) -> None:
    module = tmp_path / "agents" / "forecasting.py"
    module.parent.mkdir()
    module.touch()
    (tmp_path / "topologies").mkdir()
    assert find_module("agents.forecasting", tmp_path / "topologies") == module


def test_package_beside_the_file_comes_first(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "topologies"):
        (folder / "agents").mkdir(parents=True)
        (folder / "agents" / "__init__.py").touch()
    found = find_module("agents", tmp_path / "topologies")
    assert found == tmp_path / "topologies" / "agents" / "__init__.py"


def test_class_is_found_on_the_python_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "installed_agents" / "deep" / "module.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert find_module("installed_agents.deep.module", FIXTURES) == module
    assert find_module("installed_agents", FIXTURES) is None
    assert find_module("installed_agents..module", FIXTURES) is None


def test_star_import_leaves_the_class_open(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("from elsewhere import *\n")
    assert _problems(tmp_path, {"a": {"class": "agents:Anything", "sites": {}}}) == []


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nif sys:\n    class A: ...\n",
        "try:\n    from fast import A\nexcept ImportError:\n    from slow import A\n",
        "from elsewhere import B as A\n",
        "class B: ...\nA: type = B\n",
    ],
)
def test_class_may_be_bound_in_many_ways(tmp_path: Path, source: str) -> None:
    (tmp_path / "agents.py").write_text(source)
    assert _problems(tmp_path, {"a": {"class": "agents:A", "sites": {}}}) == []


@pytest.mark.parametrize("source", [b"class A(:\n", b"class A: ...\0", b"# coding: nonsense\n", b"\xff"])
def test_module_that_cannot_be_read_is_told(tmp_path: Path, source: bytes) -> None:
    (tmp_path / "agents.py").write_bytes(source)
    assert _problems(tmp_path, {"a": {"class": "agents:A", "sites": {}}}) == ["agents.a.class"]


def test_class_within_a_function_is_missing(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text("def f():\n    class A: ...\n")
    assert _problems(tmp_path, {"a": {"class": "agents:A", "sites": {}}}) == ["agents.a.class"]


def test_no_cycle_is_seen_where_agents_only_share_a_source() -> None:
    assert list(cycles({"a": ["c"], "b": ["a", "c"], "c": [], "d": ["b", "elsewhere"]})) == []


@given(st.dictionaries(st.sampled_from("abcdef"), st.lists(st.sampled_from("abcdefg"), max_size=4)))
def test_cycles_are_cycles_and_none_is_overlooked(edges: dict[str, list[str]]) -> None:
    found = list(cycles(edges))
    for cycle in found:
        assert all(cycle[(index + 1) % len(cycle)] in edges[name] for index, name in enumerate(cycle))
    assert bool(found) == any(name in _reached(edges, edges[name]) for name in edges)


def _reached(edges: dict[str, list[str]], names: list[str]) -> set[str]:
    reached: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(edges.get(name, ()))
    return reached


names = st.sampled_from(["a", "b", "c", "A", "b-1", "b_1"])
uplinks = st.none() | st.fixed_dictionaries({"to": names}, optional={"latency": st.sampled_from(["4ms", "2s"])})
sites = st.fixed_dictionaries(
    {"tier": st.sampled_from(["edge", "regional", "cloud"]), "uplink": uplinks},
    optional={
        "nats": st.sampled_from(["nats://a:1", "tls://[::1", "x", "", "nats://:99999"]),
        "ray": st.text(max_size=5),
        "listen": st.fixed_dictionaries({"host": st.text(max_size=5)}, optional={"leaf": st.just(1)}),
    },
)
agents = st.fixed_dictionaries(
    {"class": st.sampled_from(["a:B", "a..b:C"]), "sites": st.fixed_dictionaries({})},
    optional={
        "consumes": st.lists(names, max_size=3),
        "escalate": st.dictionaries(st.sampled_from(["to", "below"]), names | st.integers()),
        "model": names,
    },
)
telemetry = st.fixed_dictionaries(
    {"sites": st.dictionaries(names, st.lists(st.text(max_size=2), max_size=3), max_size=3)},
    optional={"folder": st.text(max_size=5)},
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names, sites, min_size=1), st.dictionaries(names, agents), st.dictionaries(names, telemetry))
def test_checks_never_stumble(sites: object, agents: object, telemetry: object) -> None:
    data = {"apiVersion": "mesh/v1", "mesh": "m", "sites": sites, "agents": agents, "telemetry": telemetry}
    for problem in judge(Topology.model_validate(data), FIXTURES):
        assert problem.problem
        assert problem.allowed


def _problems(folder: Path, agents: dict[str, object]) -> list[str]:
    data = {"apiVersion": "mesh/v1", "mesh": "m", "sites": {"core": {"tier": "cloud"}}, "agents": agents}
    found = judge(Topology.model_validate(data), folder)
    return [".".join(str(part) for part in problem.path) for problem in found]
