"""Loopback ports of every site, chosen once and kept in `machine.json`; ports the topology declares win.

System-chosen ports lie below the range the kernel gives to outgoing connections and above the one Ray prefers, so that
what was free when a mesh stopped is most likely free when it starts again.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mesh.errors import FabricError, NotRunningError, PortInUseError
from mesh.fabric.machine import read_machine, update_machine
from mesh.folder import StateFolder
from mesh.processes import UP, recorded, running_command
from mesh.topology.model import Topology
from mesh.topology.tree import parent

LOOPBACK = "127.0.0.1"
_FIRST, _LAST = 20_000, 32_000
_KEY = "ports"


@dataclass(frozen=True)
class SitePorts:
    """TCP ports of one site on this machine."""

    client: int
    """Where clients connect."""
    leaf: int
    """Where the links of child sites arrive."""
    monitor: int
    """Loopback only: nats-server's monitor, from which health and the state of links are read."""
    relay: int | None
    """Loopback only: the relay that this site's uplink passes; None for the root and for parents on other machines."""


def uplink_is_local(topology: Topology, site: str) -> bool:
    """Whether the parent is on this machine, so that the link passes a relay: it listens on loopback only, or on
    all addresses (which names none that another machine could reach)."""
    above = parent(topology, site)
    if above is None:
        return False
    host = topology.sites[above].listen.host
    return host in ("0.0.0.0", "::", "localhost", "::1") or host.startswith("127.")


def ports_needed(topology: Topology, site: str) -> tuple[str, ...]:
    """Sites whose ports on this machine `site` must know: its own, and its parent's when that is here too."""
    above = parent(topology, site)
    return (site, above) if above is not None and uplink_is_local(topology, site) else (site,)


def read_ports(folder: StateFolder, topology: Topology, sites: Collection[str] | None = None) -> dict[str, SitePorts]:
    """What `ensure_ports` chose, without choosing; raises NotRunningError when a site has no ports yet."""
    known = _decode(read_machine(folder))
    here = sorted(topology.sites if sites is None else sites)
    if missing := [site for site in here if not _complete(topology, site, known.get(site))]:
        raise NotRunningError(f"site {missing[0]} of {topology.mesh}", str(folder.root))
    return {site: _site_ports(known[site]) for site in here}


def ensure_ports(
    folder: StateFolder,
    topology: Topology,
    sites: Collection[str] | None = None,
    *,
    is_free: Callable[[str, int], bool] | None = None,
) -> dict[str, SitePorts]:
    """Ports of the sites on this machine (default: all of the topology), chosen when missing and kept.

    While nothing of the mesh runs on this machine, a system-chosen port that a foreign process has taken meanwhile is
    replaced, and a declared one that is taken raises PortInUseError. Raises FabricError when `machine.json` is
    garbled. Processes that a running mesh consists of call `read_ports`.
    """
    free = is_free or port_is_free
    here = sorted(topology.sites if sites is None else sites)

    def choose(document: dict[str, Any]) -> dict[str, SitePorts]:
        known = _decode(document)
        settled = _runs(folder, topology)
        taken = {port for ports in known.values() for port in ports.values() if port} | _declared(topology)
        hosts = {topology.sites[site].listen.host for site in here if topology.sites[site].nats is None}
        fresh = _candidates(taken, sorted({LOOPBACK, *hosts}), free)
        chosen: dict[str, SitePorts] = {}
        for site in here:
            ports = _choose(topology, site, known.get(site, {}), settled, free, fresh)
            chosen[site] = _site_ports(ports)
        document[_KEY] = {**document.get(_KEY, {}), **{site: asdict(ports) for site, ports in chosen.items()}}
        return chosen

    return update_machine(folder, choose)


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now; a port in TIME_WAIT counts as free, as it does for nats-server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise FabricError(
                f"{host}:{port} cannot be listened on ({error.strerror})",
                "name an address of this machine as listen.host in the topology",
            ) from error
    return True


def _choose(
    topology: Topology,
    site: str,
    known: dict[str, int | None],
    settled: bool,
    free: Callable[[str, int], bool],
    fresh: Iterator[int],
) -> dict[str, int | None]:
    listen = topology.sites[site].listen
    ours = topology.sites[site].nats is None
    chosen: dict[str, int | None] = {}
    for kind, declared in (("client", listen.client), ("leaf", listen.leaf), ("monitor", None), ("relay", None)):
        host = listen.host if kind in ("client", "leaf") else LOOPBACK
        if kind == "relay" and not uplink_is_local(topology, site):
            chosen[kind] = None
        elif declared is not None:
            if ours and not settled and not free(host, declared):
                raise PortInUseError(f"the nats-server of site {site} ({kind} port)", host, declared)
            chosen[kind] = declared
        else:
            kept = known.get(kind)
            usable = kept is not None and kept not in _declared(topology) and (settled or free(host, kept))
            chosen[kind] = kept if usable else next(fresh)
    return chosen


def _candidates(taken: set[int], hosts: list[str], free: Callable[[str, int], bool]) -> Iterator[int]:
    """Free ports in a circle from a random beginning, so that two meshes started together seldom collide."""
    begin = secrets.randbelow(_LAST - _FIRST)
    for step in range(_LAST - _FIRST):
        port = _FIRST + (begin + step) % (_LAST - _FIRST)
        if port not in taken and all(free(host, port) for host in hosts):
            yield port
    raise FabricError(f"no port between {_FIRST} and {_LAST} is free", "stop other servers or declare ports")


def _declared(topology: Topology) -> set[int]:
    listens = (site.listen for site in topology.sites.values())
    return {port for listen in listens for port in (listen.client, listen.leaf) if port is not None}


def _runs(folder: StateFolder, topology: Topology) -> bool:
    """Whether any process of the mesh lives here, so that ports are in use by ourselves."""
    if running_command(folder.up_pid, UP):
        return True
    sites = [folder.site(site) for site in sorted(topology.sites)]
    return any(recorded(site.site_pid, site.mark) or recorded(site.nats_pid, site.nats_mark) for site in sites)


def _decode(document: dict[str, Any]) -> dict[str, dict[str, int | None]]:
    """Well-formed ports of the document by site and kind; anything else is as good as absent."""
    kinds = ("client", "leaf", "monitor", "relay")
    sites = document.get(_KEY)
    return {
        site: {kind: port for kind, port in ports.items() if kind in kinds and _is_port(port)}
        for site, ports in (sites.items() if isinstance(sites, dict) else ())
        if isinstance(ports, dict)
    }


def _site_ports(ports: dict[str, int | None]) -> SitePorts:
    return SitePorts(ports["client"] or 0, ports["leaf"] or 0, ports["monitor"] or 0, ports["relay"])


def _is_port(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536)


def _complete(topology: Topology, site: str, ports: dict[str, int | None] | None) -> bool:
    if ports is None or any(ports.get(kind) is None for kind in ("client", "leaf", "monitor")):
        return False
    return "relay" in ports and (ports["relay"] is not None or not uplink_is_local(topology, site))
