"""What all sites of a mesh say of themselves, gathered at their own servers, and what it adds up to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field

import msgspec

from mesh.clock import Clock
from mesh.errors import MeshError
from mesh.fabric.identity import Identity
from mesh.health import Latencies, ReplicaHealth, SiteStatus, decode_site
from mesh.settings import Settings
from mesh.subjects import Subjects
from mesh.tasks import Tasks
from mesh.topology.endpoint import Endpoint
from mesh.transport.connection import Connection, Login, Message, connect

log = logging.getLogger(__name__)

RATE_WINDOW_S = 3.0
"""Rates are averages over this long."""
STALE_S = 3.0
"""A site that has said nothing for this long counts as silent."""
_ATTEMPT_S = 2.0
"""Patience with one attempt to reach a site that may be starting."""

ReplicaKey = tuple[str, str, int, str]
"""Site, agent, index and incarnation: counters begin anew with each incarnation."""


@dataclass
class Sample:
    """Counters of a site at a moment (monotonic seconds)."""

    at: float
    observations: int
    decisions: int


@dataclass
class Statuses:
    """Newest status per site; totals count every incarnation of every replica once."""

    clock: Clock
    latest: dict[str, SiteStatus] = field(default_factory=dict)
    _heard: dict[str, float] = field(default_factory=dict)
    _replicas: dict[ReplicaKey, tuple[str, ReplicaHealth]] = field(default_factory=dict)
    _samples: dict[str, list[Sample]] = field(default_factory=dict)
    _served: set[str] = field(default_factory=set)

    def take(self, status: SiteStatus) -> None:
        """Takes a site's status."""
        now = self.clock.monotonic()
        self.latest[status.site] = status
        self._heard[status.site] = now
        if status.ready:
            self._served.add(status.site)
        for health in status.replicas:
            if health.incarnation:
                key = (status.site, health.agent, health.index, health.incarnation)
                self._replicas[key] = (status.tier, health)
        found = [health for (site, *_), (_, health) in self._replicas.items() if site == status.site]
        sample = Sample(now, sum(h.observations for h in found), sum(h.decisions for h in found))
        recent = [s for s in self._samples.get(status.site, []) if now - s.at <= RATE_WINDOW_S]
        self._samples[status.site] = [*recent, sample]

    def served(self, site: str) -> bool:
        """Whether the site was ever ready."""
        return site in self._served

    def silent(self, site: str) -> bool:
        """Whether nothing was heard of the site lately."""
        return self.clock.monotonic() - self._heard.get(site, -1e9) > STALE_S

    def ready(self, sites: Collection[str]) -> bool:
        """Whether all `sites` are ready now."""
        return all(site in self.latest and self.latest[site].ready and not self.silent(site) for site in sites)

    def hopeless(self, sites: Collection[str]) -> tuple[str, ...]:
        """Why replicas cannot serve, once every replica of `sites` has either answered or told its failure."""
        reasons: list[str] = []
        for site in sites:
            status = self.latest.get(site)
            if status is None or self.silent(site) or len(status.replicas) < status.wanted:
                return ()
            for replica in status.replicas:
                if replica.reason:
                    reasons.append(f"{site}/{replica.agent}/{replica.index}: {replica.reason}")
                elif replica.state != "ready":
                    return ()
        return tuple(reasons)

    def rates(self, site: str) -> tuple[float, float]:
        """Observations and decisions per second of a site."""
        samples = self._samples.get(site, [])
        if len(samples) < 2:
            return 0.0, 0.0
        first, last = samples[0], samples[-1]
        span = max(last.at - first.at, 1e-9)
        return (last.observations - first.observations) / span, (last.decisions - first.decisions) / span

    def latencies(self, site: str | None = None) -> Latencies:
        """Latencies of a site's replicas, or of all."""
        return Latencies.sum(h.latencies for (at, *_), (_, h) in self._replicas.items() if site in (None, at))

    def total(self, counter: str, site: str | None = None, tier: str | None = None) -> int:
        """Sum of one counter of `ReplicaHealth` over all incarnations of the replicas of a site or tier."""
        return sum(
            int(getattr(health, counter))
            for (at, *_), (found, health) in self._replicas.items()
            if site in (None, at) and tier in (None, found)
        )

    def rejected(self, site: str | None = None) -> dict[str, int]:
        """Refused observations by reason."""
        counts: dict[str, int] = {}
        for (at, *_), (_, health) in self._replicas.items():
            if site in (None, at):
                for reason, count in health.rejected.items():
                    counts[reason] = counts.get(reason, 0) + count
        return counts


class Watch:
    """Follows the statuses of all sites as the operator, one connection per site."""

    def __init__(self, mesh: str, operator: Identity, statuses: Statuses, settings: Settings) -> None:
        self._subjects = Subjects(mesh)
        self._operator = operator
        self._statuses = statuses
        self._settings = settings
        self._connections: list[Connection] = []
        self._tasks = Tasks()

    def follow(self, site: str, server: Endpoint) -> None:
        """Connects to a site as soon as it can be reached and takes its statuses from then on."""
        self._tasks.start(f"watch {site}", self._follow(site, server))

    async def _follow(self, site: str, server: Endpoint) -> None:
        inbox = self._subjects.inbox(site, "operator", "watch")
        login = Login(server, "operator watch", inbox, self._operator.seed_file)
        while True:
            try:
                connection = await connect(login, self._settings.client, _ATTEMPT_S)
                break
            except MeshError as error:
                log.debug("%s is not there yet: %s", site, error)
                await asyncio.sleep(self._settings.client.reconnect_wait_s)
        self._connections.append(connection)
        await connection.subscribe(self._subjects.status(site), self._take)

    async def _take(self, message: Message) -> None:
        try:
            self._statuses.take(decode_site(message.data))
        except msgspec.MsgspecError as error:
            log.warning("a status on %s cannot be read: %s", message.subject, error)

    async def aclose(self) -> None:
        await self._tasks.aclose()
        await asyncio.gather(*(connection.aclose() for connection in self._connections))
