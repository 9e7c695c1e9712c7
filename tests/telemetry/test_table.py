"""Behaviour of the table readers and of the normalisation."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.training import milan
from mesh.telemetry.table import (
    Table,
    TableError,
    clean_id,
    from_long,
    from_wide,
    p99,
    parse_long,
    parse_wide,
    percent_of_p99,
)

MILAN = Path(__file__).resolve().parents[3] / "shared" / "data" / "milan-hourly"
START = datetime(2013, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)

needs_milan = pytest.mark.skipif(not MILAN.exists(), reason="the Milan hourly data is not here")


def wide(matrix: str, ids: str) -> Table:
    return parse_wide(matrix, ids, start=START, step=HOUR, names=("m.csv", "i.csv"))


def test_a_wide_matrix_becomes_a_table() -> None:
    table = wide("1,2,3\n4,,6\n", "a\nb\n")
    assert (table.ids, table.start, table.step, table.dropped) == (("a", "b"), START, HOUR, 0)
    np.testing.assert_array_equal(table.values["value"], [[1, 2, 3], [4, np.nan, 6]])
    assert table.values["value"].dtype == np.float64
    assert table.steps == 3


def test_short_rows_are_dropped_and_counted_and_a_trailing_comma_is_no_place() -> None:
    table = wide("1,2,3,\n4,5,\n7,8,9,\n", "1.000000e+00\n2.000000e+00\n1.0500e+03\n")
    assert table.ids == ("1", "1050")
    assert table.dropped == 1
    np.testing.assert_array_equal(table.values["value"], [[1, 2, 3], [7, 8, 9]])


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("1.000000000000000000e+00", "1"),
        (" 1.05e+03 ", "1050"),
        ("12", "12"),
        ("007", "007"),
        ("1e3", "1e3"),
        ("1.5", "1.5"),
        ("1.0e999", "1.0e999"),
        ("cell-3.0", "cell-3.0"),
    ],
)
def test_only_whole_numbers_in_float_notation_are_rewritten_as_ids(text: str, clean: str) -> None:
    assert clean_id(text) == clean


@pytest.mark.parametrize(
    ("matrix", "ids", "sentence"),
    [
        ("1,2\n3,4\n", "a\n", "m.csv: 2 rows, but i.csv has 1 ids; give one id per row"),
        ("1,2\n3,x\n", "a\nb\n", "m.csv, line 2: 'x' is not a number; write a number"),
        ("1,inf\n", "a\n", "m.csv, line 1: 'inf' is not finite"),
        ("1,2\n3,4\n", "a\n\n", "i.csv, line 2: the id is empty"),
        ("1,2\n3,4\n", "1.0\n1\n", "i.csv, line 2: id '1' occurs twice"),
        ("", "", "m.csv: there are no values"),
        ("\n", "a\n", "m.csv: there are no values"),
    ],
)
def test_a_bad_wide_table_says_where_what_and_the_remedy(matrix: str, ids: str, sentence: str) -> None:
    with pytest.raises(TableError) as caught:
        wide(matrix, ids)
    assert sentence in str(caught.value)


def test_a_long_table_is_put_on_its_grid_with_gaps_missing() -> None:
    text = (
        "time,id,load,users\n"
        "2013-11-01T02:00:00+01:00,b,5,50\n"
        "2013-11-01T00:00:00+00:00,a,1,10\n"
        "2013-11-01T03:00:00+00:00,a,4,\n"
    )
    table = parse_long(text)
    assert (table.ids, table.start, table.step) == (("a", "b"), START, HOUR)
    nan = np.nan
    np.testing.assert_array_equal(table.values["load"], [[1, nan, nan, 4], [nan, 5, nan, nan]])
    np.testing.assert_array_equal(table.values["users"], [[10] + [nan] * 3, [nan, 50, nan, nan]])


@given(st.permutations([f"2013-11-01T{h:02}:00:00Z,{i},{h + i}" for h in range(4) for i in (1, 2)]))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_rows_does_not_matter(rows: list[str]) -> None:
    table = parse_long("\n".join(["time,id,load", *rows]))
    assert table.ids == ("1", "2")
    np.testing.assert_array_equal(table.values["load"], [[1, 2, 3, 4], [2, 3, 4, 5]])


@given(st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=5))
@settings(max_examples=30, deadline=None)
def test_wide_and_long_give_the_same_values(rows: list[list[float]]) -> None:
    matrix = "\n".join(",".join(map(repr, row)) for row in rows)
    ids = "\n".join(str(k) for k in range(len(rows)))
    lines = [
        f"{(START + at * HOUR).isoformat()},{k},{figure!r}"
        for k, row in enumerate(rows)
        for at, figure in enumerate(row)
    ]
    long = parse_long("\n".join(["time,id,value", *lines]))
    table = wide(matrix, ids)
    assert (long.ids, long.start, long.step) == (table.ids, table.start, table.step)
    np.testing.assert_array_equal(long.values["value"], table.values["value"])


ROW = "2013-11-01T00:00:00Z,a,1"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t.csv, line 1: the header has no column 'time' (it has none); add the column"),
        ("time,load\n", "line 1: the header has no column 'id' (it has time, load)"),
        ("time,id\n", "line 1: there is no value column"),
        ("time,id,x,x\n", "line 1: a column name is empty or double"),
        ("time,id,x\n", "t.csv: there are no rows"),
        (f"time,id,x\n{ROW},2\n", "line 2: 4 places instead of 3"),
        ("time,id,x\nnoon,a,1\n", "line 2: 'noon' is not a time; write it as"),
        ("time,id,x\n2013-11-01T00:00:00,a,1\n", "has no UTC offset; add one, such as Z"),
        (f"time,id,x\n{ROW}\n\n{ROW}\n", "line 4: id 'a' already has a row"),
        ("time,id,x\n2013-11-01T00:00:00Z,,1\n", "line 2: the id is empty"),
        (f"time,id,x\n{ROW}\n", "all rows have the same time; state the step"),
        (
            f"time,id,x\n{ROW}\n2013-11-01T01:00:00Z,a,1\n2013-11-01T02:30:00Z,a,1\n",
            "time 2013-11-01T02:30:00+00:00 is not a whole number of steps (1:00:00)",
        ),
        (
            f"time,id,x\n{ROW}\n2013-11-01T00:00:01Z,a,1\n2023-11-01T00:00:00Z,a,1\n",
            "t.csv: 3 rows for a grid of 1 ids x",
        ),
    ],
)
def test_a_bad_long_table_says_where_what_and_the_remedy(text: str, sentence: str) -> None:
    with pytest.raises(TableError) as caught:
        parse_long(text, name="t.csv")
    assert sentence in str(caught.value)


def test_a_stated_step_is_used_and_must_be_positive() -> None:
    table = parse_long(f"time,id,x\n{ROW}\n", step=HOUR)
    assert (table.step, table.steps) == (HOUR, 1)
    with pytest.raises(TableError, match="state a step above zero"):
        parse_long(f"time,id,x\n{ROW}\n", step=timedelta(0))


def test_an_error_carries_its_parts() -> None:
    with pytest.raises(TableError) as caught:
        wide("1,x\n", "a\n")
    error = caught.value
    assert (error.source, error.line, error.what) == ("m.csv", 1, "'x' is not a number")
    assert error.remedy
    assert isinstance(error, ValueError)


def test_files_are_read_and_unreadable_ones_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("1,2\n", encoding="utf-8")
    (tmp_path / "i.csv").write_text("\ufeffa\n", encoding="utf-8")
    (tmp_path / "long.csv").write_bytes(b"time,id,x\n\xff")
    table = from_wide(tmp_path / "m.csv", tmp_path / "i.csv", start=START, step=HOUR, field="load")
    assert (table.ids, list(table.values)) == (("a",), ["load"])
    with pytest.raises(TableError, match=r"none\.csv: the file cannot be read"):
        from_long(tmp_path / "none.csv")
    with pytest.raises(TableError, match=r"long\.csv: byte 10 is not UTF-8"):
        from_long(tmp_path / "long.csv")


def test_a_table_refuses_parts_that_do_not_fit() -> None:
    good = {"x": np.zeros((1, 2))}
    with pytest.raises(ValueError, match="UTC offset"):
        Table(("a",), START.replace(tzinfo=None), HOUR, good, 0)
    with pytest.raises(ValueError, match="must be positive"):
        Table(("a",), START, timedelta(0), good, 0)
    with pytest.raises(ValueError, match="must differ"):
        Table(("a", "a"), START, HOUR, {"x": np.zeros((2, 2))}, 0)
    with pytest.raises(ValueError, match="same shape"):
        Table(("a", "b"), START, HOUR, good, 0)


@given(
    st.lists(st.lists(st.floats(0.5, 1e6), min_size=5, max_size=5), min_size=1, max_size=4),
    st.floats(0.01, 100.0),
)
@settings(max_examples=40, deadline=None)
def test_percent_of_p99_ignores_the_unit_and_puts_the_p99_at_100(rows: list[list[float]], unit: float) -> None:
    values = np.array(rows)
    percent = percent_of_p99(values, None)
    np.testing.assert_allclose(percent, percent_of_p99(values * unit, None), rtol=1e-9)
    np.testing.assert_allclose(p99(percent, None), 100.0, rtol=1e-9)


def test_percent_of_p99_uses_the_baseline_only_and_gives_nan_where_it_is_useless() -> None:
    nan = np.nan
    values = np.array([[2.0, 2.0, 8.0], [0.0, 0.0, 5.0], [nan, nan, 1.0], [4.0, nan, 2.0]])
    expected = [[100, 100, 400], [nan] * 3, [nan] * 3, [100, nan, 50]]
    np.testing.assert_array_equal(percent_of_p99(values, slice(0, 2)), expected)


@needs_milan
def test_the_milan_files_have_211_complete_cells_of_281() -> None:
    data = milan.read_milan(MILAN)
    assert (len(data.ids), data.dropped, data.counts.shape) == (211, 70, (211, 1488))
    assert data.ids[:4] == ("1", "10", "100", "1000")
    assert not np.isnan(data.percent).any()
