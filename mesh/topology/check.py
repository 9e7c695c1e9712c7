"""Judges what the model cannot: names that refer to nothing, trees that are none, sites that are too small.

Each check is a small function of a topology and the folder of its file. It gives problems by path, and never assumes
that another check has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mesh.topology.checks import agents, capacity, links, names, references, sites, telemetry
from mesh.topology.finding import Problem
from mesh.topology.model import Topology

Check = Callable[[Topology, Path], Iterator[Problem]]

VALUE_CHECKS: tuple[Check, ...] = (
    names.colliding_sites,
    names.colliding_agents,
    references.unknown_uplink,
    references.unknown_site_in_selector,
    references.unknown_model,
    references.unknown_consumed_agent,
    references.unknown_escalation_agent,
    references.unknown_telemetry_site,
    sites.location_off_the_globe,
    sites.zero_size,
    links.listening_without_tls,
    links.server_without_tls,
    links.malformed_server_url,
    links.malformed_ray_address,
    links.missing_tls_file,
    links.address_declared_twice,
    links.latency_beyond_pings,
    links.zero_bandwidth,
    agents.missing_model_file,
    agents.missing_class,
    agents.zero_size,
    agents.zero_slo,
    agents.batch_not_yet,
    agents.escalate_not_yet,
    telemetry.id_claimed_twice,
    telemetry.unusable_id,
    telemetry.missing_profile,
    telemetry.naive_time,
    telemetry.zero_step,
)
"""Checks of one field and of the names it refers to; they hold even when other fields could not be read."""

WHOLE_CHECKS: tuple[Check, ...] = (
    sites.uplink_cycle,
    sites.one_root,
    sites.tier_order,
    links.unknown_leaf_port,
    agents.selector_without_match,
    agents.consumption_cycle,
    agents.escalation_cycle,
    capacity.exceeded,
    capacity.gpus_without_provider,
    telemetry.no_source,
    telemetry.missing_folder,
)
"""Checks of several fields together; they need every field of the file to be right in itself."""

CHECKS: tuple[Check, ...] = VALUE_CHECKS + WHOLE_CHECKS


def judge(topology: Topology, folder: Path, checks: Iterable[Check] = CHECKS) -> Iterator[Problem]:
    """Problems that `checks` find; `folder` is where the topology's file lies."""
    for check in checks:
        yield from check(topology, folder)
