"""Where the programs of this machine reach a site's nats-server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mesh.topology.model import Topology

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Endpoint:
    """A server's URL, and the authority that its certificate is checked against (None without TLS of our own)."""

    url: str
    ca: str | None = None


def endpoint(topology: Topology, site: str, client_port: int, base: Path) -> Endpoint:
    """The endpoint of a site; `client_port` counts unless the topology names a server, `base` is its file's folder."""
    listen, given = topology.sites[site].listen, topology.sites[site].nats
    ca = None if listen.tls is None else str((base / listen.tls.ca).absolute())
    if given is not None:
        return Endpoint(given, ca)
    host = local_host(topology, site)
    address = f"[{host}]" if ":" in host else host
    return Endpoint(f"{'nats' if listen.tls is None else 'tls'}://{address}:{client_port}", ca)


def local_host(topology: Topology, site: str) -> str:
    """Address at which this machine's own programs reach a site's nats-server."""
    host = topology.sites[site].listen.host
    return _ANY.get(host, host)
