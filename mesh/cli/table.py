"""The live table of `mesh up`, and its one-line JSON result: functions of what the sites said."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from mesh.health import SiteStatus
from mesh.site.statuses import Statuses
from mesh.topology.model import TIERS, Topology
from mesh.topology.tree import top_down

_COLUMNS = (
    "site", "tier", "link", "replicas", "obs/s", "dec/s", "p50 ms", "p99 ms", "dropped", "rejected", "errors", "backlog"
)  # fmt: skip
_TEXT_COLUMNS = ("site", "tier", "link", "replicas")
_LEFT_OUT = ("tier", "dropped", "backlog", "p50 ms", "obs/s", "rejected", "errors", "replicas")
"""What a narrow terminal does without, in this order; never the site and its link."""


def live_table(topology: Topology, statuses: Statuses, title: str, console: Console) -> Table:
    """One row per site, parents before children, and below it what sites wait for; as wide as `console` allows."""
    for count in range(len(_LEFT_OUT) + 1):
        names = [name for name in _COLUMNS if name not in _LEFT_OUT[:count]]
        table = _table(topology, statuses, title, names)
        if Measurement.get(console, console.options.update(width=1000), table).maximum <= console.width:
            break
    return table


def _table(topology: Topology, statuses: Statuses, title: str, names: list[str]) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in _TEXT_COLUMNS else "right", no_wrap=True)
    for site in top_down(topology):
        row = _row(topology, statuses, site)
        table.add_row(*(row.get(name, "") for name in names))
    table.caption = "\n".join(_waiting(statuses, site) for site in top_down(topology) if _waiting(statuses, site))
    return table


def _waiting(statuses: Statuses, site: str) -> str:
    status = statuses.latest.get(site)
    if status is None:
        return f"{site} waits for its site process"
    if statuses.silent(site):
        return f"{site} is silent"
    return f"{site} waits for {escape(status.waiting_for)}" if status.waiting_for else ""


def _row(topology: Topology, statuses: Statuses, site: str) -> dict[str, str]:
    row = {"site": site, "tier": topology.sites[site].tier}
    status = statuses.latest.get(site)
    if status is None:
        return row
    observed, decided = statuses.rates(site)
    latencies = statuses.latencies(site)
    ready = sum(replica.state == "ready" for replica in status.replicas)
    errors = statuses.total("errors", site)
    silent = statuses.silent(site)
    return row | {
        "link": "[red]silent[/]" if silent else _link(status),
        "replicas": f"[{'green' if status.ready else 'yellow'}]{ready}/{status.wanted}[/]",
        "obs/s": "" if silent else f"{observed:.0f}",
        "dec/s": "" if silent else f"{decided:.0f}",
        "p50 ms": _milliseconds(latencies.quantile(0.5)),
        "p99 ms": _flagged(topology, status, latencies.quantile(0.99)),
        "dropped": str(statuses.total("dropped", site)),
        "rejected": str(sum(statuses.rejected(site).values()) - errors),
        "errors": str(errors),
        "backlog": str(status.backlog) if status.link else "",
    }


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
