"""Background tasks that are named, watched and stopped in one order by those who started them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from mesh.errors import MeshError

log = logging.getLogger(__name__)


class Tasks:
    """Owns tasks; one that ends with an error sets `failed` and keeps the error for whoever waits."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self.failed = asyncio.Event()
        self.error: BaseException | None = None

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` under `name` until it ends or `aclose` cancels it."""
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            trace = None if isinstance(error, MeshError) else error
            log.error("the task %s ended with %s: %s", task.get_name(), type(error).__name__, error, exc_info=trace)
            self.error = self.error or error
            self.failed.set()

    async def aclose(self) -> None:
        """Cancels what still runs, the newest first, and waits for it."""
        for task in reversed(self._tasks.copy()):
            task.cancel()
            await asyncio.wait({task})


async def first_of(*events: asyncio.Event) -> None:
    """Waits until one of `events` is set."""
    waiting = [asyncio.create_task(event.wait(), name="first of") for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
