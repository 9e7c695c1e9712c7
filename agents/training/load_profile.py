"""Calibrate the load generator: `python -m agents.training.load_profile --data FOLDER`.

Reads the Milan hourly data before TEST_START and writes topologies/profiles/city-load.json: figures
that describe the whole population, no row of the data. The noise is the log of the load over the
cell's own mean week; its correlation falls as share * memory ** hours, the rest is quick noise.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.training import milan
from mesh.telemetry.generator import HOURS_OF_WEEK, LONGEST_BURST_HOURS, Profile

FloatArray = npt.NDArray[np.float64]

OUT = Path("topologies/profiles/city-load.json")
SHAPES = 3
LEAST_LOAD = 1.0
"""Loads below this count as this, in percent, so that the log of the load exists."""
FAR_CELLS = 8
"""Cells further apart than this (in grid squares) share only what all cells share."""
BURST_DEVIATIONS = 4.0
"""Noise above this many robust deviations counts as a burst."""


def week_hours(first_hour: int, count: int, utc_offset_hours: int = 1) -> npt.NDArray[np.int_]:
    """Hour of the week (0 = Monday 00:00 local time) of `count` hours from `first_hour` [count]."""
    return (first_hour + utc_offset_hours + np.arange(count) + 72) % HOURS_OF_WEEK


def mean_weeks(percent: FloatArray, first_hour: int) -> FloatArray:
    """Mean week [cells, 168] of loads [cells, hours] that cover every hour of the week."""
    at = week_hours(first_hour, percent.shape[1])
    return np.stack([percent[:, at == hour].mean(axis=1) for hour in range(HOURS_OF_WEEK)], axis=1)


def noise(percent: FloatArray, first_hour: int) -> FloatArray:
    """Log of the load over the cell's mean week, centred per cell; [cells, hours]."""
    week = mean_weeks(percent, first_hour)[:, week_hours(first_hour, percent.shape[1])]
    ratio = np.log(np.maximum(percent, LEAST_LOAD) / np.maximum(week, LEAST_LOAD))
    centred: FloatArray = ratio - ratio.mean(axis=1, keepdims=True)
    return centred


def autocorrelation(series: FloatArray, lag: int) -> float:
    """Correlation of centred series [cells, hours] with themselves `lag` hours later, pooled."""
    centred = series - series.mean(axis=1, keepdims=True)
    return float(np.mean(centred[:, lag:] * centred[:, :-lag]) / np.mean(centred**2))


