"""Carries decisions from a site's stream to its parent, which stores and so republishes them.

The child reads its stream by position without acknowledgements, sends batches as requests on the link's own subjects
and moves its cursor when the parent answers. The parent remembers how far each child has come, so a batch that is sent
twice, because its answer was lost, is stored once. Cursors name the stream's incarnation: a stream made anew is sent
from its beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mesh.errors import SubjectError
from mesh.fabric.machine import write_atomically
from mesh.settings import ForwarderSettings
from mesh.subjects import Subjects
from mesh.transport.connection import Away, Connection, Message
from mesh.transport.stream import Stored, extent, read, store

log = logging.getLogger(__name__)

TOPIC = "decisions"
SCOPE = "global"


class Carried(msgspec.Struct, array_like=True, frozen=True):
    """One decision in a batch."""

    sequence: int
    subject: str
    id: str
    data: bytes


class Batch(msgspec.Struct, array_like=True, frozen=True):
    """What a child sends: decisions of one incarnation of its stream, in order."""

    incarnation: str
    decisions: list[Carried]


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """What the parent says: everything up to `sequence` is stored; `refused` were no decisions of the child's."""

    sequence: int
    refused: int = 0


class Cursor(msgspec.Struct, frozen=True):
    """How far a stream has been carried."""

    incarnation: str = ""
    sequence: int = 0


class Cursors(msgspec.Struct):
    """All cursors of a site: its own to the parent, and its children's."""

    up: Cursor = Cursor()
    children: dict[str, Cursor] = {}


@dataclass
class CursorFile:
    """Cursors on disk, replaced in one step."""

    path: Path
    cursors: Cursors = field(default_factory=Cursors)

    def load(self) -> None:
        """Without the file everything is carried again, and stored once; so a garbled one is set aside."""
        try:
            self.cursors = msgspec.json.decode(self.path.read_bytes(), type=Cursors)
        except FileNotFoundError:
            self.cursors = Cursors()
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            aside = self.path.replace(self.path.with_suffix(".garbled"))
            log.warning("the cursors are garbled (%s), kept as %s; decisions are carried again", error, aside)
            self.cursors = Cursors()

    def save(self) -> None:
        write_atomically(self.path, msgspec.json.encode(self.cursors).decode())


def batches(found: list[Stored], bytes_max: int) -> list[list[Stored]]:
    """`found` in order, cut so that no batch holds more than `bytes_max` of data unless it is a single decision."""
    cut: list[list[Stored]] = []
    size = 0
    for one in found:
        if not cut or size + len(one.data) > bytes_max:
            cut.append([])
            size = 0
        cut[-1].append(one)
        size += len(one.data)
    return cut


