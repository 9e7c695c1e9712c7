"""`mesh link cut|heal`: emulated links of a running mesh."""

from __future__ import annotations

import time
from typing import Annotated

import typer
import uvloop

from mesh.cli.console import output
from mesh.cli.state import Running, StateOption, connect_as_operator, find_running
from mesh.errors import UsageError
from mesh.site.control import signed_request
from mesh.subjects import Subjects
from mesh.topology.tree import parent

app = typer.Typer(help="Cut and heal emulated links.", no_args_is_help=True)

_ANSWER_S = 3.0

A = Annotated[str, typer.Argument(help="Site at one end.", metavar="A")]
B = Annotated[str, typer.Argument(help="Site at the other end.", metavar="B")]


@app.command("cut")
def cut(a: A, b: B, state: StateOption = None) -> None:
    """Cut the link between two neighbours: silently, as a broken cable does."""
    uvloop.run(_ask("cut", a, b, find_running(state)))


@app.command("heal")
def heal(a: A, b: B, state: StateOption = None) -> None:
    """Heal a link that was cut."""
    uvloop.run(_ask("heal", a, b, find_running(state)))


async def _ask(verb: str, a: str, b: str, mesh: Running) -> None:
    for name in (a, b):
        mesh.endpoint(name)
    ends = {a: parent(mesh.topology, a), b: parent(mesh.topology, b)}
    if ends[a] != b and ends[b] != a:
        links = ", ".join(f"{site}–{up}" for site in sorted(mesh.topology.sites) if (up := parent(mesh.topology, site)))
        raise UsageError(f"there is no link between {a} and {b}", f"choose one of {links}")
    child = a if ends[a] == b else b
    subjects = Subjects(mesh.topology.mesh)
    connection = await connect_as_operator(mesh, child, "link")
    try:
        subject = subjects.control(child, verb)
        request = signed_request(subject, time.time(), mesh.identities.get("operator").seed_file)
        reply = await connection.request(subject, request, _ANSWER_S)
    finally:
        await connection.aclose()
    answer = reply.data.decode()
    if not answer.startswith("ok: "):
        raise UsageError(answer.removeprefix("error: "), "only links within one machine are emulated")
    output.print(answer.removeprefix("ok: "), highlight=False, markup=False)
