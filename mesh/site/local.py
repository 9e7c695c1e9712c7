"""All sites of a topology on this machine: one site process each, one shared Ray, watched until told to stop.

What `mesh up` is made of. A site process that dies is started again and adopts what it left; so is the shared Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mesh.clock import Clock
from mesh.errors import FabricError, MeshError, PlacementError, UsageError
from mesh.fabric.identity import ensure_identities
from mesh.fabric.machine import read_machine, update_machine, write_atomically
from mesh.fabric.ports import ensure_ports
from mesh.fabric.server import stop_stale
from mesh.folder import StateFolder
from mesh.placement import LABEL_VALUE, Node, plan, shortages, site_label
from mesh.processes import UP, Process, end_marked, launch, marked, running_command
from mesh.runtime.ray_head import SHARED, clear_head, head_mark, head_process, running_head, start_head, stop_head
from mesh.settings import FabricSettings, Settings
from mesh.tasks import Tasks
from mesh.topology.model import Topology
from mesh.topology.tree import parent, top_down

log = logging.getLogger(__name__)

STOP_DEADLINE_S = 25.0
"""A site drains for up to 8 s and its own Ray head stops within 15 s."""
RESTART_PAUSE_S = 0.5
EARLY_FAILURES_MAX = 2
"""A site that fails this often before it ever served makes `mesh up` give up with its reason."""

RayForm = Literal["shared", "per-site"]


@dataclass(frozen=True)
class LocalOptions:
    """How the sites of this machine are brought up."""

    file: Path
    """The topology file."""
    ray: RayForm = "shared"
    telemetry: Path | None = None
    """Folder of recorded telemetry."""
    publish: bool = True
    """Whether sites publish the telemetry of their sources; others may publish it instead."""


class SiteFailedError(MeshError):
    """Raised when a site process cannot start; carries the sentence it left."""

    def __init__(self, site: str, sentence: str, log_file: Path) -> None:
        problem, _, remedy = sentence.partition("; ")
        super().__init__(f"site {site} does not start: {problem}", remedy or f"see {log_file}")


@dataclass
class LocalMesh:
    """Brings sites up, watches them, takes them down. `served` tells whether a site was ever ready."""

    topology: Topology
    folder: StateFolder
    options: LocalOptions
    settings: Settings
    clock: Clock
    served: Callable[[str], bool]
    epoch: float = 0.0
    _tasks: Tasks = field(default_factory=Tasks)

    async def start(self) -> None:
        """Starts everything without waiting for replicas; raises MeshError when a demand cannot be met."""
        topology, folder = self.topology, self.folder
        self._check_placement()
        if up_process(folder) is not None:
            raise UsageError(f"the mesh {topology.mesh} is up already", "stop it with 'mesh down'")
        await asyncio.to_thread(ensure_identities, folder, topology)
        adopting = await self._clear_killed()
        if not adopting and self._replays():
            await asyncio.to_thread(self._forget)
        await asyncio.to_thread(ensure_ports, folder, topology)
        write_atomically(folder.up_pid, str(os.getpid()))
        known = read_machine(folder).get("epoch")
        self.epoch = float(known) if adopting and isinstance(known, int | float) else self.clock.now()
        update_machine(folder, self._describe)
        if self._shares_ray():
            self._tasks.start("ray", self._keep_ray())
        for site in top_down(topology):
            self._tasks.start(f"site {site}", self._keep_site(site))

    async def failure(self) -> BaseException:
        """Waits until something cannot be kept up, and returns why."""
        await self._tasks.failed.wait()
        assert self._tasks.error is not None
        return self._tasks.error

    async def stop(self) -> None:
        """Drains and stops the sites, children before parents, then Ray; leaves no process behind."""
        await self._tasks.aclose()
        await stop_all(self.folder, self.settings.fabric)
        self.folder.up_pid.unlink(missing_ok=True)

    def _check_placement(self) -> None:
        """Raises PlacementError when declared capacities can never hold what is wanted."""
        nodes = [
            Node({site_label(self.topology.mesh, name): LABEL_VALUE}, c.cpus, float(c.memory), c.gpus)
            for name, c in ((name, site.capacity) for name, site in self.topology.sites.items())
        ]
        missing = shortages(plan(self.topology), nodes)
        if missing:
            raise PlacementError(missing)

    def _describe(self, machine: dict[str, object]) -> None:
        machine["topology"] = str(self.options.file.absolute())
        machine["sites"] = list(top_down(self.topology))
        machine["parents"] = {name: parent(self.topology, name) for name in self.topology.sites}
        machine["epoch"] = self.epoch

    def _shares_ray(self) -> bool:
        return self.options.ray == "shared" and any(s.ray is None for s in self.topology.sites.values())

    async def _clear_killed(self) -> bool:
        """Ends site processes that a killed `mesh up` left; their servers and replicas stay, to be adopted.

        Tells whether there was anything to adopt.
        """
        found = running_head(self.folder, SHARED) is not None
        for site in self.topology.sites:
            for process in await asyncio.to_thread(marked, self.folder.site(site).mark):
                found = True
                process.signal(signal.SIGKILL)
                await process.gone(5.0)
        return found

    def _replays(self) -> bool:
        sources = self.topology.telemetry.values()
        return self.options.publish and any(source.replay or source.generator for source in sources)

    def _forget(self) -> None:
        """Removes the replicas' memories: replayed event time begins anew, so what they remember lies in its future."""
        for site in self.topology.sites:
            shutil.rmtree(self.folder.site(site).memory, ignore_errors=True)

    async def _keep_ray(self) -> None:
        sites = tuple(name for name in top_down(self.topology) if self.topology.sites[name].ray is None)
        while True:
            head = await start_head(self.folder, self.topology, sites, SHARED, self.folder.ray_log)
            await _until_gone(head_process(self.folder, SHARED, head))
            log.warning("the shared Ray is gone and is started again")
            await clear_head(self.folder, SHARED)

    async def _keep_site(self, site: str) -> None:
        files = self.folder.site(site)
        failures = 0
        while True:
            child = await asyncio.to_thread(launch, self._arguments(site), files.mark, files.site_log)
            write_atomically(files.site_pid, str(child.pid))
            while child.poll() is None:
                await asyncio.sleep(0.1)
            log.warning("the site process of %s ended with %s", site, child.returncode)
            if not self.served(site):
                failures += 1
                sentence = last_error(files.site_log)
                if failures >= EARLY_FAILURES_MAX or (child.returncode == 1 and sentence):
                    raise SiteFailedError(site, sentence or f"it ended with {child.returncode}", files.site_log)
            await asyncio.sleep(RESTART_PAUSE_S)

    def _arguments(self, site: str) -> list[str]:
        arguments = [sys.executable, "-m", "mesh", "site", "run", str(self.options.file.absolute())]
        arguments += ["--site", site, "--state", str(self.folder.root), "--epoch", str(self.epoch)]
        arguments += ["--ray", SHARED if self.options.ray == "shared" else "own"]
        if self.options.telemetry is not None:
            arguments += ["--telemetry", str(self.options.telemetry.absolute())]
        if not self.options.publish:
            arguments.append("--no-telemetry")
        return arguments


