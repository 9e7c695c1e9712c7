"""The site process: brings one site up, keeps it up, and takes it down on request.

It is no Ray actor: replicas and the nats-server outlive it, and the next one adopts them. Parts come up in the order
server, relay, stream, forwarder, telemetry, replicas, and go down in the opposite one.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mesh.clock import Clock, SystemClock
from mesh.errors import MeshError, RayError
from mesh.fabric.identity import Identities, ensure_identities
from mesh.fabric.monitor import MonitorError
from mesh.fabric.ports import SitePorts, ensure_ports, ports_needed, uplink_is_local
from mesh.fabric.relay import Relay
from mesh.fabric.server import NatsServer
from mesh.folder import StateFolder
from mesh.health import LinkStatus, SiteStatus, encode
from mesh.placement import plan
from mesh.processes import Process
from mesh.runtime.cluster import Cluster
from mesh.runtime.ray_head import SHARED, Head, head_process, start_head, stop_head, wait_for_head
from mesh.runtime.spec import replica_spec
from mesh.settings import Settings
from mesh.site.control import may_request
from mesh.site.forwarder import SCOPE, TOPIC, CursorFile, Forwarder, Receiver
from mesh.site.publisher import Publisher
from mesh.site.supervisor import Supervisor, Wanted
from mesh.subjects import Subjects
from mesh.tasks import Tasks, first_of
from mesh.telemetry.source import open_source
from mesh.topology.endpoint import Endpoint, endpoint, local_host
from mesh.topology.model import Topology
from mesh.topology.tree import children, parent, subtree
from mesh.transport.connection import Away, Connection, Login, Message, connect
from mesh.transport.stream import ensure_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SiteOptions:
    """What a site process is told besides the topology."""

    site: str
    base: Path
    """Folder of the topology file."""
    ray: str = "own"
    """`own`: a head of the site's own; `shared`: the head of this machine; else an address to join. What the topology
    says of the site wins."""
    telemetry: Path | None = None
    """Folder of recorded telemetry."""
    epoch: float = 0.0
    """Wall time (seconds) at which replay began."""
    publish: bool = True
    """Whether the site publishes the telemetry of its sources."""


class SiteProcess:
    """One site of `topology`."""

    def __init__(
        self,
        topology: Topology,
        folder: StateFolder,
        options: SiteOptions,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.topology = topology
        self.folder = folder
        self.options = options
        self.site = options.site
        self.settings = settings or Settings()
        self._clock = clock or SystemClock()
        self._subjects = Subjects(topology.mesh)
        self._tasks = Tasks()
        self._reconciling = Tasks()
        """What talks to Ray; ended first, so that nothing is started again while the site drains."""
        self._server: NatsServer | None = None
        self._relay: Relay | None = None
        self._forwarder: Forwarder | None = None
        self._supervisor: Supervisor | None = None
        self._cluster: Cluster | None = None
        self._head: Head | None = None
        self._own_head = False
        self._connections: list[Connection] = []
        self._step = "its nats-server"
        self._stop = asyncio.Event()
        self._started = asyncio.Event()

    async def run(self, arm: Callable[[], None]) -> None:
        """Serves until `request_stop`; raises what made it impossible to go on.

        `arm` sets the caller's signal handlers; Ray replaces them when it joins, so it is called twice.
        """
        self._arm = arm
        arm()
        starting = asyncio.create_task(self._start(), name="start")
        starting.add_done_callback(lambda _: self._started.set())
        try:
            await first_of(self._stop, self._started)
            if self._started.is_set():
                starting.result()
                await first_of(self._stop, self._tasks.failed, self._reconciling.failed)
            for tasks in (self._tasks, self._reconciling):
                if tasks.error is not None:
                    raise tasks.error
            starting.cancel()
            await asyncio.wait({starting})
            await self._leave()
        finally:
            starting.cancel()
            await self._reconciling.aclose()
            await self._tasks.aclose()
            if self._relay is not None:
                await self._relay.aclose()

    def request_stop(self) -> None:
        """Lets `run` take the site down and return."""
        self._stop.set()

    async def _start(self) -> None:
        identities = ensure_identities(self.folder, self.topology)
        self._operator = identities.get("operator").public
        ports = ensure_ports(self.folder, self.topology, ports_needed(self.topology, self.site))
        server = await self._start_server(ports)
        await self._start_relay(ports)
        seed = identities.get("site", self.site).seed_file
        inbox = self._subjects.inbox(self.site, "site", "main")
        self._connection = await self._connect(Login(server, f"site {self.site}", inbox, seed))
        self._step = "its stream"
        disk = self.topology.sites[self.site].capacity.disk
        await ensure_stream(self._connection, self.settings.stream, self._subjects.decisions, int(disk * 0.9))
        self._tasks.start("status", self._say())
        self._tasks.start("server", self._keep_server())
        await self._connection.subscribe(self._subjects.control(self.site, None), self._on_control)
        await self._start_forwarding(server, seed)
        if self.options.publish:
            self._start_telemetry()
        await self._start_replicas(server, identities)

    async def _connect(self, login: Login) -> Connection:
        connection = await connect(login, self.settings.client)
        self._connections.append(connection)
        return connection

    async def _start_server(self, ports: dict[str, SitePorts]) -> Endpoint:
        """The site's server: its own, started or adopted, or the one the topology names."""
        if self.topology.sites[self.site].nats is not None:
            return endpoint(self.topology, self.site, ports[self.site].client, self.options.base)
        self._server = NatsServer(self.folder, self.topology, self.site, ports, self.settings, base=self.options.base)
        started = await self._server.start()
        log.info(
            "nats-server of %s %s at %s", self.site, "started" if started else "adopted", self._server.endpoint.url
        )
        return self._server.endpoint

    async def _start_relay(self, ports: dict[str, SitePorts]) -> None:
        """The relay that stands for the uplink, when the parent is on this machine."""
        uplink = self.topology.sites[self.site].uplink
        port = ports[self.site].relay
        if uplink is None or port is None or not uplink_is_local(self.topology, self.site):
            return
        target = (local_host(self.topology, uplink.to), ports[uplink.to].leaf)
        self._relay = Relay(port, *target, uplink.latency or 0.0, uplink.bandwidth)
        await self._relay.start()

    async def _start_forwarding(self, server: Endpoint, seed: Path) -> None:
        cursors = CursorFile(self.folder.site(self.site).forwarding)
        cursors.load()
        await Receiver(
            self._connection,
            self._subjects,
            self.site,
            cursors,
            self.settings.forwarder.ack_timeout_s,
            lambda child: frozenset(subtree(self.topology, child)),
        ).listen(children(self.topology, self.site))
        above = parent(self.topology, self.site)
        if above is None:
            return
        inbox = self._subjects.link_inbox(SCOPE, self.site, above)
        link = await self._connect(Login(server, f"link of {self.site}", inbox, seed))
        self._forwarder = Forwarder(
            self._connection,
            link,
            self._subjects.link(SCOPE, self.site, above, TOPIC),
            self._subjects.decisions,
            self.settings.stream.name,
            cursors,
            self.settings.forwarder,
        )
        self._tasks.start("forwarder", self._forwarder.run())

    def _start_telemetry(self) -> None:
        for kind, spec in self.topology.telemetry.items():
            source = open_source(spec, kind, self.site, self.options.base, self.options.telemetry)
            if source is not None:
                publisher = Publisher(
                    self._connection,
                    self._subjects,
                    self.site,
                    kind,
                    source,
                    spec.speed,
                    self.options.epoch,
                    self._clock,
                )
                self._tasks.start(f"telemetry {kind}", publisher.run())

    async def _start_replicas(self, server: Endpoint, identities: Identities) -> None:
        wanted = [placed for placed in plan(self.topology) if placed.site == self.site]
        seed = identities.get("replica", self.site).seed_file
        specs = {
            placed.name: Wanted(
                placed,
                replica_spec(self.topology, self.options.base, placed, self.folder, server, seed, self.settings),
            )
            for placed in wanted
        }
        self._step = "its Ray cluster"
        self._cluster = Cluster(await self._ray_address(), self.topology.mesh)
        await self._cluster.join()
        self._arm()
        self._supervisor = Supervisor(
            self.site, specs, self._cluster, self._clock, self.settings.supervisor, self._hears
        )
        await self._supervisor.check()
        health = self._subjects.health(self.site, None, None)
        await self._connection.subscribe(health, self._supervisor.on_health)
        await self._supervisor.adopt()
        self._reconciling.start("supervisor", self._supervisor.run())
        if self._head is not None:
            key = self.site if self._own_head else SHARED
            self._reconciling.start("ray", self._watch_ray(head_process(self.folder, key, self._head)))

    def _hears(self) -> bool:
        return self._connection.connected

    async def _ray_address(self) -> str:
        address = self.topology.sites[self.site].ray or self.options.ray
        if address == SHARED:
            self._head = await wait_for_head(self.folder, SHARED)
        elif address == "own":
            self._own_head = True
            log_file = self.folder.site(self.site).root / "ray.log"
            self._head = await start_head(self.folder, self.topology, (self.site,), self.site, log_file)
        return self._head.address if self._head is not None else address

    async def _watch_ray(self, head: Process) -> None:
        """Raises RayError when the head is gone: a process can join a second cluster only by starting anew."""
        while head.verified():
            await asyncio.sleep(self.settings.supervisor.tick_s)
        raise RayError(f"the Ray head of site {self.site} is gone", "it comes back when the site process starts again")

    async def _keep_server(self) -> None:
        """Starts the nats-server again when it has died."""
        while self._server is not None:
            await asyncio.sleep(self.settings.supervisor.tick_s)
            if self._server.alive():
                continue
            log.warning("the nats-server of %s is gone and is started again", self.site)
            try:
                await self._server.start()
            except MeshError as error:
                log.error("the nats-server of %s does not start: %s", self.site, error)
                self._step = str(error)
                await asyncio.sleep(self.settings.supervisor.backoff_first_s)

    async def _on_control(self, message: Message) -> None:
        """`cut` and `heal` of the uplink; answers with a sentence that begins with ok or with error."""
        verb = message.subject.rpartition(".")[2]
        if not may_request(message.data, message.subject, self._clock.now(), self._operator):
            answer = "error: the request is not signed by the operator, or its time is off"
        elif verb in ("cut", "heal") and self._relay is None:
            answer = f"error: the uplink of {self.site} does not pass a relay of this machine"
        elif verb == "cut" and self._relay is not None:
            self._relay.cut()
            answer = f"ok: the link between {self.site} and {parent(self.topology, self.site)} is cut"
        elif verb == "heal" and self._relay is not None:
            self._relay.heal()
            answer = f"ok: the link between {self.site} and {parent(self.topology, self.site)} is whole"
        else:
            answer = f"error: {verb!r} is no request a site process knows"
        log.info("%s: %s", verb, answer)
        if message.reply:
            await self._connection.publish(message.reply, answer.encode())

    async def _say(self) -> None:
        """Publishes the site's status for as long as it lives."""
        while True:
            try:
                await self._connection.publish(self._subjects.status(self.site), encode(await self._status()))
            except Away as error:
                log.info("no status: %s", error)
            await asyncio.sleep(self.settings.supervisor.status_s)

    async def _status(self) -> SiteStatus:
        supervisor, forwarder = self._supervisor, self._forwarder
        now = self._clock.monotonic()
        return SiteStatus(
            site=self.site,
            tier=self.topology.sites[self.site].tier,
            pid=os.getpid(),
            time=self._clock.now(),
            nats_up=self._connection.connected,
            wanted=sum(placed.site == self.site for placed in plan(self.topology)),
            replicas=supervisor.fleet.health(now) if supervisor else [],
            link=await self._link_status(),
            forwarded=forwarder.forwarded if forwarder else 0,
            backlog=forwarder.backlog if forwarder else 0,
            waiting_for=supervisor.fleet.waiting_for() if supervisor else self._step,
        )

    async def _link_status(self) -> LinkStatus | None:
        above = parent(self.topology, self.site)
        if above is None:
            return None
        cut = self._relay is not None and self._relay.is_cut
        if self._server is None:
            return LinkStatus(to=above, up=False, cut=cut)
        try:
            links = {link.site: link for link in await self._server.links()}
        except MonitorError as error:
            log.info("the state of the link is not known: %s", error)
            links = {}
        found = links.get(above)
        return LinkStatus(to=above, up=found is not None, cut=cut, rtt_s=found.rtt_s if found else None)

    async def _leave(self) -> None:
        """Drains the replicas, lets the forwarder finish, stops what the site started."""
        if self._supervisor is not None and self._cluster is not None:
            await self._reconciling.aclose()
            await self._supervisor.stop()
            await self._cluster.aclose()
        if self._forwarder is not None:
            await self._forwarder.finish(self.settings.forwarder.ack_timeout_s)
        await self._tasks.aclose()
        for connection in reversed(self._connections):
            await connection.aclose()
        if self._own_head:
            await stop_head(self.folder, self.site)
        if self._server is not None:
            await self._server.stop()
