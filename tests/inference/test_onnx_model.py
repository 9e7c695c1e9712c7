"""Models in memory: loaded and warmed before they serve, run inline or in a thread, refused in one sentence."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from agents.anomaly import CellAnomaly
from agents.forecasting import CellForecast
from mesh import Agent, Decision, Memory, Observation, observe
from mesh.agent.agent import Context
from mesh.agent.model import Tensors, prediction
from mesh.clock import ManualClock
from mesh.errors import ModelError
from mesh.inference.onnx_model import PROVIDERS, OnnxModel, load_model
from mesh.testing import run

SHIPPED = Path(__file__).parents[2] / "agents" / "models" / "cell-load.onnx"
FLOAT = TensorProto.FLOAT

Shape = list[int | str]
Save = Callable[..., Path]


def graph(
    nodes: Iterable[onnx.NodeProto],
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape | None]],
    metadata: dict[str, Any] | None = None,
    constants: Iterable[onnx.TensorProto] = (),
) -> onnx.ModelProto:
    taken = [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()]
    given = [helper.make_tensor_value_info(name, *of) for name, of in outputs.items()]
    made = helper.make_graph(list(nodes), "tiny", taken, given, list(constants))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    helper.set_model_props(model, texts)
    return model


def doubling(dtype: int = FLOAT, width: int | str = 2, **metadata: Any) -> onnx.ModelProto:
    """Answers its input twice over as `value`, and its input as `spread`."""
    named = {f"mesh.{key}": value for key, value in metadata.items()}
    nodes = [helper.make_node("Add", ["x", "x"], ["value"]), helper.make_node("Identity", ["x"], ["spread"])]
    of = (dtype, ["batch", width])
    return graph(nodes, {"x": of}, {"value": of, "spread": of}, named)


def adding() -> onnx.ModelProto:
    """Adds its inputs `a` and `b`."""
    of = (FLOAT, ["batch", 2])
    return graph([helper.make_node("Add", ["a", "b"], ["sum"])], {"a": of, "b": of}, {"sum": of})


def features(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "unit": "percent"} for name in names]


def confidence(**changes: Any) -> dict[str, Any]:
    return {"kind": "interval", "value": "value", "spread": "spread", "tolerance": 10.0, "unit": "percent", **changes}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(model: onnx.ModelProto | bytes) -> Path:
        path = tmp_path / "tiny.onnx"
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write


def answer(model: OnnxModel, **inputs: Any) -> Tensors:
    return asyncio.run(model.run(inputs))


ROWS = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)


def test_loaded_model_tells_what_it_takes(save: Save) -> None:
    (taken,) = load_model(save(doubling())).inputs
    assert (taken.name, taken.dtype, taken.shape) == ("x", np.float32, (None, 2))


def test_loaded_model_is_named_by_the_digest_of_its_file(save: Save) -> None:
    path = save(doubling())
    assert load_model(path).digest == "sha256:" + sha256(path.read_bytes()).hexdigest()


def test_loaded_model_is_warm_and_knows_how_long_a_run_takes(save: Save) -> None:
    assert 0.0 < load_model(save(doubling())).run_s < 1.0


def test_model_answers_all_outputs_by_name(save: Save) -> None:
    found = answer(load_model(save(doubling())), x=ROWS)
    assert list(found) == ["value", "spread"]
    np.testing.assert_array_equal(found["value"], 2 * ROWS)
    np.testing.assert_array_equal(found["spread"], ROWS)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_batch_may_have_any_length(save: Save, rows: int) -> None:
    assert answer(load_model(save(doubling())), x=np.zeros((rows, 2), np.float32))["value"].shape == (rows, 2)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64])
def test_models_of_common_number_types_are_taken(save: Save, dtype: int) -> None:
    model = load_model(save(doubling(dtype)))
    rows = ROWS.astype(model.inputs[0].dtype)
    np.testing.assert_array_equal(answer(model, x=rows)["value"], 2 * rows)


class Watched:
    """Stands in a loaded model's place of work to tell which thread it is done in."""

    def __init__(self, model: OnnxModel) -> None:
        self.threads: list[int] = []
        call = model._call

        def watch(inputs: Tensors) -> Tensors:
            self.threads.append(threading.get_ident())
            return call(inputs)

        model._call = watch  # type: ignore[method-assign]


