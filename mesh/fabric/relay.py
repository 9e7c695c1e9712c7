"""A TCP relay on loopback that stands for the network between a site and its parent on one machine.

It delays and paces what passes, and can be cut like a cable: nobody is told, connections stay open and nothing flows.
TCP promises that what was sent arrives or the connection ends, so bytes that a cut caught under way are held, not lost,
and arrive after `heal` if both ends still wait for them; a connection that either end gave up meanwhile ends then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Callable

from mesh.errors import FabricError, PortInUseError
from mesh.fabric.pacing import Pace, admit
from mesh.fabric.ports import LOOPBACK

_CHUNK_BYTES = 64 * 1024
_CONNECTIONS_MAX = 64
"""A leaf that finds its link dead retries several times a second; beyond this new connections are refused."""


class Relay:
    """Relays connections on `listen_port` to `target_host:target_port`; both directions have the same pace."""

    def __init__(
        self,
        listen_port: int,
        target_host: str,
        target_port: int,
        latency_s: float = 0.0,
        bandwidth_bps: float | None = None,
        *,
        cut: bool = False,
    ) -> None:
        """`latency_s` is one way, in seconds; `bandwidth_bps` in bits per second, None for unlimited; `cut` begins
        with a dead link. Port 0 lets the system choose (`port` tells)."""
        self._listen_port = listen_port
        self._target = (target_host, target_port)
        self._pace = Pace(latency_s, bandwidth_bps)
        self._whole = asyncio.Event()
        if not cut:
            self._whole.set()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._up = self._down = 0

    async def __aenter__(self) -> Relay:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def port(self) -> int:
        """Port it listens on."""
        return self._listen_port

    @property
    def is_cut(self) -> bool:
        """Whether the link is dead."""
        return not self._whole.is_set()

    @property
    def bytes_up(self) -> int:
        """Bytes delivered to the target so far."""
        return self._up

    @property
    def bytes_down(self) -> int:
        """Bytes delivered from the target so far."""
        return self._down

    @property
    def connections(self) -> int:
        """Connections open now, held ones included."""
        return len(self._connections)

    async def start(self) -> None:
        """Listens on loopback; raises PortInUseError."""
        try:
            self._server = await asyncio.start_server(
                self._accept, LOOPBACK, self._listen_port, limit=_CHUNK_BYTES, reuse_address=True
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError("the relay of an uplink", LOOPBACK, self._listen_port) from error
            raise FabricError(
                f"the relay of an uplink cannot listen on port {self._listen_port} ({error.strerror})",
                "remove machine.json so that ports are chosen anew",
            ) from error
        self._listen_port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Makes the link silently dead; harmless when it is."""
        self._whole.clear()

    def heal(self) -> None:
        """Makes the link whole; harmless when it is."""
        self._whole.set()

    async def aclose(self) -> None:
        """Stops listening and drops every connection; harmless when closed."""
        if self._server is None:
            return
        self._server.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    def _count_up(self, size: int) -> None:
        self._up += size

    def _count_down(self, size: int) -> None:
        self._down += size

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _CONNECTIONS_MAX:
            writer.transport.abort()
            return
        name = f"relay: {self._listen_port} to {self._target[1]}"
        task = asyncio.create_task(self._serve(reader, writer), name=name)
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._carry(reader, writer)
        finally:
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up = _Direction(self._pace, self._whole, self._count_up)
        down = _Direction(self._pace, self._whole, self._count_down)
        filling = asyncio.create_task(up.fill(reader), name="relay: read from the child")
        far: asyncio.StreamWriter | None = None
        tasks = [filling]
        try:
            if not await self._reachable(filling):
                return
            try:
                far_reader, far = await asyncio.open_connection(*self._target, limit=_CHUNK_BYTES)
            except OSError:
                return
            tasks += [
                asyncio.create_task(up.pour(far), name="relay: write to the parent"),
                asyncio.create_task(down.fill(far_reader), name="relay: read from the parent"),
                asyncio.create_task(down.pour(writer), name="relay: write to the child"),
            ]
            with contextlib.suppress(OSError):
                await asyncio.gather(tasks[1], tasks[3])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if far is not None:
                far.transport.abort()

    async def _reachable(self, filling: asyncio.Task[None]) -> bool:
        """Waits until the link is whole and a connection request had time to cross; False when the child gave up."""
        while not self._whole.is_set():
            waiting = asyncio.create_task(self._whole.wait(), name="relay: wait for heal")
            await asyncio.wait({waiting, filling}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if filling.done():
                return False
        if self._pace.latency_s:
            await asyncio.sleep(self._pace.latency_s)
        return True


class _Direction:
    """One direction of one connection: a bounded queue of chunks, each with the time at which it arrives."""

    def __init__(self, pace: Pace, whole: asyncio.Event, count: Callable[[int], None]) -> None:
        self._pace = pace
        self._whole = whole
        self._count = count
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()

    async def fill(self, reader: asyncio.StreamReader) -> None:
        """Reads until the end of the stream; pauses while the queue is full, so that the sender feels it."""
        loop = asyncio.get_running_loop()
        while True:
            while self._bytes >= self._pace.window_bytes:
                await self._wait()
            try:
                chunk = await reader.read(_CHUNK_BYTES)
            except OSError:
                chunk = b""
            self._pace, arrives = admit(self._pace, len(chunk), loop.time())
            self._chunks.append((arrives, chunk))
            self._bytes += len(chunk)
            self._changed.set()
            if not chunk:
                return

    async def pour(self, writer: asyncio.StreamWriter) -> None:
        """Writes chunks when their time has come and the link is whole, then the end of the stream; raises OSError."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._chunks:
                await self._wait()
            arrives, chunk = self._chunks[0]
            if (left := arrives - loop.time()) > 0:
                await asyncio.sleep(left)
            await self._whole.wait()
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
            self._chunks.popleft()
            self._bytes -= len(chunk)
            self._changed.set()
            self._count(len(chunk))

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
