"""Where commands print: results to stdout, errors and progress to stderr."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

output = Console()
errors = Console(stderr=True)


def print_error(error: object) -> None:
    """One sentence on stderr, never wrapped."""
    errors.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)


def quiet_stdout() -> None:
    """Lets stdout lead nowhere, so that Python's own flush at exit does not fail on a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(text: str) -> None:
    """One JSON document on one line of stdout, never wrapped or coloured."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def log_to_stderr(level: int) -> None:
    """Log lines with time, level and module, as the log files of site processes hold them."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
