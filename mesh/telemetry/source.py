"""One site's telemetry of one kind, recorded or generated, and which observation is due when.

Event time runs `speed` times as fast as the clock from a common epoch, so a source that is opened again goes on where
the others are, and all sites stay in step.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import numpy as np

from mesh.clock import iso
from mesh.errors import TelemetryError
from mesh.telemetry.generator import Generator, Profile
from mesh.telemetry.table import FloatArray, from_long, from_wide, percent_of_p99
from mesh.topology.model import GeneratorSource, LongSource, Telemetry, WideSource

WEEK_S = 7 * 86400.0

Row = dict[str, dict[str, float]]
"""Values by field, by id."""


class Source(Protocol):
    """Observations on a grid of event time; index 0 is at `begin` (seconds since the Unix epoch)."""

    @property
    def begin(self) -> float:
        """Event time of index 0."""

    @property
    def step_s(self) -> float:
        """Seconds of event time between indices."""

    def at(self, index: int) -> Row | None:
        """Values at `begin + index × step_s`; missing ones are left out. None after the end."""


@dataclass(frozen=True)
class Recording:
    """Recorded values: `values` by field, each [ids, steps]; index 0 is column `offset`.

    With `period` the last that many columns come again and again after the end.
    """

    begin: float
    step_s: float
    ids: tuple[str, ...]
    values: Mapping[str, FloatArray]
    offset: int
    period: int | None = None

    def at(self, index: int) -> Row | None:
        column, end = self.offset + index, next(iter(self.values.values())).shape[1]
        if column >= end:
            if self.period is None:
                return None
            column = end - self.period + (column - end) % self.period
        row: Row = {}
        for field, values in self.values.items():
            for number, id in enumerate(self.ids):
                value = float(values[number, column])
                if not math.isnan(value):
                    row.setdefault(id, {})[field] = value
        return row


@dataclass(frozen=True)
class Synthetic:
    """Generated values of one field, without end."""

    begin: float
    step_s: float
    field: str
    ids: tuple[str, ...]
    generator: Generator

    def at(self, index: int) -> Row | None:
        hour = math.floor((self.begin + index * self.step_s) / 3600.0)
        values = self.generator.values(hour)
        return {id: {self.field: float(value)} for id, value in zip(self.ids, values, strict=True)}


def open_source(spec: Telemetry, kind: str, site: str, base: Path, folder: Path | None) -> Source | None:
    """The source of a site's ids: recorded when a folder is known, else generated; None when there is neither.

    `base` is the topology file's folder; `folder`, from the command line, wins over the topology's. Raises
    TelemetryError when files are missing, or ids are not in them, and TableError when they are malformed.
    """
    ids = tuple(spec.sites.get(site, ()))
    if not ids:
        return None
    recorded = folder or (base / spec.folder if spec.folder else None)
    if spec.replay is not None and recorded is not None:
        return _recording(spec, spec.replay, kind, ids, recorded)
    if spec.generator is not None:
        return _synthetic(spec.generator, site, ids, base, spec.begin)
    return None


def _recording(
    spec: Telemetry, replay: WideSource | LongSource, kind: str, ids: tuple[str, ...], folder: Path
) -> Recording:
    if isinstance(replay, WideSource):
        step = timedelta(seconds=replay.step)
        table = from_wide(folder / replay.file, folder / replay.ids, start=replay.start, step=step, field=replay.field)
        columns = {replay.field: (replay.field, replay.unit)}
    else:
        table = from_long(folder / replay.file, time=replay.time, ident=replay.id)
        columns = {field: (column.column, column.unit) for field, column in replay.fields.items()}
    missing = [id for id in ids if id not in table.ids] + [c for c, _ in columns.values() if c not in table.values]
    if missing:
        raise TelemetryError(
            f"{folder / replay.file} has no {missing[0]!r} that telemetry.{kind} names",
            "correct telemetry." + kind,
        )
    rows = [table.ids.index(id) for id in ids]
    step_s = table.step.total_seconds()
    start = table.start.timestamp()
    offset = 0 if spec.begin is None else max(0, math.ceil((spec.begin.timestamp() - start) / step_s - 1e-6))
    baseline = slice(0, offset) if offset else None
    values: dict[str, FloatArray] = {}
    for field, (column, unit) in columns.items():
        chosen = np.asarray(table.values[column][rows], dtype=np.float64)
        values[field] = percent_of_p99(chosen, baseline) if unit == "percent_of_p99" else chosen
    period = _period(table.steps - offset, step_s) if spec.repeat else None
    return Recording(start + offset * step_s, step_s, ids, values, offset, period)


def _period(steps: int, step_s: float) -> int | None:
    """How many of the last `steps` columns are repeated: whole weeks where there are any; None for no columns."""
    if steps <= 0:
        return None
    week = round(WEEK_S / step_s)
    return steps // week * week if week and steps >= week else steps


def _synthetic(spec: GeneratorSource, site: str, ids: tuple[str, ...], base: Path, begin: datetime | None) -> Synthetic:
    """The ids of a site are neighbours of each other."""
    path = base / spec.profile
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(figures, dict):
            raise ValueError("it holds no JSON object")
        profile = Profile.from_mapping(figures)
    except (OSError, ValueError) as error:
        raise TelemetryError(f"the profile {path} cannot be used ({error})", "correct generator.profile") from error
    generator = Generator(profile, ids, spec.seed, dict.fromkeys(ids, site))
    return Synthetic(begin.timestamp() if begin else 0.0, spec.step, spec.field, ids, generator)


def due(now: float, epoch: float, speed: float, step_s: float) -> int:
    """Newest index that is due at wall time `now` when index 0 was due at `epoch` (seconds); -1 before that."""
    return math.floor((now - epoch) * speed / step_s + 1e-9) if now >= epoch else -1


def due_at(index: float, epoch: float, speed: float, step_s: float) -> float:
    """Wall time, in seconds, at which `index`, or a part of a step after it, is due."""
    return epoch + index * step_s / speed


def observation(kind: str, id: str, time: float, fields: Mapping[str, float]) -> dict[str, object]:
    """An observation's JSON object: its id under the name of its kind, its event time, its fields."""
    return {kind: id, "time": iso(time), **fields}
