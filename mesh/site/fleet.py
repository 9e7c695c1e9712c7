"""Which replicas a site should start, replace or end: a pure state machine that returns actions.

The shell (`mesh.site.supervisor`) tells it what is wanted, what runs, what was heard and what failed; nothing here
reads a clock or touches Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mesh.health import ReplicaHealth
from mesh.settings import SupervisorSettings

Verb = Literal["start", "replace", "end"]
Phase = Literal["absent", "starting", "running", "failed"]


@dataclass(frozen=True)
class Action:
    """What the shell shall do with the replica `name`, and why.

    `replace` kills its process, which Ray then starts again; `end` drains and removes it.
    """

    verb: Verb
    name: str
    why: str


@dataclass
class _Watch:
    digest: str
    phase: Phase = "absent"
    since: float = 0.0
    heard: float = 0.0
    retry_at: float = 0.0
    failures: int = 0
    reason: str = ""
    health: ReplicaHealth | None = None
    replaced: str = ""
    """Incarnation that is being replaced; it may beat until it is dead."""


class Fleet:
    """The replicas of one site. All times are monotonic seconds."""

    def __init__(self, wanted: Mapping[str, str], settings: SupervisorSettings) -> None:
        """`wanted`: names of replicas and the digests of what they shall run."""
        self._settings = settings
        self._watches = {name: _Watch(digest) for name, digest in wanted.items()}
        self._unwanted: set[str] = set()

    def found(self, running: Mapping[str, str], now: float) -> None:
        """Actors that run already, with their digests: those that fit are adopted, others are ended.

        A mute one ("") is adopted too: it is replaced if it stays mute.
        """
        for name, digest in running.items():
            watch = self._watches.get(name)
            if watch is not None and digest in (watch.digest, ""):
                watch.phase, watch.since, watch.heard = "running", now, now
            else:
                self._unwanted.add(name)

    def heard(self, site: str, health: ReplicaHealth, now: float) -> None:
        """A heartbeat."""
        name = f"{site}/{health.agent}/{health.index}"
        watch = self._watches.get(name)
        if watch is None or watch.phase == "absent" or health.incarnation == watch.replaced:
            return
        if health.spec != watch.digest:
            self._unwanted.add(name)
            return
        watch.heard, watch.health = now, health
        if health.state == "failed" and watch.phase != "failed":
            self._fail(watch, health.reason, now)
        elif health.state == "ready":
            watch.phase, watch.failures, watch.reason = "running", 0, ""

    def excuse(self, now: float) -> None:
        """Nobody can be heard at present, so silence is no replica's fault."""
        for watch in self._watches.values():
            watch.heard = now

    def start_failed(self, name: str, reason: str, now: float) -> None:
        """Ray refused to start a replica."""
        self._fail(self._watches[name], reason, now)
        self._watches[name].phase = "absent"

    def ended(self, name: str) -> None:
        """A replica that was to end is gone; one that is wanted in another form can start now."""
        self._unwanted.discard(name)
        watch = self._watches.get(name)
        if watch is not None:
            self._watches[name] = _Watch(watch.digest)

    def actions(self, now: float) -> list[Action]:
        """What to do now; each action is returned once and assumed done."""
        todo = [Action("end", name, "it is not wanted here any more") for name in sorted(self._unwanted)]
        for name, watch in sorted(self._watches.items()):
            if name in self._unwanted:
                continue
            action = self._action(name, watch, now)
            if action is not None:
                watch.replaced = watch.health.incarnation if watch.health else ""
                watch.phase, watch.since, watch.heard = "starting", now, now
                todo.append(action)
        return todo

    def _action(self, name: str, watch: _Watch, now: float) -> Action | None:
        settings = self._settings
        if watch.phase == "absent" and now >= watch.retry_at:
            return Action("start", name, watch.reason or "it is wanted")
        if watch.phase == "running" and now - watch.heard > settings.stuck_after_s:
            return Action("replace", name, f"no heartbeat for {now - watch.heard:.1f} s")
        if watch.phase == "starting" and now - watch.since > settings.start_deadline_s:
            self._fail(watch, f"not ready after {settings.start_deadline_s:.0f} s", now)
            return Action("replace", name, watch.reason)
        if watch.phase == "failed" and now >= watch.retry_at:
            return Action("replace", name, watch.reason)
        return None

    def _fail(self, watch: _Watch, reason: str, now: float) -> None:
        pause = min(self._settings.backoff_max_s, self._settings.backoff_first_s * 2.0 ** min(watch.failures, 30))
        watch.phase, watch.failures, watch.reason, watch.retry_at = "failed", watch.failures + 1, reason, now + pause

    @property
    def wanted(self) -> int:
        """How many replicas should run."""
        return len(self._watches)

    @property
    def names(self) -> tuple[str, ...]:
        """Replicas that run or start, also unwanted ones."""
        present = {name for name, watch in self._watches.items() if watch.phase != "absent"}
        return tuple(sorted(present | self._unwanted))

    def health(self, now: float) -> list[ReplicaHealth]:
        """The last heartbeat of each replica, its state corrected by what the fleet knows, sorted by name."""
        known = []
        for name, watch in sorted(self._watches.items()):
            _, agent, index = name.split("/")
            last = watch.health or ReplicaHealth(
                agent=agent, index=int(index), spec=watch.digest, incarnation="", pid=0
            )
            if watch.phase != "running" or now - watch.heard > 1.5 * self._settings.stuck_after_s:
                last.state = "failed" if watch.phase == "failed" else "starting"
                last.reason = watch.reason
            known.append(last)
        return known

    def waiting_for(self) -> str:
        """What keeps the site from being ready, in a sentence; empty when nothing does."""
        for name, watch in sorted(self._watches.items()):
            if watch.phase == "failed" or (watch.reason and watch.phase != "running"):
                return f"{name}: {watch.reason}"
        starting = [name for name, watch in sorted(self._watches.items()) if watch.phase != "running"]
        return f"{len(starting)} of {self.wanted} replicas: {', '.join(starting)}" if starting else ""
