"""The nats-server program: absent, tests that need it are skipped on a developer's machine and fail in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesh.errors import FabricError
from mesh.fabric.launch import find_binary


@pytest.fixture(scope="session")
def nats_server() -> Path:
    """Path of the program."""
    try:
        return find_binary()
    except FabricError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
