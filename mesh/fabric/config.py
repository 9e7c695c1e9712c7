"""Renders a site's nats-server configuration. Pure and deterministic: equal arguments give equal bytes.

One account per mesh holds every user; JetStream's domain is the site. The text ends with the sections that a running
server takes over on reload (`clients`), so that comparing two texts tells whether a restart is needed.

The state of links is read from the monitor on a loopback port: asking over `$SYS` would take a client of a second
account with rights over the whole server, while the monitor can only be read. It shows names and subjects, no payload
and no seed, to users of this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mesh.errors import FabricError
from mesh.fabric import permissions
from mesh.fabric.identity import Identities, Identity
from mesh.fabric.permissions import Permissions
from mesh.fabric.ports import LOOPBACK, SitePorts, uplink_is_local
from mesh.folder import SiteFolder
from mesh.settings import FabricSettings, Settings
from mesh.subjects import Subjects
from mesh.topology.model import Tls, Topology
from mesh.topology.tree import children, parent

RELOADABLE = "# Clients: a running server takes changes below this line over on reload."
_RESPONSE_EXPIRES = "30s"
_LOG_BYTES_MAX = 16 * 2**20
_MEMORY_STORE_BYTES = 16 * 2**20


def server_name(mesh: str, site: str) -> str:
    """Name of a site's nats-server, unique in the mesh."""
    return f"{mesh}-{site}"


def site_of(mesh: str, name: str) -> str:
    """The site whose server has `name`; names of other servers are returned as they are."""
    return name.removeprefix(f"{mesh}-")


def render(
    topology: Topology,
    site: str,
    ports: Mapping[str, SitePorts],
    identities: Identities,
    folder: SiteFolder,
    settings: Settings,
    base: Path,
) -> str:
    """The whole of `nats.conf`; only public keys, no seed. Relative TLS paths count from `base`.

    Raises FabricError when the uplink's address cannot be known.
    """
    own, listen, fabric = ports[site], topology.sites[site].listen, settings.fabric
    lines = [
        f"# Rendered for site {site} of mesh {topology.mesh}; changed by hand, it is replaced at the next start.",
        f"server_name: {_quote(server_name(topology.mesh, site))}",
        f"listen: {_quote(_address(listen.host, own.client))}",
        f"http: {_quote(_address(LOOPBACK, own.monitor))}",
        f"pid_file: {_quote(str(folder.nats_pid))}",
        f"log_file: {_quote(str(folder.nats_log))}",
        f"logfile_size_limit: {_LOG_BYTES_MAX}",
        "logfile_max_num: 2",
        "logtime_utc: true",
        f"max_payload: {fabric.max_payload_bytes}",
        f"ping_interval: {_quote(_duration(fabric.ping_interval_s))}",
        f"ping_max: {fabric.ping_max}",
        *([] if listen.tls is None else ["tls {", *_certificates(listen.tls, base), "}"]),
        *_jetstream(topology, site, folder, settings),
        *_leafnodes(topology, site, ports, identities, fabric, base),
        *_account(topology, site, identities),
    ]
    return "\n".join(lines) + "\n"


def render_uplink(seed: str) -> str:
    """`uplink.conf`, included by the uplink: the seed itself, so the file is for its owner only (mode 0600)."""
    return f"nkey: {_quote(seed)}\n"


def reloadable(old: str, new: str) -> bool:
    """Whether a server that runs `old` can take over `new` without a restart: only clients' users differ."""
    return RELOADABLE in new and old.partition(RELOADABLE)[0] == new.partition(RELOADABLE)[0]


def uplink_url(topology: Topology, site: str, ports: Mapping[str, SitePorts]) -> str | None:
    """Where a site's uplink connects: the relay when the parent is on this machine; None for the root.

    Raises FabricError when the parent is elsewhere, or runs by itself, and declares no leaf port.
    """
    above = parent(topology, site)
    if above is None:
        return None
    listen, given = topology.sites[above].listen, topology.sites[above].nats
    if listen.leaf is None and (given is not None or not uplink_is_local(topology, site)):
        raise FabricError(
            f"site {site} cannot know the port of its uplink to {above}",
            f"declare listen.leaf for site {above} in the topology",
        )
    scheme = "nats-leaf" if listen.tls is None else "tls"
    if uplink_is_local(topology, site):
        relay = ports[site].relay
        if relay is None:
            raise FabricError(f"site {site} has no port for its uplink's relay", "choose ports with ensure_ports")
        return f"{scheme}://{_address(LOOPBACK, relay)}"
    return f"{scheme}://{_address(listen.host, listen.leaf or 0)}"


