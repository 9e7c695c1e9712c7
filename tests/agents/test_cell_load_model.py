"""Behaviour of the committed load model and of the script that trains it."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.load_features import FEATURES, HISTORY_HOURS, load_features
from agents.training import cell_load, milan
from agents.training.perceptron import Perceptron, Settings, average, train
from mesh.telemetry.generator import Generator, Profile


def features_of(history: dict[int, float], hour: int) -> np.ndarray:
    """The features of a history given by hour."""
    return load_features(np.array([history.get(hour - age, np.nan) for age in range(HISTORY_HOURS)]), hour)


ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "agents" / "models" / "cell-load.onnx"
PROFILE = ROOT / "topologies" / "profiles" / "city-load.json"
MILAN = ROOT.parent / "shared" / "data" / "milan-hourly"
TEST_WEEK = slice(milan.column(milan.TEST_START), milan.column(milan.TEST_STOP))

needs_milan = pytest.mark.skipif(not MILAN.exists(), reason="the Milan hourly data is not here")

QUICK = Settings(members=1, hidden=4, epochs=2, batch=512, rate=1e-2)


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    return ort.InferenceSession(MODEL.read_bytes(), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def made() -> milan.Milan:
    """A small data set in the place of Milan: generated counts up to the end of the test week."""
    profile = Profile.from_mapping(json.loads(PROFILE.read_text(encoding="utf-8")))
    ids = tuple(str(k) for k in range(1, 9))
    loads = Generator(profile, ids, 1).series(milan.FIRST_HOUR, TEST_WEEK.stop)
    counts = np.round(loads * 0.5)
    scale = np.percentile(counts[:, : TEST_WEEK.start], 99.0, axis=1)
    return milan.Milan(ids, counts, 100.0 * counts / scale[:, None], scale, 0)


def forecast(session: ort.InferenceSession, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    value, spread = session.run(["value", "spread"], {"features": x})
    return np.asarray(value), np.asarray(spread)


def test_the_model_is_small_valid_and_self_contained() -> None:
    assert MODEL.stat().st_size < 200_000
    proto = onnx.load_from_string(MODEL.read_bytes())
    onnx.checker.check_model(proto, full_check=True)
    assert [(s.domain, s.version) for s in proto.opset_import] == [("", cell_load.OPSET)]


def test_the_model_takes_features_and_gives_value_and_spread(
    session: ort.InferenceSession,
) -> None:
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1]) == ("features", "tensor(float)", len(FEATURES))
    assert [(out.name, out.shape[1]) for out in session.get_outputs()] == [
        ("value", 1),
        ("spread", 1),
    ]
    for rows in (1, 3):
        value, spread = forecast(session, np.zeros((rows, len(FEATURES)), dtype=np.float32))
        assert value.shape == spread.shape == (rows, 1)
        assert value.dtype == spread.dtype == np.float32


def test_the_metadata_is_complete(session: ort.InferenceSession) -> None:
    text = session.get_modelmeta().custom_metadata_map
    assert text["mesh.version"] == cell_load.VERSION
    assert text["mesh.trained_by"] == "agents/training/cell_load.py"
    assert int(text["mesh.seed"]) == Settings().seed
    assert [f["name"] for f in json.loads(text["mesh.features"])] == list(FEATURES)
    assert all(set(f) == {"name", "unit"} for f in json.loads(text["mesh.features"]))
    assert json.loads(text["mesh.outputs"]) == [
        {"name": "value", "unit": "percent"},
        {"name": "spread", "unit": "percent"},
    ]
    assert json.loads(text["mesh.confidence"]) == {
        "kind": "interval",
        "value": "value",
        "spread": "spread",
        "tolerance": 10.0,
        "unit": "percent",
    }
    data, licence = (json.loads(text[f"mesh.{key}"]) for key in ("training_data", "licence"))
    assert {"name", "origin", "citation", "period"} <= set(data)
    assert "2013-12-12" in data["period"]
    assert "Open Database License 1.0" in licence["data"]
    assert licence["model"] == "Apache-2.0"


def test_the_stated_scores_are_good_enough(session: ort.InferenceSession) -> None:
    metrics = json.loads(session.get_modelmeta().custom_metadata_map["mesh.metrics"])
    assert metrics["rmse_over_mean"] <= 0.176
    assert metrics["persistence"] == pytest.approx(0.239, abs=5e-4)
    assert metrics["same_hour_last_week"] == pytest.approx(0.240, abs=5e-4)
    assert metrics["rmse_over_mean_3h_history"] < metrics["persistence"]
    assert metrics["validation"]["within_one_spread"] == pytest.approx(0.683, abs=0.05)


def test_the_model_forecasts_from_the_first_observation(session: ort.InferenceSession) -> None:
    value, spread = forecast(session, features_of({384_500: 55.0}, 384_500)[None, :])
    assert 20.0 < value[0, 0] < 110.0
    assert 1.0 < spread[0, 0] < 40.0


@given(
    st.dictionaries(st.integers(1, HISTORY_HOURS - 1), st.floats(0.0, 300.0)),
    st.floats(0.0, 300.0),
    st.integers(300_000, 500_000),
)
@settings(max_examples=50, deadline=None)
def test_any_history_gives_a_finite_load_and_a_positive_spread(
    session: ort.InferenceSession, ages: dict[int, float], newest: float, hour: int
) -> None:
    history = {hour: newest, **{hour - age: load for age, load in ages.items()}}
    value, spread = forecast(session, features_of(history, hour)[None, :])
    low, high = cell_load.SPREAD_LIMITS
    assert 0.0 <= value[0, 0] < 1000.0
    assert low * 0.999 <= spread[0, 0] <= high * 1.001


def test_training_twice_gives_the_same_bytes(made: milan.Milan) -> None:
    first, metrics = cell_load.build(made, QUICK)
    second, _ = cell_load.build(made, QUICK)
    assert first == second
    assert metrics["rmse_over_mean"] < metrics["persistence"]
    assert 0.5 < metrics["within_one_spread"] < 0.85


def test_nothing_after_the_test_begins_is_trained_on(made: milan.Milan) -> None:
    changed = made.counts.copy()
    changed[:, TEST_WEEK] = 1.0
    other = milan.Milan(made.ids, changed, 100.0 * changed / made.p99[:, None], made.p99, 0)
    weights = []
    for data in (made, other):
        proto = onnx.load_from_string(cell_load.build(data, QUICK)[0])
        weights.append([tensor.raw_data for tensor in proto.graph.initializer])
    assert weights[0] == weights[1]


def test_the_graph_computes_what_the_heads_compute() -> None:
    rng = np.random.default_rng(1)
    size = len(FEATURES)

    def head(hidden: int) -> Perceptron:
        shapes = ((size, hidden), (hidden,), (hidden,), (size,), (1,))
        return Perceptron(*(rng.normal(0.0, 0.2, s).astype(np.float32) for s in shapes))

    mean, inverse = (rng.uniform(0.5, 2.0, size).astype(np.float32) for _ in range(2))
    model = cell_load.Model(mean, inverse, head(3), head(5))
    x = rng.normal(0.0, 1.0, (4, 6, size)).astype(np.float32)
    proto = cell_load.onnx_model(model, {}).SerializeToString()
    value, spread = cell_load.forecasts(proto, x)
    ready = (x - mean) * inverse
    np.testing.assert_allclose(value, np.maximum(model.value(ready), 0.0), rtol=1e-4, atol=1e-4)
    limits = np.log(cell_load.SPREAD_LIMITS)
    np.testing.assert_allclose(spread, np.exp(np.clip(model.spread(ready), *limits)), rtol=1e-4, atol=1e-4)


def test_a_perceptron_learns_and_the_average_is_the_mean_of_the_members() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(0.0, 1.0, (4000, 3)).astype(np.float32)
    y = (x[:, 0] - 0.5 * x[:, 1] + np.tanh(2.0 * x[:, 2])).astype(np.float32)
    quick = Settings(members=2, hidden=8, epochs=30, batch=128, rate=1e-2)
    net = train(x, lambda out, rows: np.float32(2.0) * (out - y[rows]), quick)
    assert np.sqrt(np.mean((net(x) - y) ** 2)) < 0.05
    one, two = net.scaled(2.0), net
    np.testing.assert_allclose(average([one, two])(x), 1.5 * net(x), rtol=1e-3, atol=1e-4)


def test_the_score_is_the_pooled_error_over_the_mean() -> None:
    actual = np.array([[1.0, 3.0], [2.0, 2.0]])
    assert cell_load.rmse_over_mean(actual + 1.0, actual) == pytest.approx(0.5)


@needs_milan
def test_the_committed_model_has_its_stated_scores_on_the_held_out_week(
    session: ort.InferenceSession,
) -> None:
    scores = cell_load.scores(MODEL.read_bytes(), milan.read_milan(MILAN), TEST_WEEK)
    assert scores["rmse_over_mean"] <= 0.176
    assert scores["persistence"] == pytest.approx(0.239, abs=5e-4)
    assert scores["same_hour_last_week"] == pytest.approx(0.240, abs=5e-4)
    assert scores["within_one_spread"] == pytest.approx(0.683, abs=0.05)
    stated = json.loads(session.get_modelmeta().custom_metadata_map["mesh.metrics"])
    for name, score in scores.items():
        assert score == pytest.approx(stated[name], abs=5e-4), name
