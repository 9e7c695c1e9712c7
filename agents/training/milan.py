"""The Milan hourly data set as training needs it: where it comes from and how it is split.

Origin: the Telecom Italia Big Data Challenge (Barlacchi et al., Scientific Data 2015), in the
reduced form of Ferreira et al., IEEE Access 2023. Files: matrixTS.csv (row = grid cell, column =
hour from 2013-11-01 00:00 local time) and ID_labels.csv. Rows with missing days are dropped.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mesh.telemetry.table import from_wide, p99, percent_of_p99

FloatArray = npt.NDArray[np.float64]

HOUR = timedelta(hours=1)
WEEK_HOURS = 168
LOCAL = timezone(timedelta(hours=1))
START = datetime(2013, 11, 1, tzinfo=LOCAL)
TEST_START = datetime(2013, 12, 13, tzinfo=LOCAL)
TEST_STOP = datetime(2013, 12, 20, tzinfo=LOCAL)
FIRST_HOUR = int(START.timestamp()) // 3600
GRID_WIDTH = 100

DATA_NAME = "Milan hourly traffic, 211 complete grid cells"
ORIGIN = (
    "Telecom Italia Big Data Challenge, reduced and pre-processed in"
    " github.com/Ferreira-O-Gabriel/Network-Traffic-Prediction"
    " at c78e37366721df99a7bf7cac65d0915f5437ae93"
)
CITATION = (
    "Barlacchi et al., Scientific Data 2015 (sdata201555);"
    " Ferreira et al., IEEE Access 2023 (10.1109/ACCESS.2023.3236261)"
)
DATA_LICENCE = (
    "Open Data Commons Open Database License 1.0 (ODbL-1.0): attribution and share-alike for the"
    " data; the repository that carries the reduced form states GPL-3.0"
)
NOTICE = (
    "Contains information from the Telecom Italia Big Data Challenge data (Barlacchi et al. 2015),"
    " which is made available under the Open Database License 1.0"
)
TRAINING_PERIOD = "2013-11-01 00:00 to 2013-12-12 23:00 local time (+01:00)"


@dataclass(frozen=True)
class Milan:
    """The complete cells: `counts` and `percent` are [cells, hours], `p99` is [cells] in counts.

    `p99` is taken before TEST_START only; `percent` = 100 * counts / p99.
    """

    ids: tuple[str, ...]
    counts: FloatArray
    percent: FloatArray
    p99: FloatArray
    dropped: int


def column(at: datetime) -> int:
    """Column of the matrix that holds the hour beginning at `at`."""
    return (at - START) // HOUR


def read_milan(folder: Path) -> Milan:
    """Read the data set from `folder`. Raises TableError when a file is missing or malformed."""
    table = from_wide(folder / "matrixTS.csv", folder / "ID_labels.csv", start=START, step=HOUR, field="load")
    counts, before = table.values["load"], slice(0, column(TEST_START))
    return Milan(table.ids, counts, percent_of_p99(counts, before), p99(counts, before), table.dropped)
