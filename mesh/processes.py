"""Processes that outlive those who started them, and are found again by a mark in their environment.

A pid alone proves nothing, since numbers are reused. Every process is started with `MESH_PROCESS=<mark>`, which its
children inherit, so that a mark finds a Ray head together with its daemons and workers.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "MESH_PROCESS"
UP = "up"
"""Word by which the command line of a `mesh up` is known."""
_PROC = Path("/proc")
_ROUNDS = 3
"""A process that is being ended may have started another one in between."""
_KILLED_S = 5.0
"""Time for the kernel to take a killed process away."""


@dataclass(frozen=True)
class Process:
    """A living process and the mark it was found by."""

    pid: int
    mark: str

    def arguments(self) -> list[bytes]:
        """Its command line; empty when it is gone."""
        try:
            return (_PROC / str(self.pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    def verified(self) -> bool:
        """Whether the process still lives and still carries the mark."""
        return _carries(self.pid, self.mark)

    def signal(self, number: signal.Signals) -> bool:
        """Signals it unless it is gone, or its number belongs to another process by now; tells whether it did."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            if not self.verified():
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    async def gone(self, deadline_s: float) -> bool:
        """Waits up to `deadline_s` for its end; tells whether it ended."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_s
        while self.verified():
            if loop.time() >= ends:
                return False
            await asyncio.sleep(0.02)
        return True


def launch(
    arguments: Sequence[str], mark: str, log: Path, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Starts a process in a session of its own, so that it survives its parent; its output goes to `log`.

    Raises OSError when the program cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {}), MARK: mark},
            start_new_session=True,
        )


def marked(mark: str) -> list[Process]:
    """Living processes that carry `mark`, the oldest number first; not the caller itself."""
    numbers = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [Process(pid, mark) for pid in numbers if pid != os.getpid() and _carries(pid, mark)]


def recorded(pid_file: Path, mark: str) -> Process | None:
    """The process with `mark`: the one the pid file names, or, should that be lost or stale, the first found."""
    number = read_pid(pid_file)
    if number is not None and _carries(number, mark):
        return Process(number, mark)
    return next(iter(marked(mark)), None)


def read_pid(pid_file: Path) -> int | None:
    """The number in a pid file; None when there is no such file or no number in it."""
    try:
        text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def running_command(pid_file: Path, word: str) -> int | None:
    """The number in a pid file when that process, not the caller, lives and has `word` in its command line."""
    number = read_pid(pid_file)
    if number is None or number == os.getpid():
        return None
    try:
        arguments = (_PROC / str(number) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    return number if word.encode() in arguments else None


async def end(process: Process, deadline_s: float) -> None:
    """Ends a process: SIGTERM, then SIGKILL at the deadline."""
    process.signal(signal.SIGTERM)
    if not await process.gone(deadline_s):
        process.signal(signal.SIGKILL)
        await process.gone(_KILLED_S)


async def end_marked(mark: str, deadline_s: float) -> int:
    """Ends every process that carries `mark`: SIGTERM, then SIGKILL at the deadline; returns how many there were."""
    ended = 0
    for _ in range(_ROUNDS):
        found = await asyncio.to_thread(marked, mark)
        if not found:
            break
        await asyncio.gather(*(end(process, deadline_s) for process in found))
        ended += len(found)
    return ended


def _carries(pid: int, mark: str) -> bool:
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(f"{MARK}={mark}") in variables