def up_process(folder: StateFolder) -> int | None:
    """Process id of the `mesh up` that watches this folder, when it lives and is not the caller."""
    return running_command(folder.up_pid, UP)


def last_error(log_file: Path) -> str:
    """The sentence a site process left in its log when it gave up, or nothing."""
    try:
        lines = log_file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    found = [line.removeprefix("error: ") for line in lines[-20:] if line.startswith("error: ")]
    return found[-1] if found else ""


async def stop_all(folder: StateFolder, settings: FabricSettings) -> int:
    """Stops every site of the folder, children before parents, and the Ray heads; returns how many processes ended.

    Works from what `machine.json` says, so also after a killed `mesh up` and a changed topology file.
    """
    try:
        machine = read_machine(folder)
    except FabricError as error:
        log.warning("%s; sites are stopped as their folders name them", error)
        machine = {}
    folders = sorted(path.name for path in folder.sites.iterdir()) if folder.sites.is_dir() else []
    listed = [str(site) for site in machine.get("sites", [])]
    sites = [*listed, *(site for site in folders if site not in listed)]
    ended = 0
    for generation in _generations(sites, machine):
        counts = await asyncio.gather(*(_stop_site(folder, site, settings) for site in generation))
        ended += sum(counts)
    for key in (SHARED, *sites):
        ended += bool(await asyncio.to_thread(marked, head_mark(folder, key)))
        await stop_head(folder, key)
    return ended


def _generations(sites: list[str], machine: dict[str, object]) -> list[list[str]]:
    """Sites grouped by depth, the deepest first; `sites` lists parents before children."""
    parents = machine.get("parents", {})
    assert isinstance(parents, dict)
    depths: dict[str, int] = {}
    for site in sites:
        above = parents.get(site)
        depths[site] = 0 if above is None else depths.get(above, 0) + 1
    return [[site for site in sites if depths[site] == depth] for depth in sorted(set(depths.values()), reverse=True)]


async def _stop_site(folder: StateFolder, site: str, settings: FabricSettings) -> int:
    ended = await end_marked(folder.site(site).mark, STOP_DEADLINE_S)
    return ended + await stop_stale(folder, site, settings)


async def _until_gone(process: Process) -> None:
    while process.verified():
        await asyncio.sleep(0.2)
