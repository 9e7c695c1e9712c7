"""A seeded generator of hourly load for any number of ids, calibrated by a profile.

The value of an id at an hour depends on (profile, seed, id, its neighbourhood, hour) only. Random
numbers are hashes of those, so no earlier hour has to be generated first: a restarted process goes
on exactly where it was, and two processes agree without talking. Random memory (AR(1)) is summed
over a bounded window of past hours.

Load = shape[hour of week] * level * exp(noise) * (1 + burst). It is unrounded and without a limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
KeyArray = npt.NDArray[np.uint64]

HOURS_OF_WEEK = 168
LONGEST_BURST_HOURS = 48
STRONGEST_MEMORY = 0.99
WINDOW_REST = 0.003
"""Weight below which the influence of older hours on the noise is cut off."""

_STEP_KEY = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_NUMBERS: dict[str, tuple[float, float]] = {
    "utc_offset_hours": (-14.0, 14.0),
    "level_sigma": (0.0, 2.0),
    "noise_sigma": (0.0, 2.0),
    "noise_memory": (0.0, STRONGEST_MEMORY),
    "quick_share": (0.0, 1.0),
    "common_share": (0.0, 1.0),
    "neighbour_share": (0.0, 1.0),
    "burst_rate_per_day": (0.0, 24.0),
    "burst_height": (0.0, 100.0),
    "burst_hours": (1.0, float(LONGEST_BURST_HOURS)),
}


@dataclass(frozen=True)
class Shape:
    """One kind of week: mean load in percent at each hour of the week, and how common it is.

    `mean` has 168 figures from Monday 00:00 local time; `weight` is relative to the other shapes.
    """

    weight: float
    mean: tuple[float, ...]


@dataclass(frozen=True)
class Profile:
    """What the load of a population of ids looks like; percent = of an id's 99th percentile.

    Noise is log-normal of deviation `noise_sigma` (natural log). Of its variance `common_share` is
    shared by all ids, `neighbour_share` more by the ids of a neighbourhood, the rest is the id's
    own; `quick_share` of each is new every hour, the rest remembers with AR(1) factor
    `noise_memory` per hour. Bursts start at `burst_rate_per_day` per id, add `burst_height` times
    the load on average and fade over `burst_hours`. `statistics` holds measured figures to compare
    with; `source` says where all figures come from.
    """

    name: str
    source: Mapping[str, str]
    shapes: tuple[Shape, ...]
    level_sigma: float
    noise_sigma: float
    noise_memory: float
    quick_share: float
    common_share: float
    neighbour_share: float
    burst_rate_per_day: float = 0.0
    burst_height: float = 0.0
    burst_hours: int = 1
    utc_offset_hours: float = 0.0
    statistics: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def from_mapping(data: Mapping[str, Any]) -> "Profile":
        """A profile from a JSON mapping with the field names of this class.

        Raises ValueError with one sentence that names every field that is wrong.
        """
        known = set(Profile.__dataclass_fields__)
        optional = {"utc_offset_hours", "statistics"} | {k for k in known if k.startswith("burst")}
        wrong = [f"{key!r} is not a field of a profile" for key in sorted(set(data) - known)]
        wrong += [f"{key!r} is missing" for key in sorted(known - optional - set(data))]
        for key, (low, high) in _NUMBERS.items():
            if key in data and not _within(data[key], low, high):
                wrong.append(f"{key!r} must be a number from {low:g} to {high:g}")
        if "burst_hours" in data and not isinstance(data["burst_hours"], int):
            wrong.append("'burst_hours' must be a whole number")
        if "name" in data and not (isinstance(data["name"], str) and data["name"]):
            wrong.append("'name' must be a text that is not empty")
        if "source" in data and not _texts(data["source"]):
            wrong.append("'source' must map names to texts")
        if not _figures(data.get("statistics", {})):
            wrong.append("'statistics' must map names to numbers")
        wrong += _wrong_shapes(data["shapes"]) if "shapes" in data else []
        if not wrong and data["common_share"] + data["neighbour_share"] > 1.0:
            wrong.append("'common_share' and 'neighbour_share' must not exceed 1 together")
        if wrong:
            raise ValueError("the load profile is not valid: " + "; ".join(wrong))
        shapes = tuple(Shape(float(shape["weight"]), tuple(map(float, shape["mean"]))) for shape in data["shapes"])
        numbers = {key: float(data[key]) for key in _NUMBERS if key in data}
        rest: dict[str, Any] = {**numbers, "shapes": shapes}
        if "burst_hours" in data:
            rest["burst_hours"] = int(data["burst_hours"])
        for key in ("source", "statistics"):
            rest[key] = MappingProxyType(dict(data.get(key, {})))
        return Profile(name=data["name"], **rest)


class Generator:
    """Load of `ids` by `profile`, the same for the same `seed` in every process.

    `neighbourhoods` maps an id to the name of its neighbourhood: those ids share the neighbour
    part of the noise and the shape of the week. An id that is not in it is alone in its own.
    Asking for other ids as well never changes the values of an id.
    Raises ValueError when an id occurs twice.
    """

    def __init__(
        self,
        profile: Profile,
        ids: Sequence[str],
        seed: int,
        neighbourhoods: Mapping[str, str] | None = None,
    ) -> None:
        if len(set(ids)) != len(ids):
            raise ValueError("the ids of a generator must differ from each other")
        self.profile = profile
        self.ids = tuple(ids)
        self.seed = seed
        near = neighbourhoods or {}
        areas = [f"area/{near[i]}" if i in near else f"alone/{i}" for i in self.ids]
        names = sorted(set(areas))
        place = {name: at for at, name in enumerate(names)}
        self._area = np.array([place[area] for area in areas], dtype=np.intp)
        self._common = _keys(seed, "common", [""])
        self._areas = _keys(seed, "area", names)
        self._own = _keys(seed, "own", self.ids)
        self._bursts = _keys(seed, "burst", self.ids)
        self._shape = self._chosen_shapes()
        level = _normal(_keys(seed, "level", self.ids))
        self._level = np.exp(profile.level_sigma * level - profile.level_sigma**2 / 2.0)
        self._window = _window(profile.noise_memory)

    def values(self, step: int) -> FloatArray:
        """Load in percent [len(ids)] at `step`, whole hours since the epoch (UTC)."""
        profile = self.profile
        local = math.floor(step + profile.utc_offset_hours)
        mean = self._shape[:, (local + 72) % HOURS_OF_WEEK]  # the epoch was a Thursday
        sigma = profile.noise_sigma
        load: FloatArray = mean * self._level * np.exp(sigma * self._noise(step) - sigma**2 / 2.0)
        if profile.burst_rate_per_day > 0.0 and profile.burst_height > 0.0:
            load = load * (1.0 + self._burst(step))
        return load

    def series(self, first: int, count: int) -> FloatArray:
        """Loads [len(ids), count] of the steps `first` .. `first` + `count` - 1."""
        result = np.empty((len(self.ids), count))
        for at in range(count):
            result[:, at] = self.values(first + at)
        return result

    def _chosen_shapes(self) -> FloatArray:
        """Mean load [ids, 168] of the shape drawn for each id's neighbourhood."""
        shapes = self.profile.shapes
        weights = np.array([shape.weight for shape in shapes])
        draw = _uniform(_mixed(self._areas ^ _STEP_KEY))
        chosen = np.searchsorted(np.cumsum(weights / weights.sum()), draw)
        means = np.array([shape.mean for shape in shapes])
        result: FloatArray = means[np.minimum(chosen, len(shapes) - 1)][self._area]
        return result

    def _noise(self, step: int) -> FloatArray:
        """Standard normal noise [ids] with the memory and the sharing of the profile."""
        keys = np.concatenate([self._common, self._areas, self._own])
        profile, window = self.profile, self._window
        steps = step - np.arange(len(window))
        fresh = _normal(_at(keys[:, None], steps[None, :]))
        memory = (fresh * window).sum(axis=1)
        quick = _normal(_at(keys ^ _STEP_KEY, np.array([step])))
        slow, fast = math.sqrt(1.0 - profile.quick_share), math.sqrt(profile.quick_share)
        noise = slow * memory + fast * quick
        areas = 1 + len(self._areas)
        alone = max(0.0, 1.0 - profile.common_share - profile.neighbour_share)
        shared: FloatArray = (
            math.sqrt(profile.common_share) * noise[0]
            + math.sqrt(profile.neighbour_share) * noise[1:areas][self._area]
            + math.sqrt(alone) * noise[areas:]
        )
        return shared

    def _burst(self, step: int) -> FloatArray:
        """Extra load [ids] as a multiple of the load: fading bursts, heights within +-50 %."""
        profile = self.profile
        ages = np.arange(profile.burst_hours)
        keys = _at(self._bursts[:, None], (step - ages)[None, :])
        starts = _uniform(keys) < profile.burst_rate_per_day / 24.0
        height = profile.burst_height * (0.5 + _uniform(_mixed(keys ^ _STEP_KEY)))
        extra: FloatArray = (starts * height * (1.0 - ages / profile.burst_hours)).sum(axis=1)
        return extra