def test_fast_model_runs_on_the_loop(save: Save) -> None:
    model = load_model(save(doubling()), inline_below_s=60.0)
    watched = Watched(model)
    answer(model, x=ROWS)
    assert watched.threads == [threading.get_ident()]


def test_slow_model_runs_in_a_thread_and_answers_the_same(save: Save) -> None:
    model = load_model(save(doubling()), inline_below_s=0.0)
    watched = Watched(model)
    np.testing.assert_array_equal(answer(model, x=ROWS)["value"], 2 * ROWS)
    assert len(watched.threads) == 1
    assert watched.threads != [threading.get_ident()]


def test_many_runs_at_once_answer_each_its_own(save: Save) -> None:
    model = load_model(save(doubling()), inline_below_s=0.0)

    async def all_at_once() -> list[Tensors]:
        return await asyncio.gather(*(model.run({"x": ROWS + n}) for n in range(20)))

    for n, found in enumerate(asyncio.run(all_at_once())):
        np.testing.assert_array_equal(found["value"], 2 * (ROWS + n))


@pytest.mark.parametrize("inline_below_s", [0.0, 60.0], ids=["in a thread", "on the loop"])
@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        ({"x": np.zeros((1, 3), np.float32)}, r"x \[1, 3\]"),
        ({"x": np.zeros(2, np.float32)}, r"x \[2\]"),
        ({"y": ROWS}, r"y \[2, 2\]"),
        ({"x": ROWS, "y": ROWS}, r"y \[2, 2\]"),
        ({"x": np.array([["a", "b"]])}, r"x \[1, 2\]"),
    ],
    ids=["width", "rank", "name", "one too many", "texts"],
)
def test_input_that_does_not_fit_is_told_with_what_would(
    save: Save, inputs: Tensors, given: str, inline_below_s: float
) -> None:
    model = load_model(save(doubling()), inline_below_s=inline_below_s)
    with pytest.raises(ModelError, match=rf"the model takes x \[any, 2\] float32 and was given .*{given}") as raised:
        asyncio.run(model.run(inputs))
    assert raised.value.remedy


def test_nothing_given_is_told(save: Save) -> None:
    with pytest.raises(ModelError, match=r"the model takes x \[any, 2\]"):
        answer(load_model(save(doubling())))


def test_input_of_another_number_type_is_told_with_both_types(save: Save) -> None:
    with pytest.raises(ModelError, match="float32") as raised:
        answer(load_model(save(doubling())), x=ROWS.astype(np.float64))
    assert "float64" in str(raised.value)


def test_after_a_wrong_input_the_model_goes_on(save: Save) -> None:
    model = load_model(save(doubling()))
    with pytest.raises(ModelError):
        answer(model, x=np.zeros((1, 3), np.float32))
    np.testing.assert_array_equal(answer(model, x=ROWS)["value"], 2 * ROWS)


def test_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read \(No such file or directory\).*`models`"):
        load_model(tmp_path / "none.onnx")


