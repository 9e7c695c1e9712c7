"""Addresses and links: who can reach whom, and whether others could listen in."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from mesh.topology.finding import Problem, Where, shown
from mesh.topology.model import Topology
from mesh.units import format_duration

LATENCY_MAX_S = 0.5
"""Links are pinged every 750 ms and die after two lost answers; a round trip over 1 s would make them flap."""

_NATS_PORT = 4222
_RAY_ADDRESS = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})")
_PORT_MAX = 65535


def listening_without_tls(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Servers that others could reach, without certificates."""
    for name, site in topology.sites.items():
        if not _loopback(site.listen.host) and site.listen.tls is None:
            problem = f"{shown(site.listen.host)} is reached from other hosts and there is no tls"
            allowed = "add 'tls: {cert: …, key: …, ca: …}' or listen on 127.0.0.1"
            yield Problem(("sites", name, "listen", "host"), problem, allowed)


def server_without_tls(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Servers on other hosts that would be spoken to in the clear."""
    for name, site in topology.sites.items():
        address = _nats_address(site.nats)
        if address is not None and address.scheme != "tls" and not _loopback(address.host):
            problem = f"{shown(site.nats)} is on another host and not encrypted"
            yield Problem(("sites", name, "nats"), problem, "write tls:// in place of nats://")


def malformed_server_url(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Texts that are no URL of a nats-server."""
    for name, site in topology.sites.items():
        if site.nats is not None and _nats_address(site.nats) is None:
            problem = f"{shown(site.nats)} is no URL of a nats-server"
            yield Problem(("sites", name, "nats"), problem, "write tls://HOST:PORT or nats://127.0.0.1:PORT")


def malformed_ray_address(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Texts that are no address of a Ray cluster."""
    for name, site in topology.sites.items():
        if site.ray is None:
            continue
        match = _RAY_ADDRESS.fullmatch(site.ray)
        if match is None or not 0 < int(match[1]) <= _PORT_MAX:
            problem = f"{shown(site.ray)} is no address of a Ray cluster"
            yield Problem(("sites", name, "ray"), problem, "write HOST:PORT, such as 127.0.0.1:6379")


def missing_tls_file(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Certificates that are not where the file says."""
    for name, site in topology.sites.items():
        tls = site.listen.tls
        files = () if tls is None else (("cert", tls.cert), ("key", tls.key), ("ca", tls.ca))
        for field, file in files:
            if not is_file(folder, file):
                path = ("sites", name, "listen", "tls", field)
                yield Problem(path, f"there is no file {shown(file)}", f"give its path from {shown(str(folder))}")


def unknown_leaf_port(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Existing servers whose children would not know where to link to."""
    parents = {site.uplink.to for site in topology.sites.values() if site.uplink is not None}
    for name, site in topology.sites.items():
        if site.nats is not None and name in parents and site.listen.leaf is None:
            problem = "child sites cannot know the port for links of this server"
            yield Problem(("sites", name, "nats"), problem, "name it with 'listen: {leaf: PORT}'")


def address_declared_twice(topology: Topology, folder: Path) -> Iterator[Problem]:
    """The same host and port for two servers, or for two purposes of one."""
    first: dict[tuple[str, int], Where] = {}
    for name, site in topology.sites.items():
        declared: dict[tuple[str, int], Where] = {}
        for field, port in (("client", site.listen.client), ("leaf", site.listen.leaf)):
            if port is None:
                continue
            path: Where = ("sites", name, "listen", field)
            if (other := declared.setdefault((_host(site.listen.host), port), path)) != path:
                yield _taken(path, site.listen.host, port, other)
        # An existing server may also say its port under `listen`: that is one server, not two.
        if (address := _nats_address(site.nats)) is not None:
            declared.setdefault((_host(address.host), address.port), ("sites", name, "nats"))
        for (host, port), path in declared.items():
            if (other := first.setdefault((host, port), path)) != path:
                yield _taken(path, host, port, other)


def _taken(path: Where, host: str, port: int, other: Where) -> Problem:
    owner = f"site {other[1]!r} ({other[-1]})"
    return Problem(path, f"{host}:{port} is taken by {owner}", "give each server and purpose its own port")


def latency_beyond_pings(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Links so slow that a healthy one would count as dead."""
    for name, site in topology.sites.items():
        latency = site.uplink.latency if site.uplink else None
        if latency is not None and latency > LATENCY_MAX_S:
            problem = f"a link of {format_duration(latency)} one way would count as dead"
            allowed = f"up to {format_duration(LATENCY_MAX_S)} is allowed"
            yield Problem(("sites", name, "uplink", "latency"), problem, allowed)


def zero_bandwidth(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Links that would never carry anything."""
    for name, site in topology.sites.items():
        if site.uplink is not None and site.uplink.bandwidth == 0:
            path = ("sites", name, "uplink", "bandwidth")
            yield Problem(path, "the bandwidth is zero", "write one above zero, such as 100Mbit, or leave it out")


def is_file(folder: Path, file: str) -> bool:
    """Whether `file`, relative to `folder`, is there; a text that can be no path is not."""
    try:
        return (folder / file).is_file()
    except (OSError, ValueError):
        return False


def _host(host: str) -> str:
    return "127.0.0.1" if host.lower() in ("localhost", "::1") else host.lower()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int


def _nats_address(url: str | None) -> _Address | None:
    """The parts of a server's URL; None if it is none."""
    try:
        parts = urlsplit(url or "")
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("nats", "tls") or not parts.hostname or port == 0:
        return None
    return _Address(parts.scheme, parts.hostname, _NATS_PORT if port is None else port)
