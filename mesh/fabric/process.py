"""Finding and ending processes safely: a process counts as ours only by its command line, never by its number alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.01


@dataclass(frozen=True)
class ServerProcess:
    """A living nats-server that was started with a certain configuration file."""

    pid: int
    config: Path

    def verified(self) -> bool:
        """Whether the process still lives and is still that server."""
        return _serves(self.pid, self.config)

    def send(self, number: signal.Signals) -> bool:
        """Signals it, unless it is gone or its number belongs to another process by now; tells whether it did."""
        with _pidfd(self.pid) as descriptor:
            if descriptor is None or not self.verified():
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True


async def end(process: ServerProcess, deadline_s: float) -> bool:
    """SIGTERM, then SIGKILL after `deadline_s` seconds; tells whether it is gone in the end, its sockets included."""
    with _pidfd(process.pid) as descriptor:
        if descriptor is None or not process.verified():
            return True
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if await _ended(descriptor, deadline_s):
                return True
    return False


async def _ended(descriptor: int, deadline_s: float) -> bool:
    """Waits up to `deadline_s` seconds for the process behind a pidfd, which is readable once it has ended."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ends = asyncio.get_running_loop().time() + deadline_s
    while not poll.poll(0):
        if asyncio.get_running_loop().time() >= ends:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def running_server(pid_file: Path, config: Path) -> ServerProcess | None:
    """The nats-server started with `config`, found by its pid file or, should that be lost, among all processes.

    A pid file whose number belongs to another process by now is not believed.
    """
    number = read_pid(pid_file)
    if number is not None and _serves(number, config):
        return ServerProcess(number, config)
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and _serves(int(entry.name), config):
            return ServerProcess(int(entry.name), config)
    return None


def read_pid(pid_file: Path) -> int | None:
    """The number in a pid file; None when there is no such file or no number in it."""
    try:
        first = pid_file.read_text(encoding="ascii", errors="replace").split()[:1]
    except (FileNotFoundError, PermissionError):
        return None
    return int(first[0]) if first and first[0].isdigit() else None


def alive_with(pid_file: Path) -> bool:
    """Whether a process with the number in `pid_file` lives, be it another one: the cautious answer."""
    number = read_pid(pid_file)
    return number is not None and _state(number) not in (None, "Z", "X")


def _serves(pid: int, config: Path) -> bool:
    try:
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    if Path(os.fsdecode(arguments[0])).name != "nats-server" or os.fsencode(config) not in arguments:
        return False
    return _state(pid) not in (None, "Z", "X")


def _state(pid: int) -> str | None:
    """One letter for a process's state, None when there is no such process."""
    try:
        status = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return status.rpartition(")")[2].split()[0]


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
