"""Which observations are news: neither repeated nor older than what the id showed before."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from mesh.agent.observation import Reason, Rejected

IDENTITIES_MAX = 64
"""Decisions on one id and time that are told apart; agents make a few."""


RETURNED_AFTER = 20
"""So many late observations in order, with none that is newest between them, show that the newest one was wrong."""


@dataclass
class Freshness:
    """Newest event time per id, for at most `ids_max` ids; the least recently seen is forgotten first."""

    ids_max: int
    _seen: OrderedDict[tuple[str, str], tuple[float, tuple[str, ...]]] = field(default_factory=OrderedDict)

    _late: OrderedDict[tuple[str, str], tuple[float, int]] = field(default_factory=OrderedDict)
    """Time of the last late observation in a row, and how many they are."""

    def _returned(self, key: tuple[str, str], time: float) -> bool:
        last, count = self._late.get(key, (float("-inf"), 0))
        count = count + 1 if time > last else 1
        self._late[key] = (time, count)
        if len(self._late) > self.ids_max:
            self._late.popitem(last=False)
        return count > RETURNED_AFTER

    def admit(self, kind: str, id: str, time: float, identity: str = "") -> None:
        """Notes an observation; raises Rejected when it is late, or a duplicate.

        Two observations of one id and time are duplicates when their `identity` is equal: telemetry has none, a
        decision's is its event id. One observation from the far future must not silence an id for ever: after
        RETURNED_AFTER late ones in order, time goes on from there.
        """
        key = (kind, id)
        newest, identities = self._seen.get(key, (float("-inf"), ()))
        if time > newest or (time < newest and self._returned(key, time)):
            self._late.pop(key, None)
            identities = ()
        elif time < newest:
            raise Rejected(Reason.LATE, f"{kind} {id}: {newest - time:.6g} s older than what is known")
        elif identity in identities:
            raise Rejected(Reason.DUPLICATE, f"{kind} {id}: seen before for the same time")
        self._seen[key] = (time, (*identities[-IDENTITIES_MAX:], identity))
        self._seen.move_to_end(key)
        if len(self._seen) > self.ids_max:
            self._seen.popitem(last=False)
