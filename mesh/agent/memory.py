"""An agent's private memory: typed, bounded, kept on the site's disk by the replica's shell.

Nothing here writes: the shell takes what changed (`take_changes`) and gives back what was kept (`restore`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from mesh.errors import AgentError

Model = TypeVar("Model", bound=BaseModel)

LENGTH_MAX = 1_000_000
"""Longest history: 16 MB per key."""

Address = tuple[str, str]
"""Name and key of an entry."""


class Series:
    """A bounded history of numbers by event time; the oldest goes first. Times are seconds since the Unix epoch."""

    def __init__(self, length: int, points: Iterable[tuple[float, float]] = ()) -> None:
        self.length = length
        self._times = np.zeros(length)
        self._values = np.zeros(length)
        self._fill(points)

    def _fill(self, points: Iterable[tuple[float, float]]) -> None:
        """Holds the newest `length` of `points` and nothing else."""
        newest = sorted(dict(points).items())[-self.length :] if self.length else []
        self._size = len(newest)
        for place, (time, value) in enumerate(newest):
            self._times[place], self._values[place] = time, value

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """(time, value) from the oldest to the newest."""
        return iter(zip(self._times[: self._size].tolist(), self._values[: self._size].tolist(), strict=True))

    @property
    def last(self) -> tuple[float, float] | None:
        """The newest (time, value)."""
        return (float(self._times[self._size - 1]), float(self._values[self._size - 1])) if self._size else None

    def window(self, step_s: float, newest: int, count: int) -> NDArray[np.float64]:
        """Values [count] on a grid of `step_s` seconds since the epoch, that of step `newest` first, NaN where none is.

        Of several values in one step the newest counts.
        """
        ages = newest - np.floor(self._times[: self._size] / step_s).astype(np.int64)
        inside = (ages >= 0) & (ages < count)
        result = np.full(count, np.nan)
        result[ages[inside]] = self._values[: self._size][inside]
        return result

    def _append(self, time: float, value: float) -> None:
        newest = self._times[self._size - 1] if self._size else -np.inf
        if time > newest:
            if self._size == self.length:
                self._times[:-1], self._values[:-1] = self._times[1:], self._values[1:]
            else:
                self._size += 1
            self._times[self._size - 1], self._values[self._size - 1] = time, value
        elif time == newest:
            self._values[self._size - 1] = value
        else:
            self._fill([*self, (time, value)])


@dataclass
class Memory:
    """What one agent remembers: at most `entries_max` entries, the least recently written is forgotten first."""

    entries_max: int = 100_000
    lineage: str = ""
    """Identity of this memory: kept with it on disk, new when it begins empty."""
    _series: dict[Address, Series] = field(default_factory=dict)
    _kept: dict[Address, bytes] = field(default_factory=dict)
    """Values as JSON."""
    _values: dict[Address, BaseModel] = field(default_factory=dict)
    """Values as they were last used."""
    _written: OrderedDict[Address, None] = field(default_factory=OrderedDict)
    """Entries in the order of their last writing."""
    _changed: set[Address] = field(default_factory=set)

    def series(self, name: str, key: str, *, length: int) -> Series:
        """The history `name` of `key`, empty at first; read it, and write with `append`."""
        found = self._series.get((name, key))
        if found is None or found.length != length:
            return Series(length, found or ())
        return found

    def append(self, name: str, key: str, time: float, value: float, *, length: int) -> Series:
        """Adds one point to the history `name` of `key`, keeping the newest `length`; a known time is overwritten."""
        if not 1 <= length <= LENGTH_MAX:
            raise AgentError(f"a history of {length} points cannot be kept", f"give a length of 1 to {LENGTH_MAX}")
        address = _address(name, key)
        series = self.series(name, key, length=length)
        series._append(time, value)
        self._series[address] = series
        self._note(address)
        return series

    def get(self, name: str, key: str, model: type[Model]) -> Model | None:
        """The value `name` of `key`, or None; one that was kept in another form counts as absent."""
        address = (name, key)
        found = self._values.get(address)
        if not isinstance(found, model) and address in self._kept:
            try:
                found = self._values[address] = model.model_validate_json(self._kept[address])
            except ValidationError:
                return None
        return found if isinstance(found, model) else None

    def put(self, name: str, key: str, value: BaseModel) -> None:
        """Remembers `value`, a pydantic model, replacing what was there; raises AgentError when it is no JSON."""
        address = _address(name, key)
        try:
            self._kept[address] = _to_json(value)
        except ValueError as error:  # pydantic's serialisation errors are ValueErrors
            raise AgentError(f"the value {name!r} of {key!r} cannot be kept ({error})", "use plain fields") from error
        self._values[address] = value
        self._note(address)

    def keys(self, name: str) -> tuple[str, ...]:
        """Keys that have a value or a history under `name`, sorted."""
        both = (*self._series, *self._kept)
        return tuple(sorted({key for found, key in both if found == name}))

    def _note(self, address: Address) -> None:
        self._written[address] = None
        self._written.move_to_end(address)
        self._changed.add(address)
        self._trim()

    def _trim(self) -> None:
        while len(self._written) > self.entries_max:
            oldest, _ = self._written.popitem(last=False)
            self._series.pop(oldest, None)
            self._values.pop(oldest, None)
            self._kept.pop(oldest, None)
            self._changed.add(oldest)

    def take_changes(self) -> dict[Address, bytes | None]:
        """Entries written since the last call, encoded; None where one was forgotten."""
        changed, self._changed = self._changed, set()
        return {address: self._encode(address) for address in changed}

    def not_kept(self, changes: Iterable[Address]) -> None:
        """Gives back changes that could not be written: `take_changes` gives them again."""
        self._changed.update(changes)

    def restore(self, entries: Iterable[tuple[Address, bytes]]) -> None:
        """Takes back what `take_changes` gave; raises AgentError on bytes that it never gave."""
        for address, payload in entries:
            try:
                length, points, value = msgspec.msgpack.decode(payload, type=_Entry)
                if not 0 <= length <= LENGTH_MAX:
                    raise ValueError(f"a length of {length}")
            except (msgspec.MsgspecError, ValueError) as error:
                raise AgentError(
                    f"the memory entry {address[0]!r} of {address[1]!r} cannot be read",
                    "delete the replica's memory file to start without history",
                ) from error
            self._written[address] = None
            if length:
                self._series[address] = Series(length, points)
            if value is not None:
                self._kept[address] = value
        self._trim()

    def _encode(self, address: Address) -> bytes | None:
        series, kept = self._series.get(address), self._kept.get(address)
        if series is None and kept is None:
            return None
        return msgspec.msgpack.encode((series.length if series else 0, list(series or ()), kept))


def _address(name: str, key: str) -> Address:
    if not (isinstance(name, str) and isinstance(key, str)):
        raise AgentError(f"{(name, key)!r} is no name and key of a memory", "use strings; they are found again on disk")
    return name, key


def _to_json(value: BaseModel) -> bytes:
    """JSON that `model_validate_json` reads back as the same value, infinities included."""
    return to_json(value.model_dump(by_alias=True, round_trip=True), inf_nan_mode="constants")


_Entry = tuple[int, list[tuple[float, float]], bytes | None]
