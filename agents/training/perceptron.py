"""A small perceptron trained with numpy alone: one hidden tanh layer beside a linear path.

The output is tanh(x @ w1 + b1) @ w2 + x @ skip + b2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Gradient = Callable[[Array, npt.NDArray[np.intp]], Array]
"""(outputs [batch], their rows [batch]) -> derivative of each row's loss by its output [batch]."""


@dataclass(frozen=True)
class Settings:
    """How a perceptron is trained; the defaults were chosen on the validation week."""

    members: int = 3
    """Perceptrons, each from its own seed, that are averaged."""
    hidden: int = 16
    """Hidden units of each member."""
    epochs: int = 8
    batch: int = 2048
    """Rows per step."""
    rate: float = 3e-3
    """First step size of Adam; it falls to 0 along a half cosine."""
    seed: int = 20131213


@dataclass(frozen=True)
class Perceptron:
    """Weights: w1 [inputs, hidden], b1 [hidden], w2 [hidden], skip [inputs], b2 [1]; float32."""

    w1: Array
    b1: Array
    w2: Array
    skip: Array
    b2: Array

    def __call__(self, x: Array) -> Array:
        """Outputs [rows] for inputs [rows, inputs]."""
        out: Array = np.tanh(x @ self.w1 + self.b1) @ self.w2 + x @ self.skip + self.b2
        return out

    def scaled(self, factor: float) -> "Perceptron":
        """The perceptron whose output is `factor` times as large."""
        k = np.float32(factor)
        return Perceptron(self.w1, self.b1, self.w2 * k, self.skip * k, self.b2 * k)


def average(members: Sequence[Perceptron]) -> Perceptron:
    """One wider perceptron whose output is the mean of the outputs of `members`."""
    share = np.float32(1.0 / len(members))
    return Perceptron(
        np.concatenate([m.w1 for m in members], axis=1),
        np.concatenate([m.b1 for m in members]),
        np.concatenate([m.w2 for m in members]) * share,
        np.stack([m.skip for m in members]).sum(axis=0, dtype=np.float32) * share,
        np.stack([m.b2 for m in members]).sum(axis=0, dtype=np.float32) * share,
    )


def train(x: Array, gradient: Gradient, settings: Settings, start: float = 0.0) -> Perceptron:
    """Train `settings.members` perceptrons on inputs [rows, inputs] and average them.

    `x` should be standardised, outputs of order 1; `start` is the first output everywhere. The
    result depends on the arguments only (and, in the last bits, on the machine's linear algebra).
    """
    seeds = np.random.SeedSequence(settings.seed).spawn(settings.members)
    return average([_member(x, gradient, settings, start, np.random.default_rng(s)) for s in seeds])


def _member(x: Array, gradient: Gradient, settings: Settings, start: float, rng: np.random.Generator) -> Perceptron:
    rows, inputs = x.shape
    batch = min(settings.batch, rows)
    steps = settings.epochs * (rows // batch)
    weights: list[Array] = [
        (rng.normal(0.0, inputs**-0.5, (inputs, settings.hidden))).astype(np.float32),
        np.zeros(settings.hidden, dtype=np.float32),
        (rng.normal(0.0, 0.1 * settings.hidden**-0.5, settings.hidden)).astype(np.float32),
        np.zeros(inputs, dtype=np.float32),
        np.full(1, start, dtype=np.float32),
    ]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    step = 0
    for _ in range(settings.epochs):
        order = rng.permutation(rows)
        for begin in range(0, rows - batch + 1, batch):
            step += 1
            rate = settings.rate * 0.5 * (1.0 + np.cos(np.pi * step / steps))
            chosen = order[begin : begin + batch]
            slopes = _slopes(Perceptron(*weights), x[chosen], gradient, chosen)
            for k, slope in enumerate(slopes):
                first[k] = np.float32(0.9) * first[k] + np.float32(0.1) * slope
                second[k] = np.float32(0.999) * second[k] + np.float32(0.001) * slope * slope
                mean = first[k] / np.float32(1.0 - 0.9**step)
                size = np.sqrt(second[k] / np.float32(1.0 - 0.999**step)) + np.float32(1e-8)
                weights[k] = (weights[k] - np.float32(rate) * mean / size).astype(np.float32)
    return Perceptron(*weights)


def _slopes(
    net: Perceptron, x: Array, gradient: Gradient, chosen: npt.NDArray[np.intp]
) -> tuple[Array, Array, Array, Array, Array]:
    """Derivatives of the mean loss of the rows `x` by each weight of `net`."""
    active = np.tanh(x @ net.w1 + net.b1)
    out = active @ net.w2 + x @ net.skip + net.b2
    slope = (gradient(out, chosen) / np.float32(len(x))).astype(np.float32)
    back = slope[:, None] * net.w2 * (np.float32(1.0) - active * active)
    return (
        x.T @ back,
        back.sum(axis=0),
        active.T @ slope,
        x.T @ slope,
        slope.sum(keepdims=True),
    )
