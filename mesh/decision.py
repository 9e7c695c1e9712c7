"""Decisions: what agents return, and the CloudEvents 1.0 envelope (structured JSON) that carries them.

The envelope follows the CloudEvents 1.0.2 specification and its JSON format; extension attributes may not be
fractional numbers there, so `confidence` is a decimal string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar, Literal

import msgspec
from pydantic import BaseModel, ConfigDict

from mesh.clock import iso
from mesh.errors import AgentError

CONTENT_TYPE = "application/cloudevents+json"


class Decision(BaseModel):
    """Base of everything an agent decides; subclass it with typed fields.

    `version` rises with every change that is not an added optional field: it is part of the event's type. `key` names
    the field whose value becomes the last token of the subject; without it that is the id of what was observed, or
    the site's name for a decision made by the clock. NaN and infinities are refused with pydantic's ValidationError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: ClassVar[int] = 1
    key: ClassVar[str | None] = None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.key is not None and cls.key not in cls.model_fields:
            raise AgentError(
                f"{cls.__name__}.key names {cls.key!r}, which is no field of it",
                f"use one of {', '.join(cls.model_fields) or 'its fields, it has none'}",
            )


@cache
def type_of(decision: type[Decision]) -> str:
    """The event type, such as `mesh.cell-sleep.v1` for `class CellSleep(Decision)`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", decision.__name__)
    return f"mesh.{words.lower()}.v{decision.version}"


@cache
def schema_uri(mesh: str, decision: type[Decision]) -> str:
    """The event's `dataschema`; `mesh schema --decisions FILE` prints the JSON Schema it names."""
    return f"mesh://{mesh}/schema/{type_of(decision)}"


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A decision on the wire. `data` is the decision's own JSON; `time` is when it was made (RFC 3339, UTC)."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: str
    datacontenttype: str = "application/json"
    dataschema: str
    modeldigest: str | None = None
    """sha256 of the model's file, when one was used."""
    confidence: str | None = None
    """Lowest confidence, 0 to 1, of the predictions behind the decision."""
    inputdigest: str
    """sha256 of the observation's bytes as they arrived."""
    observedtime: str
    """Event time of the observation."""
    requested: bool | None = None
    """True when it answers an inference request; other agents do not observe such decisions."""
    data: msgspec.Raw


class Origin(msgspec.Struct, frozen=True):
    """Who decides: the parts of an event's `source`."""

    mesh: str
    tier: str
    site: str
    agent: str

    @property
    def uri(self) -> str:
        return f"mesh://{self.mesh}/{self.tier}/{self.site}/{self.agent}"


@dataclass(frozen=True)
class Basis:
    """What a decision rests on."""

    input_digest: str
    observed_time: str
    model_digest: str | None = None
    confidence: float | None = None
    requested: bool = False
    """Whether somebody asked, instead of observing."""
    lineage: str = ""
    """Which memory the agent had: a restarted replica has the same one, a replica begun anew another."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(CloudEvent)


def digest(payload: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `payload`."""
    return "sha256:" + sha256(payload).hexdigest()


def event_id(origin: Origin, type_: str, key: str, basis: Basis, ordinal: int) -> str:
    """The same decision on the same input, by the same model with the same memory, has the same id.

    So a repetition after a crash is stored once, and a replay begun anew decides anew.
    """
    rests_on = (basis.input_digest, basis.observed_time, basis.model_digest, basis.lineage)
    return sha256(_encoder.encode((origin.uri, type_, key, *rests_on, ordinal))).hexdigest()[:32]


def cloud_event(origin: Origin, decision: Decision, key: str, basis: Basis, now: float, ordinal: int = 0) -> CloudEvent:
    """The envelope of `decision`, made at wall time `now` (seconds); `ordinal` tells decisions on one input apart."""
    type_ = type_of(type(decision))
    return CloudEvent(
        id=event_id(origin, type_, key, basis, ordinal),
        source=origin.uri,
        type=type_,
        subject=key,
        time=iso(now),
        dataschema=schema_uri(origin.mesh, type(decision)),
        modeldigest=basis.model_digest,
        confidence=None if basis.confidence is None else f"{basis.confidence:.4f}",
        inputdigest=basis.input_digest,
        observedtime=basis.observed_time,
        requested=basis.requested or None,
        data=msgspec.Raw(decision.__pydantic_serializer__.to_json(decision)),
    )


def encode_event(event: CloudEvent) -> bytes:
    """Structured JSON; absent optional attributes are left out."""
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    return _encoder.encode({name: value for name, value in fields.items() if value is not None})


def decode_event(payload: bytes) -> CloudEvent:
    """The event in `payload`; raises msgspec.ValidationError or msgspec.DecodeError when it is none."""
    return _decoder.decode(payload)
