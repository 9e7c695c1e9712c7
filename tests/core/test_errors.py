"""Every expected failure says in one sentence what is wrong and what to do about it, and carries its data."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mesh
from mesh import errors
from mesh.errors import MeshError, TopologyError, UsageError

PACKAGES = ("agent", "fabric", "telemetry", "topology", "transport")


def subclasses(of: type[MeshError]) -> list[type[MeshError]]:
    return [found for child in of.__subclasses__() for found in (child, *subclasses(child))]


def every_error() -> list[type[MeshError]]:
    for package in PACKAGES:
        for module in pkgutil.iter_modules([f"{mesh.__path__[0]}/{package}"]):
            importlib.import_module(f"mesh.{package}.{module.name}")
    homes = ("mesh.errors", *(f"mesh.{package}." for package in PACKAGES))
    return sorted((e for e in subclasses(MeshError) if e.__module__.startswith(homes)), key=lambda e: e.__name__)


EXAMPLES = {"int": 2**30, "tuple[str, ...]": ("the first thing", "the second thing")}
"""Arguments by annotation; all others are texts."""


def make(kind: type[MeshError]) -> MeshError:
    """An error with an example of each of its arguments."""
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return kind(*(EXAMPLES.get(str(one.annotation), f"its {one.name}") for one in parameters))


ALL = every_error()


@pytest.mark.parametrize("kind", ALL)
def test_error_says_the_problem_and_the_remedy_on_one_line(kind: type[MeshError]) -> None:
    error = make(kind)
    assert error.problem
    assert error.remedy
    assert str(error) == f"{error.problem}; {error.remedy}"
    assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ALL)
def test_exit_code_is_2_for_wrong_use_and_1_for_everything_else(kind: type[MeshError]) -> None:
    assert make(kind).exit_code == (2 if issubclass(kind, UsageError) else 1)


@pytest.mark.parametrize("kind", ALL)
def test_error_says_what_it_stands_for(kind: type[MeshError]) -> None:
    assert kind.__doc__


@pytest.mark.parametrize("kind", ALL)
def test_sentence_names_the_texts_that_the_error_carries(kind: type[MeshError]) -> None:
    error = make(kind)
    data = {name: value for name, value in vars(error).items() if name not in ("problem", "remedy")}
    named = [str(value) for value in data.values() if isinstance(value, str)]
    assert all(value in str(error) for value in named)


@pytest.mark.parametrize("kind", [errors.UnitError, errors.SubjectError])
def test_error_of_a_wrong_value_is_a_value_error_for_pydantic(kind: type[MeshError]) -> None:
    assert issubclass(kind, ValueError)


@given(st.integers(1, 50))
@settings(deadline=None)
def test_topology_error_counts_its_findings_and_names_the_first(count: int) -> None:
    findings = tuple(f"m.yaml:{line}:1: wrong" for line in range(1, count + 1))
    error = TopologyError("m.yaml", findings)
    assert error.findings == findings
    assert f"has {count} finding{'s' if count > 1 else ''}: m.yaml:1:1: wrong" in error.problem
    assert "mesh validate m.yaml" in error.remedy


def test_placement_error_names_every_shortage() -> None:
    error = errors.PlacementError(("a needs 4 cpus", "b needs a gpu"))
    assert "a needs 4 cpus; b needs a gpu" in error.problem


def test_full_disk_is_told_in_mebibytes() -> None:
    error = errors.DiskFullError("/data", 2**20, 2**30)
    assert error.problem == "the disk of /data has 1 MiB free and the site needs 1024 MiB"


def test_all_errors_of_the_vocabulary_are_checked() -> None:
    written = {found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, MeshError)}
    assert written - {MeshError} <= set(ALL)
