"""Telemetry of one site: what is due when, what a recording gives, and that a generator goes on where it was."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.clock import iso
from mesh.errors import TelemetryError
from mesh.telemetry.source import Row, Source, due, due_at, observation, open_source
from mesh.telemetry.table import TableError
from mesh.topology.model import Telemetry

START = datetime(2013, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
PROFILES = Path(__file__).parents[2] / "topologies"
SITES = {"north": ["1", "2"], "south": ["3"], "empty": []}

epochs = st.floats(0.0, 2e9)
speeds = st.floats(0.01, 1e5)
step_sizes = st.sampled_from([0.1, 1.0, 60.0, 3600.0])


def wide(place: Path, *rows: str, unit: str = "raw", step: str = "1h", **fields: Any) -> Telemetry:
    """Telemetry recorded in a wide matrix whose rows belong to the ids 1, 2, 3…"""
    (place / "matrix.csv").write_text("".join(f"{row}\n" for row in rows))
    (place / "ids.csv").write_text("".join(f"{number}\n" for number in range(1, len(rows) + 1)))
    replay = {"format": "wide", "file": "matrix.csv", "ids": "ids.csv", "start": START, "step": step}
    return Telemetry.model_validate({"sites": SITES, "replay": {**replay, "field": "load", "unit": unit}, **fields})


def long(folder: Path, *rows: str, unit: str = "raw", **fields: Any) -> Telemetry:
    (folder / "long.csv").write_text("when,cell,load,users\n" + "".join(f"{row}\n" for row in rows))
    columns = {"prb": {"column": "load", "unit": unit}, "users": {"column": "users"}}
    replay = {"format": "long", "file": "long.csv", "time": "when", "id": "cell", "fields": columns}
    return Telemetry.model_validate({"sites": SITES, "replay": replay, **fields})


def generated(**fields: Any) -> Telemetry:
    generator = {"profile": "profiles/city-load.json", "seed": 7, "field": "load", "step": "1h"}
    return Telemetry.model_validate({"sites": SITES, "generator": {**generator, **fields}, "begin": START})


def opened(spec: Telemetry, folder: Path | None, site: str = "north", base: Path = PROFILES) -> Source:
    source = open_source(spec, "cell", site, base, folder)
    assert source is not None
    return source


def rows(source: Source, count: int) -> list[Row | None]:
    return [source.at(index) for index in range(count)]


def loads(source: Source, id: str, count: int) -> list[float]:
    return [(source.at(index) or {})[id]["load"] for index in range(count)]


@given(epochs, speeds, step_sizes, st.floats(0.0, 1e5), st.floats(0.0, 1e5))
@settings(deadline=None)
def test_what_is_due_never_goes_back(epoch: float, speed: float, step_s: float, one: float, other: float) -> None:
    early, late = sorted((one, other))
    assert due(epoch + early, epoch, speed, step_s) <= due(epoch + late, epoch, speed, step_s)


@given(epochs, speeds, step_sizes, st.floats(1e-3, 1e5))
@settings(deadline=None)
def test_nothing_is_due_before_the_epoch(epoch: float, speed: float, step_s: float, before: float) -> None:
    assert due(epoch - before, epoch, speed, step_s) == -1


@given(epochs, speeds, step_sizes)
@settings(deadline=None)
def test_first_observation_is_due_at_the_epoch(epoch: float, speed: float, step_s: float) -> None:
    assert due(epoch, epoch, speed, step_s) == 0
    assert due_at(0, epoch, speed, step_s) == epoch


@given(
    st.integers(0, 10_000), epochs, st.sampled_from([1.0, 7.0, 60.0, 3600.0, 36000.0]), st.sampled_from([60.0, 3600.0])
)
@settings(deadline=None)
def test_an_index_is_the_newest_between_its_time_and_the_next(
    index: int, epoch: float, speed: float, step_s: float
) -> None:
    half_a_step = 0.5 * step_s / speed
    assert due(due_at(index, epoch, speed, step_s) + half_a_step, epoch, speed, step_s) == index
    assert due(due_at(index, epoch, speed, step_s) - half_a_step, epoch, speed, step_s) == index - 1


@given(st.integers(0, 10_000), st.sampled_from([1.0, 7.0, 60.0, 3600.0]), st.sampled_from([0.1, 60.0, 3600.0]))
@settings(deadline=None)
def test_an_index_is_due_when_its_time_has_come(index: int, speed: float, step_s: float) -> None:
    assert due(due_at(index, 0.0, speed, step_s), 0.0, speed, step_s) == index


def test_faster_telemetry_is_due_sooner() -> None:
    assert due_at(10, 100.0, 3600.0, 3600.0) == 110.0
    assert due_at(10, 100.0, 36000.0, 3600.0) == 101.0


def test_wide_recording_gives_its_columns_from_the_start(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2", "3,4", "5,6"), tmp_path)
    assert (source.begin, source.step_s) == (START.timestamp(), 3600.0)
    assert rows(source, 2) == [{"1": {"load": 1.0}, "2": {"load": 3.0}}, {"1": {"load": 2.0}, "2": {"load": 4.0}}]


def test_each_site_gets_its_own_ids_alone(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1", "3", "5"), tmp_path, "south")
    assert source.at(0) == {"3": {"load": 5.0}}


@pytest.mark.parametrize("site", ["empty", "nowhere"])
def test_site_without_ids_has_no_source(tmp_path: Path, site: str) -> None:
    assert open_source(wide(tmp_path, "1", "3", "5"), "cell", site, tmp_path, tmp_path) is None


def test_after_the_last_column_there_is_nothing(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2", "3,4"), tmp_path)
    assert source.at(1) is not None
    assert source.at(2) is None
    assert source.at(1000) is None


def test_missing_values_are_left_out(tmp_path: Path) -> None:
    assert rows(opened(wide(tmp_path, "1,,3", ",2,3"), tmp_path), 3) == [
        {"1": {"load": 1.0}},
        {"2": {"load": 2.0}},
        {"1": {"load": 3.0}, "2": {"load": 3.0}},
    ]


def test_long_recording_gives_several_fields_and_leaves_out_the_missing_ones(tmp_path: Path) -> None:
    times = [(START + n * HOUR).isoformat() for n in range(3)]
    spec = long(tmp_path, f"{times[0]},1,5,50", f"{times[1]},1,6,", f"{times[2]},2,7,70")
    assert rows(opened(spec, tmp_path), 4) == [
        {"1": {"prb": 5.0, "users": 50.0}},
        {"1": {"prb": 6.0}},
        {"2": {"prb": 7.0, "users": 70.0}},
        None,
    ]


def test_recording_begins_where_it_is_told_to(tmp_path: Path) -> None:
    spec = wide(tmp_path, "1,2,3,4", "5,6,7,8", begin=START + 2 * HOUR)
    source = opened(spec, tmp_path)
    assert source.begin == (START + 2 * HOUR).timestamp()
    assert rows(source, 3) == [{"1": {"load": 3.0}, "2": {"load": 7.0}}, {"1": {"load": 4.0}, "2": {"load": 8.0}}, None]


def test_recording_that_is_repeated_begins_again_after_its_end(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2,3", "4,5,6", repeat=True), tmp_path)
    assert loads(source, "1", 8) == [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0]


def test_repetition_does_not_reach_back_before_the_begin(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2,3,4", "5,6,7,8", repeat=True, begin=START + 2 * HOUR), tmp_path)
    assert loads(source, "1", 5) == [3.0, 4.0, 3.0, 4.0, 3.0]


def test_repetition_is_of_whole_weeks_so_that_days_of_the_week_stay_in_place(tmp_path: Path) -> None:
    week = 7 * 24
    row = ",".join(str(n) for n in range(week + 30))
    source = opened(wide(tmp_path, row, row, repeat=True), tmp_path)
    assert loads(source, "1", 3 * week)[week + 30 :] == [float(30 + n % week) for n in range(2 * week - 30)]


def test_repetition_of_what_lies_before_the_begin_is_nothing(tmp_path: Path) -> None:
    spec = wide(tmp_path, "1,2", "3,4", repeat=True, begin=START + 5 * HOUR)
    assert opened(spec, tmp_path).at(0) is None


def test_begin_between_two_columns_is_the_later_one(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2,3", "1,2,3", begin=START + 0.5 * HOUR), tmp_path)
    assert source.begin == (START + HOUR).timestamp()
    assert loads(source, "1", 2) == [2.0, 3.0]


def test_begin_before_the_recording_is_its_start(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2", "3,4", begin=START - 5 * HOUR), tmp_path)
    assert source.begin == START.timestamp()


def test_begin_after_the_recording_leaves_nothing(tmp_path: Path) -> None:
    assert opened(wide(tmp_path, "1,2", "3,4", begin=START + 5 * HOUR), tmp_path).at(0) is None


@pytest.mark.parametrize("index", range(1, 8))
def test_begin_on_a_column_is_that_column_also_where_steps_are_fractions_of_a_second(
    tmp_path: Path, index: int
) -> None:
    columns = ",".join(str(n) for n in range(10))
    spec = wide(tmp_path, columns, columns, step="100ms", begin=START + index * timedelta(milliseconds=100))
    assert loads(opened(spec, tmp_path), "1", 1) == [float(index)]


def test_percentages_are_of_the_99th_percentile_before_the_begin_alone(tmp_path: Path) -> None:
    before, after = [1.0, 2.0, 3.0, 4.0, 5.0], [50.0, 2.5]
    row = ",".join(str(value) for value in before + after)
    spec = wide(tmp_path, row, row, unit="percent_of_p99", begin=START + len(before) * HOUR)
    p99 = float(np.percentile(before, 99.0))
    assert loads(opened(spec, tmp_path), "1", 2) == pytest.approx([100.0 * value / p99 for value in after])


def test_percentages_without_a_begin_are_of_the_whole_recording(tmp_path: Path) -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    spec = wide(tmp_path, "1,2,3,4", "1,2,3,4", unit="percent_of_p99")
    p99 = float(np.percentile(values, 99.0))
    assert loads(opened(spec, tmp_path), "1", 4) == pytest.approx([100.0 * value / p99 for value in values])


def test_percentages_are_per_id(tmp_path: Path) -> None:
    source = opened(wide(tmp_path, "1,2,3", "10,20,30", unit="percent_of_p99"), tmp_path)
    assert loads(source, "1", 3) == pytest.approx(loads(source, "2", 3))


def test_id_that_was_silent_before_the_begin_has_no_percentage(tmp_path: Path) -> None:
    spec = wide(tmp_path, "0,0,5", "1,1,1", unit="percent_of_p99", begin=START + 2 * HOUR)
    assert opened(spec, tmp_path).at(0) == {"2": {"load": pytest.approx(100.0)}}


def test_only_the_columns_that_say_so_are_percentages(tmp_path: Path) -> None:
    times = [(START + n * HOUR).isoformat() for n in range(2)]
    spec = long(tmp_path, f"{times[0]},1,5,50", f"{times[1]},2,5,70", unit="percent_of_p99")
    assert rows(opened(spec, tmp_path), 1) == [{"1": {"prb": pytest.approx(100.0), "users": 50.0}}]


def test_id_that_is_not_recorded_is_told(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match=r"matrix\.csv has no '3' that telemetry\.cell names"):
        open_source(wide(tmp_path, "1", "2"), "cell", "south", tmp_path, tmp_path)


def test_column_that_is_not_recorded_is_told(tmp_path: Path) -> None:
    at, later = START.isoformat(), (START + HOUR).isoformat()
    spec = long(tmp_path, f"{at},1,5,50", f"{later},2,5,70")
    (tmp_path / "long.csv").write_text(f"when,cell,load\n{at},1,5\n{later},2,5\n")
    with pytest.raises(TelemetryError, match="has no 'users'"):
        opened(spec, tmp_path)


@pytest.mark.parametrize("missing", ["matrix.csv", "ids.csv"])
def test_missing_file_is_told_as_an_expected_failure(tmp_path: Path, missing: str) -> None:
    spec = wide(tmp_path, "1", "2")
    (tmp_path / missing).unlink()
    with pytest.raises(TelemetryError, match=missing):
        opened(spec, tmp_path)


def test_malformed_table_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="line 2"):
        opened(wide(tmp_path, "1,2", "3,much"), tmp_path)


def test_folder_of_the_command_line_wins_over_the_topologys(tmp_path: Path) -> None:
    for name, value in (("here", "1"), ("there", "2")):
        (tmp_path / name).mkdir()
        spec = wide(tmp_path / name, value, value, folder="here")
    assert loads(opened(spec, None, base=tmp_path), "1", 1) == [1.0]
    assert loads(opened(spec, tmp_path / "there", base=tmp_path), "1", 1) == [2.0]


def test_recording_wins_over_the_generator_where_there_is_a_folder(tmp_path: Path) -> None:
    spec = wide(tmp_path, "1", "2", generator=generated().model_dump(mode="json")["generator"])
    assert loads(opened(spec, tmp_path), "1", 1) == [1.0]
    assert loads(opened(spec, None), "1", 1) != [1.0]


def test_without_recording_and_generator_there_is_no_source(tmp_path: Path) -> None:
    assert open_source(wide(tmp_path, "1", "2"), "cell", "north", tmp_path, None) is None


@given(st.lists(st.integers(0, 5000), max_size=8))
@settings(max_examples=20, deadline=None)
def test_generator_gives_the_same_whenever_and_in_whatever_order_it_is_asked(indices: list[int]) -> None:
    one, other = opened(generated(), None), opened(generated(), None)
    assert [one.at(index) for index in indices] == [other.at(index) for index in reversed(indices)][::-1]


def test_generator_that_is_opened_again_goes_on_where_it_was() -> None:
    whole = rows(opened(generated(), None), 48)
    assert [opened(generated(), None).at(index) for index in range(24, 48)] == whole[24:]


def test_generator_never_ends() -> None:
    assert set(opened(generated(), None).at(1_000_000) or {}) == {"1", "2"}


def test_generated_loads_are_finite_and_not_negative() -> None:
    values = [v for row in rows(opened(generated(), None), 200) for one in (row or {}).values() for v in one.values()]
    assert len(values) == 400
    assert all(math.isfinite(value) and value >= 0.0 for value in values)


def test_another_seed_gives_other_telemetry() -> None:
    assert opened(generated(seed=8), None).at(0) != opened(generated(), None).at(0)


def test_generator_begins_where_it_is_told_to() -> None:
    assert opened(generated(), None).begin == START.timestamp()


@pytest.mark.parametrize("content", ["{", "[]", "7", "null", "{}", "\xff"])
def test_unusable_profile_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content, encoding="latin-1")
    with pytest.raises(TelemetryError, match=r"bad\.json cannot be used"):
        opened(generated(profile="bad.json"), None, base=tmp_path)


def test_missing_profile_is_told(tmp_path: Path) -> None:
    with pytest.raises(TelemetryError, match=r"none\.json cannot be used"):
        opened(generated(profile="none.json"), None, base=tmp_path)


def test_observation_has_its_id_under_its_kind_its_time_and_its_fields() -> None:
    found = observation("cell", "7", START.timestamp(), {"load": 1.5})
    assert found == {"cell": "7", "time": iso(START.timestamp()), "load": 1.5}
    assert json.loads(json.dumps(found)) == found
