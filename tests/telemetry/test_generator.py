"""Behaviour of the seeded load generator and of the committed city profile."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.training import load_profile, milan
from mesh.telemetry.generator import HOURS_OF_WEEK, Generator, Profile

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "topologies" / "profiles" / "city-load.json"
MILAN = ROOT.parent / "shared" / "data" / "milan-hourly"

needs_milan = pytest.mark.skipif(not MILAN.exists(), reason="the Milan hourly data is not here")

TOLERANCES = {
    "mean": 2.0,
    "coefficient_of_variation": 0.03,
    "lag_1_autocorrelation": 0.04,
    "lag_24_autocorrelation": 0.07,
    "noise_sigma": 0.01,
    "noise_lag_1_autocorrelation": 0.05,
    "neighbour_noise_correlation": 0.03,
}

STEPS = st.integers(min_value=-200_000, max_value=1_000_000)
IDS = st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8, unique=True)


def mapping(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "test",
        "source": {"data": "made for the test"},
        "shapes": [{"weight": 1.0, "mean": [float(h) for h in range(HOURS_OF_WEEK)]}],
        "level_sigma": 0.1,
        "noise_sigma": 0.2,
        "noise_memory": 0.8,
        "quick_share": 0.5,
        "common_share": 0.1,
        "neighbour_share": 0.6,
    }
    return {**plain, **changes}


def flat(**changes: Any) -> Profile:
    shape = {"weight": 1.0, "mean": [50.0] * HOURS_OF_WEEK}
    return Profile.from_mapping(mapping(shapes=[shape], level_sigma=0.0, **changes))


def city() -> Profile:
    return Profile.from_mapping(json.loads(PROFILE.read_text(encoding="utf-8")))


def in_fours(count: int) -> dict[str, str]:
    return {f"cell-{k}": f"area-{k // 4}" for k in range(count)}


def same_area(near: dict[str, str]) -> np.ndarray:
    areas = np.array(list(near.values()))
    return np.asarray(areas[:, None] == areas[None, :])


@given(IDS, STEPS, st.integers(0, 2**40))
@settings(max_examples=30, deadline=None)
def test_a_restarted_generator_goes_on_with_the_same_values(ids: list[str], step: int, seed: int) -> None:
    running = Generator(Profile.from_mapping(mapping(burst_rate_per_day=4.0)), ids, seed)
    earlier = running.series(step - 3, 3)
    restarted = Generator(Profile.from_mapping(mapping(burst_rate_per_day=4.0)), ids, seed)
    assert np.array_equal(running.values(step), restarted.values(step))
    assert np.array_equal(earlier[:, 1], restarted.values(step - 2))


@given(IDS, STEPS)
@settings(max_examples=30, deadline=None)
def test_an_ids_values_do_not_depend_on_the_other_ids(ids: list[str], step: int) -> None:
    profile = Profile.from_mapping(mapping(burst_rate_per_day=6.0, burst_height=1.0, burst_hours=3))
    near = {ids[0]: "here", ids[-1]: "here"}
    together = Generator(profile, ids, 7, near).values(step)
    apart = [Generator(profile, [one], 7, near).values(step)[0] for one in reversed(ids)]
    np.testing.assert_allclose(together[::-1], apart, rtol=1e-12)


def test_another_seed_gives_other_values() -> None:
    profile = Profile.from_mapping(mapping())
    first, second = (Generator(profile, ["a", "b"], seed).values(400_000) for seed in (1, 2))
    assert not np.any(first == second)


def test_without_noise_the_load_is_the_shape_of_the_local_week() -> None:
    quiet = Profile.from_mapping(mapping(level_sigma=0.0, noise_sigma=0.0, utc_offset_hours=1))
    monday = int(datetime.fromisoformat("2013-11-04T00:00:00+01:00").timestamp()) // 3600
    week = Generator(quiet, ["a"], 1).series(monday, HOURS_OF_WEEK)[0]
    np.testing.assert_allclose(week, np.arange(HOURS_OF_WEEK))


def test_loads_are_finite_and_never_negative() -> None:
    loads = Generator(city(), [f"c{k}" for k in range(100)], 3).series(0, 200)
    assert np.isfinite(loads).all()
    assert (loads >= 0.0).all()


def test_noise_has_the_stated_deviation_memory_and_mean() -> None:
    profile = flat(common_share=0.0, neighbour_share=0.0)
    loads = Generator(profile, [f"c{k}" for k in range(60)], 5).series(1000, 1500)
    noise = np.log(loads / 50.0)
    assert noise.std() == pytest.approx(0.2, abs=0.01)
    assert loads.mean() == pytest.approx(50.0, rel=0.02)
    for lag in (1, 3, 6):
        expected = 0.5 * 0.8**lag
        assert load_profile.autocorrelation(noise, lag) == pytest.approx(expected, abs=0.03)


def test_neighbours_share_more_noise_than_strangers() -> None:
    near = in_fours(40)
    loads = Generator(flat(), list(near), 5, near).series(1000, 1500)
    correlation = np.corrcoef(np.log(loads))
    inside = same_area(near) & ~np.eye(len(near), dtype=bool)
    assert np.median(correlation[inside]) == pytest.approx(0.7, abs=0.05)
    assert np.median(correlation[~same_area(near)]) == pytest.approx(0.1, abs=0.05)


def test_ids_without_a_neighbourhood_share_only_the_common_noise() -> None:
    loads = Generator(flat(), [f"c{k}" for k in range(40)], 5).series(1000, 1500)
    correlation = np.corrcoef(np.log(loads))
    assert np.median(correlation[~np.eye(40, dtype=bool)]) == pytest.approx(0.1, abs=0.05)


def test_neighbours_have_the_same_shape_and_shapes_come_by_weight() -> None:
    shapes = [{"weight": w, "mean": [m] * HOURS_OF_WEEK} for w, m in ((3.0, 10.0), (1.0, 90.0))]
    profile = Profile.from_mapping(mapping(shapes=shapes, level_sigma=0.0, noise_sigma=0.0))
    near = in_fours(4000)
    loads = Generator(profile, list(near), 1, near).values(0).reshape(-1, 4)
    assert (loads == loads[:, :1]).all()
    assert np.mean(loads == 10.0) == pytest.approx(0.75, abs=0.05)


def test_bursts_come_at_the_stated_rate_and_fade() -> None:
    profile = flat(noise_sigma=0.0, burst_rate_per_day=0.5, burst_height=2.0, burst_hours=4)
    extra = Generator(profile, [f"c{k}" for k in range(200)], 5).series(0, 480) / 50.0 - 1.0
    assert extra.mean() == pytest.approx(0.5 / 24.0 * 2.0 * (1 + 0.75 + 0.5 + 0.25), rel=0.1)
    assert extra.max() > 1.5


def test_ids_of_a_generator_must_differ() -> None:
    with pytest.raises(ValueError, match="must differ"):
        Generator(flat(), ["a", "a"], 1)


WEEK = [1.0] * HOURS_OF_WEEK
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"noise_sigma": -0.1}, "'noise_sigma' must be a number from 0 to 2"),
    ({"noise_memory": 1.0}, "'noise_memory' must be a number from 0 to 0.99"),
    ({"level_sigma": "big"}, "'level_sigma' must be a number"),
    ({"level_sigma": float("nan")}, "'level_sigma' must be a number"),
    ({"quick_share": True}, "'quick_share' must be a number"),
    ({"common_share": 0.6}, "must not exceed 1 together"),
    ({"burst_hours": 1.5}, "'burst_hours' must be a whole number"),
    ({"name": ""}, "'name' must be a text"),
    ({"source": {"data": 1}}, "'source' must map names to texts"),
    ({"statistics": {"mean": "high"}}, "'statistics' must map names to numbers"),
    ({"colour": "red"}, "'colour' is not a field"),
    ({"shapes": []}, "at least one shape"),
    ({"shapes": [{"weight": 1.0}]}, "shape 0 must have 'weight' and 'mean'"),
    ({"shapes": [{"weight": 0.0, "mean": WEEK}]}, "weight of shape 0"),
    ({"shapes": [{"weight": 1.0, "mean": WEEK[1:]}]}, "must have 168 figures"),
    ({"shapes": [{"weight": 1.0, "mean": [*WEEK[1:], None]}]}, "must hold numbers"),
]


@pytest.mark.parametrize(("changes", "sentence"), WRONG)
def test_a_wrong_profile_says_what_is_wrong(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=r"the load profile is not valid") as caught:
        Profile.from_mapping(mapping(**changes))
    assert sentence in str(caught.value)


def test_a_wrong_profile_names_every_mistake_at_once() -> None:
    wrong = mapping(noise_sigma=-1.0, colour="red")
    del wrong["name"]
    with pytest.raises(ValueError, match=r"'colour'.*'name' is missing.*'noise_sigma'"):
        Profile.from_mapping(wrong)


def test_the_committed_profile_states_source_period_citation_and_licence() -> None:
    source = city().source
    assert {"data", "origin", "period", "citation", "licence", "notice"} <= set(source)
    assert "2013-12-12" in source["period"]
    assert PROFILE.stat().st_size < 8_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_generated_load_agrees_with_the_figures_of_the_profile(seed: int) -> None:
    profile, near = city(), in_fours(160)
    loads = Generator(profile, list(near), seed, near).series(milan.FIRST_HOUR, 6 * HOURS_OF_WEEK)
    figures = load_profile.statistics(loads, milan.FIRST_HOUR, same_area(near))
    assert set(figures) == set(TOLERANCES) == set(profile.statistics)
    for name, tolerance in TOLERANCES.items():
        assert figures[name] == pytest.approx(profile.statistics[name], abs=tolerance), name
    week = load_profile.mean_weeks(loads, milan.FIRST_HOUR).mean(axis=0)
    stated = sum(shape.weight * np.array(shape.mean) for shape in profile.shapes)
    assert np.corrcoef(week, stated)[0, 1] > 0.99
    assert np.percentile(loads, 99.0, axis=1).mean() == pytest.approx(100.0, abs=6.0)


@needs_milan
def test_the_committed_profile_is_what_the_data_give() -> None:
    made = load_profile.calibrated(milan.read_milan(MILAN))
    assert Profile.from_mapping(made) == city()


@needs_milan
def test_generated_load_agrees_with_the_milan_data() -> None:
    data = milan.read_milan(MILAN)
    percent = data.percent[:, : milan.column(milan.TEST_START)]
    measured = load_profile.statistics(percent, milan.FIRST_HOUR, load_profile.distances(data.ids) == 1)
    near = in_fours(160)
    loads = Generator(city(), list(near), 11, near).series(milan.FIRST_HOUR, percent.shape[1])
    figures = load_profile.statistics(loads, milan.FIRST_HOUR, same_area(near))
    for name, tolerance in TOLERANCES.items():
        assert figures[name] == pytest.approx(measured[name], abs=tolerance), name
    weeks = [load_profile.mean_weeks(x, milan.FIRST_HOUR).mean(axis=0) for x in (loads, percent)]
    assert np.corrcoef(*weeks)[0, 1] > 0.99
