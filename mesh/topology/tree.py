"""The tree that uplinks span, and which sites a selector means. Pure questions about a valid topology."""

from __future__ import annotations

from mesh.topology.model import Selector, Topology


def parent(topology: Topology, site: str) -> str | None:
    """The site's parent, or None for the root."""
    uplink = topology.sites[site].uplink
    return None if uplink is None else uplink.to


def children(topology: Topology, site: str) -> tuple[str, ...]:
    """Sites whose uplink goes to `site`, sorted."""
    return tuple(sorted(name for name in topology.sites if parent(topology, name) == site))


def subtree(topology: Topology, site: str) -> tuple[str, ...]:
    """`site` and everything below it, sorted after the site itself."""
    below: list[str] = []
    for child in children(topology, site):
        below.extend(subtree(topology, child))
    return (site, *sorted(below))


def region(topology: Topology, site: str) -> str | None:
    """Name of the regional site whose subtree holds `site`; None above the regions."""
    at: str | None = site
    while at is not None:
        if topology.sites[at].tier == "regional":
            return at
        at = parent(topology, at)
    return None


def top_down(topology: Topology) -> tuple[str, ...]:
    """All sites, parents before children, siblings sorted."""
    order = [name for name in sorted(topology.sites) if parent(topology, name) is None]
    for site in order:
        order.extend(children(topology, site))
    return tuple(order)


def select(topology: Topology, selector: Selector) -> tuple[str, ...]:
    """Names of the sites that match every part of `selector`, sorted."""
    return tuple(
        name
        for name, site in sorted(topology.sites.items())
        if (selector.tier is None or site.tier == selector.tier)
        and (selector.names is None or name in selector.names)
        and all(site.labels.get(key) == value for key, value in selector.labels.items())
    )
