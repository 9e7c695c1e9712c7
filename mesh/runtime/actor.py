"""The Ray actor around a replica: one process, one event loop (uvloop where installed), one agent."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import ray.actor

from mesh.runtime.replica import Replica
from mesh.runtime.spec import ReplicaSpec

log = logging.getLogger(__name__)


class ReplicaActor:
    """Resumes by itself: a restart by Ray runs `__init__` again with the same spec.

    After `leave` it is gone for good; when the replica fails the process ends and Ray starts it anew.
    """

    def __init__(self, spec: ReplicaSpec) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._replica = Replica(spec)
        self._serving = asyncio.get_running_loop().create_task(self._replica.run(), name=f"replica {spec.name}")
        self._serving.add_done_callback(_ended)

    async def spec_digest(self) -> str:
        """Digest of what the actor runs, so that a site process can tell whether to adopt it."""
        return self._replica.health.spec

    async def leave(self) -> None:
        """Drains the replica and ends the actor without restart."""
        self._replica.leave()
        await asyncio.wait({self._serving})
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]


def _ended(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("the replica failed and its process ends: %s", error, exc_info=error)
        sys.stderr.flush()
        # Ray restarts the actor only when its process dies; raising here would leave it alive and deaf.

        os._exit(1)
