"""Up and down: Ctrl-C leaves nothing, kill -9 leaves everything running for the next `mesh up` or `mesh down`."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from pathlib import Path

import pytest
from live_mesh import ROOT, Live, environment, leftovers, view, wait_until

from mesh.fabric.launch import find_binary

KEYS = {"ready_s", "sites", "replicas", "observations", "decisions", "latency_ms", "errors"}


def in_folder(folder: Path) -> dict[int, str]:
    """Living processes of this test run that were started for the mesh in `folder`, or by Ray for it."""
    found = {}
    for pid, command in leftovers().items():
        try:
            variables = Path(f"/proc/{pid}/environ").read_text(errors="replace")
        except OSError:
            continue
        if str(folder) in variables or str(folder) in command:
            found[pid] = command
    return found


def marked_by(temps: list[Path]) -> dict[int, str]:
    """Living processes of the Ray heads that kept their files in `temps`."""
    return {pid: command for temp in temps for pid, command in in_folder(temp).items()}


def nothing_left(live: Live, temps: list[Path]) -> None:
    wait_until(lambda: not in_folder(live.state.root) and not marked_by(temps), "the end of every process", 10.0)
    assert [temp for temp in temps if temp.exists()] == []


@pytest.mark.long
def test_after_kill_of_up_the_next_up_adopts_what_runs_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    live = Live(ROOT / "topologies" / "single.yaml", tmp_path)

    async def parts() -> tuple[int | None, set[tuple[str, str]]]:
        async with view(live) as seen:
            replicas = {(r.agent, r.incarnation) for r in seen.status("home").replicas}
            return live.nats_pid("home"), replicas

    try:
        live.start("--json")
        live.ready()
        before, temps = asyncio.run(parts()), live.ray_temps()
        live.kill_up()
        assert live.nats_pid("home") == before[0]
        live.start("--json")
        live.ready()
        assert asyncio.run(parts()) == before
        assert live.ray_temps() == temps
        assert live.interrupt() == 0
        nothing_left(live, temps)
        last = json.loads(live.stdout.splitlines()[-1])
        assert set(last) == KEYS
        assert set(last["latency_ms"]) == {"p50", "p99"}
        assert last["sites"] == 1
        assert last["replicas"] == {"edge": 2}
        assert last["errors"] == 0
        assert last["decisions"]["edge"] > 0
        assert last["observations"] >= last["decisions"]["edge"]
        assert 0 < last["ready_s"] < 60
        assert 0 < last["latency_ms"]["p50"] <= last["latency_ms"]["p99"]
        assert live.command("down").stdout.startswith("nothing of the mesh")
    finally:
        live.down()


@pytest.mark.long
def test_down_clears_what_a_killed_up_left_but_not_a_nats_server_of_others(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "own.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{store_dir: "{tmp_path / "own"}"}}\n')
    with (tmp_path / "own.log").open("wb") as log:
        server = subprocess.Popen([str(find_binary()), "-c", str(config)], env=environment(), stdout=log, stderr=log)
    text = (ROOT / "topologies" / "single.yaml").read_text()
    text = text.replace("tier: edge\n    location", f"tier: edge\n    nats: nats://127.0.0.1:{port}\n    location", 1)
    text = text.replace("../agents/", f"{ROOT}/agents/").replace("profiles/", f"{ROOT}/topologies/profiles/")
    live = Live(tmp_path / "existing.yaml", tmp_path)
    live.file.write_text(text)
    try:
        live.start()
        live.ready()
        assert live.nats_pid("home") is None
        done = live.command("decisions", "--count", "2", "--json")
        assert [json.loads(line)["specversion"] for line in done.stdout.splitlines()] == ["1.0", "1.0"]
        temps = live.ray_temps()
        refused = live.command("up", str(live.file))
        assert refused.returncode == 2
        assert "is up already" in refused.stderr
        live.kill_up()
        assert in_folder(live.state.root)
        down = live.command("down")
        assert down.returncode == 0
        assert " is down" in down.stdout
        nothing_left(live, temps)
        assert server.poll() is None
    finally:
        live.down()
        server.terminate()
        server.wait(10.0)
