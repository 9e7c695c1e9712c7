"""When a chunk that enters an emulated link may leave it. Pure: the time is an argument, nothing is waited for."""

from __future__ import annotations

import math
from dataclasses import dataclass

_BURST_S = 0.005
"""What the bucket holds, as time at full bandwidth: timers are no finer than a millisecond or so."""
_BURST_BYTES_MIN = 1500
"""One Ethernet frame, so that slow links send whole frames."""


@dataclass(frozen=True)
class Pace:
    """Bandwidth, latency, and how far the bucket's tokens are spent, of one direction of a link."""

    latency_s: float = 0.0
    """One way, seconds."""
    bandwidth_bps: float | None = None
    """Bits per second; None is unlimited."""
    busy_until: float = -math.inf
    """Time at which everything sent so far has gone out at full bandwidth; tokens are what lies in the past of it."""

    @property
    def burst_bytes(self) -> float:
        """Bytes that may leave at once after a pause."""
        return max(_BURST_BYTES_MIN, (self.bandwidth_bps or 0.0) / 8 * _BURST_S)

    @property
    def window_bytes(self) -> int:
        """Bytes that a link in good use holds in flight, twice over: the bound of the relay's queue."""
        return max(256 * 1024, round((self.bandwidth_bps or 1e9) / 8 * self.latency_s * 2))


def admit(pace: Pace, size: int, now: float) -> tuple[Pace, float]:
    """The pace after a chunk of `size` bytes entered at `now` (seconds), and when the chunk arrives at the far end.

    Arrivals never go back in time while `now` does not.
    """
    if pace.bandwidth_bps is None:
        return pace, now + pace.latency_s
    full = now - pace.burst_bytes * 8 / pace.bandwidth_bps
    busy = max(pace.busy_until, full) + size * 8 / pace.bandwidth_bps
    return Pace(pace.latency_s, pace.bandwidth_bps, busy), max(now, busy) + pace.latency_s
