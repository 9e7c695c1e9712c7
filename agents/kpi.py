"""What is measured in the radio network: observations under the names of 3GPP TS 28.552."""

from __future__ import annotations

from pydantic import Field

from mesh import Observation


class CellKpi(Observation):
    """Load of one cell over the hour that ends at `time`."""

    cell: str = Field(min_length=1, max_length=64)
    prb_dl: float = Field(ge=0.0, le=1000.0)
    """RRU.PrbTotDl in percent; for traffic counts without a capacity, percent of the cell's own 99th percentile."""
