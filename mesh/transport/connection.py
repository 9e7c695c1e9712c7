"""A connection to one nats-server: what the mesh needs of nats-py, with its own errors and deadlines.

nats-py retries a refused credential and an absent server for ever when told to reconnect for ever, so the first
connect is bounded here, and authorisation errors are told apart.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext

from mesh.errors import ConnectError, CredentialError
from mesh.settings import ClientSettings
from mesh.topology.endpoint import Endpoint

log = logging.getLogger(__name__)

MSG_ID = "Nats-Msg-Id"
"""Header by which a stream stores the same message once."""


class Message(Protocol):
    """A received message."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def reply(self) -> str: ...
    @property
    def headers(self) -> dict[str, str] | None: ...


Handle = Callable[[Message], Awaitable[None]]


class Away(ConnectError):
    """Raised when a peer did not answer in time: the message may or may not have arrived."""


@dataclass(frozen=True)
class Login:
    """Who connects, to what. `inbox` is the private reply prefix that the identity may subscribe to."""

    server: Endpoint
    name: str
    inbox: str
    seed_file: Path | None = None

    @property
    def url(self) -> str:
        """URL of the server."""
        return self.server.url


@dataclass
class Connection:
    """Made by `connect`; belongs to the event loop it was made on."""

    login: Login
    client: Client
    _subscriptions: list[Subscription] = field(default_factory=list)

    @property
    def connected(self) -> bool:
        return bool(self.client.is_connected)

    @property
    def jetstream(self) -> JetStreamContext:
        """nats-py's JetStream context, for `mesh.transport.stream`."""
        return self.client.jetstream(timeout=5.0)

    async def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Sends without acknowledgement; raises Away when the buffer of a disconnected client is full."""
        try:
            await self.client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.OutboundBufferLimitError, nats.errors.ConnectionClosedError) as error:
            raise self._away(subject) from error

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Message:
        """The first reply; raises Away when nobody listens or none came within `timeout_s`."""
        try:
            found = await self.client.request(subject, payload, timeout=timeout_s, headers=cast(Any, headers))
        except (TimeoutError, nats.errors.Error) as error:
            raise self._away(subject) from error
        return cast(Message, found)

    async def subscribe(self, subject: str, handle: Handle, queue: str = "") -> Callable[[], Awaitable[None]]:
        """Calls `handle` with each message, one after the other; returns what ends it."""
        subscription = await self.client.subscribe(subject, queue=queue, cb=cast(Any, handle))
        self._subscriptions.append(subscription)

        async def end() -> None:
            if not self.client.is_closed and subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
                await subscription.unsubscribe()

        return end

    async def flush(self, timeout_s: float = 2.0) -> None:
        """Waits until the server has taken everything sent so far; raises Away."""
        try:
            await self.client.flush(timeout=cast(Any, timeout_s))
        except (TimeoutError, nats.errors.Error) as error:
            raise self._away("a flush") from error

    async def stop_intake(self) -> None:
        """Ends every subscription; messages that have arrived are no longer handled."""
        for subscription in self._subscriptions:
            if self.client.is_connected:
                await subscription.unsubscribe()
        self._subscriptions.clear()

    async def aclose(self, drain_s: float = 2.0) -> None:
        """Flushes what can be flushed and closes."""
        if self.client.is_connected:
            try:
                await self.flush(drain_s)
            except Away as error:
                log.info("closing without flush: %s", error)
        await self.client.close()

    def _away(self, subject: str) -> Away:
        return Away(f"{self.login.url} gave no answer for {subject}", "try again when the server or its link is back")


async def connect(login: Login, settings: ClientSettings, deadline_s: float | None = None) -> Connection:
    """Connects within `deadline_s` (default: the settings') and then reconnects for ever.

    Raises CredentialError when the server refuses the identity, ConnectError when it cannot be reached.
    """
    limit = settings.connect_deadline_s if deadline_s is None else deadline_s
    client = Client()
    connection = Connection(login, client)
    refusal = asyncio.Event()

    async def on_error(error: Exception) -> None:
        text = str(error).lower()
        if "authorization" in text or "permissions" in text or isinstance(error, nats.errors.AuthorizationError):
            if not client.is_connected:
                refusal.set()
            log.warning("%s as %s: %s", login.url, login.name, error)

    seed = str(login.seed_file) if login.seed_file else None
    attempt = asyncio.create_task(
        client.connect(
            login.url,
            name=login.name,
            nkeys_seed=cast(Any, seed),
            inbox_prefix=login.inbox,
            error_cb=on_error,
            max_reconnect_attempts=-1,
            reconnect_time_wait=cast(Any, settings.reconnect_wait_s),
            ping_interval=cast(Any, settings.ping_interval_s),
            max_outstanding_pings=settings.ping_max,
            pending_size=settings.pending_bytes,
            connect_timeout=2,
            tls=_tls(login),
        ),
        name=f"connect {login.name}",
    )
    refused = asyncio.create_task(refusal.wait(), name=f"refusal {login.name}")
    try:
        done, _ = await asyncio.wait({attempt, refused}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if refused in done:
            raise CredentialError(login.url, login.name)
        if attempt not in done:
            raise ConnectError(f"no nats-server answers at {login.url}", "check that the site is up with 'mesh up'")
        await attempt
    except (nats.errors.Error, OSError, ValueError) as error:
        if "authorization" in str(error).lower():
            raise CredentialError(login.url, login.name) from error
        raise ConnectError(f"{login.url} cannot be used ({error})", "check the URL and that the server runs") from error
    except BaseException:
        await client.close()
        raise
    finally:
        refused.cancel()
        attempt.cancel()
    return connection


def _tls(login: Login) -> ssl.SSLContext | None:
    """Certificates are checked against the endpoint's own authority, else against the system's; None without TLS."""
    if login.server.ca is None:
        return None
    try:
        return ssl.create_default_context(cafile=login.server.ca)
    except (OSError, ssl.SSLError) as error:
        raise ConnectError(
            f"the authority {login.server.ca} cannot be read ({error})", "correct listen.tls.ca in the topology"
        ) from error
