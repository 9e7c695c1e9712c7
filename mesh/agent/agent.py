"""The agent class: one class, typed in and out, with no Ray, NATS or serialisation in sight."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar, NoReturn

import numpy as np
from pydantic import BaseModel

from mesh.agent.declare import Every, Observes, handler_of
from mesh.agent.memory import Memory
from mesh.agent.model import Model, Prediction, Tensors, prediction
from mesh.clock import Clock
from mesh.errors import AgentError, ModelError, NotYetError

Parameter = float | int | str | bool


@dataclass(frozen=True)
class Observed:
    """What the running method was called with: `kind` and `id`, the `site` it came from, its event time (seconds)."""

    kind: str
    id: str
    site: str
    time: float


@dataclass
class Call:
    """One run of a method; collects what its decisions rest on."""

    observed: Observed
    confidence: float | None = None

    def note(self, confidence: float | None) -> None:
        if confidence is not None:
            self.confidence = confidence if self.confidence is None else min(self.confidence, confidence)


CALL: ContextVar[Call] = ContextVar("mesh_call")


@dataclass(frozen=True)
class Context:
    """Everything an agent is handed; a notebook, a test and a replica each make their own."""

    name: str
    site: str
    tier: str
    clock: Clock
    random: Random
    memory: Memory
    model: Model | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


class RunsModel:
    """`self.model`: the agent's model for those who feed it themselves."""

    def __init__(self, name: str, model: Model | None) -> None:
        self._name = name
        self._model = model

    @property
    def loaded(self) -> Model:
        """The model; raises ModelError when the topology gives the agent none."""
        if self._model is None:
            raise ModelError(f"agent {self._name!r} has no model", "name one with `model:` in the topology")
        return self._model

    async def run(self, inputs: Tensors) -> Tensors:
        """All outputs for `inputs` (tensors by input name, batch first); raises ModelError when they do not fit."""
        return await self.loaded.run(inputs)


class Agent:
    """Subclass it, declare methods with `@observe` and `@every`, return decisions.

    What it may use: `self.predict`, `self.model`, `self.memory`, `self.parameters`, `self.clock`, `self.random`,
    `self.site`, `self.tier`, `self.name`, `self.observed`. It keeps nothing else: attributes set outside `setup` are
    refused, since they would be lost with the replica.
    """

    features: ClassVar[tuple[str, ...]] = ()
    """Names of the model's features, in order, as `prepare` gives them; checked against the model when it is loaded."""

    handlers: ClassVar[tuple[Observes | Every, ...]] = ()

    _ready = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            raise AgentError(f"{cls.__name__} defines __init__", "use setup(self) instead")
        for name in ("setup", "prepare"):
            if inspect.iscoroutinefunction(getattr(cls, name)):
                raise AgentError(f"{cls.__name__}.{name} is async", "write it without 'async'; nothing awaits it")
        found: dict[str, Observes | Every] = {}
        for name, member in inspect.getmembers(cls):
            handler = handler_of(member)
            if handler is not None:
                if not inspect.iscoroutinefunction(member):
                    raise AgentError(f"{cls.__name__}.{name} is not async", "write 'async def'")
                found[name] = handler
        kinds = [(handler.kind, handler.takes_decisions) for handler in found.values() if isinstance(handler, Observes)]
        if len(kinds) != len(set(kinds)):
            raise AgentError(f"{cls.__name__} observes one kind with two methods", "write one method per kind")
        cls.handlers = tuple(found.values())

    def __init__(self, context: Context) -> None:
        self.context = context
        self.memory = context.memory
        self.parameters = context.parameters
        self.clock = context.clock
        self.random = context.random
        self.name = context.name
        self.site = context.site
        self.tier = context.tier
        self.model = RunsModel(context.name, context.model)
        if context.model is not None:
            _check_features(type(self), context.name, context.model)
        self.setup()
        self._ready = True

    def setup(self) -> None:
        """Called once before the first observation; the only place that may set attributes."""

    def __setattr__(self, name: str, value: object) -> None:
        if self._ready:
            raise AgentError(
                f"{type(self).__name__} sets self.{name}, which would be lost with the replica",
                "keep it in self.memory",
            )
        super().__setattr__(name, value)

    @property
    def observed(self) -> Observed:
        """What the running method was called with."""
        return CALL.get().observed

    def prepare(self, observation: BaseModel) -> Sequence[float] | np.ndarray[Any, Any]:
        """The model's features for an observation; by default its fields that `features` names."""
        return [float(getattr(observation, name)) for name in self.features]

    async def predict(self, observation: BaseModel) -> Prediction:
        """One prediction of the agent's model for `prepare(observation)`.

        Raises ModelError when there is no model, or features are missing, not finite or of the wrong number.
        """
        model = self.model.loaded
        row = np.asarray(self.prepare(observation), dtype=np.float32).reshape(1, -1)
        if not np.isfinite(row).all():
            raise ModelError("the features hold NaN or infinity", "let prepare() replace what is missing")
        result = prediction(await model.run_features(row), model.rule)
        CALL.get().note(result.confidence)
        return result

    @property
    def state(self) -> NoReturn:
        """Shared state; not available yet."""
        raise NotYetError("shared state (self.state)")

    async def escalate(self, observation: BaseModel) -> NoReturn:
        """Asking a stronger agent; not available yet."""
        raise NotYetError("escalation (self.escalate)")


def _check_features(agent: type[Agent], name: str, model: Model) -> None:
    declared, wanted = tuple(agent.features), model.features
    if declared and wanted and declared != wanted:
        missing = [feature for feature in wanted if feature not in declared]
        spare = [feature for feature in declared if feature not in wanted]
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(spare)} in excess"] if spare else []
        raise ModelError(
            f"agent {name!r} ({agent.__name__}) {' and '.join(parts) or 'orders its features otherwise'} for its model",
            "choose a model trained on these features, or correct the class's `features`",
        )
