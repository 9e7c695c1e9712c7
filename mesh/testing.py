"""Trying an agent with nothing else running: no server, no cluster, virtual time.

`run(CellForecast, observations, model=…)` gives what the agent would have decided, by the same code a replica runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from pydantic import BaseModel

from mesh.agent.agent import Agent, Context, Parameter
from mesh.agent.declare import Every
from mesh.agent.dispatch import Accepted, Dispatcher, Limits, ensure_agent
from mesh.agent.memory import Memory
from mesh.agent.model import Model
from mesh.agent.observation import Observation, Rejected
from mesh.clock import ManualClock, iso
from mesh.decision import Basis, CloudEvent, Decision, Origin, cloud_event, digest, encode_event
from mesh.errors import UsageError
from mesh.inference.onnx_model import load_model
from mesh.settings import ReplicaSettings

Given = BaseModel | CloudEvent | Mapping[str, Any] | bytes
"""An observation in any form `run` takes."""


@dataclass
class Run:
    """What came of `run`: decided events in order, refused observations, the agent's memory afterwards."""

    events: list[CloudEvent] = field(default_factory=list)
    rejections: list[Rejected] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The decisions' data, as plain dictionaries."""
        return [msgspec.json.decode(event.data) for event in self.events]


def run(
    agent: type[Agent],
    observations: Iterable[Given],
    *,
    model: str | Path | Model | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    site: str = "test",
    tier: str = "edge",
    memory: Memory | None = None,
    seed: int = 0,
) -> Run:
    """Runs `agent` over `observations` in order and returns what it decided and what was refused.

    An observation is an instance of the observed model, a mapping (as its JSON would be) or raw bytes; where decisions
    are observed, give the `events` of another run, or bare decisions, which carry no time, so that no `@every` fires.
    Time is virtual: the clock stands at each observation's event time, and `@every` methods fire as it passes.
    `model` is an `.onnx` file or anything with the methods of `mesh.agent.model.Model`. Also for notebooks, where a
    loop is running.
    """
    ensure_agent(agent, agent.__name__)
    loaded = load_model(Path(model)) if isinstance(model, str | Path) else model
    settings = ReplicaSettings()
    clock = ManualClock()
    result = Run(memory=memory or Memory())
    context = Context(agent.__name__, site, tier, clock, Random(seed), result.memory, loaded, parameters or {})
    dispatcher = Dispatcher(agent, context, "test", Limits(settings.payload_bytes_max, {}, settings.ids_max))
    replay = _Replay(dispatcher, clock, result)
    with ThreadPoolExecutor(max_workers=1) as outside_any_running_loop:
        outside_any_running_loop.submit(asyncio.run, replay.all(observations)).result()
    return result


@dataclass
class _Replay:
    dispatcher: Dispatcher
    clock: ManualClock
    result: Run
    due: dict[str, float] = field(default_factory=dict)
    begun: bool = False

    async def all(self, observations: Iterable[Given]) -> None:
        for observation in observations:
            try:
                accepted = self._accept(observation)
                await self._tick_until(accepted.observed.time)
                self.dispatcher.admit(accepted)
                self.result.events += await self.dispatcher.decide(accepted)
            except Rejected as rejected:
                self.result.rejections.append(rejected)

    def _accept(self, observation: Given) -> Accepted:
        dispatcher = self.dispatcher
        if isinstance(observation, Decision):
            observation = self._as_event(observation)
        if isinstance(observation, CloudEvent):
            return dispatcher.accept_decision(observation.source.split("/")[-2], encode_event(observation))
        kinds = [kind for kind, decisions in dispatcher.observes if not decisions]
        if isinstance(observation, Observation):
            kinds = [k for k in kinds if isinstance(observation, dispatcher.observes[(k, False)].model)]
        if len(kinds) != 1:
            raise UsageError(
                f"{type(observation).__name__} fits {len(kinds)} of the agent's observed kinds",
                "pass instances of an observed model",
            )
        if isinstance(observation, bytes):
            payload = observation
        elif isinstance(observation, BaseModel):
            payload = observation.model_dump_json().encode()
        else:
            payload = msgspec.json.encode(observation)
        return dispatcher.accept_telemetry(kinds[0], payload)

    def _as_event(self, decision: Decision) -> CloudEvent:
        now = self.clock.now()
        origin = Origin("test", "edge", "test", "test")
        basis = Basis(digest(decision.model_dump_json().encode()), iso(now))
        return cloud_event(origin, decision, "test", basis, now)

    async def _tick_until(self, now: float) -> None:
        for handler in self.dispatcher.clocked:
            self.due.setdefault(handler.method, now + handler.period_s)
        while True:
            due = [(self.due[h.method], h) for h in self.dispatcher.clocked if self.due[h.method] <= now]
            if not due:
                break
            when, handler = min(due, key=lambda pair: pair[0])
            self._move(when)
            await self._tick(handler)
            self.due[handler.method] = when + handler.period_s
        self._move(now)

    def _move(self, now: float) -> None:
        """Virtual time begins with the first observation and never goes back."""
        if self.begun:
            self.clock.advance(max(0.0, now - self.clock.now()))
        else:
            self.clock.set(now)
            self.begun = True

    async def _tick(self, handler: Every) -> None:
        try:
            self.result.events += await self.dispatcher.tick(handler)
        except Rejected as rejected:
            self.result.rejections.append(rejected)
