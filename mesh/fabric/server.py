"""Starts, adopts, reloads and stops the nats-server of one site.

The server runs in a session of its own and outlives the process that started it, kill -9 included: whoever starts the
site next adopts it. Nothing is ever signalled that is not provably that server (`mesh.processes`).
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from mesh.errors import DiskFullError, FabricError, PortInUseError
from mesh.fabric import config, launch
from mesh.fabric.identity import ensure_identities, read_seed
from mesh.fabric.machine import locked_async, write_atomically
from mesh.fabric.monitor import LinkState, MonitorError, ask, greeting, seconds
from mesh.fabric.ports import LOOPBACK, SitePorts, port_is_free
from mesh.fabric.serverlog import failure
from mesh.folder import StateFolder
from mesh.processes import Process, end, recorded
from mesh.settings import FabricSettings, Settings
from mesh.topology.endpoint import Endpoint, endpoint, local_host
from mesh.topology.model import Topology
from mesh.topology.tree import children, parent

_PROBE_S = 1.0
"""Patience with one question to a server on this machine."""
_POLL_S = 0.02
_DYING_S = 1.0
"""A killed process may hold its sockets for a moment after its command line is gone."""


class NatsServer:
    """The nats-server of one site; at most one object per site and machine is in charge of it at a time."""

    def __init__(
        self,
        folder: StateFolder,
        topology: Topology,
        site: str,
        ports: Mapping[str, SitePorts],
        settings: Settings,
        *,
        base: Path | None = None,
        binary: Path | None = None,
        free_bytes: Callable[[Path], int] = launch.disk_free,
    ) -> None:
        """`base` is the topology file's folder, from which relative TLS paths count (default: the working one)."""
        self._folder = folder
        self._files = folder.site(site)
        self._topology = topology
        self._site = site
        self._ports = ports
        self._settings = settings
        self._base = (base or Path()).absolute()
        self._binary = binary
        self._free_bytes = free_bytes
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def site(self) -> str:
        """Name of the site."""
        return self._site

    @property
    def endpoint(self) -> Endpoint:
        """Where clients on this machine connect."""
        return endpoint(self._topology, self._site, self._ports[self._site].client, self._base)

    @property
    def pid(self) -> int | None:
        """Process id of the running server, None when there is none."""
        process = self._running()
        return None if process is None else process.pid

    def alive(self) -> bool:
        """Whether the server's process lives, whoever started it."""
        return self._running() is not None

    async def start(self) -> bool:
        """Brings the server up with the present topology and identities, and waits until it serves.

        A running one is adopted: as it is when its configuration is the same, by reload when only clients' permissions
        changed, else it is replaced. Tells whether a new process was started. Raises DiskFullError, PortInUseError
        and FabricError (the log's telling line); a server that failed to start is stopped again.
        """
        ends = launch.now() + self._settings.fabric.ready_deadline_s
        async with locked_async(self._files.root / "nats.lock"):
            text = self._render()
            running = self._running()
            if running is not None:
                if self._text() == text and await self._serves(ends) and await self._loaded():
                    return False
                if config.reloadable(self._text(), text) and await self._reload(running, text, ends):
                    return False
                await self._end(running)
                ends = launch.now() + self._settings.fabric.ready_deadline_s
            self._check_disk()
            await self._check_ports(ends)
            self._write(text)
            await self._launch(ends)
            return True

    async def refresh(self) -> bool:
        """Lets a running server take over changed permissions by reload; False when none runs or nothing changed.

        For processes that are not in charge of the server, such as a command that made an application's identity.
        Raises FabricError when the server refuses the new configuration.
        """
        async with locked_async(self._files.root / "nats.lock"):
            text, running = self._render(), self._running()
            if running is None or self._text() == text:
                return False
            if not config.reloadable(self._text(), text):
                raise FabricError(
                    f"the nats-server of site {self._site} runs an older topology",
                    "run 'mesh up' again, which restarts it",
                )
            ends = launch.now() + self._settings.fabric.ready_deadline_s
            if not await self._reload(running, text, ends):
                raise FabricError(
                    f"the nats-server of site {self._site} did not reload within its deadline", "run 'mesh up' again"
                )
            return True

    async def stop(self) -> None:
        """Ends the server: SIGTERM, then SIGKILL after the deadline; removes its pid file. Harmless when none runs."""
        async with locked_async(self._files.root / "nats.lock"):
            running = self._running()
            if running is not None:
                await self._end(running)
            self._files.nats_pid.unlink(missing_ok=True)

    async def links(self) -> tuple[LinkState, ...]:
        """Live links to parent and children, sorted by site, as the server itself sees them; raises MonitorError.

        A dead link vanishes after ping_interval_s × (ping_max + 1) at most.
        """
        _, page = await ask(LOOPBACK, self._ports[self._site].monitor, "/leafz", _PROBE_S)
        links = (
            LinkState(
                site=config.site_of(self._topology.mesh, str(leaf.get("name", ""))),
                rtt_s=seconds(leaf.get("rtt")),
                bytes_in=int(leaf.get("in_bytes", 0)),
                bytes_out=int(leaf.get("out_bytes", 0)),
            )
            for leaf in page.get("leafs") or ()
        )
        return tuple(sorted(links, key=lambda link: link.site))

    def _running(self) -> Process | None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        return recorded(self._files.nats_pid, self._files.nats_mark)

    def _text(self) -> str:
        try:
            return self._files.nats_config.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _render(self) -> str:
        identities = ensure_identities(self._folder, self._topology)
        if parent(self._topology, self._site) is not None:
            seed = read_seed(identities.get("leaf", self._site).seed_file)
            uplink = config.render_uplink(seed)
            if not launch.holds(self._files.uplink_config, uplink):
                write_atomically(self._files.uplink_config, uplink, mode=0o600)
        return config.render(
            self._topology, self._site, self._ports, identities, self._files, self._settings, self._base
        )

    def _write(self, text: str) -> None:
        if self._text() != text:
            write_atomically(self._files.nats_config, text, mode=0o600)

    def _check_disk(self) -> None:
        capacity = self._topology.sites[self._site].capacity.disk
        needed = max(0, capacity - launch.size(self._files.jetstream)) + self._settings.fabric.disk_reserve_bytes
        free = self._free_bytes(self._files.root)
        if free < needed:
            raise DiskFullError(str(self._files.root), free, needed)

    async def _check_ports(self, ends: float) -> None:
        """Names the taken port before a server is started; waits a moment for one that a dying server still holds."""
        own, listen = self._ports[self._site], self._topology.sites[self._site].listen
        wanted = [("client port", listen.host, own.client), ("monitor port", LOOPBACK, own.monitor)]
        if children(self._topology, self._site):
            wanted.append(("leaf port", listen.host, own.leaf))
        ends = min(ends, launch.now() + _DYING_S)
        for what, host, port in wanted:
            while not port_is_free(host, port):
                if launch.now() >= ends:
                    raise PortInUseError(f"the nats-server of site {self._site} ({what})", host, port)
                await asyncio.sleep(_POLL_S)

    async def _launch(self, ends: float) -> None:
        offset = launch.length(self._files.nats_log)
        binary = self._binary or launch.find_binary()
        self._files.jetstream.mkdir(parents=True, exist_ok=True)
        self._child = await asyncio.to_thread(launch.spawn, binary, self._files)
        ready = False
        try:
            await self._ready(self._child, ends, offset)
            ready = True
        finally:
            if not ready:
                self._discard(self._child)

    async def _ready(self, child: subprocess.Popen[bytes], ends: float, offset: int) -> None:
        """Waits until the server greets under its own name and JetStream has recovered; raises FabricError."""
        while True:
            if child.poll() is not None:
                raise failure(self._site, self._log(offset), f"ended at once (exit code {child.returncode})")
            trouble = await self._trouble()
            if trouble is None:
                return
            if "recover" in trouble:
                raise FabricError(
                    f"the nats-server of site {self._site} has lost a stream: {trouble}",
                    "move the site's jetstream folder away (its decisions are then lost here) or restore it",
                )
            if launch.now() >= ends:
                raise failure(self._site, self._log(offset), f"was not ready in time ({trouble})")
            await asyncio.sleep(_POLL_S)

    async def _trouble(self) -> str | None:
        """What keeps the server from serving, None when nothing does."""
        own = self._ports[self._site]
        try:
            info = await greeting(local_host(self._topology, self._site), own.client, _PROBE_S)
            status, health = await ask(LOOPBACK, own.monitor, "/healthz", _PROBE_S)
        except MonitorError as error:
            return error.problem
        name = config.server_name(self._topology.mesh, self._site)
        if info.get("server_name") != name:
            return f"another server, {info.get('server_name')!r}, answers at its port"
        if status != 200:
            return str(health.get("error", f"its monitor says {status}"))
        return None if info.get("jetstream") is True else "JetStream is not up"

    async def _serves(self, ends: float) -> bool:
        """Whether a running server serves before the deadline, so that it can be adopted."""
        while await self._trouble() is not None:
            if launch.now() >= ends or not self.alive():
                return False
            await asyncio.sleep(_POLL_S)
        return True

    async def _loaded(self) -> bool:
        """Whether the server has read its file since it was written, so that no reload was cut off in between."""
        _, page = await ask(LOOPBACK, self._ports[self._site].monitor, "/varz", _PROBE_S)
        try:
            read = datetime.fromisoformat(str(page.get("config_load_time")))
        except ValueError:
            return False
        return read.timestamp() >= self._files.nats_config.stat().st_mtime

    async def _reload(self, running: Process, text: str, ends: float) -> bool:
        """Writes `text` and lets the server take it over; False when it did not before the deadline.

        Raises FabricError when the server refused it: it then still runs the old one.
        """
        offset, before = launch.length(self._files.nats_log), self._text()
        self._write(text)
        running.signal(signal.SIGHUP)
        while launch.now() < ends and running.verified():
            log = self._log(offset)
            if "Failed to reload server configuration" in log:
                self._write(before)
                told = "did not take over its new configuration"
                raise failure(self._site, log, told, told)
            if "Reloaded server configuration" in log:
                return await self._serves(ends)
            await asyncio.sleep(_POLL_S)
        return False

    async def _end(self, running: Process) -> None:
        await end(running, self._settings.fabric.stop_deadline_s)
        if self._child is not None and self._child.pid == running.pid:
            self._child.wait()
            self._child = None

    def _discard(self, child: subprocess.Popen[bytes]) -> None:
        """Ends a server that did not become ready; without awaiting, so that it also works while being cancelled."""
        if child.poll() is None:
            child.kill()
        child.wait()
        self._child = None
        self._files.nats_pid.unlink(missing_ok=True)

    def _log(self, offset: int) -> str:
        return launch.tail(self._files.nats_log, offset)


async def stop_stale(folder: StateFolder, site: str, settings: FabricSettings) -> bool:
    """Ends the nats-server of `site` that some earlier process left running, without needing its topology.

    Removes the pid file. Tells whether a server was found; a foreign process that got its number is left alone.
    """
    files = folder.site(site)
    running = recorded(files.nats_pid, files.nats_mark)
    if running is not None:
        await end(running, settings.stop_deadline_s)
    files.nats_pid.unlink(missing_ok=True)
    return running is not None
