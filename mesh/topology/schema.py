"""JSON Schema of topology files, for editors that complete and check while an operator writes."""

from __future__ import annotations

from typing import Any

from mesh.topology.model import Section, Topology

_NOT_YET = ("batch", "escalate")


def json_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a topology file; fields that are not available yet are left out."""
    schema = Topology.model_json_schema(by_alias=True)
    parts = {"Topology": schema, **schema["$defs"]}
    for section in _sections(Section):
        if section.__name__ in parts:
            _write_defaults(section, parts[section.__name__])
    for part in parts.values():
        for name, field in part["properties"].items():
            _refine(name, field)
    for field in _NOT_YET:
        del parts["AgentSpec"]["properties"][field]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Mesh topology",
    }


def _sections(base: type[Section]) -> list[type[Section]]:
    return [section for child in base.__subclasses__() for section in (child, *_sections(child))]


def _write_defaults(section: type[Section], part: dict[str, Any]) -> None:
    """Defaults as a file would say them (`2GiB`, not 2147483648)."""
    written = section.model_construct().model_dump(mode="json", by_alias=True)
    for name, field in part["properties"].items():
        if "default" in field:
            field["default"] = written[name]


def _refine(name: str, field: dict[str, Any]) -> None:
    # Names outside the pattern are findings, so editors should say so too.
    if "patternProperties" in field:
        field["additionalProperties"] = False
    # Generated titles only repeat the field's name in every tooltip.
    field.pop("title", None)
    # "Leave it out" and null mean the same; editors need not offer null.
    if field.get("default", name) is None:
        del field["default"]
