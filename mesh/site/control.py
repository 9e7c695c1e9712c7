"""An operator's requests to a site process, signed by the operator's key.

A signature is needed although only operators may publish here: whoever may ask for an inference can name this subject
as the one to answer to, and the answer would then arrive as a request.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from mesh.fabric.identity import is_signed, sign

VALID_S = 30.0
"""A request is good for this long either side of its time: clocks of hosts differ a little."""


class Request(msgspec.Struct, array_like=True, frozen=True):
    """`time` is wall time in seconds; the signature covers subject and time."""

    time: float
    signature: bytes


def signed_request(subject: str, now: float, seed_file: Path) -> bytes:
    """The payload of a request on `subject`; raises IdentityError when the seed file is garbled."""
    return msgspec.msgpack.encode(Request(now, sign(seed_file, _signed(subject, now))))


def may_request(payload: bytes, subject: str, now: float, operator: str) -> bool:
    """Whether the operator with the public key `operator` asked for this, about now."""
    try:
        request = msgspec.msgpack.decode(payload, type=Request)
    except msgspec.MsgspecError:
        return False
    return abs(request.time - now) <= VALID_S and is_signed(operator, _signed(subject, request.time), request.signature)


def _signed(subject: str, time: float) -> bytes:
    return f"{subject} {time!r}".encode()
