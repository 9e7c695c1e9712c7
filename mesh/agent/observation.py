"""Observations: what comes in, and why one may be refused."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

Model = TypeVar("Model", bound=BaseModel)

REJECTED_SAMPLE_BYTES = 256
"""How much of a refused payload is shown to whoever looks into it."""


class Observation(BaseModel):
    """Base of everything an agent observes; subclass it with typed fields.

    `time` is the event time, with its offset from UTC. Unknown fields, NaN and infinities are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    time: AwareDatetime


class Reason(StrEnum):
    """Why an observation was refused; the counters of a replica use these names."""

    MALFORMED_JSON = "malformed_json"
    WRONG_SCHEMA = "wrong_schema"
    NOT_FINITE = "not_finite"
    TOO_LARGE = "too_large"
    WRONG_ID = "wrong_id"
    UNKNOWN_ID = "unknown_id"
    DUPLICATE = "duplicate"
    LATE = "late"
    WRONG_TYPE = "wrong_type"
    REQUESTED = "requested"
    QUEUE_FULL = "queue_full"
    AGENT_ERROR = "agent_error"


class Rejected(Exception):
    """An observation was refused: `reason` for counters, `detail` for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def parse(model: type[Model], payload: bytes, size_max: int) -> Model:
    """`payload` as a `model`; raises Rejected with the reason that helps the sender most."""
    if len(payload) > size_max:
        raise Rejected(Reason.TOO_LARGE, f"{len(payload)} bytes, at most {size_max} are read")
    try:
        return model.model_validate_json(payload)
    except ValidationError as error:
        raise _explain(payload, error) from error
    except Exception as error:  # a user's validator may raise anything; it is counted and shown
        raise Rejected(
            Reason.AGENT_ERROR, f"the validation of {model.__name__} raised {type(error).__name__}: {error}"
        ) from error


def _explain(payload: bytes, error: ValidationError) -> Rejected:
    first = error.errors(include_url=False, include_context=False)[0]
    try:
        value = from_json(payload, allow_inf_nan=True)
    except (ValueError, RecursionError):
        return Rejected(Reason.MALFORMED_JSON, first["msg"])
    if _has_not_finite(value):
        return Rejected(Reason.NOT_FINITE, "NaN and infinities are not observations")
    where = ".".join(str(part) for part in first["loc"]) or "the whole"
    return Rejected(Reason.WRONG_SCHEMA, f"{where}: {first['msg']}")


def _has_not_finite(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float) and not math.isfinite(item):
            return True
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False
