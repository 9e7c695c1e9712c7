"""One agent replica: inlets, the agent, its outbox, its heartbeat. An actor's process holds one; so does a benchmark.

The hot path is short: a message arrives, waits in its inlet, is parsed, the agent decides, the decision goes to the
outbox. Inference requests pass the inlets by: who asks is waiting.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec

from mesh.agent.agent import Context
from mesh.agent.declare import Every, Observes
from mesh.agent.dispatch import Accepted, Dispatcher, Limits
from mesh.agent.inlet import Inlet
from mesh.agent.memory import Memory
from mesh.agent.observation import REJECTED_SAMPLE_BYTES, Reason, Rejected
from mesh.clock import Clock, SystemClock
from mesh.decision import CONTENT_TYPE, CloudEvent, encode_event
from mesh.errors import AgentError, MeshError, SubjectError
from mesh.health import ReplicaHealth, encode
from mesh.inference.onnx_model import load_model
from mesh.placement import partition
from mesh.runtime.load import load_class
from mesh.runtime.memory_file import MemoryFile
from mesh.runtime.outbox import Outbox, Outgoing
from mesh.runtime.spec import ReplicaSpec
from mesh.subjects import Subjects
from mesh.tasks import Tasks, first_of
from mesh.transport.connection import Away, Login, Message, connect

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrival:
    """A message in an inlet; `arrived` in monotonic seconds. `site` is set when it is another agent's decision."""

    handler: Observes
    id: str
    site: str | None
    payload: bytes
    arrived: float


