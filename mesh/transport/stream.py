"""The site-local stream of decisions: made once, written with ids, read by position without acknowledgements.

Readers use consumers with `ack_policy: none`, because `$JS.ACK.>` passes any leaf's permissions (docs/subjects.md);
each keeps its own cursor instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
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
from mesh.transport.connection import MSG_ID, Away, Connection

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
