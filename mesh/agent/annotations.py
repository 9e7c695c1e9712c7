"""What the annotations of an agent's methods tell: the decisions it can make."""

from __future__ import annotations

import typing

from mesh.agent.agent import Agent
from mesh.decision import Decision


def decided(agent: type[Agent]) -> list[type[Decision]]:
    """Decision classes named by the return annotations of the agent's declared methods, in order of appearance."""
    found: list[type[Decision]] = []
    for handler in agent.handlers:
        returned = typing.get_type_hints(getattr(agent, handler.method)).get("return")
        found += [one for one in _decisions(returned) if one not in found]
    return found


def _decisions(annotation: object) -> list[type[Decision]]:
    if isinstance(annotation, type) and issubclass(annotation, Decision):
        return [annotation]
    return [one for part in typing.get_args(annotation) for one in _decisions(part)]
