"""What goes wrong is told in one sentence, with an exit code and without a stack."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import onnxruntime
import pytest
from live_mesh import FIXTURES, ROOT, Live, assert_plain_error, mesh_command

from mesh.fabric.machine import update_machine
from mesh.fabric.ports import ensure_ports
from mesh.folder import StateFolder
from mesh.topology.load import load

SINGLE = str(ROOT / "topologies" / "single.yaml")
METRO = str(ROOT / "topologies" / "metro.yaml")
LONE = "apiVersion: mesh/v1\nmesh: lone\nsites: {home: {tier: edge%s}}\nagents: {%s}\n"
PLANNER = 'planner: {class: "agents.capacity:CapacityPlanner", sites: {tier: edge}%s}'
COMMANDS = {
    "up": ("up", "lone.yaml", "--for", "1s"),
    "site run": ("site", "run", "lone.yaml", "--site", "home"),
}


@pytest.mark.long
def test_a_mesh_whose_replicas_cannot_load_says_why_of_each_and_goes_down_again(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("ONNX Runtime has a CUDA provider here, so asking for it is no error")
    for name in ("broken_agents.py", "misfit_agents.py"):
        shutil.copy(FIXTURES / name, tmp_path)
    (tmp_path / "garbage.onnx").write_bytes(bytes(range(256)) * 8)
    live = Live(tmp_path / "broken.yaml", tmp_path)
    model = ROOT / "agents" / "models" / "cell-load.onnx"
    live.file.write_text((FIXTURES / "broken.yaml").read_text().replace("MODEL", str(model)))
    wanted = {
        "orphan": "broken_agents cannot be imported (ModuleNotFoundError: No module named 'module_that_nobody_has')",
        "misfit": "agent 'misfit' (Misfit) lacks ",
        "garbled": "garbage.onnx is no model ONNX Runtime can load",
        "accelerated": "ONNX Runtime has no CUDA provider here",
    }
    try:
        done = mesh_command("up", str(live.file), "--state", str(live.state.root), cwd=tmp_path, timeout_s=90.0)
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: replicas cannot serve: ")
        for agent, sentence in wanted.items():
            site = "gpu" if agent == "accelerated" else "home"
            assert f"{site}/{agent}/0: " in last
            assert sentence in last
        assert_plain_error(done.stderr)
    finally:
        live.down()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("site", "agents", "sentence"),
    [
        ("", 'x: {class: "nosuch.module:X", sites: {tier: edge}}', "there is no module 'nosuch.module'"),
        ("", PLANNER % ", resources: {cpus: 3}", "replicas need 3 cpus and the site has 1"),
        ("", PLANNER % ", resources: {memory: 9GiB}", "replicas need"),
        ("", PLANNER % ", model: none", "none"),
    ],
    ids=["class", "cpus", "memory", "model"],
)
def test_a_topology_that_cannot_work_is_refused(
    tmp_path: Path, command: str, site: str, agents: str, sentence: str
) -> None:
    (tmp_path / "lone.yaml").write_text(LONE % (site, agents))
    done = mesh_command(*COMMANDS[command], cwd=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "error: lone.yaml has " in done.stderr.splitlines()[-1]
    assert_plain_error(done.stderr)
    assert not (tmp_path / ".mesh").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_declared_port_in_use_is_named(tmp_path: Path, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        (tmp_path / "lone.yaml").write_text(LONE % (f", listen: {{client: {port}}}", PLANNER % ""))
        done = mesh_command(*COMMANDS[command], cwd=tmp_path)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port} because the port is in use" in done.stderr
    assert_plain_error(done.stderr)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("identity", ["operator", "site.home"])
def test_a_garbled_seed_is_named(tmp_path: Path, command: str, identity: str) -> None:
    (tmp_path / "lone.yaml").write_text(LONE % ("", PLANNER % ""))
    keys = tmp_path / ".mesh" / "lone" / "keys"
    keys.mkdir(parents=True)
    (keys / f"{identity}.nk").write_text("SUAGARBLED\n")
    done = mesh_command(*COMMANDS[command], cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"{identity}.nk" in last
    assert "restore it from a backup" in last
    assert_plain_error(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("up",), "Missing argument"),
        (("up", SINGLE, "--frobnicate"), "No such option"),
        (("up", SINGLE, "--ray", "none"), "'none' is not one of"),
        (("up", SINGLE, "--telemetry", "nowhere"), "there is no telemetry folder nowhere"),
        (("frobnicate",), "No such command"),
        (("site", "run", METRO, "--site", "nowhere"), "metro has no site 'nowhere'; name one of core, north"),
        (("decisions", "--tier", "moon"), "'moon' is not one of"),
    ],
    ids=["no file", "option", "choice of ray", "telemetry folder", "command", "site", "tier"],
)
def test_wrong_use_ends_with_2(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = mesh_command(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert_plain_error(done.stderr)


def test_commands_without_a_mesh_say_so(tmp_path: Path) -> None:
    for arguments in (("down",), ("decisions",), ("link", "cut", "a", "b"), ("credentials", "app")):
        done = mesh_command(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: a mesh is not running (looked in ")
        assert_plain_error(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cut", "north-a", "moon"), "metro has no site 'moon'; name one of core, north"),
        (("heal", "north-a", "core"), "there is no link between north-a and core; choose one of north"),
        (("cut", "north-a"), "Missing argument 'B'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_cutting_what_is_no_link_is_wrong_use(tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    folder, topology = StateFolder(tmp_path), load(Path(METRO))
    ensure_ports(folder, topology)
    update_machine(folder, lambda machine: machine.update(topology=METRO))
    done = mesh_command("link", *arguments, "--state", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert_plain_error(done.stderr)


def test_a_telemetry_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The folder is there and holds no file of the topology."""
    (tmp_path / "empty").mkdir()
    done = mesh_command("up", SINGLE, "--telemetry", "empty", "--for", "1s", cwd=tmp_path)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: site home does not start: ")
    assert "matrixTS.csv" in last
    assert_plain_error(done.stderr)
