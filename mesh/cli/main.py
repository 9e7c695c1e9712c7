"""Puts the commands together and turns errors into one sentence and an exit code."""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from mesh import __version__
from mesh.cli import bench, credentials, decisions, down, link, site, topology, up
from mesh.cli.console import errors, print_error
from mesh.errors import MeshError, TopologyError

app = typer.Typer(
    name="mesh",
    help="Inference agents at the edge, in regions and in the cloud that decide together with no primary.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("down")(down.down)
app.command("validate")(topology.validate)
app.command("schema")(topology.schema)
app.command("decisions")(decisions.decisions)
app.add_typer(site.app, name="site")
app.add_typer(link.app, name="link")
app.add_typer(credentials.app, name="credentials")
app.add_typer(bench.app, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Inference agents at the edge, in regions and in the cloud that decide together with no primary."""


def main() -> None:
    """Entry point: exit code 0, 1 for a failed job, 2 for wrong use."""
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except TopologyError as error:
        for finding in error.findings:
            errors.print(finding, markup=False, highlight=False, soft_wrap=True)
        print_error(f"{error.file} has {len(error.findings)} finding{'s' if len(error.findings) != 1 else ''}, above")
        sys.exit(error.exit_code)
    except TyperException as error:
        message = error.format_message().rstrip(".").replace("Value error, ", "")
        if message:  # a bare command has printed its help instead
            print_error(f"{message}; see 'mesh --help'")
        sys.exit(error.exit_code)
    except MeshError as error:
        print_error(error)
        sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
