"""The one place that turns a cell's load history into the features of the load model.

Training and the live agent both come through here, so they cannot drift apart. Loads are in
percent of the cell's own 99th percentile (about 0..150), hours are whole hours since the epoch
(UTC), and the features describe the hour after the newest observed one.

Imputation rule: a missing load is replaced by the load at the same hour one day nearer to now
(itself imputed if need be), and within the last day by the newest load. So a forecast is possible
from the very first observation; the history shares tell the model how much was really seen.
"""

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

HISTORY_HOURS = 192
"""Oldest load used: eight days, the newest hour included."""

UTC_OFFSET_HOURS = 1
"""Local time of the calendar features: Milan in winter, +01:00 (no summer time)."""

LAGS: tuple[int, ...] = (
    *(1, 2, 3, 4, 5, 6, 8, 12, 22, 23, 24, 25, 26, 47, 48, 49, 72, 73, 96, 97),
    *(120, 121, 144, 145, 166, 167, 168, 169, 170, 192),
)
"""Hours before the forecast hour; lag 1 is the newest observed hour."""

_HARMONICS = (1, 2, 3, 4)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = 24
_BLOCK_HOURS = 48

FEATURES: tuple[str, ...] = (
    *(f"load_lag_{lag}" for lag in LAGS),
    "load_mean_24",
    "load_mean_192",
    "load_same_hour_mean",
    "load_hour_before_mean",
    "load_change_24",
    "history_share_24",
    "history_share_192",
    *(f"hour_{wave}_{k}" for k in _HARMONICS for wave in ("sin", "cos")),
    *(f"weekday_{day}" for day in _WEEKDAYS),
)
"""Names of the features, in the order of the model's input columns."""


def feature_unit(name: str) -> str:
    """Unit of the feature `name`: "percent" (of the 99th percentile) for loads, else "1"."""
    return "percent" if name.startswith("load_") else "1"


def load_features(window: FloatArray, hour: int) -> npt.NDArray[np.float32]:
    """Features for forecasting `hour` + 1 from the loads up to and including `hour`.

    `window` is float64 [HISTORY_HOURS]: loads in percent, the newest (that of `hour`, whole hours since the epoch,
    UTC) first; missing or non-finite ones are imputed (module docstring). Returns float32 [len(FEATURES)].
    Raises ValueError when the newest load is missing or not finite.
    """
    if not math.isfinite(window[0]):
        raise ValueError(f"the history has no finite load for hour {hour}; pass the newest observed hour")
    if np.isfinite(window).all():
        return _whole(window, hour)
    features: npt.NDArray[np.float32] = _features(window[None, :], np.array([hour]))[0]
    return features


def load_feature_matrix(
    values: FloatArray, first_hour: int, known: npt.NDArray[np.integer] | None = None
) -> npt.NDArray[np.float32]:
    """The same features for many cells and hours at once, for training.

    `values` is load in percent [cells, hours], NaN where missing; column 0 is `first_hour` (whole
    hours since the epoch). `known`, if given, is [cells, hours] >= 1: how many of the newest hours
    may be seen at that place; older ones are treated as missing. Returns float32
    [cells, hours, len(FEATURES)]; entry [c, t] forecasts column t + 1 from columns up to t, and is
    NaN where the newest load is missing. Memory: the result plus 48 windows of 192 h per cell.
    """
    cells, hours = values.shape
    padded = np.concatenate([np.full((cells, HISTORY_HOURS - 1), np.nan), values], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, HISTORY_HOURS, axis=1)
    result = np.empty((cells, hours, len(FEATURES)), dtype=np.float32)
    for start in range(0, hours, _BLOCK_HOURS):
        stop = min(start + _BLOCK_HOURS, hours)
        block = windows[:, start:stop, ::-1].astype(np.float64)
        if known is not None:
            hidden = np.arange(HISTORY_HOURS) >= known[:, start:stop, None]
            block[hidden] = np.nan
        result[:, start:stop] = _features(block, first_hour + np.arange(start, stop))
    return result


