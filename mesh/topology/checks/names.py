"""Names that different systems could not tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mesh.topology.finding import Problem
from mesh.topology.model import Topology


def colliding_sites(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Sites whose host names would be the same."""
    yield from _colliding("sites", topology.sites)


def colliding_agents(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents whose files or cluster resources would be the same."""
    yield from _colliding("agents", topology.agents)


def _colliding(section: str, names: Iterable[str]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name in names:
        # Host names, some file systems and Kubernetes ignore case, and the last has no '_'.
        other = first.setdefault(name.lower().replace("_", "-"), name)
        if other != name:
            problem = f"the name differs from {other!r} only in letter case or in '-' against '_'"
            yield Problem((section, name), problem, "give one of them a name of its own", "key")
