"""Train the cell load model: `python -m agents.training.cell_load --data FOLDER --out FILE`.

The model forecasts a cell's load one hour ahead from its own history, with the spread of the error
to expect. Everything is fitted before TEST_START; the week from there is scored once, with the
written model. Two runs on one machine write the same bytes. Value head: weighted squared error,
half of the rows with the history cut to a random length. Spread head: Gaussian likelihood of the
residuals of weeks that the value head has not seen (leave one week out).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from agents.load_features import FEATURES, HISTORY_HOURS, feature_unit, load_feature_matrix
from agents.training import milan
from agents.training.perceptron import Array, Perceptron, Settings, train

FloatArray = npt.NDArray[np.float64]

VERSION = "1.0.0"
OPSET = 17
IR_VERSION = 8
SCALE = 25.0
"""Percent per unit of the value head while it is trained."""
SPREAD_LIMITS = (0.5, 100.0)
"""Smallest and largest spread the model states, in percent."""
TOLERANCE = 10.0
SHORT_HISTORIES = (30, 3, 1)


@dataclass(frozen=True)
class Samples:
    """Training rows: x [rows, features], y in percent, weight, and `column`, the forecast hour."""

    x: Array
    y: Array
    weight: Array
    column: npt.NDArray[np.intp]

    def only(self, rows: npt.NDArray[np.bool_]) -> "Samples":
        """The rows selected by the mask."""
        return Samples(self.x[rows], self.y[rows], self.weight[rows], self.column[rows])


@dataclass(frozen=True)
class Model:
    """Standardisation of the features and the two heads (spread: log of percent)."""

    mean: Array
    inverse: Array
    value: Perceptron
    spread: Perceptron


def samples_of(percent: FloatArray, p99: FloatArray, first_hour: int, seed: int) -> Samples:
    """Two rows per cell and forecast hour: whole history, and history cut to a random length.

    `percent` is [cells, hours], `p99` [cells] in counts: errors weigh as they do in counts. The
    length is log-uniform from 1 h to HISTORY_HOURS.
    """
    cells, hours = percent.shape
    rng = np.random.default_rng(seed)
    kept = np.exp(rng.uniform(0.0, np.log(HISTORY_HOURS + 1), (cells, hours))).astype(np.int64)
    parts = [load_feature_matrix(percent, first_hour, known)[:, :-1] for known in (None, kept)]
    weight = np.repeat(p99**2 / np.mean(p99**2), hours - 1)
    columns = np.tile(np.arange(1, hours), cells)
    return Samples(
        np.concatenate([part.reshape(-1, len(FEATURES)) for part in parts]),
        np.tile(percent[:, 1:].ravel(), 2).astype(np.float32),
        np.tile(weight, 2).astype(np.float32),
        np.tile(columns, 2),
    )


def fit(samples: Samples, settings: Settings) -> Model:
    """Fit both heads; the spread head learns from residuals of weeks left out one by one."""
    mean = samples.x.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = samples.x.std(axis=0, dtype=np.float64) + 1e-3
    inverse = (1.0 / deviation).astype(np.float32)
    ready = Samples((samples.x - mean) * inverse, samples.y, samples.weight, samples.column)
    week = ready.column // milan.WEEK_HOURS
    residual = np.empty_like(ready.y)
    for one in np.unique(week):
        out = week == one
        residual[out] = ready.y[out] - _value_head(ready.only(~out), settings)(ready.x[out])
    return Model(mean, inverse, _value_head(ready, settings), _spread_head(ready.x, residual, settings))


def _value_head(samples: Samples, settings: Settings) -> Perceptron:
    y, weight = samples.y / np.float32(SCALE), samples.weight

    def gradient(out: Array, rows: npt.NDArray[np.intp]) -> Array:
        slope: Array = np.float32(2.0) * weight[rows] * (out - y[rows])
        return slope

    return train(samples.x, gradient, settings, float(y.mean())).scaled(SCALE)


def _spread_head(x: Array, residual: Array, settings: Settings) -> Perceptron:
    square = residual.astype(np.float32) ** 2

    def gradient(out: Array, rows: npt.NDArray[np.intp]) -> Array:
        ratio = square[rows] * np.exp(np.float32(-2.0) * out)
        slope: Array = np.float32(1.0) - np.minimum(ratio, np.float32(100.0))
        return slope

    return train(x, gradient, settings, float(np.log(np.sqrt(square.mean()))))


def onnx_model(model: Model, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The model as one graph: `features` [batch, n] -> `value` and `spread`, each [batch, 1]."""
    value, spread = model.value, model.spread
    rest = np.zeros_like
    tensors = {
        "mean": model.mean,
        "inverse": model.inverse,
        "hidden_weight": np.concatenate([value.w1, spread.w1], axis=1),
        "hidden_bias": np.concatenate([value.b1, spread.b1]),
        "value_weight": np.concatenate([value.w2, rest(spread.w2), value.skip])[:, None],
        "value_bias": value.b2,
        "spread_weight": np.concatenate([rest(value.w2), spread.w2, spread.skip])[:, None],
        "spread_bias": spread.b2,
        "low": np.log(np.float32(SPREAD_LIMITS[0])).reshape(()),
        "high": np.log(np.float32(SPREAD_LIMITS[1])).reshape(()),
    }
    nodes = [
        helper.make_node("Sub", ["features", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "inverse"], ["standard"]),
        helper.make_node("Gemm", ["standard", "hidden_weight", "hidden_bias"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["hidden"]),
        helper.make_node("Concat", ["hidden", "standard"], ["both"], axis=1),
        helper.make_node("Gemm", ["both", "value_weight", "value_bias"], ["any_value"]),
        helper.make_node("Relu", ["any_value"], ["value"]),
        helper.make_node("Gemm", ["both", "spread_weight", "spread_bias"], ["any_log"]),
        helper.make_node("Clip", ["any_log", "low", "high"], ["log_spread"]),
        helper.make_node("Exp", ["log_spread"], ["spread"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cell-load",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", len(FEATURES)])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("value", "spread")],
        [numpy_helper.from_array(np.ascontiguousarray(t), n) for n, t in tensors.items()],
    )
    proto = helper.make_model(
        graph,
        producer_name="mesh",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(proto, dict(sorted(metadata.items())))
    onnx.checker.check_model(proto)
    return proto


def forecasts(proto: bytes, x: Array) -> tuple[FloatArray, FloatArray]:
    """(value, spread) in percent, each [cells, hours], by the model for x [cells, hours, n]."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    outputs = session.run(["value", "spread"], {"features": x.reshape(-1, x.shape[-1])})
    value, spread = (np.asarray(o, dtype=np.float64).reshape(x.shape[:2]) for o in outputs)
    return value, spread


def rmse_over_mean(forecast: FloatArray, actual: FloatArray) -> float:
    """Pooled root mean square error over the mean of `actual`; both [cells, hours] in counts."""
    return float(np.sqrt(np.mean((forecast - actual) ** 2)) / np.mean(actual))


def scores(proto: bytes, data: milan.Milan, span: slice) -> dict[str, float]:
    """Scores of the serialised model on the columns `span` of the data, one hour ahead, in counts.

    Besides the model's: those of the naive forecasts, of short histories, and the shares of errors
    within one and two spreads.
    """
    actual, scale = data.counts[:, span], data.p99[:, None] / 100.0
    hours = data.counts.shape[1]
    result = {
        "persistence": rmse_over_mean(data.counts[:, span.start - 1 : span.stop - 1], actual),
        "same_hour_last_week": rmse_over_mean(
            data.counts[:, span.start - milan.WEEK_HOURS : span.stop - milan.WEEK_HOURS], actual
        ),
    }
    for kept in (HISTORY_HOURS, *SHORT_HISTORIES):
        known = np.full((len(data.ids), hours), kept)
        x = load_feature_matrix(data.percent, milan.FIRST_HOUR, known)
        value, spread = forecasts(proto, x[:, span.start - 1 : span.stop - 1])
        tail = "" if kept == HISTORY_HOURS else f"_{kept}h_history"
        result[f"rmse_over_mean{tail}"] = rmse_over_mean(value * scale, actual)
        error = np.abs(value - data.percent[:, span])
        result[f"within_one_spread{tail}"] = float(np.mean(error <= spread))
        if not tail:
            result["within_two_spreads"] = float(np.mean(error <= 2.0 * spread))
            result["mean_spread"] = float(np.mean(spread))
    return {name: round(figure, 4) for name, figure in result.items()}


def metadata_of(metrics: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """The model's metadata: every value a string, JSON where it has a structure."""
    inputs = [{"name": name, "unit": feature_unit(name)} for name in FEATURES]
    outputs = [{"name": name, "unit": "percent"} for name in ("value", "spread")]
    confidence = {"kind": "interval", "value": "value", "spread": "spread"}
    data = {
        "name": milan.DATA_NAME,
        "origin": milan.ORIGIN,
        "citation": milan.CITATION,
        "period": milan.TRAINING_PERIOD,
    }
    licence = {"model": "Apache-2.0", "data": milan.DATA_LICENCE, "notice": milan.NOTICE}
    structured = {
        "mesh.features": inputs,
        "mesh.outputs": outputs,
        "mesh.confidence": {**confidence, "tolerance": TOLERANCE, "unit": "percent"},
        "mesh.training_data": data,
        "mesh.licence": licence,
        "mesh.metrics": metrics,
        "mesh.settings": asdict(settings),
    }
    plain = {
        "mesh.version": VERSION,
        "mesh.trained_by": "agents/training/cell_load.py",
        "mesh.seed": str(settings.seed),
    }
    return {**plain, **{key: json.dumps(value) for key, value in structured.items()}}


def build(data: milan.Milan, settings: Settings) -> tuple[bytes, dict[str, Any]]:
    """Train, validate and score: (the serialised model with metadata, its metrics)."""
    test = slice(milan.column(milan.TEST_START), milan.column(milan.TEST_STOP))
    check = slice(test.start - milan.WEEK_HOURS, test.start)
    percent = data.percent[:, : test.start]
    samples = samples_of(percent, data.p99, milan.FIRST_HOUR, settings.seed)
    trial = fit(samples.only(samples.column < check.start), settings)
    validation = scores(onnx_model(trial, {}).SerializeToString(), data, check)
    model = fit(samples, settings)
    metrics: dict[str, Any] = {
        "definition": "pooled RMSE in counts over the mean count, one hour ahead, all cells",
        "normalisation": "each cell by its own 99th percentile over the training period",
        "test_period": "2013-12-13 00:00 to 2013-12-19 23:00 local time (+01:00)",
        "cells": len(data.ids),
        **scores(onnx_model(model, {}).SerializeToString(), data, test),
        "validation_period": "2013-12-06 00:00 to 2013-12-12 23:00 local time (+01:00)",
        "validation": validation,
    }
    proto = onnx_model(model, metadata_of(metrics, settings))
    return proto.SerializeToString(deterministic=True), metrics


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: train, write the model, print its scores."""
    parser = argparse.ArgumentParser(description="Train the cell load model.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the Milan hourly data")
    parser.add_argument("--out", type=Path, required=True, help="ONNX file to write")
    parser.add_argument("--seed", type=int, default=Settings().seed, help="seed of the training")
    parser.add_argument("--json", action="store_true", help="last line: all scores as JSON")
    options = parser.parse_args(arguments)
    proto, metrics = build(milan.read_milan(options.data), Settings(seed=options.seed))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(proto)
    lines = [f"{'score':38}{'validation':>12}{'test':>10}"]
    for name, figure in metrics["validation"].items():
        lines.append(f"{name:38}{figure:12.4f}{metrics[name]:10.4f}")
    lines.append(f"wrote {options.out} ({len(proto)} bytes)")
    if options.json:
        lines.append(json.dumps({**metrics, "bytes": len(proto), "version": VERSION}))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
