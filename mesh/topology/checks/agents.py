"""What agents ask for: sites, classes, models, each other's decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mesh.errors import NotYetError
from mesh.topology.checks.cycles import cycles, way
from mesh.topology.checks.links import is_file
from mesh.topology.classes import ClassUnreadable, classes, find_module
from mesh.topology.finding import Problem, listed, shown, suggestion
from mesh.topology.model import Topology
from mesh.topology.tree import select


def selector_without_match(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents that would run nowhere."""
    for name, agent in topology.agents.items():
        unknown = any(site not in topology.sites for site in agent.sites.names or ())
        if unknown or select(topology, agent.sites):
            continue
        tiers = sorted({site.tier for site in topology.sites.values()})
        labels = sorted({f"{key}: {value}" for site in topology.sites.values() for key, value in site.labels.items()})
        allowed = f"tiers are {listed(tiers)}; labels are {listed(labels) or 'given to no site'}"
        yield Problem(("agents", name, "sites"), "no site matches every part of the selector", allowed)


def missing_model_file(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Models whose files are not there."""
    for name, model in topology.models.items():
        if not is_file(folder, model.file):
            path = ("models", name, "file")
            yield Problem(path, f"there is no file {shown(model.file)}", f"give its path from {shown(str(folder))}")


def missing_class(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Classes that are nowhere beside the file or on the Python path. Nothing is imported."""
    known: dict[Path, frozenset[str] | None] = {}
    for name, agent in topology.agents.items():
        module, _, wanted = agent.class_.partition(":")
        path = ("agents", name, "class")
        place = find_module(module, folder)
        if place is None:
            allowed = f"put it beside {shown(str(folder))} or on the Python path"
            yield Problem(path, f"there is no module {shown(module)}", allowed)
            continue
        try:
            found = known[place] if place in known else classes(place)
        except ClassUnreadable as error:
            yield Problem(path, f"the module {shown(module)} cannot be read ({error})", "correct that file")
            continue
        known[place] = found
        if found is not None and wanted not in found:
            names = sorted(other for other in found if not other.startswith("_"))
            allowed = suggestion(wanted, names) + f"names in it are {listed(names) or 'none'}"
            yield Problem(path, f"the module {shown(module)} has no class {shown(wanted)}", allowed)


def consumption_cycle(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents that would react to themselves, directly or through others."""
    for cycle in cycles({name: agent.consumes for name, agent in topology.agents.items()}):
        consumed = cycle[1] if len(cycle) > 1 else cycle[0]
        path = ("agents", cycle[0], "consumes", topology.agents[cycle[0]].consumes.index(consumed))
        problem = f"agents consume each other's decisions in a cycle ({way(cycle)})"
        yield Problem(path, problem, "leave one of them out")


def escalation_cycle(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents that would escalate to themselves, directly or through others."""
    targets = {name: (agent.escalate or {}).get("to") for name, agent in topology.agents.items()}
    for cycle in cycles({name: [to] if isinstance(to, str) else [] for name, to in targets.items()}):
        problem = f"escalation goes round in a cycle ({way(cycle)})"
        yield Problem(("agents", cycle[0], "escalate", "to"), problem, "let it end at the strongest agent")


def zero_size(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Replicas without any memory."""
    for name, agent in topology.agents.items():
        if agent.resources.memory == 0:
            path = ("agents", name, "resources", "memory")
            yield Problem(path, "memory is zero", "write a size above zero, such as 300MiB")


def zero_slo(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Expectations that nothing can meet."""
    for name, agent in topology.agents.items():
        if agent.slo is not None and agent.slo.p99 == 0:
            path = ("agents", name, "slo", "p99")
            yield Problem(path, "no decision takes no time", "write a duration above zero, such as 20ms")


def batch_not_yet(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Dynamic batching, which is later work."""
    for name, agent in topology.agents.items():
        if agent.batch is not None:
            yield _not_yet(name, "batch", "dynamic batching")


def escalate_not_yet(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Escalation, which is later work."""
    for name, agent in topology.agents.items():
        if agent.escalate is not None:
            yield _not_yet(name, "escalate", "escalation to a stronger agent")


def _not_yet(agent: str, field: str, feature: str) -> Problem:
    error = NotYetError(feature)
    return Problem(("agents", agent, field), error.problem, error.remedy, "key")
