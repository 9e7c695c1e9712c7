"""The live table of `mesh up`, and its one-line JSON result: functions of what the sites said."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from mesh.health import SiteStatus
from mesh.site.statuses import Statuses
from mesh.topology.model import TIERS, Topology
from mesh.topology.tree import top_down


def live_table(topology: Topology, statuses: Statuses, title: str) -> Table:
    """One row per site, parents before children."""
    table = Table(title=title, title_justify="left", expand=False, pad_edge=False)
    for name in ("site", "tier", "link", "replicas"):
        table.add_column(name, no_wrap=True)
    for name in ("obs/s", "dec/s", "p50 ms", "p99 ms", "dropped", "rejected", "errors", "backlog"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("waiting for", overflow="fold")
    for site in top_down(topology):
        table.add_row(*_row(topology, statuses, site))
    return table


def _row(topology: Topology, statuses: Statuses, site: str) -> list[str]:
    tier = topology.sites[site].tier
    status = statuses.latest.get(site)
    if status is None:
        return [site, tier, "", "", *[""] * 8, "its site process"]
    silent = statuses.silent(site)
    observed, decided = statuses.rates(site)
    latencies = statuses.latencies(site)
    p50, p99 = latencies.quantile(0.5), latencies.quantile(0.99)
    ready = sum(replica.state == "ready" for replica in status.replicas)
    return [
        site,
        tier,
        _link(status),
        f"[{'green' if status.ready else 'yellow'}]{ready}/{status.wanted}[/]",
        "" if silent else f"{observed:.0f}",
        "" if silent else f"{decided:.0f}",
        _milliseconds(p50),
        _flagged(topology, status, p99),
        str(statuses.total("dropped", site)),
        str(sum(statuses.rejected(site).values()) - statuses.total("errors", site)),
        str(statuses.total("errors", site)),
        str(status.backlog) if status.link else "",
        "[red]silent[/]" if silent else status.waiting_for,
    ]


def _link(status: SiteStatus) -> str:
    link = status.link
    if link is None:
        return "root"
    if link.cut:
        return f"[red]{link.to} cut[/]"
    return f"[green]{link.to} up[/]" if link.up else f"[red]{link.to} down[/]"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.2f}"


def _flagged(topology: Topology, status: SiteStatus, p99: float | None) -> str:
    """p99 of the site, red when one of its agents misses what the topology expects of it."""
    missed = False
    for replica in status.replicas:
        spec = topology.agents.get(replica.agent)
        found = replica.latencies.quantile(0.99)
        missed |= spec is not None and spec.slo is not None and found is not None and found > spec.slo.p99
    text = _milliseconds(p99)
    return f"[red]{text}[/]" if missed else text


def summary(topology: Topology, statuses: Statuses, ready_s: float | None) -> dict[str, Any]:
    """What `mesh up --json` prints last; `ready_s` is None when not everything became ready."""
    latencies = statuses.latencies()
    tiers = [tier for tier in TIERS if any(site.tier == tier for site in topology.sites.values())]
    running = dict.fromkeys(tiers, 0)
    for status in statuses.latest.values():
        running[topology.sites[status.site].tier] += sum(replica.state == "ready" for replica in status.replicas)
    p50, p99 = latencies.quantile(0.5), latencies.quantile(0.99)
    return {
        "ready_s": None if ready_s is None else round(ready_s, 2),
        "sites": sum(not statuses.silent(site) for site in topology.sites),
        "replicas": running,
        "observations": statuses.total("observations"),
        "decisions": {tier: statuses.total("decisions", tier=tier) for tier in tiers},
        "latency_ms": {
            "p50": None if p50 is None else round(p50 * 1e3, 3),
            "p99": None if p99 is None else round(p99 * 1e3, 3),
        },
        "errors": statuses.total("errors"),
    }
