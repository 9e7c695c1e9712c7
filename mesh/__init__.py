"""Mesh: inference agents at the edge, in regions and in the cloud that decide together with no primary.

Everything a user of the library needs is importable from here; deeper modules are the mesh's own.
"""

from mesh.agent.agent import Agent, Observed
from mesh.agent.declare import every, observe
from mesh.agent.memory import Memory, Series
from mesh.agent.model import Prediction
from mesh.agent.observation import Observation
from mesh.decision import CloudEvent, Decision
from mesh.errors import MeshError

__all__ = [
    "Agent",
    "CloudEvent",
    "Decision",
    "Memory",
    "MeshError",
    "Observation",
    "Observed",
    "Prediction",
    "Series",
    "every",
    "observe",
]

__version__ = "0.1.0"
