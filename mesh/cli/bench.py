"""`mesh bench NAME`: figures, as ratios within one run."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.table import Table

from mesh.cli.console import errors, output, print_json
from mesh.folder import StateFolder
from mesh.topology.load import load

app = typer.Typer(help="Measure, as ratios within one run.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Measure, as ratios within one run."""


@app.command("latency")
def latency(
    file: Annotated[Path, typer.Argument(help="Topology with one site.")] = Path("topologies/single.yaml"),
    agent: Annotated[str, typer.Option("--agent", help="Agent that is asked.")] = "cell-forecast",
    runs: Annotated[int, typer.Option("--runs", min=1, help="Runs; medians of them are reported.")] = 5,
    requests: Annotated[int, typer.Option("--requests", min=100, help="Requests per run, one in flight.")] = 2000,
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, help="Time with 64 in flight.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Round trip of an inference request against a bare NATS echo plus ONNX Runtime alone."""
    from mesh.bench.latency import Plan, measure

    topology = load(file)
    errors.print(f"bringing up {file}, then {runs} runs of {requests} requests each", highlight=False)
    Path(".mesh").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".mesh") as folder:
        state = StateFolder(Path(folder).absolute())
        result = uvloop.run(measure(topology, file, state, agent, Plan(runs, requests, seconds)))
    _show(result, as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(json.dumps(result))
        return
    table = Table("figure", "value", "limit", "met", title=f"{result['name']}, medians of {result['runs']} runs")
    for name, figure in result["targets"].items():
        limit = "" if figure["limit"] is None else f"{figure['limit']:g}"
        table.add_row(name, f"{figure['value']:.4g}", limit, "yes" if figure["met"] else "no")
    for name, value in result["detail"].items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4g}", "", "")
    output.print(table)