def _features(window: FloatArray, hours: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Features [..., F] of windows [..., HISTORY_HOURS] (newest first) ending at `hours` [...]."""
    seen = np.isfinite(window)
    complete = bool(seen.all())
    filled = window if complete else _imputed(np.where(seen, window, np.nan), seen)
    loads = window if complete else np.where(seen, window, 0.0)
    count_day = seen[..., :_DAY].sum(axis=-1)
    count = seen.sum(axis=-1)
    result = np.empty((*window.shape[:-1], len(FEATURES)), dtype=np.float32)
    at = len(LAGS)
    result[..., :at] = filled[..., _LAG_PLACES]
    result[..., at] = loads[..., :_DAY].sum(axis=-1) / np.maximum(count_day, 1)
    result[..., at + 1] = loads.sum(axis=-1) / np.maximum(count, 1)
    result[..., at + 2] = filled[..., _DAY - 1 :: _DAY].sum(axis=-1) / (HISTORY_HOURS // _DAY)
    result[..., at + 3] = filled[..., _DAY::_DAY].sum(axis=-1) / (HISTORY_HOURS // _DAY - 1)
    result[..., at + 4] = _mean_change(loads[..., : _DAY + 1], seen[..., : _DAY + 1])
    result[..., at + 5] = count_day / _DAY
    result[..., at + 6] = count / HISTORY_HOURS
    result[..., at + 7 :] = _CALENDAR[(hours + 1 + UTC_OFFSET_HOURS) % len(_CALENDAR)]
    if not complete:
        result[~seen[..., 0]] = np.nan
    return result


def _whole(window: FloatArray, hour: int) -> npt.NDArray[np.float32]:
    """As `_features` for one window without gaps, the live agent's usual case, in half the time."""
    result = np.empty(len(FEATURES), dtype=np.float32)
    at = len(LAGS)
    day, rest = np.add.reduceat(window, (0, _DAY)).tolist()
    change = np.abs(window[:_DAY] - window[1 : _DAY + 1])
    result[:at] = window[_LAG_PLACES]
    result[at : at + 7] = (
        day / _DAY,
        (day + rest) / HISTORY_HOURS,
        window[_DAY - 1 :: _DAY].sum() / (HISTORY_HOURS // _DAY),
        window[_DAY::_DAY].sum() / (HISTORY_HOURS // _DAY - 1),
        change.sum() / _DAY,
        1.0,
        1.0,
    )
    result[at + 7 :] = _CALENDAR[(hour + 1 + UTC_OFFSET_HOURS) % len(_CALENDAR)]
    return result


def _imputed(window: FloatArray, seen: npt.NDArray[np.bool_]) -> FloatArray:
    """Windows [..., HISTORY_HOURS] without gaps, by the rule of the module docstring."""
    days = (*window.shape[:-1], HISTORY_HOURS // _DAY, _DAY)
    filled = window.reshape(days).copy()
    known = seen.reshape(days)
    nearer = np.broadcast_to(window[..., :1], filled[..., 0, :].shape)
    for day in range(days[-2]):
        filled[..., day, :] = np.where(known[..., day, :], filled[..., day, :], nearer)
        nearer = filled[..., day, :]
    return filled.reshape(window.shape)


def _mean_change(loads: FloatArray, seen: npt.NDArray[np.bool_]) -> FloatArray:
    """Mean absolute change between neighbouring hours both seen [...], 0 where there is none."""
    pairs = seen[..., 1:] & seen[..., :-1]
    change = np.abs(loads[..., 1:] - loads[..., :-1]) * pairs
    mean: FloatArray = change.sum(axis=-1) / np.maximum(pairs.sum(axis=-1), 1)
    return mean


def _calendar() -> npt.NDArray[np.float32]:
    """Calendar features [168, C] by local hour since the epoch modulo a week, in the order of FEATURES."""
    local = np.arange(7 * _DAY)
    angle = 2.0 * np.pi * (local % _DAY) / _DAY
    waves = [wave(k * angle) for k in _HARMONICS for wave in (np.sin, np.cos)]
    weekday = (local // _DAY + 3) % 7  # the epoch was a Thursday
    columns = waves + [(weekday == day).astype(np.float64) for day in range(7)]
    table: npt.NDArray[np.float32] = np.stack(columns, axis=-1).astype(np.float32)
    return table


_CALENDAR = _calendar()
_LAG_PLACES = np.array(LAGS) - 1
