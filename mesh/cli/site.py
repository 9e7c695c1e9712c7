"""`mesh site run`: what `mesh up` starts per site, and what an operator's service manager starts on a site's host."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from mesh.cli.console import log_to_stderr, print_error
from mesh.cli.topology import FileArgument
from mesh.errors import MeshError, UsageError
from mesh.fabric.machine import update_machine
from mesh.folder import state_folder
from mesh.processes import MARK
from mesh.runtime.ray_head import ensure_token, environment
from mesh.topology.load import load

app = typer.Typer(help="Run a single site.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Run a single site."""


@app.command("run")
def run(
    file: FileArgument,
    site: Annotated[str, typer.Option("--site", help="Name of the site.")],
    state: Annotated[Path | None, typer.Option("--state", help="State folder; default: .mesh/<mesh>.")] = None,
    ray: Annotated[
        str,
        typer.Option("--ray", help="'own' starts a head, 'shared' waits for that of 'mesh up', or HOST:PORT."),
    ] = "own",
    telemetry: Annotated[Path | None, typer.Option("--telemetry", help="Folder of recorded telemetry.")] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-telemetry", help="Publish the telemetry of the topology's sources.")
    ] = True,
    epoch: Annotated[
        float | None, typer.Option("--epoch", help="Unix time of the replay's begin.", hidden=True)
    ] = None,
) -> None:
    """Run one site in the foreground: its nats-server, its Ray connection, its replicas. Ctrl-C drains and stops it."""
    log_to_stderr(logging.INFO)
    topology = load(file)
    if site not in topology.sites:
        known = ", ".join(sorted(topology.sites))
        raise UsageError(f"{topology.mesh} has no site {site!r}", f"name one of {known}")
    folder = state_folder(topology.mesh, state)
    begun = update_machine(folder, lambda machine: _note(machine, file, time.time() if epoch is None else epoch))
    os.environ.pop(MARK, None)  # what this process starts is not it
    os.environ.update(environment(ensure_token(folder)))  # Ray reads them when it is imported, just below
    from mesh.site.process import SiteOptions, SiteProcess

    chosen = SiteOptions(site, file.absolute().parent, ray, telemetry, begun, publish)
    process = SiteProcess(topology, folder, chosen)

    def arm() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
            loop.add_signal_handler(number, process.request_stop)

    code = 0
    try:
        uvloop.run(process.run(arm))
    except MeshError as error:
        print_error(error)
        code = error.exit_code
    os._exit(code)  # a Ray call may hang in its thread, and Ray's exit handlers would wait for a cluster that is gone


def _note(machine: dict[str, Any], file: Path, now: float) -> float:
    """Notes which file runs, and when its replay began: a site that starts again goes on with it."""
    machine["topology"] = str(file.absolute())
    return float(machine.setdefault("epoch", now))