def test_folder_in_a_models_place_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read \(Is a directory\)"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 100, b"\x00\xff" * 50, b'{"onnx": 1}'], ids=["empty", "text", "bytes", "JSON"]
)
def test_file_that_is_no_model_is_told_by_its_name_on_one_line(save: Save, content: bytes) -> None:
    path = save(content)
    with pytest.raises(ModelError, match="is no model ONNX Runtime can load") as raised:
        load_model(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_model_with_an_unknown_operator_is_told(save: Save) -> None:
    of = (FLOAT, ["batch", 2])
    with pytest.raises(ModelError, match="Nonsense"):
        load_model(save(graph([helper.make_node("Nonsense", ["x"], ["y"])], {"x": of}, {"y": of})))


def test_model_of_a_newer_format_is_told(save: Save) -> None:
    model = doubling()
    model.ir_version = 99
    with pytest.raises(ModelError, match="is no model ONNX Runtime can load"):
        load_model(save(model))


def test_model_that_cannot_run_is_refused_when_it_is_loaded(save: Save) -> None:
    seven = helper.make_tensor("shape", TensorProto.INT64, [1], [7])
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    model = graph([node], {"x": (FLOAT, ["batch", 2])}, {"y": (FLOAT, None)}, constants=[seven])
    with pytest.raises(ModelError):
        load_model(save(model))


def test_model_without_inputs_is_told(save: Save) -> None:
    one = helper.make_tensor("one", FLOAT, [1, 1], [1.0])
    node = helper.make_node("Constant", [], ["y"], value=one)
    with pytest.raises(ModelError):
        load_model(save(graph([node], {}, {"y": (FLOAT, [1, 1])})))


@pytest.mark.parametrize("dtype", [TensorProto.INT32, TensorProto.BOOL, TensorProto.STRING])
def test_model_of_another_number_type_is_told_with_those_that_are_taken(save: Save, dtype: int) -> None:
    of = (dtype, ["batch", 2])
    with pytest.raises(ModelError, match=r"input 'x' is a tensor\(.*tensor\(float\), tensor\(double\)"):
        load_model(save(graph([helper.make_node("Identity", ["x"], ["y"])], {"x": of}, {"y": of})))


@pytest.mark.skipif(
    PROVIDERS["cuda"] in onnxruntime.get_available_providers(), reason="this ONNX Runtime has a CUDA provider"
)
def test_provider_that_is_absent_is_told_with_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"no CUDA provider.*onnxruntime-gpu.*`provider: cpu`"):
        load_model(SHIPPED, "cuda")


def test_features_are_read_from_the_metadata_in_order(save: Save) -> None:
    assert load_model(save(doubling(features=features("users", "load")))).features == ("users", "load")


def test_model_without_metadata_has_neither_features_nor_a_rule(save: Save) -> None:
    model = load_model(save(doubling()))
    assert (model.features, model.rule) == ((), None)


@pytest.mark.parametrize("names", [["load"], ["a", "b", "c"]])
def test_features_that_are_not_as_many_as_the_input_is_wide_are_told(save: Save, names: list[str]) -> None:
    with pytest.raises(ModelError, match=rf"names {len(names)} features and its input takes 2"):
        load_model(save(doubling(features=features(*names))))


def test_features_of_an_input_of_any_width_are_taken(save: Save) -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"])]
    model = graph(
        nodes, {"x": (FLOAT, ["batch", "width"])}, {"y": (FLOAT, [1, 1])}, {"mesh.features": features("a", "b", "c")}
    )
    assert load_model(save(model)).features == ("a", "b", "c")


@pytest.mark.parametrize("text", ["", "{", "load, users", '["load"]', '[{"unit": "percent"}]', "7"])
def test_features_that_cannot_be_read_are_told(save: Save, text: str) -> None:
    with pytest.raises(ModelError, match=r"`mesh\.features` cannot be read"):
        load_model(save(doubling(features=text)))


def test_rule_of_confidence_is_read_from_the_metadata(save: Save) -> None:
    rule = load_model(save(doubling(confidence=confidence()))).rule
    assert rule is not None
    assert (rule.value, rule.spread, rule.tolerance, rule.unit) == ("value", "spread", 10.0, "percent")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", confidence(kind="guess"), {"kind": "interval"}, confidence(tolerance="much"), confidence(value=1)],
    ids=repr,
)
def test_rule_of_confidence_that_cannot_be_read_is_told(save: Save, text: Any) -> None:
    with pytest.raises(ModelError, match=r"`mesh\.confidence` cannot be read"):
        load_model(save(doubling(confidence=text)))


