"""`mesh bench NAME`: figures, as ratios within one run."""

from __future__ import annotations

import typer

app = typer.Typer(help="Measure, as ratios within one run.", no_args_is_help=True)


@app.callback()
def options() -> None:
    """Measure, as ratios within one run."""
