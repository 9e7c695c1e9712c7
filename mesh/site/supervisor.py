"""Makes a site's replicas match its fleet: performs on Ray what `mesh.site.fleet` decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from mesh.clock import Clock
from mesh.errors import PlacementError, RayError
from mesh.health import decode_replica
from mesh.placement import Placed, shortages
from mesh.runtime.cluster import Cluster
from mesh.runtime.spec import ReplicaSpec
from mesh.settings import SupervisorSettings
from mesh.site.fleet import Action, Fleet
from mesh.transport.connection import Message

log = logging.getLogger(__name__)

RAY_FAILURES_MAX = 3
"""Failed calls in a row after which the cluster counts as lost and the site process gives up its connection."""


@dataclass(frozen=True)
class Wanted:
    """A replica that should run at this site."""

    placed: Placed
    spec: ReplicaSpec


class Supervisor:
    """Owns the fleet of one site."""

    def __init__(
        self,
        site: str,
        wanted: Mapping[str, Wanted],
        cluster: Cluster,
        clock: Clock,
        settings: SupervisorSettings,
        hears: Callable[[], bool],
    ) -> None:
        """`hears` tells whether heartbeats can arrive: whether the site's nats-server answers."""
        self._site = site
        self._wanted = wanted
        self._cluster = cluster
        self._clock = clock
        self._settings = settings
        self._hears = hears
        self.fleet = Fleet({name: want.spec.digest() for name, want in wanted.items()}, settings)

    async def check(self) -> None:
        """Raises PlacementError when the cluster can never hold what is wanted."""
        missing = shortages([want.placed for want in self._wanted.values()], await self._cluster.nodes())
        if missing:
            raise PlacementError(missing)

    async def adopt(self) -> None:
        """Takes over replicas that an earlier site process left running."""
        self.fleet.found(await self._cluster.running(self._site), self._clock.monotonic())

    async def on_health(self, message: Message) -> None:
        """Takes a heartbeat."""
        try:
            health = decode_replica(message.data)
        except msgspec.MsgspecError as error:
            log.warning("a heartbeat on %s cannot be read: %s", message.subject, error)
            return
        self.fleet.heard(self._site, health, self._clock.monotonic())

    async def run(self) -> None:
        """Reconciles for ever; raises RayError when the cluster is lost."""
        failures = 0
        while True:
            if not self._hears():
                self.fleet.excuse(self._clock.monotonic())
            for action in self.fleet.actions(self._clock.monotonic()):
                try:
                    await self._perform(action)
                    failures = 0
                except RayError as error:
                    failures += 1
                    log.error("cannot %s %s: %s", action.verb, action.name, error)
                    if action.verb == "start":
                        self.fleet.start_failed(action.name, str(error), self._clock.monotonic())
                    if failures >= RAY_FAILURES_MAX:
                        raise
            await asyncio.sleep(self._settings.tick_s)

    async def _perform(self, action: Action) -> None:
        log.info("%s %s: %s", action.verb, action.name, action.why)
        if action.verb == "start":
            want = self._wanted[action.name]
            await self._cluster.start(want.placed, want.spec)
        elif action.verb == "replace":
            await self._cluster.replace(action.name)
        else:
            await self._cluster.end([action.name])
            self.fleet.ended(action.name)

    async def stop(self) -> None:
        """Drains and ends every replica."""
        await self._cluster.end(list(self.fleet.names))
