"""Real servers for tests: started on system-chosen ports under a temporary folder, always stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nkeys
from nats.aio.client import Client
from ruamel.yaml import YAML

from mesh.fabric.config import RELOADABLE
from mesh.fabric.identity import Identities, ensure_identities
from mesh.fabric.ports import SitePorts, ensure_ports
from mesh.fabric.relay import Relay
from mesh.fabric.server import NatsServer
from mesh.folder import StateFolder
from mesh.settings import Settings
from mesh.subjects import Subjects
from mesh.topology.model import Topology
from mesh.topology.tree import children, parent, top_down

ROOT = Path(__file__).parents[2]


def metro() -> Topology:
    """The seven sites of the repository's own topology."""
    return Topology.model_validate(YAML(typ="safe").load(ROOT / "topologies" / "metro.yaml"))


def topology_of(text: str) -> Topology:
    """A topology from YAML flow text, without the two lines that every file has."""
    return Topology.model_validate({"apiVersion": "mesh/v1", "mesh": "lab", **YAML(typ="safe").load(text)})


def new_seed(file: Path) -> str:
    """Writes a fresh seed to `file` and returns its public key."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    file.write_bytes(seed)
    return nkeys.from_seed(seed).public_key.decode()


PAIR = "{sites: {hub: {tier: regional}, rim: {tier: edge, uplink: {to: hub}}}}"
LONE = "{sites: {solo: {tier: edge}}}"


async def until(condition: Callable[[], Awaitable[bool]], what: str, deadline_s: float = 10.0) -> float:
    """Polls `condition` and returns the seconds it took; fails the test after `deadline_s`."""
    begin = time.monotonic()
    while not await condition():
        assert time.monotonic() - begin < deadline_s, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - begin


class OpenServer(NatsServer):
    """A server with one more user, `probe`, who may do everything, and with its text edited by the test."""

    probe = ""
    edit: Callable[[str], str] | None = None

    def _render(self) -> str:
        text = super()._render()
        if self.probe:
            user = f'{{nkey: "{self.probe}", permissions {{publish: ">", subscribe: ">"}}}}'
            text = text.replace(RELOADABLE, f"{user}\n      {RELOADABLE}")
        return text if self.edit is None else self.edit(text)


@dataclass
class Fabric:
    """Running servers and relays of a topology."""

    topology: Topology
    folder: StateFolder
    ports: dict[str, SitePorts]
    identities: Identities
    servers: dict[str, OpenServer] = field(default_factory=dict)
    relays: dict[str, Relay] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.topology.mesh)

    async def connect(self, site: str, role: Any, name: str | None = None, **options: Any) -> Client:
        """A client of `role` at `site`; refusals are collected in `errors`."""
        owner = None if role == "operator" else site
        identity = self.identities.get(role, owner, name)
        prefix = Subjects.inbox(site, role, identity.name if role == "app" else "test")
        return await self.join(site, identity.seed_file, prefix, **options)

    async def probe(self, site: str, **options: Any) -> Client:
        """A client that may do everything at `site`."""
        return await self.join(site, self.folder.root / "probe.nk", Subjects.inbox(site, "app", "probe"), **options)

    async def join(self, site: str, seed_file: Path, prefix: str, **options: Any) -> Client:
        async def note(error: Exception) -> None:
            self.errors.append(str(error))

        client = await nats.connect(
            self.servers[site].endpoint.url,
            nkeys_seed=str(seed_file),
            inbox_prefix=prefix.encode(),
            error_cb=note,
            **{"allow_reconnect": False, "connect_timeout": 5, **options},
        )
        self.clients.append(client)
        return client

    async def linked(self, sites: Collection[str] | None = None) -> float:
        """Waits until every link between the running sites is up at both ends; seconds it took."""
        running = set(self.servers if sites is None else sites)

        async def complete() -> bool:
            for site in running:
                wanted = {*children(self.topology, site), parent(self.topology, site)} & running
                seen = {link.site for link in await self.servers[site].links()}
                if not wanted <= seen:
                    return False
            return True

        return await until(complete, "all links up")

    async def may_publish(self, client: Client, subjects: Collection[str]) -> set[str]:
        """Those of `subjects` that the server lets `client` publish to."""
        for subject in subjects:
            await client.publish(subject, b"?")
        refused = await self._refused(client, "publish")
        return {subject for subject in subjects if subject.lower() not in refused}

    async def may_subscribe(self, client: Client, subjects: Collection[str]) -> set[str]:
        """Those of `subjects` that the server lets `client` subscribe to."""
        for subject in subjects:
            await client.subscribe(subject)
        refused = await self._refused(client, "subscription")
        return {subject for subject in subjects if subject.lower() not in refused}

    async def _refused(self, client: Client, what: str) -> set[str]:
        """Subjects refused so far, in small letters as nats-py tells them; one more that must come ends the waiting."""
        fence = f"nobody.{os.urandom(4).hex()}"
        await client.publish(fence, b"")

        async def fenced() -> bool:
            return any(fence in error for error in self.errors)

        await until(fenced, "the server's refusals")
        marks = (re.search(what + ' to "([^"]+)"', error, re.I) for error in self.errors)
        return {mark[1] for mark in marks if mark}


@contextlib.asynccontextmanager
async def fabric(
    root: Path,
    topology: Topology,
    *,
    sites: Collection[str] | None = None,
    probes: bool = False,
    edits: dict[str, Callable[[str], str]] | None = None,
    paced: bool = False,
) -> AsyncIterator[Fabric]:
    """Starts `sites` (default: all) with a relay per uplink and waits for the links; stops everything at the end."""
    folder = StateFolder(root)
    mesh = Fabric(topology, folder, ensure_ports(folder, topology), ensure_identities(folder, topology))
    public = new_seed(root / "probe.nk")
    chosen = [site for site in top_down(topology) if sites is None or site in sites]
    for site in chosen:
        mesh.servers[site] = OpenServer(folder, topology, site, mesh.ports, Settings())
        mesh.servers[site].probe = public if probes else ""
        mesh.servers[site].edit = (edits or {}).get(site)
        uplink, relay = topology.sites[site].uplink, mesh.ports[site].relay
        if uplink is not None and relay is not None:
            latency_s = (uplink.latency or 0.0) if paced else 0.0
            bandwidth_bps = uplink.bandwidth if paced else None
            mesh.relays[site] = Relay(relay, "127.0.0.1", mesh.ports[uplink.to].leaf, latency_s, bandwidth_bps)
    try:
        await asyncio.gather(*(relay.start() for relay in mesh.relays.values()))
        await asyncio.gather(*(server.start() for server in mesh.servers.values()))
        await mesh.linked()
        yield mesh
    finally:
        await asyncio.gather(*(client.close() for client in mesh.clients), return_exceptions=True)
        await asyncio.gather(*(server.stop() for server in mesh.servers.values()))
        await asyncio.gather(*(relay.aclose() for relay in mesh.relays.values()))
