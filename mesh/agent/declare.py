"""`@observe` and `@every`: how a method of an agent says what it waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel

from mesh.agent.observation import Observation
from mesh.decision import Decision
from mesh.errors import AgentError
from mesh.units import parse_duration

OnFull = Literal["latest_per_id", "drop_oldest", "reject"]
ON_FULL: tuple[OnFull, ...] = ("latest_per_id", "drop_oldest", "reject")

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])
_MARK = "__mesh_handler__"


@dataclass(frozen=True)
class Observes:
    """A method that takes observations of one kind."""

    method: str
    kind: str
    model: type[BaseModel]
    id_field: str
    on_full: OnFull
    capacity: int | None

    @property
    def takes_decisions(self) -> bool:
        """True when its observations are other agents' decisions."""
        return issubclass(self.model, Decision)


@dataclass(frozen=True)
class Every:
    """A method the clock calls."""

    method: str
    period_s: float


Handler = Observes | Every


def observe(
    kind: str,
    model: type[BaseModel],
    *,
    id: str | None = None,
    on_full: OnFull = "latest_per_id",
    capacity: int | None = None,
) -> Callable[[Method], Method]:
    """Calls the method with every observation of `kind`.

    `model` is a subclass of Observation (telemetry), or of Decision: then the observations are the decisions of the
    agents that the topology's `consumes` names. The field `id` (default: the one named as `kind`) holds what the
    observation is about; order is kept per id. `on_full` says what gives way when the replica falls behind:
    `latest_per_id` keeps the newest per id, `drop_oldest` forgets the oldest, `reject` refuses the newest; `capacity`
    bounds how many wait (default: the replica's setting). Raises AgentError when the declaration cannot work.
    """
    if not (isinstance(model, type) and issubclass(model, Observation | Decision)):
        raise AgentError(
            f"@observe({kind!r}, {model!r}) does not observe a known kind of model",
            "subclass mesh.Observation, or name a mesh.Decision of another agent",
        )
    id_field = id or kind
    if id_field not in model.model_fields:
        raise AgentError(
            f"@observe({kind!r}, {model.__name__}) finds no field {id_field!r} that holds the id",
            f"name one with id=…: {', '.join(model.model_fields)}",
        )
    if on_full not in ON_FULL:
        raise AgentError(f"on_full={on_full!r} is unknown", f"use one of {', '.join(ON_FULL)}")
    if capacity is not None and capacity < 1:
        raise AgentError(f"capacity={capacity} leaves no room", "use at least 1")

    def mark(method: Method) -> Method:
        return _mark(method, Observes(method.__name__, kind, model, id_field, on_full, capacity))

    return mark


def every(period: str) -> Callable[[Method], Method]:
    """Calls the method every `period` (such as `1s`) of the agent's clock; raises AgentError or UnitError."""
    seconds = parse_duration(period)
    if seconds < 0.01:
        raise AgentError(f"@every({period!r}) is too often", "use at least 10ms")

    def mark(method: Method) -> Method:
        return _mark(method, Every(method.__name__, seconds))

    return mark


def _mark(method: Method, handler: Handler) -> Method:
    if hasattr(method, _MARK):
        raise AgentError(f"{method.__qualname__} has two declarations", "write one method per @observe or @every")
    setattr(method, _MARK, handler)
    return method


def handler_of(member: object) -> Handler | None:
    """The declaration on a method, if it has one."""
    found = getattr(member, _MARK, None)
    return found if isinstance(found, Observes | Every) else None
