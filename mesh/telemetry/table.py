"""Readers of measured load tables: a wide matrix with an id list, or a long CSV with a header.

Parsing is pure (`parse_*` take text); `from_*` read the files first. Everything is held in memory:
the need is proportional to the file (for a long CSV at most SPARSEST grid places per row).
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mesh.errors import TelemetryError

FloatArray = npt.NDArray[np.float64]

SPARSEST = 64
"""A long CSV may leave at most this many grid places (ids x steps) per data row."""

_FLOAT_ID = re.compile(r"\d+\.\d*([eE][+-]?\d+)?")
_LARGEST_ID = 2.0**53


class TableError(TelemetryError, ValueError):
    """Raised when a table cannot be read: where (`source`, `line`), `what` is wrong and the `remedy`."""

    def __init__(self, source: str, line: int | None, what: str, remedy: str) -> None:
        place = source if line is None else f"{source}, line {line}"
        super().__init__(f"{place}: {what}", remedy)
        self.source = source
        self.line = line
        self.what = what


@dataclass(frozen=True)
class Table:
    """Load figures of several ids on one regular time grid.

    `values` maps a field name to float64 [ids, steps] with NaN for missing; column k is at
    `start` + k * `step`. `dropped` counts the rows left out as incomplete.
    Raises ValueError when the parts do not fit together.
    """

    ids: tuple[str, ...]
    start: datetime
    step: timedelta
    values: Mapping[str, FloatArray]
    dropped: int

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            raise ValueError("the start of a table needs a UTC offset")
        if self.step <= timedelta(0):
            raise ValueError(f"the step of a table must be positive, not {self.step}")
        if len(set(self.ids)) != len(self.ids):
            raise ValueError("the ids of a table must differ from each other")
        shapes = {array.shape for array in self.values.values()}
        if len(shapes) != 1 or any(len(s) != 2 or s[0] != len(self.ids) for s in shapes):
            raise ValueError(f"every field needs the same shape [{len(self.ids)}, steps], not {sorted(shapes)}")

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(next(iter(self.values.values())).shape[1])


def clean_id(text: str) -> str:
    """An id without blanks, and "1.000000e+00" as "1"; a float that is not whole stays as it is."""
    text = text.strip()
    if _FLOAT_ID.fullmatch(text):
        number = float(text)
        if number < _LARGEST_ID and number.is_integer():
            return str(int(number))
    return text


def percent_of_p99(values: FloatArray, baseline: slice | None) -> FloatArray:
    """Each row in percent of its own 99th percentile.

    `values` is [ids, steps], NaN = missing; the percentile is taken over the columns `baseline`
    (None: all of them). Rows whose percentile is 0, or whose baseline is all missing, become NaN.
    """
    percentile = p99(values, baseline)
    scale = np.where(percentile > 0.0, percentile, np.nan)
    percent: FloatArray = 100.0 * values / scale[:, None]
    return percent


def p99(values: FloatArray, baseline: slice | None) -> FloatArray:
    """99th percentile [ids] of each row of `values` [ids, steps] over `baseline`; NaN if none."""
    part = values if baseline is None else values[:, baseline]
    result = np.full(values.shape[0], np.nan)
    usable = ~np.isnan(part).all(axis=1) if part.shape[1] else np.zeros(len(part), dtype=bool)
    if usable.any():
        result[usable] = np.nanpercentile(part[usable], 99.0, axis=1)
    return result


def from_wide(matrix: Path, ids: Path, *, start: datetime, step: timedelta, field: str = "value") -> Table:
    """Read a wide matrix and its id list from files; see `parse_wide`.

    Raises TableError when a file cannot be read or is malformed.
    """
    names = (str(matrix), str(ids))
    return parse_wide(_text(matrix), _text(ids), start=start, step=step, field=field, names=names)


def from_long(path: Path, *, time: str = "time", ident: str = "id", step: timedelta | None = None) -> Table:
    """Read a long CSV with a header from a file; see `parse_long`.

    Raises TableError when the file cannot be read or is malformed.
    """
    return parse_long(_text(path), time=time, ident=ident, step=step, name=str(path))


def parse_wide(
    matrix: str,
    ids: str,
    *,
    start: datetime,
    step: timedelta,
    field: str = "value",
    names: tuple[str, str] = ("matrix", "ids"),
) -> Table:
    """Parse a matrix without header: one row per id, one column per step, commas between.

    Line k of `ids` names row k of `matrix`. A trailing comma is allowed, an empty place is NaN.
    Rows shorter than the longest are dropped and counted. `names` are used in errors only.
    Raises TableError when the counts differ, an id is empty or double, or a place is no number.
    """
    lines, labels = matrix.splitlines(), ids.splitlines()
    if len(lines) != len(labels):
        raise TableError(
            names[0],
            None,
            f"{len(lines)} rows, but {names[1]} has {len(labels)} ids",
            "give one id per row",
        )
    rows = [line.rstrip().removesuffix(",").split(",") for line in lines]
    width = max((len(row) for row in rows), default=0)
    if not rows or (width == 1 and not any(row[0] for row in rows)):
        raise TableError(names[0], None, "there are no values", "give at least one row")
    kept: dict[str, list[float]] = {}
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), start=1):
        key = clean_id(label)
        if not key:
            raise TableError(names[1], number, "the id is empty", "give an id on every line")
        if len(row) < width:
            continue
        if key in kept:
            raise TableError(names[1], number, f"id {key!r} occurs twice", "keep one row per id")
        kept[key] = [_number(place, names[0], number) for place in row]
    values = np.array(list(kept.values()), dtype=np.float64)
    return Table(tuple(kept), start, step, {field: values}, len(rows) - len(kept))


def parse_long(
    text: str,
    *,
    time: str = "time",
    ident: str = "id",
    step: timedelta | None = None,
    name: str = "table",
) -> Table:
    """Parse a CSV whose header names a time column, an id column and one or more value fields.

    Rows may come in any order; times are ISO 8601 with a UTC offset. Ids are sorted. Without
    `step` the smallest gap between two times is the step; every time must then lie on that grid.
    Places without a row, and empty values, are NaN. `name` is used in errors only.
    Raises TableError for a bad header, time, id or number, for a double row and for a grid that
    would need more than SPARSEST places per row.
    """
    reader = csv.reader(io.StringIO(text))
    header = [place.strip() for place in next(reader, [])]
    fields = _fields(header, time, ident, name)
    width, time_at, id_at = len(header), header.index(time), header.index(ident)
    columns = [header.index(field) for field in fields]
    found: dict[tuple[datetime, str], list[float]] = {}
    for row in reader:
        if not row:
            continue
        line = reader.line_num
        if len(row) != width:
            what = f"{len(row)} places instead of {width}"
            raise TableError(name, line, what, "give one place per column of the header")
        key = (_time(row[time_at], name, line), clean_id(row[id_at]))
        if not key[1]:
            raise TableError(name, line, "the id is empty", "give an id in every row")
        if key in found:
            what = f"id {key[1]!r} already has a row at {row[time_at].strip()}"
            raise TableError(name, line, what, "keep one row per time and id")
        found[key] = [_number(row[column], name, line) for column in columns]
    return _gridded(found, fields, step, name)


def _gridded(
    found: Mapping[tuple[datetime, str], Sequence[float]],
    fields: Sequence[str],
    step: timedelta | None,
    name: str,
) -> Table:
    """The rows of a long table put on their time grid."""
    times = sorted({at for at, _ in found})
    ids = sorted({ident for _, ident in found})
    if not times:
        raise TableError(name, None, "there are no rows", "give at least one row after the header")
    if step is None:
        if len(times) == 1:
            raise TableError(name, None, "all rows have the same time", "state the step")
        step = min(b - a for a, b in pairwise(times))
    elif step <= timedelta(0):
        raise TableError(name, None, f"the step is {step}", "state a step above zero")
    for at in times:
        if (at - times[0]) % step:
            what = f"time {at.isoformat()} is not a whole number of steps ({step}) after the first"
            raise TableError(name, None, what, "put all rows on one regular grid or state the step")
    steps = (times[-1] - times[0]) // step + 1
    if steps * len(ids) > SPARSEST * len(found):
        what = f"{len(found)} rows for a grid of {len(ids)} ids x {steps} steps of {step}"
        raise TableError(name, None, what, "state a longer step or split the file")
    row_of = {ident: row for row, ident in enumerate(ids)}
    cube = np.full((len(fields), len(ids), steps), np.nan)
    for (at, ident), values in found.items():
        cube[:, row_of[ident], (at - times[0]) // step] = values
    arrays = {field: cube[k] for k, field in enumerate(fields)}
    return Table(tuple(ids), times[0], step, arrays, 0)


def _fields(header: Sequence[str], time: str, ident: str, name: str) -> list[str]:
    """Names of the value columns, after a check of the header."""
    for needed in (time, ident):
        if needed not in header:
            what = f"the header has no column {needed!r} (it has {', '.join(header) or 'none'})"
            raise TableError(name, 1, what, "add the column or say what it is called")
    if len(set(header)) != len(header) or not all(header):
        raise TableError(name, 1, "a column name is empty or double", "name each column once")
    fields = [place for place in header if place not in (time, ident)]
    if not fields:
        raise TableError(name, 1, "there is no value column", "add at least one value column")
    return fields


def _time(text: str, name: str, line: int) -> datetime:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError as error:
        what = f"{text!r} is not a time"
        raise TableError(name, line, what, "write it as 2013-11-01T00:00:00+01:00") from error
    if at.tzinfo is None:
        what = f"time {text!r} has no UTC offset"
        raise TableError(name, line, what, "add one, such as Z or +01:00")
    return at


def _number(text: str, name: str, line: int) -> float:
    text = text.strip()
    if not text:
        return float("nan")
    try:
        number = float(text)
    except ValueError as error:
        what = f"{text!r} is not a number"
        raise TableError(name, line, what, "write a number, or nothing for missing") from error
    if np.isinf(number):
        raise TableError(name, line, f"{text!r} is not finite", "leave missing values empty")
    return number


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        what = f"the file cannot be read ({error.strerror})"
        raise TableError(str(path), None, what, "check the path and its rights") from error
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is not UTF-8"
        raise TableError(str(path), None, what, "save the file as UTF-8 text") from error