def _jetstream(topology: Topology, site: str, folder: SiteFolder, settings: Settings) -> list[str]:
    return [
        "jetstream {",
        f"  store_dir: {_quote(str(folder.jetstream))}",
        f"  domain: {_quote(site)}",
        f"  max_file_store: {topology.sites[site].capacity.disk}",
        f"  max_memory_store: {_MEMORY_STORE_BYTES}",
        f"  sync_interval: {_quote(_duration(settings.stream.sync_interval_s))}",
        "}",
    ]


def _leafnodes(
    topology: Topology,
    site: str,
    ports: Mapping[str, SitePorts],
    identities: Identities,
    fabric: FabricSettings,
    base: Path,
) -> list[str]:
    lines = ["leafnodes {", "  no_advertise: true", f"  reconnect: {_quote(_duration(fabric.leaf_reconnect_s))}"]
    listen = topology.sites[site].listen
    if children(topology, site):
        lines.append(f"  listen: {_quote(_address(listen.host, ports[site].leaf))}")
        if listen.tls is not None:
            lines += ["  tls {", *_indent(_certificates(listen.tls, base), 2), "  }"]
    if (url := uplink_url(topology, site, ports)) is not None:
        lines += ["  remotes: [", "    {", *_indent(_remote(topology, site, url, identities, base), 6), "    }", "  ]"]
    return [*lines, "}"]


def _remote(topology: Topology, site: str, url: str, identities: Identities, base: Path) -> list[str]:
    denials = permissions.uplink_denials(Subjects(topology.mesh), topology, site)
    lines = [
        f"url: {_quote(url)}",
        f"account: {_quote(topology.mesh)}",
        f"# The seed of {identities.get('leaf', site).public}:",
        'include "uplink.conf"',
        f"deny_imports: {_list(denials.imports)}",
        f"deny_exports: {_list(denials.exports)}",
    ]
    if url.startswith("tls://"):
        above = topology.sites[parent(topology, site) or site].listen.tls
        own = topology.sites[site].listen.tls
        if own is not None:
            lines += ["tls {", *_certificates(own, base), "}"]
        elif above is not None:
            lines += ["tls {", f"  ca_file: {_quote(str(base / above.ca))}", "}"]
    return lines


def _account(topology: Topology, site: str, identities: Identities) -> list[str]:
    subjects = Subjects(topology.mesh)
    links = [
        (f"{identity.role} of {child}", identity, permissions.leaf(subjects, topology, child))
        for child in children(topology, site)
        for identity in (identities.get("leaf", child),)
    ]
    clients = [
        ("site", identities.get("site", site), permissions.site_process(subjects, topology, site)),
        ("replicas", identities.get("replica", site), permissions.replica(subjects, topology, site)),
        ("operator", identities.get("operator"), permissions.operator(subjects, topology, site)),
        *(
            (f"application {app.name}", app, permissions.application(subjects, topology, site, app.name))
            for app in identities.apps(site)
        ),
    ]
    lines = ["accounts {", f"  {_quote(topology.mesh)} {{", "    jetstream: enabled", "    users: ["]
    for what, identity, allowed in links:
        lines += _indent(_user(what, identity, allowed, "LEAFNODE"), 6)
    lines.append(f"      {RELOADABLE}")
    for what, identity, allowed in clients:
        lines += _indent(_user(what, identity, allowed, "STANDARD"), 6)
    return [*lines, "    ]", "  }", "}"]


def _user(what: str, identity: Identity, allowed: Permissions, connection: str) -> list[str]:
    deny = f", deny: {_list(allowed.deny)}" if allowed.deny else ""
    lines = [
        f"{{ # {what}",
        f"  nkey: {_quote(identity.public)}",
        f"  allowed_connection_types: [{_quote(connection)}]",
        "  permissions {",
        f"    publish: {{allow: {_list(allowed.publish)}{deny}}}",
        f"    subscribe: {{allow: {_list(allowed.subscribe)}{deny}}}",
    ]
    if allowed.allow_responses:
        lines.append(f"    allow_responses: {{max: 1, expires: {_quote(_RESPONSE_EXPIRES)}}}")
    return [*lines, "  }", "}"]


def _certificates(tls: Tls, base: Path) -> list[str]:
    return [
        f"  cert_file: {_quote(str(base / tls.cert))}",
        f"  key_file: {_quote(str(base / tls.key))}",
        f"  ca_file: {_quote(str(base / tls.ca))}",
    ]


def _indent(lines: list[str], columns: int) -> list[str]:
    return [" " * columns + line for line in lines]


def _list(items: tuple[str, ...]) -> str:
    return "[" + ", ".join(_quote(item) for item in items) + "]"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _duration(seconds: float) -> str:
    """nats-server reads whole milliseconds."""
    return f"{max(1, round(seconds * 1000))}ms"
