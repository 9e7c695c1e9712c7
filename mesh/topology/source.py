"""Reads YAML into plain data and remembers where every key and value stands.

The file is read from parser events rather than through a constructor: a constructor stops at the first duplicate key,
shifts timestamps, and expands aliases before anyone can bound them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from mesh.topology.finding import Finding, Where, dotted, shown

Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"

DEPTH_MAX = 32
_DIGITS_MAX = 40

# The core schema of YAML 1.2; other plain scalars, timestamps among them, are text.
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BEYOND_UNICODE = re.compile(r"\\U(?!000|0010)[0-9A-Fa-f]{8}")
_TEXT_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})


@dataclass(frozen=True, order=True)
class Position:
    """A place in the file, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Positions:
    """Where the keys and values of a file stand; a path that is not in the file stands at what would hold it."""

    values: Mapping[Where, Position]
    keys: Mapping[Where, Position]

    def find(self, path: Where, at: Literal["value", "key"] = "value") -> Position:
        """Position of the value (or key) at `path`, or of the nearest key above it."""
        if at == "value" and path in self.values:
            return self.values[path]
        while path and path not in self.keys:
            if path in self.values:
                return self.values[path]
            path = path[:-1]
        return self.keys.get(path) or self.values.get(path) or Position(1, 1)


@dataclass(frozen=True)
class Source:
    """A file as plain data, with a finding for each broken path."""

    data: Data
    positions: Positions
    findings: tuple[Finding, ...]
    broken: frozenset[Where]
    """Paths whose values cannot be relied on."""
    unread: frozenset[Where]
    """Those of them whose values are not in `data` at all."""


class _Refused(Exception):
    """Raised when reading cannot go on."""


