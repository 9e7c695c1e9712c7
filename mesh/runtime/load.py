"""Finds an agent's class: beside the topology file first, then on the Python path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable

from mesh.agent.agent import Agent
from mesh.agent.dispatch import ensure_agent
from mesh.errors import AgentError


def load_class(reference: str, folders: Iterable[str]) -> type[Agent]:
    """The class that `package.module:Class` names; raises AgentError.

    `folders` go to the front of this process's `sys.path` and stay there, since the module may import its neighbours
    later.
    """
    module_name, _, class_name = reference.partition(":")
    first = list(folders)
    sys.path[:] = [*first, *(folder for folder in sys.path if folder not in first)]
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise AgentError(
            f"{module_name} cannot be imported ({type(error).__name__}: {error})",
            "correct the agent's `class` or the module itself",
        ) from error
    if not hasattr(module, class_name):
        raise AgentError(f"{module_name} has no class {class_name}", "correct the agent's `class`")
    return ensure_agent(getattr(module, class_name), reference)
