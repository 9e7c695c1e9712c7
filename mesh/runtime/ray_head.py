"""A Ray head as a process of its own, which outlives whoever started it.

Ray listens on all interfaces whatever address it is told; the token guards it (docs/operations.md says so to
operators). Nodes are addressed by 127.0.0.2, because Ray replaces 127.0.0.1 by an outside address.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mesh.errors import FabricError, RayError
from mesh.fabric.machine import read_machine, update_machine, write_atomically
from mesh.folder import StateFolder
from mesh.placement import LABEL_VALUE, site_label
from mesh.processes import Process, end, end_marked, launch, marked
from mesh.topology.model import Topology

NODE_IP = "127.0.0.2"
SHARED = "shared"
"""Key of the head that serves all sites of a machine; others are named for their site."""
READY_DEADLINE_S = 75.0
"""A head takes 4–8 s on an idle machine and several times that on a busy one."""
STOP_DEADLINE_S = 15.0
OBJECT_STORE_BYTES = 100 * 2**20
"""Replicas exchange nothing through Ray's object store; Ray asks for at least 75 MiB."""
_PORT_NAMES = (
    "port",
    "node-manager-port",
    "object-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
_TEMP = "--temp-dir="
_WORKER_PORTS = 400
"""Ports set aside for workers; each replica and driver takes one."""


@dataclass(frozen=True)
class Head:
    """A running head: where it is, and the short temporary folder it keeps its sockets in."""

    address: str
    pid: int
    temp: str
    ready: bool = False


def environment(token: Path) -> dict[str, str]:
    """The variables that Ray's processes and drivers need."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "2",
        "RAY_prestart_worker_first_driver": "0",  # idle workers that no replica uses would cost a second each
        "RAY_ENABLE_AUTO_CONNECT": "0",  # a call without a connection must fail, not start a cluster of its own
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as Ray announces for its next versions, and says at every start
    }


def ensure_token(folder: StateFolder) -> Path:
    """The file with the token that guards this machine's Ray clusters, made when missing (mode 0600)."""
    if not folder.ray_token.exists():
        write_atomically(folder.ray_token, secrets.token_hex(32), mode=0o600)
    return folder.ray_token


def head_process(folder: StateFolder, key: str, head: Head) -> Process:
    """The head's own process; it ends by itself when one of its daemons does."""
    return Process(head.pid, head_mark(folder, key))


def head_mark(folder: StateFolder, key: str) -> str:
    """Mark of the head under `key` and all it starts: known without `machine.json`, should that be lost."""
    return str(folder.root / "ray" / key)


def running_head(folder: StateFolder, key: str) -> Head | None:
    """The head that was started under `key`, if its process lives."""
    known = _read_known(folder).get(key)
    if known is None:
        return None
    head = Head(**known)
    return head if head_process(folder, key, head).verified() else None


async def start_head(folder: StateFolder, topology: Topology, sites: tuple[str, ...], key: str, log: Path) -> Head:
    """Starts a head that carries the labels of `sites` and what they may spend, or finds the one already there.

    `key` names it in `machine.json`. Raises RayError with the last line of its log when it does not come up.
    """
    found = running_head(folder, key)
    if found is not None and found.ready:
        return found
    await clear_head(folder, key)
    token = ensure_token(folder)
    temp = tempfile.mkdtemp(prefix="mesh-ray-")
    ports = _free_ports(len(_PORT_NAMES))
    first_worker = _free_block(_WORKER_PORTS, set(ports))
    capacities = [topology.sites[site].capacity for site in sites]
    labels = ",".join(f"{site_label(topology.mesh, site)}={LABEL_VALUE}" for site in sites)
    arguments = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block",
        f"--node-ip-address={NODE_IP}", "--include-dashboard=false", "--disable-usage-stats",
        f"{_TEMP}{temp}", f"--labels={labels}",
        f"--num-cpus={max(1, round(sum(c.cpus for c in capacities)))}",
        f"--num-gpus={round(sum(c.gpus for c in capacities))}",
        f"--memory={sum(c.memory for c in capacities)}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--min-worker-port={first_worker}", f"--max-worker-port={first_worker + _WORKER_PORTS - 1}",
        *(f"--{name}={port}" for name, port in zip(_PORT_NAMES, ports, strict=True)),
    ]  # fmt: skip
    log.unlink(missing_ok=True)
    process = await asyncio.to_thread(launch, arguments, head_mark(folder, key), log, environment(token))
    head = Head(f"{NODE_IP}:{ports[0]}", process.pid, temp)
    update_machine(folder, lambda machine: machine.setdefault("ray", {}).update({key: asdict(head)}))
    await _ready(process, log)
    head = replace(head, ready=True)
    update_machine(folder, lambda machine: machine.setdefault("ray", {}).update({key: asdict(head)}))
    return head


