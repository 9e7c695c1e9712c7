"""Durations, sizes and rates as people write them: `250ms`, `300MiB`, `1Gbit`."""

from __future__ import annotations

import math
import re

from mesh.errors import UnitError

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)\s*\Z")

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_BITS_PER_SECOND = {"bit": 1, "kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}


def _parse(text: object, table: dict[str, float] | dict[str, int], kind: str, examples: str) -> float:
    match = _NUMBER.match(text) if isinstance(text, str) else None
    if match is None or match[2] not in table:
        raise UnitError(text, kind, examples)
    value = float(match[1]) * table[match[2]]
    if not math.isfinite(value):
        raise UnitError(text, kind, examples)
    return round(value, 12)


def parse_duration(text: object) -> float:
    """Seconds of a duration such as `18ms`, `2s`, `1.5h`; raises UnitError."""
    return _parse(text, _SECONDS, "duration", "250ms, 2s or 1h")


def parse_size(text: object) -> int:
    """Bytes of a size such as `300MiB` or `4GB`; raises UnitError."""
    return int(_parse(text, _BYTES, "size", "300MiB or 4GB"))


def parse_rate(text: object) -> float:
    """Bits per second of a bandwidth such as `1Gbit`; raises UnitError."""
    return _parse(text, _BITS_PER_SECOND, "bandwidth", "100Mbit or 1Gbit")


def _number(value: float) -> str:
    """Without an exponent, which no unit may follow."""
    short = f"{value:.12g}"
    return short if "e" not in short else f"{value:.12f}".rstrip("0").rstrip(".")


def format_size(size: int) -> str:
    """Bytes in the largest binary unit that divides them exactly (`300MiB`, `1536KiB`, `5B`)."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """Seconds in the largest unit that keeps the number at 1 or above (`2s`, `18ms`, `1.5h`)."""
    for unit in ("d", "h", "m", "s", "ms"):
        if seconds >= _SECONDS[unit]:
            return f"{_number(seconds / _SECONDS[unit])}{unit}"
    return f"{_number(seconds / 1e-6)}us"


def format_rate(bits_per_second: float) -> str:
    """Bits per second in the largest unit that keeps the number at 1 or above (`1Gbit`, `2.5Mbit`)."""
    for unit in ("Gbit", "Mbit", "kbit"):
        if bits_per_second >= _BITS_PER_SECOND[unit]:
            return f"{_number(bits_per_second / _BITS_PER_SECOND[unit])}{unit}"
    return f"{_number(bits_per_second)}bit"
