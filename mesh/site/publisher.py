"""Publishes a site's own telemetry as its sources say, in step with the clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from zlib import crc32

import msgspec

from mesh.clock import Clock
from mesh.subjects import Subjects
from mesh.telemetry.source import Source, due, due_at, observation
from mesh.transport.connection import Away, Connection

log = logging.getLogger(__name__)


@dataclass
class Publisher:
    """One source of a site. `epoch` is the wall time (seconds) of the source's first observation."""

    connection: Connection
    subjects: Subjects
    site: str
    kind: str
    source: Source
    speed: float
    epoch: float
    clock: Clock

    async def run(self) -> None:
        """Publishes until the source ends; what fell due while the process was away is not made up for."""
        step_s = self.source.step_s
        index = max(0, due(self.clock.now(), self.epoch, self.speed, step_s))
        phase = crc32(self.site.encode()) / 2**32
        while True:
            row = self.source.at(index)
            if row is None:
                log.info("telemetry of %s %s ended", self.site, self.kind)
                return
            time = self.source.begin + index * step_s
            for position, (id, fields) in enumerate(row.items()):
                # spread over the step, as cells that report by themselves are
                await self._until(due_at(index + (position + phase) / len(row), self.epoch, self.speed, step_s))
                await self._publish(id, time, fields)
            index += 1
            await self._until(due_at(index, self.epoch, self.speed, step_s))

    async def _until(self, when: float) -> None:
        pause = when - self.clock.now()
        if pause > 0:
            await asyncio.sleep(pause)

    async def _publish(self, id: str, time: float, fields: Mapping[str, float]) -> None:
        payload = msgspec.json.encode(observation(self.kind, id, time, fields))
        try:
            await self.connection.publish(self.subjects.telemetry(self.site, self.kind, id), payload)
        except Away as error:
            log.info("an observation is lost: %s", error)
