"""Turns data into the model and says in the project's words what does not fit it."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mesh.errors import UnitError
from mesh.topology.finding import Problem, Where, listed, shown, suggestion
from mesh.topology.model import Section, Topology
from mesh.topology.source import Data

_KINDS = {
    "string_type": ("text", "a text is allowed; put it in quotes"),
    "float_type": ("number", "a number is allowed"),
    "int_type": ("whole number", "a whole number is allowed"),
    "int_from_float": ("whole number", "a whole number is allowed"),
    "bool_type": ("truth value", "true or false is allowed"),
    "list_type": ("list", "a list is allowed, such as [a, b]"),
    "tuple_type": ("list", "a list is allowed, such as [a, b]"),
    "dict_type": ("mapping", "a mapping is allowed, such as {name: value}"),
    "model_type": ("mapping", "a mapping is allowed, such as {field: value}"),
    "datetime_type": ("time", "a time with its offset is allowed, such as 2013-12-06T00:00:00+01:00"),
    "string_pattern_mismatch": (
        "class reference",
        "write package.module:Class, such as agents.forecasting:CellForecast",
    ),
}
_BOUNDS = {
    "greater_than": ("gt", "above {}"),
    "greater_than_equal": ("ge", "of {} or more"),
    "less_than": ("lt", "below {}"),
    "less_than_equal": ("le", "of {} or less"),
}


def fit(data: Data) -> Topology:
    """The topology that `data` describes; raises pydantic's ValidationError, which `problems` puts in words.

    Strict, and through JSON, so that `true` is no number and "2" is no count, while a text may still be a time.
    """
    return Topology.model_validate_json(json.dumps(data), strict=True, by_alias=True, by_name=False)


def problems(error: ValidationError) -> Iterator[Problem]:
    """Every misfit once, in the order of the model."""
    told: set[Where] = set()
    for details in error.errors(include_url=False):
        place = _place(details)
        if place.scalars and place.path in told:
            continue  # a value that may be of several kinds fails once for each
        told.add(place.path)
        yield _problem(details, place)


@dataclass(frozen=True)
class _Place:
    """What pydantic's `loc` means in the file: union labels dropped, and the model's type there kept."""

    path: Where
    owner: type[Section]
    """Section whose field is concerned."""
    kind: Any
    """Type that the model has at the path; None for an unknown field."""
    key: bool = False
    """Whether the key itself is at fault."""
    scalars: bool = False
    """Whether one of several scalar kinds was expected."""


def _place(details: ErrorDetails) -> _Place:
    path: list[str | int] = []
    owner: type[Section] = Topology
    kind: Any = Topology
    for item in details["loc"]:
        origin = get_origin(kind)
        if _is_section(kind) and (item != "[key]" or details["type"] == "extra_forbidden"):
            owner = kind
            path.append(item)
            kind = _bare(_fields(owner).get(str(item)))
        elif origin is dict:
            path.append(item)
            kind = _bare(get_args(kind)[1])
        elif item == "[key]":
            return _Place(tuple(path), owner, kind, key=True)
        elif origin in (list, tuple) and isinstance(item, int):
            path.append(item)
            kind = _bare(get_args(kind)[0])
        elif origin is Union or origin is types.UnionType:
            members = [member for member in get_args(kind) if _is_section(member)]
            if not members:
                return _Place(tuple(path), owner, kind, scalars=True)
            kind = next(member for member in members if item in get_args(_fields(member)["format"]))
    return _Place(tuple(path), owner, kind)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _fields(section: type[Section]) -> dict[str, Any]:
    """Types of a section's fields by the names they have in a file."""
    return {field.alias or name: field.annotation for name, field in section.model_fields.items()}


def _offered(section: type[Section]) -> list[str]:
    """Fields to suggest: those of later work are known, and refused."""
    return [field for field in _fields(section) if field not in ("batch", "escalate")]


def _bare(kind: Any) -> Any:
    """A type without its annotations and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else kind
    return kind


def _problem(details: ErrorDetails, place: _Place) -> Problem:
    kind = details["type"]
    at: Literal["value", "key"] = "key" if place.key or kind in ("missing", "extra_forbidden") else "value"
    path = place.path
    if kind.startswith("union_tag"):
        path = (*path, "format")
    if path[2:3] == ("location",) and kind in ("missing", "too_long"):
        return Problem(path[:3], "this is no location", "write [latitude, longitude]")
    problem, allowed = _words(kind, details, place)
    return Problem(path, problem, allowed, at)


def _words(kind: str, details: ErrorDetails, place: _Place) -> tuple[str, str]:
    value = details["input"]
    context = details.get("ctx", {})
    if kind == "missing":
        return "the field is missing", _purpose(place)
    if kind == "extra_forbidden":
        return _unknown_field(place)
    if kind == "literal_error":
        return _one_of(value, [str(option) for option in get_args(place.kind)])
    if kind == "union_tag_invalid":
        return _one_of(context["tag"], [option.strip(" '") for option in context["expected_tags"].split(",")])
    if kind == "union_tag_not_found":
        return "the field is missing", "add it with wide or long"
    if kind == "value_error":
        return _own_error(value, context["error"])
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = f"{context[key]:g}"
        return f"{shown(value)} is out of range", f"a number {words.format(bound)} is allowed"
    if kind == "too_short":
        return "there is none", "at least one is needed"
    return _wrong_kind(kind, value, place, details["msg"])


def _wrong_kind(kind: str, value: object, place: _Place, message: str) -> tuple[str, str]:
    noun, allowed = _KINDS.get("datetime_type" if kind.startswith("datetime") else kind, ("", ""))
    if place.scalars:
        noun, allowed = "single value", "a number, a text, true or false is allowed"
    if _is_section(place.kind):
        allowed = f"a mapping with the fields {', '.join(_offered(place.kind))} is allowed"
    if value is None:
        return "there is nothing here", allowed + ", or leave it out"
    if not noun:
        return f"{shown(value)} does not fit", message[:1].lower() + message[1:]
    return f"{shown(value)} is no {noun}", allowed


def _purpose(place: _Place) -> str:
    name = str(place.path[-1])
    description = next(
        (field.description for key, field in place.owner.model_fields.items() if name in (key, field.alias)), None
    )
    return f"add it ({(description or name).rstrip('.')})"


def _unknown_field(place: _Place) -> tuple[str, str]:
    name = str(place.path[-1])
    known = _offered(place.owner)
    return f"there is no field {shown(name)} here", suggestion(name, known) + f"fields are {', '.join(known)}"


def _one_of(value: object, options: list[str]) -> tuple[str, str]:
    if len(options) == 1:
        return f"{shown(value)} is not allowed", f"write {options[0]}"
    hint = suggestion(value, options) if isinstance(value, str) else ""
    return f"{shown(value)} is not allowed", f"{hint}{listed(options)} are allowed"


def _own_error(value: object, error: object) -> tuple[str, str]:
    if isinstance(error, UnitError):
        return f"{shown(value)} is no {error.kind}", error.remedy
    return f"{shown(value)} is no name", str(error)
