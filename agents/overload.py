"""Regional agent: which cells of a region are about to be overloaded, and how much room the others have."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from agents.forecasting import CellLoadForecast
from mesh import Agent, Decision, every, observe

HOT_PERCENT = 90.0
"""Default load above which a cell counts as hot: throughput per user falls steeply there."""


class LastForecast(BaseModel):
    """The newest forecast of one cell."""

    hour: datetime
    prb_dl: float
    spread: float


class RegionalLoad(Decision):
    """The next hour of one region, from the forecasts of its edges."""

    key = "region"

    region: str
    hour: datetime
    cells: int
    mean: float
    """Percent, over the region's cells."""
    hot: list[str]
    """Cells whose load is expected above the threshold, the hottest first."""
    relief: list[str]
    """As many of the least loaded cells as there are hot ones, the least loaded first."""


class RegionalOverload(Agent):
    """Gathers the edges' forecasts and once a second names hot cells, and cells that could take load over.

    Parameter `hot`: percent of load above which a cell counts as hot (default 90).
    """

    @observe("cell", CellLoadForecast)
    async def gather(self, forecast: CellLoadForecast) -> None:
        last = LastForecast(hour=forecast.hour, prb_dl=forecast.prb_dl, spread=forecast.spread)
        self.memory.put("forecast", forecast.cell, last)

    @every("1s")
    async def coordinate(self) -> RegionalLoad | None:
        known = {cell: self.memory.get("forecast", cell, LastForecast) for cell in self.memory.keys("forecast")}
        found = {cell: last for cell, last in known.items() if last is not None}
        if not found:
            return None
        limit = float(self.parameters.get("hot", HOT_PERCENT))
        by_load = sorted(found, key=lambda cell: (-found[cell].prb_dl, cell))
        hot = [cell for cell in by_load if found[cell].prb_dl > limit]
        calm = [cell for cell in reversed(by_load) if cell not in hot]
        return RegionalLoad(
            region=self.site,
            hour=max(last.hour for last in found.values()),
            cells=len(found),
            mean=sum(last.prb_dl for last in found.values()) / len(found),
            hot=hot,
            relief=calm[: len(hot)],
        )
