"""Time as an argument: pure code is handed a `Clock`, only shells make the system's one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Wall time in seconds since the Unix epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; only differences mean anything."""


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to, for tests, notebooks and replay."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Moves both clocks on by `seconds` (at least 0; raises ValueError otherwise)."""
        if seconds < 0:
            raise ValueError(f"a clock cannot be advanced by {seconds} s")
        self._now += seconds
        self._monotonic += seconds

    def set(self, now: float) -> None:
        """Sets wall time, as a step of a real clock would; the monotonic clock stays."""
        self._now = now


def iso(seconds: float) -> str:
    """RFC 3339 in UTC with microseconds, the form CloudEvents ask for."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