def statistics(percent: FloatArray, first_hour: int, near: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Figures that a generated population should share with a measured one.

    `percent` is [cells, hours] (at least two whole weeks); `near` [cells, cells] marks neighbours.
    """
    rest = noise(percent, first_hour)
    weeks = percent.shape[1] / HOURS_OF_WEEK
    pairs = near & ~np.eye(len(near), dtype=bool)
    return {
        "mean": float(percent.mean()),
        "coefficient_of_variation": float(np.median(percent.std(axis=1) / percent.mean(axis=1))),
        "lag_1_autocorrelation": autocorrelation(percent, 1),
        "lag_24_autocorrelation": autocorrelation(percent, 24),
        "noise_sigma": float(np.sqrt(np.mean(rest**2) * weeks / (weeks - 1.0))),
        "noise_lag_1_autocorrelation": autocorrelation(rest, 1),
        "neighbour_noise_correlation": float(np.median(_correlations(rest)[pairs])),
    }


def distances(ids: Sequence[str]) -> npt.NDArray[np.int_]:
    """Distance [cells, cells] of grid ids in squares, the longer of the two directions."""
    row, column = np.divmod(np.array([int(i) - 1 for i in ids]), milan.GRID_WIDTH)
    gap: npt.NDArray[np.int_] = np.maximum(
        np.abs(row[:, None] - row[None, :]), np.abs(column[:, None] - column[None, :])
    )
    return gap


def _correlations(series: FloatArray) -> FloatArray:
    """Correlation [cells, cells] of each series with each other."""
    return np.asarray(np.corrcoef(series), dtype=np.float64)


def clusters(weeks: FloatArray, count: int) -> npt.NDArray[np.intp]:
    """Cluster number [cells] of mean weeks [cells, 168] by form (k-means, the largest first)."""
    form = weeks / weeks.mean(axis=1, keepdims=True)
    centres = [int(np.argmin(((form - form.mean(axis=0)) ** 2).sum(axis=1)))]
    while len(centres) < count:
        gap = ((form[:, None] - form[centres]) ** 2).sum(axis=2).min(axis=1)
        centres.append(int(np.argmax(gap)))
    means = form[centres]
    chosen = np.zeros(len(form), dtype=np.intp)
    for _ in range(100):
        chosen = ((form[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        for k in np.unique(chosen):
            means[k] = form[chosen == k].mean(axis=0)
    order = np.argsort(-np.bincount(chosen, minlength=count), kind="stable")
    rank: npt.NDArray[np.intp] = np.argsort(order, kind="stable")[chosen]
    return rank


def noise_memory(rest: FloatArray) -> tuple[float, float]:
    """(memory per hour, quick share) from the noise's correlation over 1 to 6 hours."""
    lags = np.arange(1, 7)
    falls = np.array([max(autocorrelation(rest, int(lag)), 1e-3) for lag in lags])
    slope, start = np.polyfit(lags, np.log(falls), 1)
    return float(np.clip(np.exp(slope), 0.0, 0.98)), float(np.clip(1.0 - np.exp(start), 0.0, 1.0))


def bursts(rest: FloatArray) -> dict[str, float | int]:
    """Rate, mean height and mean length of the runs of noise above BURST_DEVIATIONS."""
    deviation = 1.4826 * np.median(np.abs(rest), axis=1, keepdims=True)
    high = rest > BURST_DEVIATIONS * deviation
    starts = int(high[:, 0].sum()) + int((high[:, 1:] & ~high[:, :-1]).sum())
    if not starts:
        return {"burst_rate_per_day": 0.0, "burst_height": 0.0, "burst_hours": 1}
    length = round(float(high.sum()) / starts)
    return {
        "burst_rate_per_day": round(24.0 * starts / rest.size, 5),
        "burst_height": round(float(np.mean(np.exp(rest[high]) - 1.0)), 3),
        "burst_hours": int(np.clip(length, 1, LONGEST_BURST_HOURS)),
    }


def calibrated(data: milan.Milan) -> dict[str, Any]:
    """The profile of the data before TEST_START, as the JSON mapping `Profile` reads."""
    percent = data.percent[:, : milan.column(milan.TEST_START)]
    weeks = mean_weeks(percent, milan.FIRST_HOUR)
    chosen = clusters(weeks, SHAPES)
    means = np.stack([weeks[chosen == k].mean(axis=0) for k in range(SHAPES)])
    rest = noise(percent, milan.FIRST_HOUR)
    memory, quick = noise_memory(rest)
    gap = distances(data.ids)
    common = float(np.median(_correlations(rest)[gap > FAR_CELLS]))
    figures = statistics(percent, milan.FIRST_HOUR, gap == 1)
    near = figures["neighbour_noise_correlation"]
    level = np.log(weeks.mean(axis=1) / means.mean(axis=1)[chosen])
    shares = np.bincount(chosen, minlength=SHAPES) / len(chosen)
    return {
        "name": "city-load",
        "source": {
            "data": milan.DATA_NAME,
            "origin": milan.ORIGIN,
            "period": milan.TRAINING_PERIOD,
            "citation": milan.CITATION,
            "licence": milan.DATA_LICENCE,
            "notice": milan.NOTICE,
            "made_by": "agents/training/load_profile.py",
            "unit": "percent of the cell's own 99th percentile over the period",
        },
        "utc_offset_hours": 1,
        "level_sigma": round(float(level.std()), 4),
        "noise_sigma": round(figures["noise_sigma"], 4),
        "noise_memory": round(memory, 4),
        "quick_share": round(quick, 4),
        "common_share": round(common, 4),
        "neighbour_share": round(near - common, 4),
        **bursts(rest),
        "statistics": {name: round(figure, 4) for name, figure in figures.items()},
        "shapes": [
            {"weight": round(float(share), 4), "mean": [round(float(x), 1) for x in mean]}
            for share, mean in zip(shares, means, strict=True)
        ],
    }


def text_of(profile: Mapping[str, Any]) -> str:
    """The profile as JSON text with each list of figures on one line."""
    text = json.dumps(profile, indent=2)
    return re.sub(r"\[[\d\s.,]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: calibrate, check and write the profile."""
    parser = argparse.ArgumentParser(description="Calibrate the load generator.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the Milan hourly data")
    parser.add_argument("--out", type=Path, default=OUT, help="JSON file to write")
    options = parser.parse_args(arguments)
    profile = calibrated(milan.read_milan(options.data))
    Profile.from_mapping(profile)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text_of(profile), encoding="utf-8")
    shown = {k: v for k, v in profile.items() if k not in ("shapes", "source")}
    sys.stdout.write(f"{json.dumps(shown, indent=2)}\nwrote {options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