def _window(memory: float) -> FloatArray:
    """Weights of the newest, the last, ... random number: AR(1) cut at WINDOW_REST, variance 1."""
    length = 1 if memory == 0.0 else math.ceil(math.log(WINDOW_REST) / math.log(memory))
    weights = memory ** np.arange(length, dtype=np.float64)
    unit: FloatArray = weights / np.sqrt((weights**2).sum())
    return unit


def _keys(seed: int, stream: str, names: Sequence[str]) -> KeyArray:
    """A random key [names] for each name, the same on every machine."""
    digests = (blake2b(f"{seed}/{stream}/{name}".encode(), digest_size=8) for name in names)
    return np.array([int.from_bytes(d.digest(), "little") for d in digests], dtype=np.uint64)


def _at(keys: KeyArray, steps: npt.NDArray[np.integer]) -> KeyArray:
    """Random bits for each key at each step (shapes broadcast)."""
    return _mixed(keys + _mixed(steps.astype(np.int64).view(np.uint64) * _STEP_KEY))


def _mixed(bits: KeyArray) -> KeyArray:
    """The finaliser of splitmix64: every input bit changes half of the output bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * _MIX[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _MIX[1]
    return bits ^ (bits >> np.uint64(31))


def _uniform(bits: KeyArray) -> FloatArray:
    """Uniform numbers in (0, 1) from random bits."""
    uniform: FloatArray = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return uniform


def _normal(bits: KeyArray) -> FloatArray:
    """Standard normal numbers from random bits (Box-Muller, 32 bits for each of the two parts)."""
    radius = ((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2.0 * math.pi * 2.0**-32)
    normal: FloatArray = np.sqrt(-2.0 * np.log(radius)) * np.cos(angle)
    return normal


def _within(value: object, low: float, high: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and low <= float(value) <= high  # type: ignore[arg-type]


def _texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())


def _figures(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(k, str) and _within(v, -math.inf, math.inf) for k, v in value.items()
    )


def _wrong_shapes(value: object) -> list[str]:
    """What is wrong with the shapes of a profile, one clause each."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence) or not value:
        return ["'shapes' must be a list with at least one shape"]
    wrong = []
    for at, shape in enumerate(value):
        if not isinstance(shape, Mapping) or set(shape) != {"weight", "mean"}:
            wrong.append(f"shape {at} must have 'weight' and 'mean' and nothing else")
            continue
        if not _within(shape["weight"], 1e-9, 1e9):
            wrong.append(f"the weight of shape {at} must be a number above 0")
        mean = shape["mean"]
        if isinstance(mean, str) or not isinstance(mean, Sequence) or len(mean) != HOURS_OF_WEEK:
            wrong.append(f"the mean of shape {at} must have {HOURS_OF_WEEK} figures")
        elif not all(_within(figure, 0.0, 1000.0) for figure in mean):
            wrong.append(f"the mean of shape {at} must hold numbers from 0 to 1000 only")
    return wrong
