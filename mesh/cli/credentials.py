"""`mesh credentials app`: what an application takes along to connect."""

from __future__ import annotations

import json
from typing import Annotated

import typer
import uvloop

from mesh.cli.console import output, print_json
from mesh.cli.state import StateOption, find_running
from mesh.fabric.context import write_app_credentials
from mesh.fabric.ports import ports_needed, read_ports
from mesh.fabric.server import NatsServer
from mesh.settings import Settings
from mesh.subjects import Subjects

app = typer.Typer(help="Write credentials.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Write credentials."""


@app.command("app")
def application(
    name: Annotated[str, typer.Argument(help="Name of the application.")] = "default",
    site: Annotated[str | None, typer.Option("--site", help="Site it connects at; default: the root.")] = None,
    state: StateOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write an application's credential and a context for the 'nats' command; a running site learns of it at once."""
    mesh = find_running(state)
    at = site or mesh.root
    found = write_app_credentials(mesh.folder, mesh.topology, at, name, base=mesh.file.parent)
    if mesh.topology.sites[at].nats is None:
        ports = read_ports(mesh.folder, mesh.topology, ports_needed(mesh.topology, at))
        server = NatsServer(mesh.folder, mesh.topology, at, ports, Settings(), base=mesh.file.parent)
        uvloop.run(server.refresh())
    if as_json:
        described = {
            "url": found.url,
            "seed_file": str(found.seed_file),
            "context_file": str(found.context_file),
            "inbox_prefix": found.inbox_prefix,
        }
        print_json(json.dumps(described))
        return
    subject = Subjects(mesh.topology.mesh).decisions
    home = found.context_file.parent.parent.parent
    for label, value in (
        ("url", found.url),
        ("seed", found.seed_file),
        ("inbox prefix", found.inbox_prefix),
        ("nats context", found.context_file),
        ("try", f"XDG_CONFIG_HOME={home} nats --context {found.context_file.stem} sub '{subject}'"),
    ):
        output.print(f"{label:>12}  {value}", highlight=False, markup=False, soft_wrap=True)
