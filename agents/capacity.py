"""Cloud agent: which regions need more carriers, from what the regions report."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from agents.overload import RegionalLoad
from mesh import Agent, Decision, observe

HOURS_KEPT = 24
NEED_SHARE = 0.05
"""Default share of cell-hours in overload above which a region needs capacity; one hour a day is about 4 %."""


class RegionHour(BaseModel):
    """The newest account of each of the last hours of a region."""

    hours: dict[datetime, tuple[int, int]] = {}
    """Hot cells and all cells, by hour."""


class CapacityPlan(Decision):
    """How a region stands over the last day of its hours, and how many carriers it lacks."""

    key = "region"

    region: str
    hour: datetime
    hours: int
    """Hours the plan rests on."""
    hot_share: float
    """Share of cell-hours in overload, 0 to 1."""
    carriers: int
    """Carriers to add so that the busiest hour has no hot cell; 0 while the share is acceptable."""


class CapacityPlanner(Agent):
    """Plans per region from the regional agents' accounts; one decision per region and hour.

    Parameter `share`: accepted share of cell-hours in overload (default 0.05).
    """

    @observe("region", RegionalLoad)
    async def plan(self, load: RegionalLoad) -> CapacityPlan | None:
        known = self.memory.get("hours", load.region, RegionHour) or RegionHour()
        hours = {**known.hours, load.hour: (len(load.hot), load.cells)}
        kept = {hour: hours[hour] for hour in sorted(hours)[-HOURS_KEPT:]}
        self.memory.put("hours", load.region, RegionHour(hours=kept))
        if load.hour in known.hours or load.hour not in kept:
            return None
        share = sum(hot for hot, _ in kept.values()) / max(1, sum(cells for _, cells in kept.values()))
        enough = share <= float(self.parameters.get("share", NEED_SHARE))
        return CapacityPlan(
            region=load.region,
            hour=load.hour,
            hours=len(kept),
            hot_share=share,
            carriers=0 if enough else max(hot for hot, _ in kept.values()),
        )
