"""From a topology to replicas with label selectors: a pure plan, made before anything starts.

A replica is placed by one label, the site's. Where one local Ray stands for all sites its node carries every site's
label; where each site has a cluster its nodes carry that site's alone: the same selector serves both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

from mesh.topology.model import AgentSpec, Topology
from mesh.topology.tree import select

LABEL_VALUE = "here"


def site_label(mesh: str, site: str) -> str:
    """Key of the Ray label that marks a node as belonging to `site`."""
    return f"mesh-{mesh}/{site}"


@dataclass(frozen=True)
class Placed:
    """One replica: the `index`-th of `count` of `agent` at `site`."""

    site: str
    tier: str
    agent: str
    index: int
    count: int
    spec: AgentSpec
    label_selector: Mapping[str, str]

    @property
    def name(self) -> str:
        """Unique in the mesh; also the Ray actor's name."""
        return f"{self.site}/{self.agent}/{self.index}"


@dataclass(frozen=True)
class Node:
    """A node of a Ray cluster: its labels and what it has in all."""

    labels: Mapping[str, str]
    cpus: float
    memory: float
    gpus: float = 0.0

    def carries(self, selector: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in selector.items())


def plan(topology: Topology) -> tuple[Placed, ...]:
    """Every replica the topology asks for, sorted by site, agent and index."""
    placed = [
        Placed(
            site,
            topology.sites[site].tier,
            agent,
            index,
            spec.replicas,
            spec,
            {site_label(topology.mesh, site): LABEL_VALUE},
        )
        for agent, spec in topology.agents.items()
        for site in select(topology, spec.sites)
        for index in range(spec.replicas)
    ]
    return tuple(sorted(placed, key=lambda replica: (replica.site, replica.agent, replica.index)))


def shortages(replicas: Iterable[Placed], nodes: Iterable[Node]) -> tuple[str, ...]:
    """Demands that `nodes` can never satisfy, one sentence each; Ray would leave such actors pending for ever.

    A site's replicas are put on the nodes with its label in decreasing size, each where it leaves the least processor
    share free: best-fit-decreasing bin packing, which may in rare cases miss a packing that exists.
    """
    free = [_Free(node, node.cpus, node.memory, node.gpus) for node in nodes]
    missing: list[str] = []
    by_size = sorted(replicas, key=lambda r: (-r.spec.resources.cpus, -r.spec.resources.memory, r.name))
    for replica in by_size:
        needs = replica.spec.resources
        here = [room for room in free if room.node.carries(replica.label_selector)]
        fitting = [r for r in here if r.cpus >= needs.cpus and r.memory >= needs.memory and r.gpus >= needs.gpus]
        if not here:
            label = next(iter(replica.label_selector))
            missing.append(f"{replica.name} needs a node labelled {label} and there is none")
        elif not fitting:
            missing.append(
                f"{replica.name} needs {needs.cpus:g} cpus, {needs.memory / 2**20:.0f} MiB and {needs.gpus:g} gpus;"
                f" the nodes of {replica.site} have at most {max(r.cpus for r in here):.3g} cpus,"
                f" {max(r.memory for r in here) / 2**20:.0f} MiB and {max(r.gpus for r in here):g} gpus left"
            )
        else:
            # a node with accelerators is kept for replicas that need them
            min(fitting, key=lambda room: (0.0 if needs.gpus else room.gpus, room.cpus)).take(replica)
    return tuple(sorted(missing))


@dataclass
class _Free:
    node: Node
    cpus: float
    memory: float
    gpus: float

    def take(self, replica: Placed) -> None:
        needs = replica.spec.resources
        self.cpus = round(self.cpus - needs.cpus, 9)
        self.memory -= needs.memory
        self.gpus = round(self.gpus - needs.gpus, 9)


def partition(id: str, count: int) -> int:
    """Which of `count` replicas an id belongs to: the same in every process and at every start."""
    return 0 if count == 1 else crc32(id.encode()) % count
