"""From a payload to decisions: validation, freshness, the agent's method, the envelope. The same in every setting."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel

from mesh.agent.agent import CALL, Agent, Call, Context, Observed
from mesh.agent.declare import Every, Observes
from mesh.agent.freshness import Freshness
from mesh.agent.observation import Reason, Rejected, parse
from mesh.clock import iso
from mesh.decision import Basis, CloudEvent, Decision, Origin, cloud_event, decode_event, digest, type_of
from mesh.errors import AgentError, MeshError, SubjectError
from mesh.subjects import escape


@dataclass(frozen=True)
class Accepted:
    """An observation that passed every check."""

    handler: Observes
    observed: Observed
    observed_time: str
    """RFC 3339."""
    value: BaseModel
    input_digest: str
    source: str = ""
    """Who decided it, when it is another agent's decision."""
    identity: str = ""
    """Id of that decision."""


@dataclass(frozen=True)
class Limits:
    """What an observation may be: bytes, and per kind the ids that belong to the site (absent: any id)."""

    payload_bytes_max: int
    ids: Mapping[str, frozenset[str]]
    ids_max: int


class Dispatcher:
    """Runs one agent; holds no connection and no task."""

    def __init__(self, agent: type[Agent], context: Context, mesh: str, limits: Limits) -> None:
        self.agent = agent(context)
        self.origin = Origin(mesh, context.tier, context.site, context.name)
        self.observes = {(h.kind, h.takes_decisions): h for h in agent.handlers if isinstance(h, Observes)}
        self.clocked = tuple(h for h in agent.handlers if isinstance(h, Every))
        self._limits = limits
        self._fresh = Freshness(limits.ids_max)
        self._clock = context.clock
        self._model_digest = context.model.digest if context.model is not None else None

    def accept_telemetry(self, kind: str, payload: bytes, *, id: str | None = None) -> Accepted:
        """Checks a telemetry observation, whose subject named `id` if it came by one; raises Rejected."""
        handler = self.observes.get((kind, False))
        if handler is None:
            raise Rejected(Reason.WRONG_TYPE, f"{self.origin.agent} does not observe {kind!r}")
        value: Any = parse(handler.model, payload, self._limits.payload_bytes_max)
        found = str(getattr(value, handler.id_field))
        if id is not None and found != id:
            raise Rejected(Reason.WRONG_ID, f"the subject says {id!r}, the field {handler.id_field} says {found!r}")
        known = self._limits.ids.get(kind)
        if known is not None and found not in known:
            raise Rejected(Reason.UNKNOWN_ID, f"no {kind} {found!r} belongs to site {self.origin.site}")
        return self._accepted(handler, found, self.origin.site, value.time, value, payload)

    def accept_decision(self, site: str, payload: bytes) -> Accepted:
        """Checks another agent's decision, published by an agent at `site`; raises Rejected."""
        if len(payload) > self._limits.payload_bytes_max:
            raise Rejected(Reason.TOO_LARGE, f"{len(payload)} bytes, at most {self._limits.payload_bytes_max} are read")
        try:
            event = decode_event(payload)
        except msgspec.ValidationError as error:
            raise Rejected(Reason.WRONG_SCHEMA, f"no CloudEvent: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(Reason.MALFORMED_JSON, str(error)) from error
        if event.requested:
            raise Rejected(Reason.REQUESTED, "it answers somebody's question and observes nothing")
        handler = self._handler_for(event)
        data = bytes(event.data)
        value = parse(handler.model, data, self._limits.payload_bytes_max)
        found = str(getattr(value, handler.id_field))
        accepted = self._accepted(handler, found, site, _time(event.observedtime), value, payload)
        return replace(accepted, source=event.source, identity=event.id)

    def _accepted(
        self, handler: Observes, id: str, site: str, time: datetime, value: BaseModel, payload: bytes
    ) -> Accepted:
        try:
            escape(id)
        except SubjectError as error:
            raise Rejected(Reason.WRONG_ID, error.problem) from error
        try:
            seconds = time.timestamp()
            observed_time = iso(seconds)
        except (ValueError, OverflowError) as error:
            raise Rejected(Reason.WRONG_SCHEMA, f"the time {time} is beyond the calendar in UTC") from error
        return Accepted(handler, Observed(handler.kind, id, site, seconds), observed_time, value, digest(payload))

    def _handler_for(self, event: CloudEvent) -> Observes:
        for handler in self.observes.values():
            if issubclass(handler.model, Decision) and type_of(handler.model) == event.type:
                return handler
        raise Rejected(Reason.WRONG_TYPE, f"{self.origin.agent} does not observe {event.type}")

    def admit(self, accepted: Accepted) -> None:
        """Refuses repeated and late observations; raises Rejected. Inference requests are not asked.

        Time is told apart by source: one agent's decisions never make another's late, nor do they telemetry.
        """
        observed = accepted.observed
        by = f" by {accepted.source}" if accepted.source else ""
        self._fresh.admit(f"{observed.kind} at {observed.site}{by}", observed.id, observed.time, accepted.identity)

    async def decide(self, accepted: Accepted, *, requested: bool = False) -> list[CloudEvent]:
        """What the agent decides on an accepted observation; raises Rejected (`agent_error`) when it fails.

        `requested` marks the answers to an inference request.
        """
        basis = Basis(accepted.input_digest, accepted.observed_time, requested=requested)
        return await self._run(accepted.handler.method, (accepted.value,), accepted.observed, basis)

    async def tick(self, handler: Every) -> list[CloudEvent]:
        """What the agent decides when the clock calls `handler`; raises Rejected (`agent_error`) when it fails."""
        now = self._clock.now()
        observed = Observed("clock", self.origin.site, self.origin.site, now)
        return await self._run(handler.method, (), observed, Basis(digest(b""), iso(now)))

    async def _run(self, method: str, arguments: tuple[Any, ...], observed: Observed, basis: Basis) -> list[CloudEvent]:
        call = Call(observed)
        token = CALL.set(call)
        try:
            result = await getattr(self.agent, method)(*arguments)
        except MeshError as error:
            raise Rejected(Reason.AGENT_ERROR, str(error)) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise  # we are to end
            raise Rejected(Reason.AGENT_ERROR, f"{method} was cancelled from within") from error
        except (Exception, SystemExit) as error:  # a user's method may raise anything; it is counted and shown
            raise Rejected(Reason.AGENT_ERROR, f"{method} raised {type(error).__name__}: {error}") from error
        finally:
            CALL.reset(token)
        decisions = [] if result is None else list(result) if isinstance(result, list | tuple) else [result]
        if not decisions:
            return []
        lineage = self.agent.memory.lineage
        made = replace(basis, model_digest=self._model_digest, confidence=call.confidence, lineage=lineage)
        now = self._clock.now()
        return [self._envelope(decision, observed, made, now, number) for number, decision in enumerate(decisions)]

    def _envelope(self, decision: object, observed: Observed, basis: Basis, now: float, ordinal: int) -> CloudEvent:
        if not isinstance(decision, Decision):
            raise Rejected(
                Reason.AGENT_ERROR,
                f"{type(self.agent).__name__} returned {type(decision).__name__}, which is no mesh.Decision",
            )
        try:
            key = observed.id if decision.key is None else str(getattr(decision, decision.key))
            escape(key)
            event = cloud_event(self.origin, decision, key, basis, now, ordinal)
        except (SubjectError, AttributeError, ValueError) as error:  # pydantic's and Unicode errors are ValueErrors
            name = type(decision).__name__
            raise Rejected(Reason.AGENT_ERROR, f"the decision {name} cannot be published: {error}") from error
        size, most = len(bytes(event.data)), self._limits.payload_bytes_max
        if size > most:
            name = type(decision).__name__
            raise Rejected(Reason.AGENT_ERROR, f"the decision {name} has {size} bytes, at most {most} are published")
        return event


_TIMESTAMP = Annotated[datetime, msgspec.Meta(tz=True)]


def _time(timestamp: str) -> datetime:
    try:
        return msgspec.convert(timestamp, _TIMESTAMP)
    except msgspec.ValidationError as error:
        raise Rejected(Reason.WRONG_SCHEMA, f"observedtime {timestamp[:40]!r} is no RFC 3339 time") from error


def ensure_agent(found: object, name: str) -> type[Agent]:
    """`found` as an agent class; raises AgentError when it is none or waits for nothing."""
    if not (isinstance(found, type) and issubclass(found, Agent) and found is not Agent):
        raise AgentError(f"{name} is no agent class", "subclass mesh.Agent")
    if not found.handlers:
        raise AgentError(f"{name} waits for nothing", "declare a method with @observe or @every")
    return found
