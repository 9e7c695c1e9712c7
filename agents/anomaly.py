"""Edge agent: tells when a cell's load departs from what the forecasting model expected of it."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel

from agents.forecasting import features_for, remember
from agents.kpi import CellKpi
from agents.load_features import FEATURES
from mesh import Agent, Decision, observe

LEARNING_HOURS = 24
"""Before a day of history the model's expectation is too rough to call anything unusual."""


class Expected(BaseModel):
    """What the model expected of a cell at one hour (seconds since the Unix epoch)."""

    time: float
    value: float
    spread: float


class CellLoadAnomaly(Decision):
    """A load that lies `score` standard deviations of the forecast's error away from the forecast."""

    cell: str
    observed: float
    """Percent."""
    expected: float
    """Percent."""
    score: float
    """Signed; above zero is more load than expected."""


class CellAnomaly(Agent):
    """Compares each observation with the forecast made an hour before.

    Parameter `threshold`: standard deviations beyond which a load is an anomaly (default 4: with normally distributed
    errors one false alarm in 16,000 observations; measured errors have heavier tails).
    """

    features = FEATURES

    @observe("cell", CellKpi, on_full="drop_oldest")
    async def judge(self, kpi: CellKpi) -> CellLoadAnomaly | None:
        time = kpi.time.timestamp()
        before = self.memory.get("expected", kpi.cell, Expected)
        known = len(remember(self, kpi))
        forecast = await self.predict(kpi)
        after = Expected(time=time + 3600.0, value=forecast.value, spread=max(forecast.spread or 0.0, 1.0))
        self.memory.put("expected", kpi.cell, after)
        if before is None or before.time != time or known < LEARNING_HOURS:
            return None
        score = (kpi.prb_dl - before.value) / before.spread
        if abs(score) < float(self.parameters.get("threshold", 4.0)):
            return None
        return CellLoadAnomaly(cell=kpi.cell, observed=kpi.prb_dl, expected=before.value, score=score)

    def prepare(self, observation: BaseModel) -> np.ndarray:
        """The features of the cell that `observation`, a CellKpi, is about."""
        assert isinstance(observation, CellKpi)
        return features_for(self, observation)
