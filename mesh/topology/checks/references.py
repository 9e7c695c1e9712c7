"""Names that refer to something the file does not have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mesh.topology.finding import Problem, unknown
from mesh.topology.model import Topology


def unknown_uplink(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Uplinks to sites that are not in the file."""
    for name, site in topology.sites.items():
        if site.uplink is not None and site.uplink.to not in topology.sites:
            yield unknown(("sites", name, "uplink", "to"), "site", site.uplink.to, topology.sites)


def unknown_site_in_selector(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Selectors that name sites that are not in the file."""
    for name, agent in topology.agents.items():
        for index, site in enumerate(agent.sites.names or ()):
            if site not in topology.sites:
                yield unknown(("agents", name, "sites", "names", index), "site", site, topology.sites)


def unknown_model(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents with a model that is not in the file."""
    for name, agent in topology.agents.items():
        if agent.model is not None and agent.model not in topology.models:
            yield unknown(("agents", name, "model"), "model", agent.model, topology.models)


def unknown_consumed_agent(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Agents that consume the decisions of nobody."""
    for name, agent in topology.agents.items():
        for index, other in enumerate(agent.consumes):
            if other not in topology.agents:
                yield unknown(("agents", name, "consumes", index), "agent", other, topology.agents)


def unknown_escalation_agent(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Escalations to agents that are not in the file."""
    for name, agent in topology.agents.items():
        to = (agent.escalate or {}).get("to")
        if isinstance(to, str) and to not in topology.agents:
            yield unknown(("agents", name, "escalate", "to"), "agent", to, topology.agents)


def unknown_telemetry_site(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Telemetry for sites that are not in the file."""
    for kind, telemetry in topology.telemetry.items():
        for site in telemetry.sites:
            if site not in topology.sites:
                yield unknown(("telemetry", kind, "sites", site), "site", site, topology.sites, "key")
