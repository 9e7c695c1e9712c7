"""`mesh up`: all sites of a file on this machine, with a live table, until Ctrl-C."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
import uvloop
from rich.live import Live
from rich.table import Table

from mesh.cli.console import errors, output, print_json
from mesh.cli.state import Running, StateOption
from mesh.cli.table import live_table, summary
from mesh.cli.topology import FileArgument
from mesh.clock import SystemClock
from mesh.errors import BringUpError, UsageError
from mesh.fabric.identity import ensure_identities
from mesh.folder import state_folder
from mesh.settings import Settings
from mesh.site.statuses import Statuses, Watch
from mesh.topology.load import load
from mesh.units import parse_duration

READY_DEADLINE_S = 90.0
"""Replicas that are not ready by then are reported; `mesh up` goes on and shows what it waits for."""
_REFRESH_S = 0.25


@dataclass(frozen=True)
class _Wishes:
    duration_s: float | None
    as_json: bool


def up(
    file: FileArgument,
    telemetry: Annotated[
        Path | None,
        typer.Option("--telemetry", help="Folder of recorded telemetry; default: the topology's own source."),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-telemetry", help="Publish the telemetry of the topology's sources.")
    ] = True,
    duration: Annotated[
        str | None, typer.Option("--for", help="Stop so long after everything is ready, such as 20s.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
    ray: Annotated[
        Literal["shared", "per-site"], typer.Option("--ray", help="One local Ray for all sites, or one per site.")
    ] = "shared",
    state: StateOption = None,
) -> None:
    """Bring up every site of FILE on this machine and watch it; Ctrl-C drains and stops everything."""
    from mesh.site.local import LocalMesh, LocalOptions

    wishes = _Wishes(None if duration is None else parse_duration(duration), as_json)
    topology = load(file)
    if telemetry is not None and not telemetry.is_dir():
        raise UsageError(f"there is no telemetry folder {telemetry}", "name an existing folder, or leave it out")
    folder = state_folder(topology.mesh, state)
    clock = SystemClock()
    statuses = Statuses(clock)
    settings = Settings()
    mesh = LocalMesh(topology, folder, LocalOptions(file, ray, telemetry, publish), settings, clock, statuses.served)

    async def work() -> bool:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        begun = clock.monotonic()
        await mesh.start()
        running = Running(folder, file, topology, ensure_identities(folder, topology))
        watch = Watch(topology.mesh, running.identities.get("operator"), statuses, settings)
        try:
            for site in topology.sites:
                watch.follow(site, running.endpoint(site))
            show = _Show(running, statuses, wishes, begun)
            watched = asyncio.create_task(show.run(stop), name="show")
            failed = asyncio.create_task(mesh.failure(), name="failure")
            await asyncio.wait({watched, failed}, return_when=asyncio.FIRST_COMPLETED)
            failure = failed.result() if failed.done() else None
            for task in (watched, failed):
                task.cancel()
            if failure is not None:
                raise failure
            ready = watched.result()
        finally:
            await watch.aclose()
            if not as_json:
                errors.print("stopping: replicas drain, sites stop from the edge to the root", highlight=False)
            await mesh.stop()
        return ready

    if not uvloop.run(work()):
        raise typer.Exit(1)


class _Show:
    """Shows progress until everything is ready, then the live table until told to stop."""

    def __init__(self, mesh: Running, statuses: Statuses, wishes: _Wishes, begun: float) -> None:
        self._mesh = mesh
        self._statuses = statuses
        self._wishes = wishes
        self._begun = begun
        self._clock = SystemClock()
        self._ready_s: float | None = None

    async def run(self, stop: asyncio.Event) -> bool:
        """Returns whether everything became ready."""
        with ExitStack() as stack:
            live = None
            if not self._wishes.as_json and output.is_terminal:
                live = stack.enter_context(Live(console=output, auto_refresh=False))
            said = ""
            while not stop.is_set() and not self._over():
                self._look()
                if live is not None:
                    live.update(self._table(), refresh=True)
                elif (title := self._progress()) != said:
                    errors.print(title, markup=False, highlight=False, soft_wrap=True)
                    said = title
                await _wait(stop, _REFRESH_S)
        if self._wishes.as_json:
            print_json(json.dumps(summary(self._mesh.topology, self._statuses, self._ready_s)))
        elif live is None:
            output.print(self._table())
        return self._ready_s is not None

    def _table(self) -> Table:
        return live_table(self._mesh.topology, self._statuses, self._title(), output)

    def _look(self) -> None:
        """Notes when everything is ready; raises BringUpError when it never will be."""
        if self._ready_s is not None:
            return
        if self._statuses.ready(self._mesh.topology.sites):
            self._ready_s = self._clock.monotonic() - self._begun
        elif reasons := self._statuses.hopeless(self._mesh.topology.sites):
            raise BringUpError(reasons)

    def _over(self) -> bool:
        elapsed = self._clock.monotonic() - self._begun
        if self._wishes.duration_s is None:
            return False
        if self._ready_s is None:
            return elapsed > READY_DEADLINE_S
        return elapsed > self._ready_s + self._wishes.duration_s

    def _title(self) -> str:
        name, elapsed = self._mesh.topology.mesh, self._clock.monotonic() - self._begun
        if self._ready_s is None:
            return f"mesh {name}: {self._progress()}, {elapsed:.0f} s"
        rest = "Ctrl-C stops" if self._wishes.duration_s is None else f"for {self._wishes.duration_s:g} s"
        return f"mesh {name}: all replicas answered after {self._ready_s:.1f} s, {rest}"

    def _progress(self) -> str:
        if self._ready_s is not None:
            return f"all replicas answered after {self._ready_s:.1f} s"
        sites = self._mesh.topology.sites
        heard = [self._statuses.latest[site] for site in sites if site in self._statuses.latest]
        answered = sum(replica.state == "ready" for status in heard for replica in status.replicas)
        problems = [f"{s.site}: {s.waiting_for}" for s in heard if any(r.reason for r in s.replicas)]
        text = f"{len(heard)}/{len(sites)} sites, {answered} replicas answer"
        return "; ".join([text, *problems])


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
