"""`mesh decisions`: prints decisions as they arrive, or from the stream's beginning."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import typer
import uvloop

from mesh.cli.console import errors, output, print_json, quiet_stdout
from mesh.cli.state import Running, StateOption, connect_as_operator, find_running
from mesh.decision import decode_event
from mesh.errors import UsageError
from mesh.settings import Settings
from mesh.subjects import Subjects
from mesh.transport.connection import Connection, Message
from mesh.transport.stream import read
from mesh.units import parse_duration

TierOption = Literal["edge", "regional", "cloud"]


@dataclass
class _Printer:
    as_json: bool
    count: int | None
    done: asyncio.Event
    printed: int = 0

    def show(self, subject: str, payload: bytes) -> None:
        if self.done.is_set():
            return
        try:
            if self.as_json:
                print_json(payload.decode())
            else:
                self._line(subject, payload)
        except BrokenPipeError:  # whoever read has enough
            quiet_stdout()
            self.done.set()
            return
        self.printed += 1
        if self.count is not None and self.printed >= self.count:
            self.done.set()

    def _line(self, subject: str, payload: bytes) -> None:
        try:
            event = decode_event(payload)
        except msgspec.MsgspecError as error:
            errors.print(f"{subject} carries no CloudEvent: {error}", markup=False, highlight=False)
            return
        _, _, _, tier, site, agent = event.source.split("/")
        data = msgspec.json.decode(event.data)
        fields = " ".join(f"{name}={_short(value)}" for name, value in data.items())
        confidence = f" confidence={event.confidence}" if event.confidence else ""
        line = f"{event.time[11:23]} {tier:<8} {site:<10} {agent:<15} {fields}{confidence}"
        output.print(line, markup=False, highlight=False, soft_wrap=True)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + ",".join(_short(item) for item in value) + "]"
    return str(value)


def decisions(
    site: Annotated[str | None, typer.Option("--site", help="Only decisions made at this site.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="Only decisions of this agent.")] = None,
    tier: Annotated[TierOption | None, typer.Option("--tier", help="Only decisions of this tier.")] = None,
    at: Annotated[str | None, typer.Option("--at", help="Where to connect; default: the root, which sees all.")] = None,
    stored: Annotated[bool, typer.Option("--stored", help="Begin with what the stream at that site holds.")] = False,
    count: Annotated[int | None, typer.Option("--count", min=1, help="Stop after so many.")] = None,
    duration: Annotated[str | None, typer.Option("--for", help="Stop after a time such as 20s.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print CloudEvents, one per line.")] = False,
    state: StateOption = None,
) -> None:
    """Print decisions as they arrive; Ctrl-C ends it."""
    mesh = find_running(state)
    if site is not None:
        mesh.endpoint(site)
    if agent is not None and agent not in mesh.topology.agents:
        known = ", ".join(sorted(mesh.topology.agents))
        raise UsageError(f"{mesh.topology.mesh} has no agent {agent!r}", f"name one of {known}")
    limit = None if duration is None else parse_duration(duration)
    subject = Subjects(mesh.topology.mesh).decision(tier, site, agent, None)
    uvloop.run(_follow(mesh, at or mesh.root, subject, stored, _Printer(as_json, count, asyncio.Event()), limit))


async def _follow(mesh: Running, at: str, subject: str, stored: bool, printer: _Printer, limit_s: float | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, printer.done.set)
    connection = await connect_as_operator(mesh, at, "decisions")
    try:
        if stored:
            work: asyncio.Task[object] = asyncio.create_task(_replay(connection, subject, printer), name="replay")
        else:

            async def show(message: Message) -> None:
                printer.show(message.subject, message.data)

            await connection.subscribe(subject, show)
            work = asyncio.create_task(printer.done.wait(), name="live")
        done = asyncio.create_task(printer.done.wait(), name="done")
        await asyncio.wait({work, done}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        for task in (work, done):
            task.cancel()
        await asyncio.wait({work, done})
    finally:
        await connection.aclose()


async def _replay(connection: Connection, subject: str, printer: _Printer) -> None:
    settings = Settings()
    async for found in read(connection, settings.stream.name, subject, 0, settings.forwarder.batch_max, 1.0):
        for one in found:
            printer.show(one.subject, one.data)
        await asyncio.sleep(0)