@pytest.mark.parametrize("tolerance", [-1.0, 0.0])
def test_tolerance_that_is_not_positive_is_told(save: Save, tolerance: float) -> None:
    with pytest.raises(ModelError, match=r"mesh\.confidence"):
        load_model(save(doubling(confidence=confidence(tolerance=tolerance))))


@pytest.mark.parametrize("output", ["value", "spread"])
def test_rule_of_confidence_that_names_no_output_is_told(save: Save, output: str) -> None:
    with pytest.raises(ModelError, match="names 'other', which the model does not output"):
        load_model(save(doubling(confidence=confidence(**{output: "other"}))))


class Pair(Observation):
    cell: str
    left: float
    right: float


class Total(Decision):
    total: float


class Adds(Agent):
    """Feeds a model of two inputs itself."""

    @observe("cell", Pair)
    async def add(self, pair: Pair) -> Total:
        a, b = (np.full((1, 2), value, dtype=np.float32) for value in (pair.left, pair.right))
        outputs = await self.model.run({"a": a, "b": b})
        return Total(total=float(outputs["sum"][0, 0]))


PAIR = {"cell": "1", "time": "2024-01-01T00:00:00Z", "left": 1.0, "right": 2.5}


def test_agent_runs_a_model_of_several_inputs(save: Save) -> None:
    assert run(Adds, [PAIR], model=save(adding())).decisions == [{"total": 3.5}]


def test_predicting_with_a_model_of_several_inputs_says_how_to_run_it(save: Save) -> None:
    class Predicts(Adds):
        features = ("left", "right")

        @observe("cell", Pair)
        async def add(self, pair: Pair) -> Total:
            return Total(total=(await self.predict(pair)).value)

    (rejected,) = run(Predicts, [PAIR], model=save(adding())).rejections
    assert "the model has the inputs a, b; use self.model.run" in rejected.detail


def test_missing_input_among_several_is_told(save: Save) -> None:
    with pytest.raises(ModelError, match=r"takes a \[any, 2\] float32; b \[any, 2\] float32 and was given a \[2, 2\]"):
        answer(load_model(save(adding())), a=ROWS)


def test_agent_predicts_value_spread_and_confidence(save: Save) -> None:
    class Predicts(Agent):
        features = ("left",)

        @observe("cell", Pair)
        async def predict_total(self, pair: Pair) -> Total:
            return Total(total=(await self.predict(pair)).value)

    path = save(doubling(width=1, features=features("left"), confidence=confidence(tolerance=1.0)))
    found = run(Predicts, [PAIR], model=path)
    assert found.decisions == [{"total": 2.0}]
    assert found.events[0].confidence == "0.6827"
    assert found.events[0].modeldigest == load_model(path).digest


def test_features_of_the_wrong_number_are_a_model_error(save: Save) -> None:
    class Short(Agent):
        features = ("left",)

        @observe("cell", Pair)
        async def predict_total(self, pair: Pair) -> Total:
            return Total(total=(await self.predict(pair)).value)

    (rejected,) = run(Short, [PAIR], model=save(doubling())).rejections
    assert "the model takes x [any, 2] float32 and was given x [1, 1]" in rejected.detail


def test_output_without_a_batch_dimension_is_a_model_error(save: Save) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    model = load_model(save(graph([node], {"x": (FLOAT, ["batch", 2])}, {"y": (FLOAT, [])})))
    with pytest.raises(ModelError, match="not one number per row"):
        prediction(answer(model, x=ROWS), model.rule)


def test_shipped_model_fits_its_agents_and_says_how_sure_it_is() -> None:

    model = load_model(SHIPPED)
    assert model.rule is not None
    for agent in (CellForecast, CellAnomaly):
        context = Context("x", "north", "edge", ManualClock(), Random(0), Memory(), model)
        assert agent(context).model.loaded is model
