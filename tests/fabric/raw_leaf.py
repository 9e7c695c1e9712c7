"""A leaf node by hand: a hostile child that obeys nothing its parent tells it, as no real nats-server would."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nkeys


class RawLeaf:
    """Connects to a leaf port with a stolen seed and speaks the leaf protocol: LS+ to ask, LMSG to send."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.closed = False
        self._pong = asyncio.Event()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._task: asyncio.Task[None]

    async def open(self, port: int, seed_file: Path, **claims: Any) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        info = json.loads((await self._reader.readline())[5:])
        key = nkeys.from_seed(seed_file.read_bytes().strip())
        signature = base64.urlsafe_b64encode(key.sign(info["nonce"].encode())).rstrip(b"=")
        connect = {
            "nkey": key.public_key.decode(),
            "sig": signature.decode(),
            "version": "2.15.1",
            "server_id": "N" + "A" * 55,
            "name": f"hostile-{os.urandom(8).hex()}",
            "headers": False,
            "jetstream": True,
            "tls_required": False,
            **claims,
        }
        self._writer.write(f"CONNECT {json.dumps(connect)}\r\n".encode())
        self._task = asyncio.create_task(self._read(), name="raw leaf")

    def listen(self, subjects: Iterable[str]) -> None:
        for subject in subjects:
            self._writer.write(f"LS+ {subject}\r\n".encode())

    def send(self, subject: str, payload: bytes, reply: str = "") -> None:
        head = f"LMSG {subject} {reply} {len(payload)}" if reply else f"LMSG {subject} {len(payload)}"
        self._writer.write(head.encode() + b"\r\n" + payload + b"\r\n")

    async def settle(self) -> bool:
        """Waits until the server has dealt with all that was sent; False when it closed the connection over it."""
        self._pong.clear()
        if not self.closed:
            self._writer.write(b"PING\r\n")
            await self._pong.wait()
        return not self.closed

    async def aclose(self) -> None:
        self._task.cancel()
        self._writer.transport.abort()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await self._reader.readline():
                words = line.decode().split()
                if words[:1] == ["PING"]:
                    self._writer.write(b"PONG\r\n")
                elif words[:1] == ["PONG"]:
                    self._pong.set()
                elif words[:1] == ["LMSG"]:
                    body = await self._reader.readexactly(int(words[-1]) + 2)
                    self.heard.append((words[1], body[:-2]))
        self.closed = True
        self._pong.set()
