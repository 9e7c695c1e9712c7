"""The site-local stream of decisions: made once, written with ids, read by position without acknowledgements.

Readers use consumers with `ack_policy: none`, because `$JS.ACK.>` passes any leaf's permissions (docs/subjects.md);
each keeps its own cursor instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)

from mesh.errors import FabricError
from mesh.settings import StreamSettings
from mesh.transport.connection import MSG_ID, Away, Connection, Message

_AWAY = (TimeoutError, nats.errors.Error, nats.js.errors.ServiceUnavailableError, nats.js.errors.NoStreamResponseError)


@dataclass(frozen=True)
class Stored:
    """A message of a stream: `sequence` is its place there."""

    sequence: int
    subject: str
    data: bytes
    id: str


@dataclass(frozen=True)
class Extent:
    """What a stream holds: `incarnation` changes when its storage is lost and it is made anew."""

    incarnation: str
    first: int
    last: int


async def ensure_stream(connection: Connection, settings: StreamSettings, subjects: str, max_bytes: int) -> None:
    """Makes the stream or brings its limits up to date; raises FabricError when the server refuses."""
    config = StreamConfig(
        name=settings.name,
        subjects=[subjects],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_bytes=max_bytes,
        max_age=settings.max_age_s,
        duplicate_window=settings.duplicate_window_s,
    )
    try:
        try:
            await connection.jetstream.stream_info(settings.name)
        except nats.js.errors.NotFoundError:
            await connection.jetstream.add_stream(config)
        else:
            await connection.jetstream.update_stream(config)
    except nats.js.errors.APIError as error:
        raise FabricError(
            f"the stream {settings.name} cannot be kept ({error.description})", "free disk or lower capacity.disk"
        ) from error
    except _AWAY as error:
        raise Away(f"{connection.login.url} has no JetStream", "enable JetStream on that server") from error


async def store(connection: Connection, subject: str, payload: bytes, id: str, timeout_s: float) -> bool:
    """Stores one message under `id`; True when it was new. Raises Away when the stream did not say."""
    try:
        ack = await connection.jetstream.publish(subject, payload, timeout=timeout_s, headers={MSG_ID: id})
    except (*_AWAY, nats.js.errors.APIError) as error:
        raise Away(f"the stream took no {subject} ({error})", "it is sent again under the same id") from error
    return not ack.duplicate


class Writer:
    """Stores many messages at once: sends without waiting, and tells by `on_answer` what became of each id.

    Cheaper than `store` per message: one subscription takes all acknowledgements, whose last token is the id.
    """

    def __init__(self, connection: Connection, on_answer: Callable[[str, str | None], None]) -> None:
        """`on_answer(id, error)` is called with None when the stream has stored the message, else with why not."""
        self._connection = connection
        self._on_answer = on_answer
        self._inbox = f"{connection.login.inbox}.stored"

    async def open(self) -> None:
        """Begins to listen for acknowledgements."""
        await self._connection.subscribe(f"{self._inbox}.*", self._take)

    async def send(self, subject: str, payload: bytes, id: str) -> None:
        """Sends one message; `id` is a plain subject token. Raises Away when the client's buffer is full."""
        await self._connection.publish(subject, payload, {MSG_ID: id}, f"{self._inbox}.{id}")

    async def _take(self, message: Message) -> None:
        id = message.subject.rpartition(".")[2]
        if message.headers and message.headers.get("Status") == "503":
            self._on_answer(id, "there is no stream for it")
        elif b'"error"' in message.data:
            self._on_answer(id, message.data.decode(errors="replace"))
        else:
            self._on_answer(id, None)


async def extent(connection: Connection, stream: str) -> Extent:
    """What the stream holds now; raises Away."""
    try:
        info = await connection.jetstream.stream_info(stream)
    except (*_AWAY, nats.js.errors.APIError) as error:
        raise Away(f"the stream {stream} cannot be read ({error})", "try again when its server is back") from error
    return Extent(str(info.created), info.state.first_seq, info.state.last_seq)


async def read(
    connection: Connection, stream: str, subject: str, after: int, batch: int, wait_s: float
) -> AsyncIterator[list[Stored]]:
    """Batches of what lies after sequence `after` and matches `subject`, for ever; an empty batch says that nothing
    came for `wait_s`. Raises Away when the server is; begin again from the last sequence seen.
    """
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        mem_storage=True,
        inactive_threshold=60.0,
    )
    try:
        pull = await connection.jetstream.pull_subscribe(subject, stream=stream, config=config)
    except (*_AWAY, nats.js.errors.APIError) as error:
        raise Away(f"the stream {stream} cannot be read ({error})", "try again when its server is back") from error
    try:
        while True:
            try:
                found = await pull.fetch(batch, timeout=wait_s)
            except TimeoutError:
                if not connection.connected:
                    raise Away(f"{connection.login.url} is away", "try again when it is back") from None
                yield []
                continue
            except (*_AWAY, nats.js.errors.APIError) as error:
                raise Away(
                    f"the stream {stream} cannot be read ({error})", "try again when its server is back"
                ) from error
            yield [
                Stored(m.metadata.sequence.stream, m.subject, m.data, (m.headers or {}).get(MSG_ID, "")) for m in found
            ]
    finally:
        if connection.connected:
            await pull.unsubscribe()
