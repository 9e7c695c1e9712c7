"""`mesh down`: stops a mesh of this machine, also what a killed `mesh up` left behind."""

from __future__ import annotations

import asyncio
import os
import signal

import uvloop

from mesh.cli.console import output
from mesh.cli.state import StateOption, find_folder
from mesh.folder import StateFolder
from mesh.settings import Settings

_UP_DEADLINE_S = 60.0
"""Longest that a running `mesh up` may take to drain before its parts are ended one by one."""


def down(state: StateOption = None) -> None:
    """Stop the mesh: drain and stop its sites, end whatever a killed 'mesh up' left behind."""
    folder = StateFolder(state.absolute()) if state is not None and state.is_dir() else find_folder(state)
    ended = uvloop.run(_down(folder))
    output.print(
        f"the mesh in {folder.root} is down" if ended else f"nothing of the mesh in {folder.root} was running",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


async def _down(folder: StateFolder) -> int:
    from mesh.site.local import stop_all, up_process

    running = up_process(folder)
    if running is not None:
        os.kill(running, signal.SIGTERM)
        ends = asyncio.get_running_loop().time() + _UP_DEADLINE_S
        while up_process(folder) is not None and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.1)
    ended = await stop_all(folder, Settings().fabric)
    folder.up_pid.unlink(missing_ok=True)
    return ended + (running is not None)
