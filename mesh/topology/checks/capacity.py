"""Whether sites can bear the replicas that the file asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from mesh.topology.finding import Problem, listed
from mesh.topology.model import AgentSpec, Capacity, Resources, Topology
from mesh.topology.tree import select
from mesh.units import format_size

_Amount = Callable[[Resources | Capacity], float]

_SLACK = 1e-9
"""Sums of decimal fractions such as 0.1 overshoot by less than this."""

_KINDS: tuple[tuple[str, _Amount, Callable[[float], str]], ...] = (
    ("cpus", lambda amounts: amounts.cpus, lambda value: f"{value:g}"),
    ("memory", lambda amounts: amounts.memory, lambda value: format_size(int(value))),
    ("gpus", lambda amounts: amounts.gpus, lambda value: f"{value:g}"),
)


def exceeded(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Sites whose replicas need more than the site has."""
    for site, agents in _placed(topology).items():
        for kind, amount, write in _KINDS:
            has = amount(topology.sites[site].capacity)
            needs = {name: amount(agent.resources) * agent.replicas for name, agent in agents.items()}
            total = sum(needs.values())
            if total > has + _SLACK:
                largest = sorted(needs, key=lambda name: -needs[name])
                parts = listed(_part(name, agents[name], amount, write) for name in largest if needs[name])
                problem = f"replicas need {write(total)} {kind} and the site has {write(has)} ({parts})"
                allowed = "lower resources or replicas, select fewer sites, or raise the capacity"
                yield Problem(("sites", site, "capacity", kind), problem, allowed)


def gpus_without_provider(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents that ask for accelerators where models run on processors."""
    for name, agent in topology.agents.items():
        plain = [site for site in select(topology, agent.sites) if topology.sites[site].provider == "cpu"]
        if agent.resources.gpus and plain:
            problem = f"gpus are asked for at sites with provider cpu ({listed(plain)})"
            allowed = "set 'provider: cuda' there, or leave gpus out"
            yield Problem(("agents", name, "resources", "gpus"), problem, allowed)


def _placed(topology: Topology) -> dict[str, dict[str, AgentSpec]]:
    placed: dict[str, dict[str, AgentSpec]] = {site: {} for site in topology.sites}
    for name, agent in topology.agents.items():
        for site in select(topology, agent.sites):
            placed[site][name] = agent
    return placed


def _part(name: str, agent: AgentSpec, amount: _Amount, write: Callable[[float], str]) -> str:
    times = f"{agent.replicas} × " if agent.replicas > 1 else ""
    return f"{name} {times}{write(amount(agent.resources))}"