async def wait_for_head(folder: StateFolder, key: str) -> Head:
    """The head under `key` that somebody else starts, once it is ready; raises RayError at the deadline."""
    deadline = asyncio.get_running_loop().time() + READY_DEADLINE_S
    while True:
        head = running_head(folder, key)
        if head is not None and head.ready:
            return head
        if asyncio.get_running_loop().time() > deadline:
            raise RayError(
                f"no Ray head came up within {READY_DEADLINE_S:.0f} s", f"see {folder.ray_log} and start 'mesh up'"
            )
        await asyncio.sleep(0.1)


async def _ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_DEADLINE_S
    while b"Ray runtime started" not in log.read_bytes():
        if process.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise RayError(f"the Ray head ended at once ({' '.join(last)})", f"see {log}")
        if asyncio.get_running_loop().time() > deadline:
            raise RayError(f"the Ray head was not ready after {READY_DEADLINE_S:.0f} s", f"see {log}")
        await asyncio.sleep(0.05)


async def stop_head(folder: StateFolder, key: str) -> None:
    """Stops the head under `key` with its workers and removes its temporary folder; nothing to do is no error."""
    temps = await asyncio.to_thread(_temps, folder, key)
    for process in await asyncio.to_thread(marked, head_mark(folder, key)):
        if b"--head" in process.arguments():
            await end(process, STOP_DEADLINE_S)
    await _clear(folder, key, temps)


async def clear_head(folder: StateFolder, key: str) -> None:
    """Ends what a killed head under `key` left behind and removes its temporary folder."""
    await _clear(folder, key, await asyncio.to_thread(_temps, folder, key))


async def _clear(folder: StateFolder, key: str, temps: set[str]) -> None:
    await end_marked(head_mark(folder, key), 2.0)
    for temp in temps:
        await asyncio.to_thread(shutil.rmtree, temp, ignore_errors=True)
    if key in _read_known(folder):
        update_machine(folder, lambda machine: machine.get("ray", {}).pop(key, None))


def _temps(folder: StateFolder, key: str) -> set[str]:
    """Temporary folders of the head under `key`, as its processes and `machine.json` tell."""
    arguments = [os.fsdecode(a) for process in marked(head_mark(folder, key)) for a in process.arguments()]
    known = _read_known(folder).get(key)
    return {a.removeprefix(_TEMP) for a in arguments if a.startswith(_TEMP)} | ({known["temp"]} if known else set())


def _read_known(folder: StateFolder) -> dict[str, Any]:
    """Heads that `machine.json` knows; none when it is garbled."""
    try:
        found = read_machine(folder).get("ray", {})
    except FabricError:
        return {}
    return found if isinstance(found, dict) else {}


def _free_ports(count: int) -> list[int]:
    """Ports that are free now; Ray takes them within the second."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _free_block(size: int, taken: set[int]) -> int:
    """First port of a block in which the first is free and none is in `taken`; Ray skips single ports in use."""
    for _ in range(200):
        first = 32_768 + secrets.randbelow(60_000 - 32_768 - size)
        if taken.isdisjoint(range(first, first + size)):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", first)) != 0:
                    return first
    raise RayError("no block of free ports was found for Ray's workers", "close other servers on this machine")
