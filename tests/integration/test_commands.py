"""Commands that need no running mesh, or bring up one of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from live_mesh import ROOT, mesh_command


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "topologies").glob("*.yaml")))
def test_every_shipped_topology_is_valid(name: str) -> None:
    done = mesh_command("validate", f"topologies/{name}", "--json", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {"file": f"topologies/{name}", "valid": True, "findings": []}


@pytest.mark.long
def test_bench_latency_prints_one_object(tmp_path: Path) -> None:
    file = str(ROOT / "topologies" / "single.yaml")
    done = mesh_command(
        "bench", "latency", file, "--json", "--runs", "1", "--requests", "100", "--seconds", "0.5",
        cwd=tmp_path, timeout_s=110.0,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["runs"] == 1
    assert found["targets"]
    for figure in found["targets"].values():
        assert set(figure) == {"value", "limit", "met"}
        assert figure["value"] > 0
        assert isinstance(figure["met"], bool)
    assert isinstance(found["detail"], dict)
    assert list((tmp_path / ".mesh").iterdir()) == []