def read(text: str, file: str) -> Source:
    """Plain data, positions and all findings of a YAML text; never raises for what the text holds."""
    reader = _Reader(text, file)
    data: Data = None
    try:
        data = reader.document()
    except _Refused:
        reader.unread.add(())
    positions = Positions(reader.values, reader.keys)
    unread = frozenset(reader.unread)
    return Source(data, positions, tuple(reader.findings), unread | reader.repeated, unread)


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self._text = text
        self._file = file
        self._events = self._parse()
        self.values: dict[Where, Position] = {}
        self.keys: dict[Where, Position] = {}
        self.findings: list[Finding] = []
        self.unread: set[Where] = set()
        self.repeated: set[Where] = set()

    def document(self) -> Data:
        """The value of the file's only document."""
        event: Any = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent | StreamEndEvent):
                break
        if not isinstance(event, DocumentStartEvent):
            self._refuse((), Position(1, 1), "the file is empty", "a topology begins with 'apiVersion: mesh/v1'")
        data = self._value(next(self._events), ())
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                self._note((), _at(event), "a second document begins here", "write one document per file")
                break
        return data

    def _parse(self) -> Iterator[Any]:
        """Events of the text; ends with _Refused at a mistake in the YAML itself."""
        try:
            yield from YAML(typ="safe", pure=True).parse(self._text)
        except MarkedYAMLError as error:
            unclosed = "stream end" in str(error.problem) and error.context_mark is not None
            mark = error.context_mark if unclosed else error.problem_mark or error.context_mark
            place = Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)
            what = str(error.problem or error.context or "it cannot be read").replace("\n", " ")
            self._refuse((), place, f"this is no valid YAML ({what})", _yaml_hint(what))
        except ReaderError as error:
            place = _position_of(self._text, error.position)
            self._refuse((), place, "there is a control character here", "remove it")
        # These two come from chr() within the parser.
        except (ValueError, OverflowError):
            escape = _BEYOND_UNICODE.search(self._text)
            place = _position_of(self._text, escape.start() if escape else 0)
            self._refuse((), place, "an escape here is no character", "check the \\x, \\u and \\U in quoted texts")
        except YAMLError as error:
            self._refuse((), Position(1, 1), f"this is no valid YAML ({error})", _yaml_hint(""))

    def _value(self, event: Any, path: Where) -> Data:
        position = _at(event)
        if isinstance(event, ScalarEvent) and event.value == "" and event.style is None:
            # An absent value has its mark at the next token, lines away.
            position = self.keys.get(path, position)
        self.values[path] = position
        if isinstance(event, AliasEvent):
            self._note(path, position, f"the alias '*{event.anchor}' is not allowed", "write the value out")
            return None
        if event.tag is not None and str(event.tag) not in _TEXT_TAGS:
            self._note(path, position, f"the tag '{event.tag}' is not allowed", "leave it out")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= DEPTH_MAX:
            self._refuse(path[:4], position, "the nesting is too deep", f"{DEPTH_MAX} levels are allowed")
        return self._list(path) if isinstance(event, SequenceStartEvent) else self._mapping(path)

    def _list(self, path: Where) -> Data:
        items: list[Data] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: Where) -> Data:
        fields: dict[str, Data] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            position = _at(event)
            key = self._key(event, path)
            inner = (*path, key)
            if key in fields:
                first = self.keys[inner].line
                # The second value is read past without a trace in `values`, which belong to the first.
                self._skip(next(self._events))
                self.repeated.add(inner)
                self._found(inner, position, f"the key is given twice, first on line {first}", "keep one of them")
                continue
            self.keys[inner] = position
            fields[key] = self._value(next(self._events), inner)
        return fields

    def _key(self, event: Any, path: Where) -> str:
        """The key's text as written, so that an unquoted `1` or `no` names what the operator sees."""
        if not isinstance(event, ScalarEvent):
            self._refuse(path, _at(event), "this key is no text", "write a plain name before the colon")
        key = str(event.value)
        if key == "<<" and event.style is None:
            self._note((*path, key), _at(event), "merge keys are not allowed", "write the fields out")
        if not _encodable(key):
            self._refuse(path, _at(event), "this key is no valid Unicode text", "remove the surrogate escape")
        return key

    def _scalar(self, event: Any, path: Where) -> Data:
        text = str(event.value)
        if not _encodable(text):
            self._note(path, _at(event), f"{shown(text)} is no valid Unicode text", "remove the surrogate escape")
            return None
        if event.style is not None or event.tag is not None:
            return text
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        if _INTEGER.fullmatch(text) and len(text) <= _DIGITS_MAX:
            return int(text, 10 if text.lstrip("+-").isdigit() else 0)
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            return self._float(text, path)
        return text

    def _float(self, text: str, path: Where) -> Data:
        number = float(text.replace(".", "", 1) if _NOT_FINITE.fullmatch(text) else text)
        if not math.isfinite(number) or len(text) > _DIGITS_MAX:
            self._note(path, self.values[path], f"{shown(text)} is no usable number", "write a finite number")
            return None
        return number

    def _skip(self, event: Any) -> None:
        depth = 0
        while True:
            depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
            depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)
            if depth == 0:
                return
            event = next(self._events)

    def _note(self, path: Where, position: Position, problem: str, allowed: str) -> None:
        self.unread.add(path)
        self._found(path, position, problem, allowed)

    def _found(self, path: Where, position: Position, problem: str, allowed: str) -> None:
        finding = Finding(self._file, position.line, position.column, dotted(path), problem, allowed)
        self.findings.append(finding)

    def _refuse(self, path: Where, position: Position, problem: str, allowed: str) -> Any:
        self._note(path, position, problem, allowed)
        raise _Refused


def _at(event: Any) -> Position:
    return Position(event.start_mark.line + 1, event.start_mark.column + 1)


def _position_of(text: str, index: int) -> Position:
    before = text[:index]
    return Position(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _yaml_hint(problem: str) -> str:
    if "\\t" in problem or "tab" in problem:
        return "indent with spaces, never with tabs"
    if "mapping values" in problem:
        return "write one 'key: value' per line and quote texts that hold ': '"
    return "check the indentation, the quotes and the brackets here and on the line before"
