"""Decisions on their way to the stream: sent in order, kept until acknowledged, sent again under the same id.

The stream stores an id once, so repetition is harmless. After a failed acknowledgement everything unacknowledged is
sent again from the oldest, which keeps the order of each key.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.settings import ReplicaSettings
from mesh.transport.connection import Away, Connection
from mesh.transport.stream import store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outgoing:
    """One decision: its id, subject and CloudEvent bytes."""

    id: str
    subject: str
    payload: bytes


@dataclass
class Outbox:
    """At most `outbox_capacity` decisions wait; beyond it the oldest is dropped and counted."""

    connection: Connection
    settings: ReplicaSettings
    sent: Callable[[Outgoing], None]
    """Called whenever a decision is published, so more than once when it has to be sent again."""
    stored: int = 0
    dropped: int = 0
    _waiting: OrderedDict[str, Outgoing] = field(default_factory=OrderedDict)
    _flying: OrderedDict[str, Outgoing] = field(default_factory=OrderedDict)
    _storing: set[asyncio.Task[None]] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _all_stored: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: str = ""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    def put(self, outgoing: Outgoing) -> None:
        """Takes a decision; returns at once. One that is on its way already is not taken twice."""
        if outgoing.id in self._waiting or outgoing.id in self._flying:
            return
        if len(self._waiting) >= self.settings.outbox_capacity:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._waiting[outgoing.id] = outgoing
        self._all_stored.clear()
        self._news.set()

    async def run(self) -> None:
        """Sends for ever; ends by cancellation. Up to `outbox_window` acknowledgements are awaited at once."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self._trouble and not self._storing:
                    await self._rewind()
                while self._waiting and not self._trouble and len(self._flying) < self.settings.outbox_window:
                    id_, outgoing = self._waiting.popitem(last=False)
                    self._flying[id_] = outgoing
                    task = asyncio.create_task(self._store(outgoing), name=f"store {id_}")
                    self._storing.add(task)
                    task.add_done_callback(self._settled)
        finally:
            for task in self._storing:
                task.cancel()

    async def empty(self) -> None:
        """Waits until every decision is acknowledged."""
        while len(self):
            await self._all_stored.wait()

    async def _store(self, outgoing: Outgoing) -> None:
        self.sent(outgoing)
        try:
            await store(self.connection, outgoing.subject, outgoing.payload, outgoing.id, self.settings.ack_timeout_s)
        except Away as error:
            self._trouble = str(error)
        else:
            self.stored += 1
            self._flying.pop(outgoing.id, None)
            if not len(self):
                self._all_stored.set()

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._storing.discard(task)
        self._news.set()

    async def _rewind(self) -> None:
        """Puts what was not acknowledged back in front, in its order, and waits a little."""
        self._waiting = OrderedDict([*self._flying.items(), *self._waiting.items()])
        self._flying = OrderedDict()
        log.warning("%d decisions are not stored yet: %s", len(self._waiting), self._trouble)
        self._trouble = ""
        self._news.set()
        await asyncio.sleep(self.settings.ack_timeout_s / 4)
