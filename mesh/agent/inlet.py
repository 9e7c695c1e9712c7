"""The bounded queue before a handler; what gives way is declared by the agent and always counted."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mesh.agent.declare import OnFull
from mesh.agent.observation import Reason, Rejected

Item = TypeVar("Item")


@dataclass
class Inlet(Generic[Item]):
    """At most `capacity` waiting items; `offer` and `take` are O(1)."""

    capacity: int
    on_full: OnFull
    dropped: int = 0
    """Items that gave way to newer ones."""
    _queue: deque[Item] = field(default_factory=deque)
    _latest: OrderedDict[str, Item] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._latest) if self.on_full == "latest_per_id" else len(self._queue)

    def offer(self, id: str, item: Item) -> None:
        """Queues `item`; raises Rejected (`queue_full`) when the inlet is full and `on_full` is `reject`."""
        if self.on_full == "latest_per_id":
            self._offer_latest(id, item)
            return
        if len(self._queue) >= self.capacity:
            if self.on_full == "reject":
                raise Rejected(Reason.QUEUE_FULL, f"{self.capacity} observations are waiting")
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(item)

    def _offer_latest(self, id: str, item: Item) -> None:
        if id in self._latest:
            self._latest[id] = item  # keeps the id's place in the queue, so that a busy id is not starved
            self.dropped += 1
            return
        if len(self._latest) >= self.capacity:
            self._latest.popitem(last=False)
            self.dropped += 1
        self._latest[id] = item

    def take(self) -> Item | None:
        """The item that has waited longest, or None."""
        if self.on_full == "latest_per_id":
            return self._latest.popitem(last=False)[1] if self._latest else None
        return self._queue.popleft() if self._queue else None
