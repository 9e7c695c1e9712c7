"""A connection to one Ray cluster: what it has, which replicas it runs, how one is started and ended.

Ray's calls block, so they run in one thread; the event loop never waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ray
import ray.exceptions

from mesh.errors import RayError
from mesh.placement import Node, Placed
from mesh.runtime.actor import ReplicaActor
from mesh.runtime.spec import ReplicaSpec

T = TypeVar("T")

CONNECT_DEADLINE_S = 30.0
"""With a wrong token Ray waits for ever."""
CALL_DEADLINE_S = 10.0
"""A call that takes longer means that the head is away."""
LEAVE_DEADLINE_S = 8.0
"""A replica drains for at most twice its acknowledgement timeout."""
CONCURRENCY = 16
"""Calls an actor takes at once; the data path does not pass through Ray."""


def namespace(mesh: str) -> str:
    """Ray namespace of a mesh, in which replicas are named."""
    return f"mesh-{mesh}"


class Cluster:
    """Made by `join`; one per process, since Ray allows one connection per process."""

    def __init__(self, address: str, mesh: str) -> None:
        self.address = address
        self._namespace = namespace(mesh)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ray")

    async def join(self) -> None:
        """Connects with the token that this process's environment named when Ray was imported.

        Raises RayError when the cluster is away or refuses the token.
        """
        try:
            await self._call(self._init, CONNECT_DEADLINE_S)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise RayError(f"the Ray cluster at {self.address} cannot be joined ({first})", "check `ray`") from error

    def _init(self) -> None:
        ray.init(address=self.address, namespace=self._namespace, log_to_driver=False, configure_logging=False)

    async def nodes(self) -> tuple[Node, ...]:
        """Living nodes with their labels and total resources."""
        found = await self._call(ray.nodes)
        return tuple(
            Node(
                dict(node.get("Labels") or {}),
                float(node["Resources"].get("CPU", 0.0)),
                float(node["Resources"].get("memory", 0.0)),
                float(node["Resources"].get("GPU", 0.0)),
            )
            for node in found
            if node["Alive"]
        )

    async def running(self, site: str) -> dict[str, str]:
        """Names of the site's replicas on this cluster with the digests of what they run; "" for one that is mute."""
        return await self._call(lambda: self._running(f"{site}/"))

    def _running(self, prefix: str) -> dict[str, str]:
        named = ray.util.list_named_actors(all_namespaces=True)
        ours = (actor["name"] for actor in named if actor["namespace"] == self._namespace)
        return {name: self._digest(name) for name in sorted(ours) if name.startswith(prefix)}

    def _digest(self, name: str) -> str:
        try:
            actor = ray.get_actor(name, namespace=self._namespace)
            return str(ray.get(actor.spec_digest.remote(), timeout=3.0))
        except (ValueError, ray.exceptions.RayError):
            return ""

    async def start(self, placed: Placed, spec: ReplicaSpec) -> None:
        """Asks for the replica; it tells by its heartbeat when it is ready. Raises RayError when Ray refuses."""
        await self._call(lambda: self._start(placed, spec))

    def _start(self, placed: Placed, spec: ReplicaSpec) -> None:
        needs = placed.spec.resources
        options: dict[str, Any] = {
            "name": placed.name,
            "namespace": self._namespace,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_concurrency": CONCURRENCY,
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus or None,
            "memory": needs.memory,
            "label_selector": dict(placed.label_selector),
        }
        ray.remote(ReplicaActor).options(**options).remote(spec)

    async def replace(self, name: str) -> None:
        """Kills the replica's process; Ray starts it again. For one that is stuck."""
        await self._call(lambda: self._kill(name, no_restart=False))

    async def end(self, names: list[str]) -> None:
        """Ends replicas for good: each drains and leaves, or is killed when it does not within the deadline."""
        await self._call(lambda: self._leave(names), LEAVE_DEADLINE_S + CALL_DEADLINE_S)

    def _leave(self, names: list[str]) -> None:
        leaving: dict[Any, str] = {}
        for name in names:
            try:
                leaving[ray.get_actor(name, namespace=self._namespace).leave.remote()] = name
            except ValueError:
                continue  # there is no such actor any more
        if leaving:
            _, late = ray.wait(list(leaving), num_returns=len(leaving), timeout=LEAVE_DEADLINE_S)
            for reference in late:
                self._kill(leaving[reference], no_restart=True)

    def _kill(self, name: str, no_restart: bool) -> None:
        try:
            ray.kill(ray.get_actor(name, namespace=self._namespace), no_restart=no_restart)
        except ValueError:
            return  # there is no such actor any more

    async def aclose(self) -> None:
        """Disconnects; detached replicas go on."""
        await self._call(ray.shutdown)
        self._thread.shutdown(wait=False)

    async def _call(self, work: Callable[[], T], deadline_s: float = CALL_DEADLINE_S) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(deadline_s):
                return await loop.run_in_executor(self._thread, work)
        except TimeoutError as error:
            raise RayError(
                f"the Ray cluster at {self.address} did not answer within {deadline_s:.0f} s",
                "check that it runs and that the token is the cluster's own",
            ) from error
        except ray.exceptions.RayError as error:
            raise RayError(f"the Ray cluster at {self.address} failed ({error})", "see its logs") from error
