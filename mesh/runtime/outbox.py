"""Decisions on their way to the stream: sent in order, kept until acknowledged, sent again under the same id.

The stream stores an id once, so repetition is harmless. When an acknowledgement fails or does not come, everything
unacknowledged is sent again from the oldest, which keeps the order of each key.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.clock import Clock
from mesh.settings import ReplicaSettings
from mesh.transport.connection import Away, Connection
from mesh.transport.stream import Writer

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
    clock: Clock
    sent: Callable[[Outgoing], None]
    """Called whenever a decision is published, so more than once when it has to be sent again."""
    stored: int = 0
    dropped: int = 0
    _waiting: OrderedDict[str, Outgoing] = field(default_factory=OrderedDict)
    _flying: OrderedDict[str, tuple[Outgoing, float]] = field(default_factory=OrderedDict)
    """Sent and not acknowledged, with the time of sending (monotonic seconds), in the order of sending."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _all_stored: asyncio.Event = field(default_factory=asyncio.Event)
    _trouble: str = ""

    def __post_init__(self) -> None:
        self._writer = Writer(self.connection, self._answered)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._flying)

    async def open(self) -> None:
        """Begins to listen for acknowledgements; call it before `put`."""
        await self._writer.open()

    async def put(self, outgoing: Outgoing) -> None:
        """Takes a decision and sends it, at once when nothing is before it; one on its way is not taken twice."""
        if self._take(outgoing):
            if len(self._waiting) > 1 or self._trouble or len(self._flying) >= self.settings.outbox_window:
                self._news.set()
            else:
                await self._send(self._waiting.popitem(last=False)[1])

    def put_later(self, outgoing: Outgoing) -> None:
        """Takes a decision whose asker has been answered: it may wait `outbox_linger_s` for others to go with it."""
        if self._take(outgoing) and len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(self.settings.outbox_linger_s, self._news.set)

    def _take(self, outgoing: Outgoing) -> bool:
        if outgoing.id in self._waiting or outgoing.id in self._flying:
            return False
        if len(self._waiting) >= self.settings.outbox_capacity:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._waiting[outgoing.id] = outgoing
        self._all_stored.clear()
        return True

    async def run(self) -> None:
        """Sends what had to wait and what was not acknowledged, for ever; ends by cancellation.

        At most `outbox_window` acknowledgements are awaited at once.
        """
        while True:
            await self._wait()
            if self._trouble:
                await self._rewind()
            while self._waiting and not self._trouble and len(self._flying) < self.settings.outbox_window:
                await self._send(self._waiting.popitem(last=False)[1])

    async def empty(self) -> None:
        """Waits until every decision is acknowledged."""
        while len(self):
            await self._all_stored.wait()

    async def _wait(self) -> None:
        """Until there is news, or an acknowledgement may be overdue."""
        overdue = self.settings.ack_timeout_s
        try:
            async with asyncio.timeout(overdue / 2):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        if self._flying:
            _, sent_at = next(iter(self._flying.values()))
            if self.clock.monotonic() - sent_at > overdue:
                self._trouble = self._trouble or f"no acknowledgement within {overdue:g} s"

    async def _send(self, outgoing: Outgoing) -> None:
        self._flying[outgoing.id] = (outgoing, self.clock.monotonic())
        self.sent(outgoing)
        try:
            await self._writer.send(outgoing.subject, outgoing.payload, outgoing.id)
        except Away as error:
            self._trouble = str(error)
            self._news.set()

    def _answered(self, id: str, error: str | None) -> None:
        if error is not None:
            self._trouble = error
        elif self._flying.pop(id, None) is not None:
            self.stored += 1
            if not len(self):
                self._all_stored.set()
        if error is not None or self._waiting:
            self._news.set()

    async def _rewind(self) -> None:
        """Puts what was not acknowledged back in front, in its order, and waits a little."""
        flown = OrderedDict((id_, outgoing) for id_, (outgoing, _) in self._flying.items())
        self._waiting = OrderedDict([*flown.items(), *self._waiting.items()])
        self._flying.clear()
        log.warning("%d decisions are not stored yet: %s", len(self._waiting), self._trouble)
        await asyncio.sleep(self.settings.ack_timeout_s / 4)
        self._trouble = ""
        self._news.set()
