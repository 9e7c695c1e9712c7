"""A Ray cluster of several nodes on this machine, one process each, with labels as a test wants them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from live_mesh import FIXTURES, environment, wait_until

from mesh.placement import LABEL_VALUE, site_label
from mesh.processes import end_marked, launch
from mesh.runtime.cluster import namespace
from mesh.runtime.ray_head import NODE_IP, OBJECT_STORE_BYTES, _free_block, _free_ports
from mesh.runtime.ray_head import environment as ray_environment

_PORTS = (
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)


@dataclass(frozen=True)
class RayCluster:
    """Its address and the token that its drivers need."""

    address: str
    token: Path

    def actors(self, mesh: str) -> dict[str, dict[str, object]]:
        """Living replicas by name, with their process ids and the labels of their nodes."""
        return actors(self.address, self.token, mesh)


def actors(address: str, token: Path, mesh: str) -> dict[str, dict[str, object]]:
    """Asks a cluster from a process of its own, so that this one never joins any."""
    done = subprocess.run(
        [sys.executable, str(FIXTURES / "where_actors_run.py"), address, namespace(mesh)],
        env={**environment(), **ray_environment(token)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def ray_cluster(mesh: str, sites: list[str], token: Path, logs: Path) -> Iterator[RayCluster]:
    """One node per site: the first is the head. Ends every node and removes its temporary folder."""
    temp = Path(tempfile.mkdtemp(prefix="mt-"))
    gcs, *_ = _free_ports(1)
    more = {**environment(), **ray_environment(token)}
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for number, site in enumerate(sites):
            begin = [f"--port={gcs}", "--head", "--include-dashboard=false"] if number == 0 else []
            begin += [] if number == 0 else [f"--address={NODE_IP}:{gcs}"]
            log = logs / f"ray-{site}.log"
            nodes.append(launch(_arguments(mesh, site, temp / str(number), begin), str(temp), log, more))
            wait_until(lambda file=log: b"Ray runtime started" in file.read_bytes(), f"the node of {site}", 60.0)
        yield RayCluster(f"{NODE_IP}:{gcs}", token)
    finally:
        for node in reversed(nodes):
            node.terminate()
            try:
                node.wait(20.0)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()
        asyncio.run(end_marked(str(temp), 2.0))
        shutil.rmtree(temp, ignore_errors=True)


def _arguments(mesh: str, site: str, temp: Path, begin: list[str]) -> list[str]:
    ports = _free_ports(len(_PORTS))
    first = _free_block(60, set(ports))
    return [
        sys.executable, "-m", "ray.scripts.scripts", "start", *begin, "--block", "--disable-usage-stats",
        f"--node-ip-address={NODE_IP}", f"--temp-dir={temp}",
        f"--labels={site_label(mesh, site)}={LABEL_VALUE}",
        "--num-cpus=1", "--num-gpus=0", f"--memory={2 * 2**30}", f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--min-worker-port={first}", f"--max-worker-port={first + 59}",
        *(f"--{name}={port}" for name, port in zip(_PORTS, ports, strict=True)),
    ]  # fmt: skip
