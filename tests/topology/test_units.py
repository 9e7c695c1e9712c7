"""Durations, sizes and bandwidths: what is written is read, and what is formatted is read back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import UnitError
from mesh.units import format_duration, format_rate, format_size, parse_duration, parse_rate, parse_size

EXACT_IN_A_FLOAT = 2**53
amounts = st.decimals(min_value=0, max_value=10**6, places=3).map(lambda number: f"{number:f}")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("18ms", 0.018), ("2s", 2.0), ("1.5h", 5400.0), ("3 us", 3e-6), ("3µs", 3e-6), (" 1d", 86400.0), ("0s", 0.0)],
)
def test_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("300MiB", 300 * 2**20), ("4GB", 4 * 10**9), ("1.5kB", 1500), ("0B", 0)])
def test_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "rate"), [("1Gbit", 1e9), ("2.5Mbit", 2.5e6), ("9bit", 9.0)])
def test_rate_is_read(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "5", 5, None, "-1s", "1 s s", "1e3s", "ms", "1.s", ".5s", "5S", "nans", "9" * 400 + "s"]
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(UnitError, match="is no duration; write a number and a unit, such as 250ms, 2s or 1h"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["4gb", "4", "4Gbit", "9" * 400 + "TiB", True])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(UnitError, match="is no size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["1GB", "1Gb", "1 Tbit"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="is no bandwidth"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.018, "18ms"), (2.0, "2s"), (5400.0, "1.5h"), (0.0, "0us"), (86400e13, "1" + "0" * 13 + "d")],
)
def test_duration_is_formatted(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_tiny_duration_is_formatted_without_exponent() -> None:
    assert parse_duration(format_duration(1e-12)) == 1e-12


@pytest.mark.parametrize(("size", "text"), [(300 * 2**20, "300MiB"), (1536, "1536B"), (3 * 2**10, "3KiB"), (0, "0B")])
def test_size_is_formatted(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(("rate", "text"), [(1e12, "1000Gbit"), (2.5e6, "2.5Mbit"), (0.0, "0bit"), (1.0, "1bit")])
def test_rate_is_formatted(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@given(amounts, st.sampled_from(["us", "µs", "ms", "s", "m", "h", "d"]))
def test_duration_round_trips(amount: str, unit: str) -> None:
    seconds = parse_duration(amount + unit)
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=1e-11, abs=1e-12)


@given(st.integers(0, EXACT_IN_A_FLOAT))
def test_size_round_trips(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(amounts, st.sampled_from(["bit", "kbit", "Mbit", "Gbit"]))
def test_rate_round_trips(amount: str, unit: str) -> None:
    rate = parse_rate(amount + unit)
    assert parse_rate(format_rate(rate)) == pytest.approx(rate, rel=1e-11, abs=1e-12)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for parse in (parse_duration, parse_size, parse_rate):
        with suppress(UnitError):
            assert parse(text) >= 0
