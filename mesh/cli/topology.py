"""`mesh validate` and `mesh schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mesh.cli.console import errors, output, print_json
from mesh.decision import Decision, schema_uri
from mesh.errors import UsageError
from mesh.placement import plan
from mesh.topology.classes import search_folders
from mesh.topology.load import inspect, load
from mesh.topology.schema import json_schema

FileArgument = Annotated[Path, typer.Argument(help="Topology file.", metavar="FILE")]


def validate(
    file: FileArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print findings as one JSON object.")] = False,
) -> None:
    """Check a topology file and print every finding with its place."""
    loaded = inspect(file)
    if as_json:
        findings = [
            {
                "file": f.file,
                "line": f.line,
                "column": f.column,
                "path": f.path,
                "problem": f.problem,
                "allowed": f.allowed,
            }
            for f in loaded.findings
        ]
        print_json(json.dumps({"file": str(file), "valid": not findings, "findings": findings}))
    else:
        for finding in loaded.findings:
            errors.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    if loaded.findings or loaded.topology is None:
        raise typer.Exit(1)
    if not as_json:
        topology = loaded.topology
        tiers = [site.tier for site in topology.sites.values()]
        counts = ", ".join(f"{tiers.count(tier)} {tier}" for tier in ("cloud", "regional", "edge") if tier in tiers)
        output.print(
            f"{file} is valid: mesh {topology.mesh}, {len(tiers)} site{'' if len(tiers) == 1 else 's'} ({counts}),"
            f" {len(topology.agents)} agents, {len(plan(topology))} replicas",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def schema(
    file: Annotated[Path | None, typer.Argument(help="Topology file, with --decisions.", metavar="[FILE]")] = None,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="JSON Schemas of the decisions of a file's agents, by dataschema.")
    ] = False,
) -> None:
    """Print the JSON Schema of topology files, for editors, or of the decisions that a file's agents make."""
    if not decisions:
        print_json(json.dumps(json_schema(), indent=2))
        return
    if file is None:
        raise UsageError("--decisions needs a topology file", "write 'mesh schema --decisions FILE'")
    topology = load(file)
    found: dict[str, object] = {}
    for spec in topology.agents.values():
        for model in _decided(spec.class_, file):
            found[schema_uri(topology.mesh, model)] = model.model_json_schema()
    print_json(json.dumps(found, indent=2))


def _decided(reference: str, file: Path) -> list[type[Decision]]:
    """Decision classes that the return annotations of an agent's methods name."""
    from mesh.agent.annotations import decided
    from mesh.runtime.load import load_class

    folders = search_folders(file.absolute().parent)
    return decided(load_class(reference, [str(folder) for folder in folders]))
