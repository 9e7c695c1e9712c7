"""What a running nats-server says of itself: its greeting on the client port and the JSON of its monitor."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any

from mesh.errors import FabricError

_LINE_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = 16 * 2**20


class MonitorError(FabricError):
    """Raised when a server's greeting or monitor cannot be read; a server that starts or stops raises it too."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host = host
        self.port = port
        super().__init__(f"the nats-server at {host}:{port} {why}", "see its log in the site's folder")


@dataclass(frozen=True)
class LinkState:
    """One live leaf link of a server."""

    site: str
    """The neighbour; the bare server name when it is none of the mesh's."""
    rtt_s: float | None
    """Round trip in seconds as the server last measured it; None before its first ping."""
    bytes_in: int
    """Bytes received over this connection."""
    bytes_out: int
    """Bytes sent over this connection."""


async def greeting(host: str, port: int, deadline_s: float) -> dict[str, Any]:
    """The INFO that the server greets clients with; raises MonitorError."""
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, port, limit=_LINE_BYTES_MAX)
            try:
                line = await reader.readline()
            finally:
                await _close(writer)
    except (OSError, TimeoutError, ValueError) as error:
        raise MonitorError(host, port, "does not answer") from error
    if not line.startswith(b"INFO "):
        raise MonitorError(host, port, "does not greet as a nats-server does")
    return _object(line[5:], host, port)


async def ask(host: str, port: int, path: str, deadline_s: float) -> tuple[int, dict[str, Any]]:
    """Status code and JSON of one page of the monitor, such as `/varz`; raises MonitorError."""
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode("ascii"))
                await writer.drain()
                answer = await reader.read(_BODY_BYTES_MAX)
                while more := await reader.read(_BODY_BYTES_MAX):
                    answer += more
            finally:
                await _close(writer)
    except (OSError, TimeoutError) as error:
        raise MonitorError(host, port, "does not answer") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise MonitorError(host, port, "does not answer as a monitor does")
    return int(words[1]), _object(body, host, port)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _object(text: bytes, host: str, port: int) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise MonitorError(host, port, "sent no JSON") from error
    if not isinstance(value, dict):
        raise MonitorError(host, port, "sent no JSON object")
    return value


def seconds(duration: object) -> float | None:
    """Seconds of a duration as Go prints it (`4.21ms`, `1m2.5s`); None for anything else."""
    if not isinstance(duration, str):
        return None
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "ns": 1e-9}
    total, number, unit = 0.0, "", ""
    for character in duration + "0":
        if character.isdigit() or character == ".":
            if unit:
                if unit not in units or not number or number.count(".") > 1:
                    return None
                total += float(number) * units[unit]
                number, unit = "", ""
            number += character
        else:
            unit += character
    return total if number == "0" and duration else None
