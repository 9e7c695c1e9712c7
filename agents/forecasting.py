"""Edge agent: the load of each cell one hour ahead."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
from pydantic import BaseModel

from agents.kpi import CellKpi
from agents.load_features import FEATURES, HISTORY_HOURS, load_features
from mesh import Agent, Decision, Series, observe

HOUR_S = 3600.0


class CellLoadForecast(Decision):
    """What a cell is expected to carry in the hour that ends at `hour`, with the standard deviation of the error."""

    cell: str
    hour: datetime
    prb_dl: float
    """Percent, as in the observation."""
    spread: float
    """Percent; one standard deviation."""
    observed: float
    """Percent; the last observed load."""


class CellForecast(Agent):
    """Forecasts each cell from its last eight days; begins with the first observation and gets better with history."""

    features = FEATURES

    @observe("cell", CellKpi, on_full="drop_oldest")
    async def forecast(self, kpi: CellKpi) -> CellLoadForecast:
        remember(self, kpi)
        predicted = await self.predict(kpi)
        return CellLoadForecast(
            cell=kpi.cell,
            hour=kpi.time + timedelta(hours=1),
            prb_dl=predicted.value,
            spread=predicted.spread or 0.0,
            observed=kpi.prb_dl,
        )

    def prepare(self, observation: BaseModel) -> np.ndarray | Sequence[float]:
        """The features of the cell that `observation`, a CellKpi, is about."""
        assert isinstance(observation, CellKpi)
        return features_for(self, observation)


def remember(agent: Agent, kpi: CellKpi) -> Series:
    """Adds an observation to the cell's history of HISTORY_HOURS."""
    return agent.memory.append("prb_dl", kpi.cell, kpi.time.timestamp(), kpi.prb_dl, length=HISTORY_HOURS)


def history(agent: Agent, cell: str) -> Series:
    """The cell's history as this agent remembers it."""
    return agent.memory.series("prb_dl", cell, length=HISTORY_HOURS)


def features_for(agent: Agent, kpi: CellKpi) -> np.ndarray:
    """The model's features [len(FEATURES)] for the hour after `kpi`, which counts also when older than all history."""
    hour = int(kpi.time.timestamp() // HOUR_S)
    window = history(agent, kpi.cell).window(HOUR_S, hour, HISTORY_HOURS)
    window[0] = kpi.prb_dl
    return load_features(window, hour)
