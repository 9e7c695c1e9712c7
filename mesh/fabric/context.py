"""Credentials that an application takes along: its seed and a context for the `nats` command (NATS ADR-21)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mesh.errors import UsageError
from mesh.fabric.identity import ensure_app
from mesh.fabric.machine import write_atomically
from mesh.fabric.ports import read_ports
from mesh.folder import StateFolder
from mesh.subjects import Subjects
from mesh.topology.endpoint import endpoint
from mesh.topology.model import Topology


@dataclass(frozen=True)
class AppCredentials:
    """Files of one application's credential and what a client needs besides."""

    seed_file: Path
    """nkey seed, mode 0600."""
    context_file: Path
    """Context for the `nats` command, mode 0600; it names the seed file and holds no secret.

    It lies in `nats/context` of the credentials folder, where the command finds it when XDG_CONFIG_HOME is that folder.
    """
    url: str
    """Where the site's server listens."""
    inbox_prefix: str
    """Prefix that the client must be told to use for its inboxes; others are refused."""


def write_app_credentials(
    folder: StateFolder, topology: Topology, site: str, name: str, *, base: Path | None = None
) -> AppCredentials:
    """Makes or finds the application `name` of `site` and writes its context.

    A running server learns of a new application by `NatsServer.refresh`. Relative TLS paths count from `base`.
    Raises UsageError for an unknown site or a name that is none, NotRunningError when the site has no ports yet, and
    IdentityError for a garbled seed file.
    """
    if site not in topology.sites:
        raise UsageError(f"{topology.mesh} has no site {site!r}", f"name one of {', '.join(sorted(topology.sites))}")
    server = endpoint(topology, site, read_ports(folder, topology, (site,))[site].client, base or Path())
    identity = ensure_app(folder, site, name)
    inbox_prefix = Subjects.inbox(site, "app", name)
    context = {
        "description": f"application {name} at site {site} of mesh {topology.mesh}",
        "url": server.url,
        "socks_proxy": "",
        "token": "",
        "user": "",
        "password": "",
        "creds": "",
        "nkey": str(identity.seed_file.absolute()),
        "cert": "",
        "key": "",
        "ca": server.ca or "",
        "nsc": "",
        "jetstream_domain": "",
        "jetstream_api_prefix": "",
        "jetstream_event_prefix": "",
        "inbox_prefix": inbox_prefix,
        "user_jwt": "",
    }
    folder.credentials.mkdir(parents=True, exist_ok=True)
    folder.credentials.chmod(0o700)
    file = folder.credentials / "nats" / "context" / f"{topology.mesh}.{site}.{name}.json"
    write_atomically(file, json.dumps(context, indent=2) + "\n", mode=0o600)
    return AppCredentials(identity.seed_file, file, server.url, inbox_prefix)
