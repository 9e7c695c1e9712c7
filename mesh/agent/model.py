"""What an agent knows of its model: a protocol, and how outputs become a value with a confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mesh.errors import ModelError

Tensors = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ConfidenceRule:
    """How a model says how sure it is: with probability `confidence` the truth lies within ± `tolerance` of `value`.

    `value` and `spread` name outputs; the spread is a standard deviation of a normally distributed error, so the
    confidence is erf(tolerance / (spread · √2)). `tolerance` is in `unit`, the unit of the value.
    """

    value: str
    spread: str
    tolerance: float
    unit: str

    def confidence(self, spread: float) -> float:
        """Probability, 0 to 1, that the error is within the tolerance."""
        return 1.0 if spread <= 0 else math.erf(self.tolerance / (spread * math.sqrt(2.0)))


@dataclass(frozen=True)
class Prediction:
    """One prediction: `value` in the model's unit, `spread` (standard deviation) and `confidence` where it has them."""

    value: float
    spread: float | None
    confidence: float | None
    outputs: Mapping[str, NDArray[np.generic]]
    """All outputs for the one row, without the batch dimension."""


class Model(Protocol):
    """A loaded model, as the mesh, a notebook or a test hands it to an agent."""

    @property
    def digest(self) -> str:
        """sha256 of the model's file."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns of its first input, in order; empty when the file does not say."""

    @property
    def rule(self) -> ConfidenceRule | None:
        """How confidence follows from its outputs."""

    async def run(self, inputs: Tensors) -> Tensors:
        """All outputs by name; the first dimension is the batch. Raises ModelError when inputs do not fit."""

    async def run_features(self, rows: NDArray[np.float32]) -> Tensors:
        """`run` with `rows` [batch, features] as the only input."""


def prediction(outputs: Tensors, rule: ConfidenceRule | None) -> Prediction:
    """The prediction in the first row of `outputs`; raises ModelError when the value is no finite number."""
    name = rule.value if rule else next(iter(outputs))
    try:
        first = {output: tensor[0] for output, tensor in outputs.items()}
        value = float(first[name].item())
        spread = float(first[rule.spread].item()) if rule else None
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"the model's output {name!r} is not one number per row", "use self.model.run for other shapes"
        ) from error
    if not math.isfinite(value) or not (spread is None or math.isfinite(spread)):
        raise ModelError(f"the model answered {value} ± {spread}", "check its inputs for values it was not trained on")
    return Prediction(value, spread, rule.confidence(spread) if rule and spread is not None else None, first)
