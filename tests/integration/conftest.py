"""Real servers, real Ray, real models: absent, these tests are skipped on a developer's machine and fail in CI."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterator

import pytest
from live_mesh import ROOT, Live, kill_leftovers, view

from mesh.errors import FabricError
from mesh.fabric.launch import find_binary


@pytest.fixture(scope="package", autouse=True)
def stack() -> Iterator[None]:
    """What must be installed; at the end nothing that a test started may be left."""
    missing = ""
    try:
        find_binary()
    except FabricError as error:
        missing = str(error)
    if importlib.util.find_spec("ray") is None:
        missing = "Ray is not installed"
    if missing and os.environ.get("CI"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    yield
    left = kill_leftovers()
    assert left == {}


@pytest.fixture(scope="package")
def metro(stack: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The shipped seven sites with generated telemetry, shared by all tests that leave it as they found it."""
    live = Live(ROOT / "topologies" / "metro.yaml", tmp_path_factory.mktemp("metro"))
    try:
        live.start()
        live.ready()
        yield live
    finally:
        live.down()


@pytest.fixture
def well(metro: Live) -> Iterator[Live]:
    """The shared mesh for a test that breaks something, which must be whole again before the next one."""
    yield metro
    asyncio.run(_all_well(metro))


async def _all_well(live: Live) -> None:
    async with view(live) as seen:
        await seen.all_well()
