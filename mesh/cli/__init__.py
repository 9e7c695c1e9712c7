"""The command line: each module is one command; errors are one sentence on stderr."""

from mesh.cli.main import main

__all__ = ["main"]
