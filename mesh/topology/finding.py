"""What is wrong with a topology file, where, and what is allowed instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Where = tuple[str | int, ...]
"""Path of a value in a file: keys and list indices."""

_SHOWN = 8
_SEARCHED = 200
"""Names looked through for a suggestion; keeps a huge broken file from costing minutes."""
_TEXT_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """A finding before its line is known: checks make these, `load` finds the position.

    `at` says whether the value or its key is to blame.
    """

    path: Where
    problem: str
    allowed: str
    at: Literal["value", "key"] = "value"


@dataclass(frozen=True)
class Finding:
    """One mistake in one file; `line` and `column` count from 1."""

    file: str
    line: int
    column: int
    path: str
    problem: str
    allowed: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: "
        return place + (f"{self.path}: " if self.path else "") + f"{self.problem}; {self.allowed}"


def dotted(path: Where) -> str:
    """A path as people write it: `sites.north.uplink.to`, `agents.overload.consumes[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = 0 < len(part) <= _TEXT_SHOWN and part.isprintable() and not set(part) & set(". []:")
            text += ("." if text else "") + (part if plain else shown(part))
    return text


def shown(value: object) -> str:
    """A value of the file, short enough for one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str() if len(value) > _TEXT_SHOWN:
            return f"{value[:_TEXT_SHOWN]!r}…"
        case _:
            return repr(value)


def listed(names: Iterable[str]) -> str:
    """The first few names, with an ellipsis for the rest."""
    known = list(names)
    return ", ".join(known[:_SHOWN]) + (", …" if len(known) > _SHOWN else "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean 'north'? ` when a known name is near, else nothing."""
    folded: dict[str, str] = {}
    for candidate in list(known)[:_SEARCHED]:
        folded.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name[:_TEXT_SHOWN].lower(), folded, n=1)
    return f"did you mean {folded[near[0]]!r}? " if near else ""


def unknown(path: Where, noun: str, name: str, known: Iterable[str], at: Literal["value", "key"] = "value") -> Problem:
    """A name that refers to nothing, with what it may have meant."""
    names = list(known)
    options = f"{noun}s are {listed(names)}" if names else f"the file has no {noun}s"
    return Problem(path, f"there is no {noun} {shown(name)}", suggestion(name, names) + options, at)
