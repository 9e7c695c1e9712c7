"""An ONNX model in memory: loaded, checked, warmed, run.

Sessions use one intra-op thread without spinning: many small models share a site's cores, and a spinning pool would
take them from each other (ONNX Runtime, "Thread management").
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mesh.agent.model import ConfidenceRule, Tensors
from mesh.errors import ModelError

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
WARM_RUNS = 20
"""Enough for lazy allocations to settle; the median of them decides whether runs stay on the loop."""

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
}

_LOAD_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class _Feature(msgspec.Struct):
    name: str
    unit: str = ""


class _Confidence(msgspec.Struct):
    kind: Literal["interval"]
    value: str
    spread: str
    tolerance: float
    unit: str = ""


@dataclass(frozen=True)
class Input:
    """One input of the model; None in `shape` is a free dimension."""

    name: str
    dtype: type[np.generic]
    shape: tuple[int | None, ...]


class OnnxModel:
    """A warmed session; immutable once made. Implements `mesh.agent.model.Model`."""

    def __init__(self, session: Any, digest: str, inline_below_s: float) -> None:
        self._session = session
        self.digest = digest
        self.inputs = tuple(
            Input(
                found.name,
                _dtype(found.name, found.type),
                tuple(size if isinstance(size, int) else None for size in found.shape),
            )
            for found in session.get_inputs()
        )
        self._outputs = [found.name for found in session.get_outputs()]
        metadata = session.get_modelmeta().custom_metadata_map
        self.metadata: dict[str, str] = dict(metadata)
        self.features = _features(metadata)
        self.rule = _rule(metadata, self._outputs)
        if not self.inputs:
            raise ModelError("the model takes no input", "export one that is given the features")
        self._check_width()
        self.run_s = self._warm()
        self._inline = self.run_s < inline_below_s

    def _check_width(self) -> None:
        width = self.inputs[0].shape[-1] if self.inputs[0].shape else None
        if self.features and width is not None and width != len(self.features):
            raise ModelError(
                f"the model's metadata names {len(self.features)} features and its input takes {width}",
                "export the model again with `mesh.features` as its input has them",
            )

    def _warm(self) -> float:
        """Runs once per code path; returns the median time of one row, in seconds."""
        zeros = {i.name: np.zeros([1 if s is None else s for s in i.shape], i.dtype) for i in self.inputs}
        times = []
        for _ in range(WARM_RUNS):
            begin = time.perf_counter()
            self._call(zeros)
            times.append(time.perf_counter() - begin)
        return sorted(times)[len(times) // 2]

    async def run(self, inputs: Tensors) -> Tensors:
        """All outputs by name, the batch first; raises ModelError when inputs do not fit."""
        if self._inline:
            return self._call(inputs)
        return await asyncio.get_running_loop().run_in_executor(None, self._call, inputs)

    async def run_features(self, rows: NDArray[np.float32]) -> Tensors:
        """`run` with `rows` [batch, features] as the only input; raises ModelError when the width differs."""
        if len(self.inputs) != 1:
            names = ", ".join(i.name for i in self.inputs)
            raise ModelError(f"the model has the inputs {names}", "use self.model.run({…}) instead of self.predict")
        return await self.run({self.inputs[0].name: rows.astype(self.inputs[0].dtype, copy=False)})

    def _call(self, inputs: Tensors) -> Tensors:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        except (ValueError, *_LOAD_ERRORS) as error:
            wanted = "; ".join(
                f"{i.name} {list(i.shape)} {i.dtype.__name__}".replace("None", "any") for i in self.inputs
            )
            given = "; ".join(f"{name} {list(np.shape(t))} {np.asarray(t).dtype}" for name, t in inputs.items())
            raise ModelError(f"the model takes {wanted} and was given {given}", "match the inputs to it") from error


def load_model(path: Path, provider: Provider = "cpu", inline_below_s: float = 0.001) -> OnnxModel:
    """Loads and warms the model in `path`; raises ModelError when it cannot be used with `provider`.

    `inline_below_s`: a faster model (median of the warm-up, seconds) runs on the event loop, a slower one in a thread.
    """
    if PROVIDERS[provider] not in onnxruntime.get_available_providers():
        raise ModelError(
            f"ONNX Runtime has no {provider.upper()} provider here",
            "install onnxruntime-gpu at this site or set `provider: cpu`",
        )
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"the model {path} cannot be read ({error.strerror})", "correct its path in `models`"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(payload, options, providers=[PROVIDERS[provider]])
    except _LOAD_ERRORS as error:
        first = str(error).splitlines()[0]
        raise ModelError(f"{path} is no model ONNX Runtime can load ({first})", "export it again") from error
    if PROVIDERS[provider] not in session.get_providers():
        raise ModelError(
            f"the {provider.upper()} provider did not start for {path.name}",
            "check the site's drivers or set `provider: cpu`",
        )
    return OnnxModel(session, "sha256:" + sha256(payload).hexdigest(), inline_below_s)


def _dtype(name: str, onnx_type: str) -> type[np.generic]:
    if onnx_type not in _DTYPES:
        raise ModelError(f"input {name!r} is a {onnx_type}", f"export it as one of {', '.join(_DTYPES)}")
    return _DTYPES[onnx_type]


def _features(metadata: dict[str, str]) -> tuple[str, ...]:
    text = metadata.get("mesh.features")
    if text is None:
        return ()
    try:
        return tuple(feature.name for feature in msgspec.json.decode(text, type=list[_Feature]))
    except msgspec.MsgspecError as error:
        raise ModelError(
            f"the model's `mesh.features` cannot be read ({error})", "write a list of names and units"
        ) from error


def _rule(metadata: dict[str, str], outputs: list[str]) -> ConfidenceRule | None:
    text = metadata.get("mesh.confidence")
    if text is None:
        return None
    try:
        found = msgspec.json.decode(text, type=_Confidence)
    except msgspec.MsgspecError as error:
        raise ModelError(f"the model's `mesh.confidence` cannot be read ({error})", "see docs/models.md") from error
    if not found.tolerance > 0:
        raise ModelError(f"`mesh.confidence` has the tolerance {found.tolerance:g}", "give one above 0")
    for name in (found.value, found.spread):
        if name not in outputs:
            raise ModelError(f"`mesh.confidence` names {name!r}, which the model does not output", "see docs/models.md")
    return ConfidenceRule(found.value, found.spread, found.tolerance, found.unit)
