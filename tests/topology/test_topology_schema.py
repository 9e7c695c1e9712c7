"""The schema for editors accepts what the mesh accepts and points at the same fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from topology_expected import FORM, JUDGED

from mesh.topology.schema import json_schema
from mesh.topology.source import read

FIXTURES = Path(__file__).parent / "fixtures"
TOPOLOGIES = Path(__file__).parents[2] / "topologies"

WITHIN_YAML = {
    "alias-bomb", "bracket-never-closed", "control-character", "empty", "escape-beyond-unicode", "key-given-twice",
    "mapping-as-key", "nesting-too-deep", "no-time", "not-utf8", "only-a-comment", "tab-for-indentation",
    "tag", "two-colons-on-a-line", "two-documents",
}  # fmt: skip
"""Mistakes that are gone, or leave nothing, once the YAML is data; and one that a schema's formats only note."""
LATER = {"batch-not-yet", "escalate-not-yet", "escalation-cycle", "unknown-escalation-agent"}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json_schema())


def _data(path: Path) -> Any:
    return read(path.read_text(), path.name).data


def test_schema_is_valid_itself() -> None:
    Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("name", ["metro", "single", "lombardy"])
def test_shipped_topology_fits(validator: Draft202012Validator, name: str) -> None:
    assert list(validator.iter_errors(_data(TOPOLOGIES / f"{name}.yaml"))) == []


@pytest.mark.parametrize("mistake", sorted(JUDGED.keys() - LATER))
def test_what_only_checks_know_fits(validator: Draft202012Validator, mistake: str) -> None:
    assert list(validator.iter_errors(_data(FIXTURES / f"{mistake}.yaml"))) == []


@pytest.mark.parametrize("mistake", sorted(FORM.keys() - WITHIN_YAML | LATER))
def test_mistake_in_the_form_does_not_fit(validator: Draft202012Validator, mistake: str) -> None:
    assert not validator.is_valid(_data(FIXTURES / f"{mistake}.yaml"))


def _parts() -> dict[str, Any]:
    schema = json_schema()
    return {"Topology": schema, **schema["$defs"]}


@pytest.mark.parametrize("part", _parts())
def test_every_field_is_described_for_editors(part: str) -> None:
    for name, field in _parts()[part]["properties"].items():
        assert field.get("description"), f"{part}.{name}"


@pytest.mark.parametrize("part", _parts())
def test_every_default_fits_its_own_field(part: str) -> None:
    schema = json_schema()
    for field in _parts()[part]["properties"].values():
        if "default" in field:
            Draft202012Validator({**field, "$defs": schema["$defs"]}).validate(field["default"])


def test_defaults_are_written_as_in_a_file() -> None:
    capacity = json_schema()["$defs"]["Capacity"]["properties"]
    assert capacity["memory"]["default"] == "2GiB"
    assert json_schema()["$defs"]["GeneratorSource"]["properties"]["step"]["default"] == "1h"