@dataclass
class Forwarder:
    """The child's side: `local` reads the stream, `link` (whose inbox is a link subject) talks to the parent."""

    local: Connection
    link: Connection
    subject: str
    decisions: str
    """The stream's subjects."""
    stream: str
    cursors: CursorFile
    settings: ForwarderSettings
    forwarded: int = 0
    last: int = 0
    """Newest sequence of the stream that was seen."""

    @property
    def backlog(self) -> int:
        """Decisions in the stream that the parent has not acknowledged."""
        return max(0, self.last - self.cursors.cursors.up.sequence)

    async def run(self) -> None:
        """Carries for ever; failures of the link or the server are waited out."""
        while True:
            try:
                await self._carry()
            except Away as error:
                log.info("decisions wait: %s", error)
            await asyncio.sleep(self.settings.retry_wait_s)

    async def finish(self, deadline_s: float) -> None:
        """Waits up to `deadline_s` until the parent has everything the stream holds now."""
        ends = asyncio.get_running_loop().time() + deadline_s
        try:
            last = (await extent(self.local, self.stream)).last
        except Away as error:
            log.info("the last decisions stay in the stream: %s", error)
            return
        while self.cursors.cursors.up.sequence < last and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.02)

    async def _carry(self) -> None:
        state = await extent(self.local, self.stream)
        self.last = state.last
        cursor = self.cursors.cursors.up
        if cursor.incarnation != state.incarnation or cursor.sequence > state.last:
            cursor = Cursor(state.incarnation, 0)
            self.cursors.cursors.up = cursor
        settings = self.settings
        async for found in self._read(cursor.sequence):
            if not found:
                self.last = (await extent(self.local, self.stream)).last
                continue
            self.last = max(self.last, found[-1].sequence)
            for batch in batches(found, settings.batch_bytes_max):
                await self._send(
                    Batch(state.incarnation, [Carried(s.sequence, s.subject, s.id, s.data) for s in batch])
                )

    def _read(self, after: int) -> AsyncIterator[list[Stored]]:
        settings = self.settings
        return read(self.local, self.stream, self.decisions, after, settings.batch_max, settings.idle_wait_s)

    async def _send(self, batch: Batch) -> None:
        """Sends until the parent has stored it; raises Away after a failed attempt's pause when our server is away."""
        payload = msgspec.msgpack.encode(batch)
        while True:
            try:
                reply = await self.link.request(self.subject, payload, self.settings.ack_timeout_s)
                answer = msgspec.msgpack.decode(reply.data, type=Answer)
                break
            except Away as error:
                log.info("the parent has not answered: %s", error)
            except msgspec.MsgspecError as error:
                log.warning("the parent's answer cannot be read: %s", error)
            await asyncio.sleep(self.settings.retry_wait_s)
            self.last = max(self.last, (await extent(self.local, self.stream)).last)
        self.cursors.cursors.up = Cursor(batch.incarnation, batch.decisions[-1].sequence)
        self.cursors.save()
        self.forwarded += len(batch.decisions)
        if answer.refused:
            log.warning("the parent refused %d decisions", answer.refused)


@dataclass
class Receiver:
    """The parent's side for all children of a site."""

    local: Connection
    subjects: Subjects
    site: str
    cursors: CursorFile
    timeout_s: float
    subtree: Callable[[str], frozenset[str]]
    """Sites below and including a child: it may speak for these alone."""
    unreadable: int = 0

    async def listen(self, children: tuple[str, ...]) -> None:
        """Answers the batches of `children`."""
        for child in children:

            async def handle(message: Message, child: str = child) -> None:
                await self._take(child, message)

            await self.local.subscribe(self.subjects.link(SCOPE, child, self.site, TOPIC), handle)

    async def _take(self, child: str, message: Message) -> None:
        try:
            batch = msgspec.msgpack.decode(message.data, type=Batch)
        except msgspec.MsgspecError as error:
            self.unreadable += 1
            if self.unreadable.bit_count() == 1:  # the 1st, 2nd, 4th, 8th, …
                log.warning("a batch of %s cannot be read: %s (%d so far)", child, error, self.unreadable)
            return
        known = self.cursors.cursors.children.get(child, Cursor())
        seen = known.sequence if known.incarnation == batch.incarnation else 0
        news = [one for one in batch.decisions if one.sequence > seen]
        allowed = [one for one in news if self._may_say(child, one.subject)]
        stores = (store(self.local, one.subject, one.data, one.id, self.timeout_s) for one in allowed)
        failures = [r for r in await asyncio.gather(*stores, return_exceptions=True) if isinstance(r, BaseException)]
        if failures:
            log.warning("%d of %d decisions of %s are not stored: %s", len(failures), len(news), child, failures[0])
            return  # no answer: the child sends them again, what is stored already is stored once
        if news:
            self.cursors.cursors.children[child] = Cursor(batch.incarnation, news[-1].sequence)
            self.cursors.save()
        if message.reply:
            last = max(seen, batch.decisions[-1].sequence if batch.decisions else 0)
            answer = Answer(last, len(news) - len(allowed))
            await self.local.publish(message.reply, msgspec.msgpack.encode(answer))

    def _may_say(self, child: str, subject: str) -> bool:
        try:
            return self.subjects.parse_decision(subject).site in self.subtree(child)
        except SubjectError as error:
            log.warning("%s sent %s", child, error)
            return False
