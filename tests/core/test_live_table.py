"""The live table of `mesh up`, at the widths people have."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from mesh.cli.table import live_table
from mesh.clock import ManualClock
from mesh.health import Latencies, LinkStatus, ReplicaHealth, SiteStatus
from mesh.site.statuses import Statuses
from mesh.topology.load import load

METRO = load(Path(__file__).parents[2] / "topologies" / "metro.yaml")


def rendered(width: int) -> str:
    statuses = Statuses(ManualClock())
    for name, site in METRO.sites.items():
        latencies = Latencies()
        latencies.add(17.8)
        health = ReplicaHealth(
            agent="a", index=0, spec="", incarnation="1", pid=1, state="ready", latencies=latencies, dropped=123456
        )
        link = LinkStatus(to=site.uplink.to, up=False, cut=True) if site.uplink else None
        status = SiteStatus(
            site=name, tier=site.tier, pid=1, time=0.0, nats_up=True, wanted=1, replicas=[health], link=link
        )
        statuses.take(status)
    console = Console(width=width, file=io.StringIO())
    console.print(live_table(METRO, statuses, "mesh metro", console))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 116, 200])
def test_no_site_and_no_link_is_ever_cut_off(width: int) -> None:
    text = rendered(width)
    for name, site in METRO.sites.items():
        assert f" {name} " in text
        if site.uplink:
            assert f"{site.uplink.to} cut" in text
    assert "…" not in text


def test_a_wide_terminal_sees_every_column() -> None:
    assert all(name in rendered(200) for name in ("tier", "dropped", "backlog", "p50 ms", "errors"))
