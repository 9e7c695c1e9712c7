"""Where replicas run: on the node that carries their site's label, in one cluster for all sites or one for each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from live_mesh import FIXTURES, ROOT, Live, until, view
from ray_cluster import actors, ray_cluster

from mesh.placement import LABEL_VALUE, plan, site_label
from mesh.runtime.ray_head import ensure_token

SITES = ["top", "left", "right"]


def misplaced(found: dict[str, dict[str, object]], mesh: str, carries: dict[str, str]) -> list[str]:
    """Replicas that do not run on the node that `carries` says belongs to their site, by that node's own label."""
    wrong = []
    for name, actor in found.items():
        label = site_label(mesh, carries[name.partition("/")[0]])
        labels = actor["labels"]
        assert isinstance(labels, dict)
        if labels.get(label) != LABEL_VALUE:
            wrong.append(name)
    return sorted(wrong)


@pytest.mark.long
def test_replicas_run_on_the_node_that_carries_their_site_s_label(tmp_path: Path) -> None:
    live = Live(tmp_path / "three.yaml", tmp_path)
    token = ensure_token(live.state)
    with ray_cluster("three", SITES, token, tmp_path) as cluster:
        text = (FIXTURES / "three.yaml").read_text()
        model = ROOT / "agents" / "models" / "cell-load.onnx"
        live.file.write_text(text.replace("RAY", f"'{cluster.address}'").replace("MODEL", str(model)))
        try:
            live.start()
            live.ready()
            found = cluster.actors("three")
            assert set(found) == {placed.name for placed in plan(live.topology)}
            assert misplaced(found, "three", {site: site for site in SITES}) == []
            swapped = {"top": "top", "left": "right", "right": "left"}
            assert misplaced(found, "three", swapped) == ["left/cell-forecast/0", "right/cell-forecast/0"]
            assert live.ray_temps() == []
        finally:
            live.down()
        assert cluster.actors("three") == {}


@pytest.mark.long
def test_with_a_ray_per_site_every_site_decides_and_keeps_its_replicas_in_its_own_cluster(tmp_path: Path) -> None:
    live = Live(FIXTURES / "two.yaml", tmp_path)

    async def decided() -> set[str]:
        sites: set[str] = set()
        async with view(live) as seen:
            root = await seen.outside("hub")
            subscription = await root.subscribe("two.decision.>")

            async def collect() -> None:
                async for message in subscription.messages:
                    sites.add(message.subject.split(".")[3])

            task = asyncio.create_task(collect(), name="collect")
            try:
                await until(lambda: sites == {"hub", "rim"}, "decisions of both sites", 30.0)
            finally:
                task.cancel()
        return sites

    try:
        live.start("--ray", "per-site")
        live.ready()
        assert asyncio.run(decided()) == {"hub", "rim"}
        assert len(live.ray_temps()) == 2
        for site, name in (("hub", "hub/overload/0"), ("rim", "rim/cell-forecast/0")):
            found = actors(live.ray_address(site), live.state.ray_token, "two")
            assert set(found) == {name}
            assert misplaced(found, "two", {site: site}) == []
    finally:
        temps = live.ray_temps()
        live.down()
    assert [temp for temp in temps if temp.exists()] == []
