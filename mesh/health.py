"""What replicas and sites say of themselves: counters and latencies as messages, and how they add up."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import msgspec

_GROWTH = 1.05
"""Width of a histogram bin: quantiles are right to 5 %."""
_FLOOR_S = 1e-5
"""Everything faster shares the first bin."""

ReplicaState = Literal["starting", "ready", "failed", "draining"]


class Latencies(msgspec.Struct):
    """A mergeable histogram of seconds; bin n holds values up to 10 µs × 1.05^n."""

    counts: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        index = 0 if seconds <= _FLOOR_S else math.ceil(math.log(seconds / _FLOOR_S) / math.log(_GROWTH))
        self.counts[index] = self.counts.get(index, 0) + 1

    def quantile(self, q: float) -> float | None:
        """Seconds at quantile `q` (0 to 1), None without values."""
        total = sum(self.counts.values())
        seen = 0
        for index in sorted(self.counts):
            seen += self.counts[index]
            if seen >= q * total:
                return _FLOOR_S * _GROWTH**index
        return None

    @staticmethod
    def sum(parts: Iterable[Latencies]) -> Latencies:
        counts: dict[int, int] = {}
        for part in parts:
            for index, count in part.counts.items():
                counts[index] = counts.get(index, 0) + count
        return Latencies(counts)


class ReplicaHealth(msgspec.Struct, kw_only=True):
    """One replica's heartbeat. Counters only grow, from zero at each start of the replica."""

    agent: str
    index: int
    spec: str
    """Digest of what the replica was told to run."""
    incarnation: str
    """Differs at each start."""
    pid: int
    state: ReplicaState = "starting"
    reason: str = ""
    """Why it failed, in a sentence."""
    observations: int = 0
    decisions: int = 0
    stored: int = 0
    """Decisions that the stream acknowledged."""
    inferences: int = 0
    dropped: int = 0
    waiting: int = 0
    """Observations in the inlets now."""
    unstored: int = 0
    """Decisions in the outbox now."""
    rejected: dict[str, int] = {}
    latencies: Latencies = msgspec.field(default_factory=Latencies)
    """From arrival at the inlet to publication of the decision."""

    @property
    def errors(self) -> int:
        """Failures of the agent's own code."""
        return self.rejected.get("agent_error", 0)


class LinkStatus(msgspec.Struct, kw_only=True):
    """A site's link to its parent."""

    to: str
    up: bool
    cut: bool = False
    """An operator cut it."""
    rtt_s: float | None = None


class SiteStatus(msgspec.Struct, kw_only=True):
    """A site's own account of itself."""

    site: str
    tier: str
    pid: int
    time: float
    """Wall time, seconds since the Unix epoch."""
    nats_up: bool
    wanted: int
    """Replicas that should run."""
    replicas: list[ReplicaHealth] = []
    link: LinkStatus | None = None
    forwarded: int = 0
    """Decisions the parent has acknowledged."""
    backlog: int = 0
    """Decisions in the stream that the parent has not."""
    waiting_for: str = ""
    """What the site waits for, or why it cannot go on."""

    @property
    def ready(self) -> bool:
        return self.nats_up and sum(r.state == "ready" for r in self.replicas) >= self.wanted


def encode(message: ReplicaHealth | SiteStatus) -> bytes:
    return msgspec.json.encode(message)


def decode_replica(payload: bytes) -> ReplicaHealth:
    """Raises msgspec.ValidationError or msgspec.DecodeError."""
    return msgspec.json.decode(payload, type=ReplicaHealth)


def decode_site(payload: bytes) -> SiteStatus:
    """Raises msgspec.ValidationError or msgspec.DecodeError."""
    return msgspec.json.decode(payload, type=SiteStatus)