class Replica:
    """Made on the event loop it runs on; `run` serves until `leave` or cancellation."""

    def __init__(self, spec: ReplicaSpec, clock: Clock | None = None) -> None:
        self.spec = spec
        self._clock = clock or SystemClock()
        self._settings = spec.settings.replica
        self._subjects = Subjects(spec.mesh)
        self._tasks = Tasks()
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._idle = asyncio.Event()
        self._logged: dict[str, float] = {}
        self._arrivals: dict[str, float] = {}
        self._inlets: list[Inlet[Arrival]] = []
        self._by_kind: dict[tuple[str, bool], Inlet[Arrival]] = {}
        self.health = ReplicaHealth(
            agent=spec.agent, index=spec.index, spec=spec.digest(), incarnation=secrets.token_hex(8), pid=os.getpid()
        )

    async def run(self) -> None:
        """Connects, loads, serves; returns after `leave`. A failure to load is told by the heartbeat."""
        spec = self.spec
        login = Login(
            spec.server,
            f"replica {spec.name}",
            self._subjects.inbox(spec.site, "replica", f"{spec.agent}-{spec.index}"),
            Path(spec.seed_file) if spec.seed_file else None,
        )
        self._connection = await connect(login, spec.settings.client)
        self._outbox = Outbox(self._connection, self._settings, self._clock, self._published)
        self._tasks.start("heartbeat", self._beat())
        try:
            await self._load()
        except MeshError as error:
            log.error("%s cannot serve: %s", spec.name, error)
            self.health.state, self.health.reason = "failed", str(error)
        else:
            await self._serve()
            gc.collect()
            gc.freeze()  # what is loaded now lives as long as the replica; collections need not walk it
            self.health.state = "ready"
            await self._say()
        await self._until_gone()

    async def _load(self) -> None:
        spec = self.spec
        agent = await asyncio.to_thread(load_class, spec.class_, spec.folders)
        model = None
        if spec.model is not None:
            path, limit = Path(spec.model), self._settings.inline_model_s
            model = await asyncio.to_thread(load_model, path, spec.provider, limit)
        self._file = await asyncio.to_thread(MemoryFile, Path(spec.memory_file))
        self._memory = Memory(self._settings.ids_max, await asyncio.to_thread(self._file.lineage))
        self._memory.restore(await asyncio.to_thread(self._file.entries))
        random = Random(f"{spec.mesh}/{spec.name}")
        context = Context(
            spec.agent, spec.site, spec.tier, self._clock, random, self._memory, model, dict(spec.parameters)
        )
        ids = {kind: frozenset(known) for kind, known in spec.ids.items() if known}
        limits = Limits(self._settings.payload_bytes_max, ids, self._settings.ids_max)
        self._dispatcher = Dispatcher(agent, context, spec.mesh, limits)

    async def _serve(self) -> None:
        """Subscribes to what the agent observes and starts its tasks."""
        spec, subjects = self.spec, self._subjects
        for handler in self._dispatcher.observes.values():
            inlet = Inlet[Arrival](handler.capacity or self._settings.inlet_capacity, handler.on_full)
            self._inlets.append(inlet)
            self._by_kind[(handler.kind, handler.takes_decisions)] = inlet
            if not handler.takes_decisions:
                subject = subjects.telemetry(spec.site, handler.kind, None)
                await self._connection.subscribe(subject, self._on_telemetry)
        for agent in spec.consumes:
            await self._connection.subscribe(subjects.decision(None, None, agent, None), self._on_decision)
        await self._connection.subscribe(subjects.infer(spec.agent), self._on_infer, queue="infer")
        await self._connection.subscribe(subjects.infer(spec.agent, spec.site), self._on_infer, queue="infer")
        await self._outbox.open()
        self._tasks.start("inlets", self._work())
        self._tasks.start("outbox", self._outbox.run())
        self._tasks.start("memory", self._keep_memory())
        if spec.index == 0:
            for clocked in self._dispatcher.clocked:
                self._tasks.start(f"every {clocked.method}", self._tick(clocked))

    async def _on_telemetry(self, message: Message) -> None:
        try:
            parsed = self._subjects.parse_telemetry(message.subject)
        except SubjectError as error:
            await self._reject(message.subject, message.data, Rejected(Reason.WRONG_ID, str(error)))
            return
        if partition(parsed.id, self.spec.count) == self.spec.index:
            handler = self._dispatcher.observes[(parsed.kind, False)]
            await self._offer(message, Arrival(handler, parsed.id, None, message.data, self._clock.monotonic()))

    async def _on_decision(self, message: Message) -> None:
        try:
            parsed = self._subjects.parse_decision(message.subject)
        except SubjectError as error:
            await self._reject(message.subject, message.data, Rejected(Reason.WRONG_ID, str(error)))
            return
        if partition(parsed.key, self.spec.count) != self.spec.index:
            return
        for handler in self._dispatcher.observes.values():
            if handler.takes_decisions:
                arrival = Arrival(handler, parsed.key, parsed.site, message.data, self._clock.monotonic())
                await self._offer(message, arrival)
                return

    async def _offer(self, message: Message, arrival: Arrival) -> None:
        inlet = self._by_kind[(arrival.handler.kind, arrival.handler.takes_decisions)]
        try:
            inlet.offer(f"{arrival.site or ''}/{arrival.id}", arrival)
        except Rejected as rejected:
            await self._reject(message.subject, message.data, rejected)
            return
        self.health.observations += 1
        self._idle.clear()
        self._news.set()

    async def _work(self) -> None:
        """Takes from the inlets in turn; yields to the loop after each observation, so that requests are heard."""
        while True:
            self._idle.set()
            await self._news.wait()
            self._news.clear()
            self._idle.clear()
            while any(self._inlets):
                for inlet in self._inlets:
                    arrival = inlet.take()
                    if arrival is not None:
                        await self._handle(arrival)
                await asyncio.sleep(0)

    async def _handle(self, arrival: Arrival) -> None:
        try:
            if arrival.site is None:
                accepted = self._dispatcher.accept_telemetry(arrival.handler.kind, arrival.payload, id=arrival.id)
            else:
                accepted = self._dispatcher.accept_decision(arrival.site, arrival.payload)
            self._dispatcher.admit(accepted)
            await self._send(await self._dispatcher.decide(accepted), arrival.arrived)
        except Rejected as rejected:
            await self._reject(f"{arrival.handler.kind} {arrival.id}", arrival.payload, rejected)

    async def _tick(self, handler: Every) -> None:
        due = self._clock.monotonic() + handler.period_s
        while True:
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))
            due = max(due + handler.period_s, self._clock.monotonic())
            try:
                await self._send(await self._dispatcher.tick(handler), None)
            except Rejected as rejected:
                await self._reject(handler.method, b"", rejected)

    async def _on_infer(self, message: Message) -> None:
        arrived = self._clock.monotonic()
        try:
            accepted = self._accept_request(message.data)
            events = await self._dispatcher.decide(accepted, requested=True)
        except Rejected as rejected:
            await self._reject(message.subject, message.data, rejected)
            await self._answer(message, rejected)
            return
        self.health.inferences += 1
        outgoing = [self._outgoing(event, arrived) for event in events]
        if message.reply:
            await self._connection.publish(message.reply, outgoing[0].payload if outgoing else b"null", _OK_HEADERS)
        for one in outgoing:
            self._outbox.put_later(one)

    def _accept_request(self, payload: bytes) -> Accepted:
        """An inference request is an observation of the one kind the agent observes, or of the one that fits."""
        observed = list(self._dispatcher.observes.values())
        rejected = Rejected(Reason.WRONG_TYPE, f"{self.spec.agent} observes nothing that can be asked")
        for handler in observed:
            try:
                if handler.takes_decisions:
                    return self._dispatcher.accept_decision(self.spec.site, payload)
                return self._dispatcher.accept_telemetry(handler.kind, payload)
            except Rejected as error:
                rejected = error
        raise rejected

    async def _answer(self, message: Message, rejected: Rejected) -> None:
        if message.reply:
            body = msgspec.json.encode({"reason": rejected.reason, "detail": rejected.detail})
            code = "500" if rejected.reason is Reason.AGENT_ERROR else "400"
            headers = {"Nats-Service-Error-Code": code, "Nats-Service-Error": rejected.reason}
            await self._connection.publish(message.reply, body, headers)

    async def _send(self, events: list[CloudEvent], arrived: float | None) -> None:
        for event in events:
            await self._outbox.put(self._outgoing(event, arrived))

    def _outgoing(self, event: CloudEvent, arrived: float | None) -> Outgoing:
        """`arrived` is when the observation arrived (monotonic seconds); None for what the clock caused."""
        self.health.decisions += 1
        if arrived is not None:
            self._arrivals.setdefault(event.id, arrived)
        subject = self._subjects.decision(self.spec.tier, self.spec.site, self.spec.agent, event.subject)
        return Outgoing(event.id, subject, encode_event(event))

    def _published(self, outgoing: Outgoing) -> None:
        arrived = self._arrivals.pop(outgoing.id, None)
        if arrived is not None:
            self.health.latencies.add(self._clock.monotonic() - arrived)

    async def _reject(self, what: str, payload: bytes, rejected: Rejected) -> None:
        """Counts, tells the reject subject, and logs at most one line per reason and second."""
        counts = self.health.rejected
        counts[rejected.reason] = counts.get(rejected.reason, 0) + 1
        now = self._clock.monotonic()
        if now - self._logged.get(rejected.reason, -1e9) >= self._settings.reject_log_s:
            self._logged[rejected.reason] = now
            log.warning("%s refused %s: %s (%d so far)", self.spec.name, what, rejected, counts[rejected.reason])
        body = {
            "reason": rejected.reason,
            "detail": rejected.detail,
            "what": what,
            "bytes": len(payload),
            "sample": payload[:REJECTED_SAMPLE_BYTES].decode(errors="replace"),
            "time": self._clock.now(),
        }
        subject = self._subjects.reject(self.spec.site, self.spec.agent)
        try:
            await self._connection.publish(subject, msgspec.json.encode(body))
        except Away as error:
            log.info("a rejection was only counted: %s", error)

    async def _keep_memory(self) -> None:
        while True:
            await asyncio.sleep(self._settings.memory_flush_s)
            await self._write_memory()

    async def _write_memory(self) -> None:
        changes = self._memory.take_changes()
        if not changes:
            return
        try:
            await asyncio.to_thread(self._file.write, changes)
        except AgentError as error:
            self._memory.not_kept(changes)
            log.error("%s decides on, but its memory is not kept: %s", self.spec.name, error)

    async def _beat(self) -> None:
        while True:
            await self._say()
            await asyncio.sleep(self._settings.heartbeat_s)

    async def _say(self) -> None:
        health = self.health
        health.waiting = sum(len(inlet) for inlet in self._inlets)
        health.dropped = sum(inlet.dropped for inlet in self._inlets) + self._outbox.dropped
        health.unstored, health.stored = len(self._outbox), self._outbox.stored
        subject = self._subjects.health(self.spec.site, self.spec.agent, self.spec.index)
        try:
            await self._connection.publish(subject, encode(health))
        except Away as error:
            log.info("no heartbeat: %s", error)

    def leave(self) -> None:
        """Lets `run` finish what has arrived and return."""
        self.health.state = "draining"
        self._gone.set()

    async def _until_gone(self) -> None:
        """Serves until told to leave or until a task fails; then finishes what has arrived."""
        await first_of(self._gone, self._tasks.failed)
        if self._tasks.error is not None:
            raise self._tasks.error
        await self._finish()

    async def _finish(self) -> None:
        """Stops intake, empties inlets and outbox, keeps memory, closes: all before one deadline."""
        deadline = asyncio.get_running_loop().time() + 2 * self._settings.ack_timeout_s
        await self._connection.stop_intake()
        if self._inlets:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._idle.wait()
                    await self._outbox.empty()
            except TimeoutError:
                log.warning("%s leaves %d decisions unstored", self.spec.name, len(self._outbox))
            await self._write_memory()
        await self._say()
        await self._tasks.aclose()
        await self._connection.aclose()


_OK_HEADERS = {"Content-Type": CONTENT_TYPE}
