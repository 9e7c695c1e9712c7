"""Behaviour of the features: the agent's form, the training form and the imputation rule."""

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.load_features import (
    FEATURES,
    HISTORY_HOURS,
    LAGS,
    feature_unit,
    load_feature_matrix,
    load_features,
)


def features_of(history: dict[int, float], hour: int) -> np.ndarray:
    """The features of a history given by hour."""
    return load_features(np.array([history.get(hour - age, np.nan) for age in range(HISTORY_HOURS)]), hour)


HOUR = 384_500
LOADS = st.floats(0.0, 150.0)


def named(history: dict[int, float], hour: int = HOUR) -> dict[str, float]:
    return dict(zip(FEATURES, features_of(history, hour).tolist(), strict=True))


def whole_history() -> dict[int, float]:
    return {HOUR - age: float(age + 1) for age in range(HISTORY_HOURS)}


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_the_agents_form_and_the_training_form_give_the_same_numbers(data: st.DataObject) -> None:
    hours = data.draw(st.integers(1, 260))
    gaps = data.draw(st.floats(0.0, 0.9))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.uniform(0.0, 150.0, (2, hours))
    values[rng.random(values.shape) < gaps] = np.nan
    known = rng.integers(1, HISTORY_HOURS + 1, values.shape)
    matrix = load_feature_matrix(values, HOUR, known)
    for cell, at in {(0, 0), (0, hours - 1), (1, hours // 2), (1, hours - 1)}:
        history = {HOUR + k: values[cell, k] for k in range(max(0, at - known[cell, at] + 1), at + 1)}
        if np.isnan(values[cell, at]):
            assert np.isnan(matrix[cell, at]).all()
        else:
            np.testing.assert_allclose(matrix[cell, at], features_of(history, HOUR + at), rtol=1e-6)


def test_there_is_one_number_per_name_and_a_unit_for_each() -> None:
    features = features_of(whole_history(), HOUR)
    assert features.shape == (len(FEATURES),)
    assert features.dtype == np.float32
    assert len(set(FEATURES)) == len(FEATURES)
    assert feature_unit("load_lag_1") == "percent"
    assert feature_unit("hour_sin_1") == feature_unit("history_share_24") == "1"


def test_lags_count_from_the_forecast_hour() -> None:
    features = named(whole_history())
    assert [features[f"load_lag_{lag}"] for lag in LAGS] == [float(lag) for lag in LAGS]
    assert features["load_mean_24"] == 12.5
    assert features["load_change_24"] == 1.0
    assert features["history_share_24"] == features["history_share_192"] == 1.0


@given(LOADS)
def test_one_observation_is_enough_and_stands_for_every_lag(load: float) -> None:
    features = named({HOUR: load})
    expected = float(np.float32(load))
    assert {features[f"load_lag_{lag}"] for lag in LAGS} == {expected}
    assert features["load_mean_24"] == features["load_same_hour_mean"] == expected
    assert features["load_change_24"] == 0.0
    assert features["history_share_192"] == pytest.approx(1 / HISTORY_HOURS)


def test_a_missing_week_is_taken_from_a_nearer_day_and_a_missing_day_from_now() -> None:
    history = {HOUR: 10.0, HOUR + 1 - 24: 20.0, HOUR + 1 - 72: 30.0}
    features = named(history)
    assert features["load_lag_168"] == features["load_lag_72"] == 30.0
    assert features["load_lag_48"] == features["load_lag_24"] == 20.0
    assert features["load_lag_167"] == features["load_lag_23"] == features["load_lag_2"] == 10.0


@given(st.dictionaries(st.integers(-500, 500), LOADS, max_size=20))
def test_later_and_too_old_hours_are_ignored(others: dict[int, float]) -> None:
    history = whole_history()
    outside = {HOUR + k: v for k, v in others.items() if k > 0 or k <= -HISTORY_HOURS}
    expected = features_of(history, HOUR)
    np.testing.assert_array_equal(features_of({**history, **outside}, HOUR), expected)


@given(st.dictionaries(st.integers(1, HISTORY_HOURS - 1), LOADS), LOADS)
def test_features_are_finite_and_loads_stay_within_the_seen_range(ages: dict[int, float], newest: float) -> None:
    history = {HOUR: newest, **{HOUR - age: load for age, load in ages.items()}}
    features = named(history)
    assert all(np.isfinite(figure) for figure in features.values())
    low, high = min(history.values()) - 1e-4, max(history.values()) + 1e-4
    assert all(low <= features[f"load_lag_{lag}"] <= high for lag in LAGS)
    assert low <= features["load_mean_192"] <= high


@pytest.mark.parametrize("gap", [float("nan"), float("inf")])
def test_a_load_that_is_not_finite_counts_as_missing(gap: float) -> None:
    history = {HOUR: 10.0, HOUR - 1: 20.0}
    assert named({**history, HOUR - 2: gap}) == named(history)


@pytest.mark.parametrize("history", [{}, {HOUR - 1: 5.0}, {HOUR: float("nan")}])
def test_a_missing_newest_load_is_refused(history: dict[int, float]) -> None:
    with pytest.raises(ValueError, match=f"no finite load for hour {HOUR}"):
        features_of(history, HOUR)


def test_the_calendar_is_that_of_the_forecast_hour_in_local_time() -> None:
    monday = int(datetime.fromisoformat("2013-11-04T00:00:00+01:00").timestamp()) // 3600
    before, at = named({monday - 1: 1.0}, monday - 1), named({monday: 1.0}, monday)
    assert before["weekday_monday"] == at["weekday_monday"] == 1.0
    assert before["hour_sin_1"] == 0.0
    assert before["hour_cos_1"] == 1.0
    assert named({monday - 2: 1.0}, monday - 2)["weekday_sunday"] == 1.0
    assert at["hour_sin_1"] == pytest.approx(np.sin(2 * np.pi / 24))
