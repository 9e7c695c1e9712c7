"""The tree of sites, and what each site says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mesh.topology.checks.cycles import cycles, way
from mesh.topology.finding import Problem, listed, shown
from mesh.topology.model import Topology

_PARENT_TIERS = {"edge": ("regional", "cloud"), "regional": ("cloud",), "cloud": ("cloud",)}


def uplink_cycle(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Sites that are above themselves."""
    parents = {name: [site.uplink.to] if site.uplink else [] for name, site in topology.sites.items()}
    for cycle in cycles(parents):
        problem = f"the uplinks form a cycle ({way(cycle)})"
        path = ("sites", cycle[0], "uplink", "to")
        yield Problem(path, problem, "let every uplink lead towards the one site without uplink")


def one_root(topology: Topology, folder: Path) -> Iterator[Problem]:
    """No site, or more than one, without uplink."""
    roots = [name for name, site in topology.sites.items() if site.uplink is None]
    if not roots:
        yield Problem(("sites",), "every site has an uplink", "leave it out at the topmost site", "key")
    for name in roots[1:]:
        problem = f"the site has no uplink, nor has {roots[0]!r}"
        yield Problem(("sites", name), problem, "give an uplink to every site but one", "key")


def tier_order(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Parents of a tier that cannot be above their child's."""
    for name, site in topology.sites.items():
        parent = topology.sites.get(site.uplink.to) if site.uplink else None
        if site.uplink and parent and site.uplink.to != name and parent.tier not in _PARENT_TIERS[site.tier]:
            problem = f"a site of tier {site.tier} cannot be below {site.uplink.to!r}, which is {parent.tier}"
            tiers = _PARENT_TIERS[site.tier]
            able = [other for other, candidate in topology.sites.items() if candidate.tier in tiers and other != name]
            allowed = f"its parent may be of tier {' or '.join(tiers)}" + (f": {listed(able)}" if able else "")
            yield Problem(("sites", name, "uplink", "to"), problem, allowed)


def location_off_the_globe(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Latitudes and longitudes that do not exist."""
    for name, site in topology.sites.items():
        for index, (value, limit) in enumerate(zip(site.location or (), (90, 180), strict=False)):
            if not -limit <= value <= limit:
                allowed = f"{('latitude', 'longitude')[index]} is -{limit} to {limit} degrees"
                yield Problem(("sites", name, "location", index), f"{shown(value)} is out of range", allowed)


def zero_size(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Memory or disk of nothing, which servers would take for no limit."""
    for name, site in topology.sites.items():
        for field, size in (("memory", site.capacity.memory), ("disk", site.capacity.disk)):
            if size == 0:
                path = ("sites", name, "capacity", field)
                yield Problem(path, f"{field} is zero", "write a size above zero, such as 512MiB")
