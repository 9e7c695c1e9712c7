"""Which replicas are started, replaced and ended: the state machine of a site, with time as an argument."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesh.health import ReplicaHealth, ReplicaState
from mesh.settings import SupervisorSettings
from mesh.site.fleet import Action, Fleet

SITE = "north"
A, B = "north/a/0", "north/b/0"
SETTINGS = SupervisorSettings(stuck_after_s=4.0, start_deadline_s=60.0, backoff_first_s=0.5, backoff_max_s=15.0)


def fleet(*names: str) -> Fleet:
    return Fleet(dict.fromkeys(names or (A,), "wanted"), SETTINGS)


def health(
    name: str, state: ReplicaState = "ready", reason: str = "", incarnation: str = "1", spec: str = "wanted"
) -> ReplicaHealth:
    _, agent, index = name.split("/")
    return ReplicaHealth(
        agent=agent, index=int(index), spec=spec, incarnation=incarnation, pid=1, state=state, reason=reason
    )


def done(found: Fleet, now: float) -> list[tuple[str, str]]:
    return [(action.verb, action.name) for action in found.actions(now)]


def running(name: str = A, now: float = 0.0) -> Fleet:
    """A fleet whose only replica was started and is ready at `now`."""
    found = fleet(name)
    found.actions(now)
    found.heard(SITE, health(name), now)
    return found


def test_absent_replica_is_started_once() -> None:
    found = fleet()
    assert found.actions(0.0) == [Action("start", A, "it is wanted")]
    assert found.actions(0.0) == found.actions(1.0) == []


def test_replicas_are_started_in_the_order_of_their_names() -> None:
    assert done(fleet(B, A, "north/a/1"), 0.0) == [("start", A), ("start", "north/a/1"), ("start", B)]


def test_running_replica_of_the_wanted_digest_is_adopted() -> None:
    found = fleet()
    found.found({A: "wanted"}, 0.0)
    assert done(found, 0.0) == []
    assert found.waiting_for() == ""


def test_running_replica_of_another_digest_is_ended_and_then_started() -> None:
    found = fleet()
    found.found({A: "old"}, 0.0)
    assert found.actions(0.0) == [Action("end", A, "it is not wanted here any more")]
    found.ended(A)
    assert done(found, 0.0) == [("start", A)]


def test_replica_that_nobody_wants_is_ended_and_never_started() -> None:
    found = fleet()
    found.found({A: "wanted", "north/gone/0": "wanted"}, 0.0)
    assert done(found, 0.0) == [("end", "north/gone/0")]
    found.ended("north/gone/0")
    assert done(found, 0.0) == []


def test_end_is_asked_for_again_until_it_happened() -> None:
    found = fleet()
    found.found({A: "wanted", "north/gone/0": "x"}, 0.0)
    assert [done(found, now) for now in (0.0, 1.0)] == [[("end", "north/gone/0")]] * 2


def test_heartbeat_of_a_replica_that_is_to_end_does_not_make_it_wanted() -> None:
    found = fleet()
    found.found({A: "old"}, 0.0)
    found.heard(SITE, health(A, spec="old"), 0.0)
    assert done(found, 0.0) == [("end", A)]


def test_mute_replica_is_adopted_and_then_replaced_if_it_stays_mute() -> None:
    found = fleet()
    found.found({A: ""}, 0.0)
    assert done(found, SETTINGS.stuck_after_s) == []
    assert found.actions(SETTINGS.stuck_after_s + 0.5) == [Action("replace", A, "no heartbeat for 4.5 s")]


def test_mute_replica_that_speaks_is_kept() -> None:
    found = fleet()
    found.found({A: ""}, 0.0)
    found.heard(SITE, health(A), 4.0)
    assert done(found, 7.9) == []


def test_mute_replica_that_turns_out_to_run_something_else_is_ended() -> None:
    """Replacing it would start the same old thing again, since it is Ray that remembers what to run."""
    found = fleet()
    found.found({A: ""}, 0.0)
    found.heard(SITE, health(A, spec="old"), 1.0)
    assert done(found, 1.0) == [("end", A)]


def test_replica_that_falls_silent_is_replaced_once() -> None:
    found = running(now=0.0)
    assert done(found, 4.0) == []
    assert done(found, 4.1) == [("replace", A)]
    assert done(found, 4.2) == []


def test_replica_that_goes_on_beating_is_left_alone() -> None:
    found = running()
    for now in range(1, 100):
        found.heard(SITE, health(A), float(now))
        assert done(found, float(now)) == []


def test_starting_replica_is_replaced_after_its_deadline_even_if_it_beats() -> None:
    found = fleet()
    found.actions(0.0)
    for now in range(60):
        found.heard(SITE, health(A, "starting"), float(now))
        assert done(found, float(now)) == []
    assert found.actions(60.5) == [Action("replace", A, "not ready after 60 s")]


def test_replacement_has_the_whole_deadline_again() -> None:
    found = fleet()
    found.actions(0.0)
    assert done(found, 60.5) == [("replace", A)]
    assert done(found, 120.0) == []
    assert done(found, 121.0) == [("replace", A)]


def fail(found: Fleet, now: float, incarnation: str) -> None:
    found.heard(SITE, health(A, "failed", "no model", incarnation), now)


def test_failed_replica_is_replaced_after_a_pause_with_its_reason() -> None:
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    assert done(found, 1.4) == []
    assert found.actions(1.5) == [Action("replace", A, "no model")]


def test_pauses_double_up_to_a_bound() -> None:
    found = fleet()
    found.actions(0.0)
    now, pauses = 1.0, []
    for attempt in range(8):
        fail(found, now, str(attempt))
        began = now
        while not done(found, now):
            now += 0.25
        pauses.append(now - began)
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_replica_may_fail_for_days() -> None:
    found = fleet()
    found.actions(0.0)
    for attempt in range(3000):
        fail(found, attempt * 20.0, str(attempt))
        assert done(found, attempt * 20.0 + 15.0) == [("replace", A)]


def test_repeated_heartbeats_of_one_failure_count_once() -> None:
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    fail(found, 1.4, "1")
    assert done(found, 1.5) == [("replace", A)]


def test_heartbeat_of_the_failed_incarnation_that_comes_after_its_replacement_is_no_failure_of_the_new_one() -> None:
    """A failed replica beats until it is killed, and killing takes a moment."""
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    assert done(found, 1.5) == [("replace", A)]
    fail(found, 1.6, "1")
    assert done(found, 10.0) == []


def test_heartbeat_of_the_silent_incarnation_that_comes_after_its_replacement_does_not_make_the_new_one_ready() -> None:
    found = running()
    assert done(found, 5.0) == [("replace", A)]
    found.heard(SITE, health(A, "ready", incarnation="1"), 5.1)
    assert found.waiting_for() != ""
    assert done(found, 10.0) == []


def test_pause_is_short_again_once_the_replica_was_ready() -> None:
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    found.actions(1.5)
    found.heard(SITE, health(A, incarnation="2"), 2.0)
    fail(found, 3.0, "2")
    assert done(found, 3.5) == [("replace", A)]


def test_refused_start_is_tried_again_after_a_pause_with_the_refusal_as_reason() -> None:
    found = fleet()
    found.actions(0.0)
    found.start_failed(A, "no such node", 0.0)
    assert done(found, 0.4) == []
    assert found.actions(0.5) == [Action("start", A, "no such node")]


def test_pauses_between_refused_starts_double_too() -> None:
    found = fleet()
    begins = [0.0]
    now = 0.0
    while len(begins) < 8:
        if done(found, now):
            begins.append(now)
            found.start_failed(A, "no", now)
        now += 0.25
    assert [later - earlier for earlier, later in pairwise(begins[1:])] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0]


def test_one_replicas_trouble_is_not_the_others() -> None:
    found = fleet(A, B)
    found.actions(0.0)
    fail(found, 1.0, "1")
    found.heard(SITE, health(B), 1.0)
    assert done(found, 2.0) == [("replace", A)]


@pytest.mark.parametrize("stranger", ["north/c/0", "north/a/1"])
def test_heartbeat_of_a_stranger_changes_nothing(stranger: str) -> None:
    found = running()
    found.heard(SITE, health(stranger, "failed"), 1.0)
    assert done(found, 1.0) == []
    assert found.names == (A,)


def test_heartbeat_of_another_site_changes_nothing() -> None:
    found = running(now=0.0)
    found.heard("south", health(A), 4.0)
    assert done(found, 4.1) == [("replace", A)]


def test_heartbeat_of_a_replica_that_was_not_started_changes_nothing() -> None:
    found = fleet()
    found.heard(SITE, health(A), 0.0)
    assert done(found, 0.0) == [("start", A)]


def test_names_are_those_that_run_or_start_or_are_to_end() -> None:
    found = fleet(A, B)
    found.found({A: "wanted", "north/gone/0": "x"}, 0.0)
    assert found.names == (A, "north/gone/0")
    found.actions(0.0)
    assert found.names == (A, B, "north/gone/0")
    found.ended("north/gone/0")
    assert found.names == (A, B)


def test_wanted_counts_what_should_run() -> None:
    assert fleet(A, B).wanted == 2


def test_waiting_for_counts_and_names_what_is_not_there_yet() -> None:
    found = fleet(A, B)
    assert found.waiting_for() == f"2 of 2 replicas: {A}, {B}"
    found.actions(0.0)
    found.heard(SITE, health(A), 1.0)
    assert found.waiting_for() == f"1 of 2 replicas: {B}"
    found.heard(SITE, health(B), 1.0)
    assert found.waiting_for() == ""


def test_waiting_for_tells_why_a_replica_failed() -> None:
    found = fleet(A, B)
    found.actions(0.0)
    found.heard(SITE, health(B, "failed", "the model is missing"), 1.0)
    assert found.waiting_for() == f"{B}: the model is missing"


def test_waiting_for_tells_why_a_start_was_refused() -> None:
    found = fleet()
    found.actions(0.0)
    found.start_failed(A, "no such node", 0.0)
    assert found.waiting_for() == f"{A}: no such node"


def test_waiting_for_goes_on_telling_the_reason_until_the_replica_is_ready() -> None:
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    found.actions(2.0)
    assert found.waiting_for() == f"{A}: no model"
    found.heard(SITE, health(A, incarnation="2"), 3.0)
    assert found.waiting_for() == ""


def states(found: Fleet, now: float) -> list[tuple[str, str]]:
    return [(one.state, one.reason) for one in found.health(now)]


def test_health_of_a_replica_that_was_never_heard_is_starting() -> None:
    found = fleet()
    (told,) = found.health(0.0)
    assert (told.agent, told.index, told.state, told.incarnation) == ("a", 0, "starting", "")


def test_health_is_the_last_heartbeat_while_the_replica_beats() -> None:
    found = running()
    assert states(found, 1.0) == [("ready", "")]


def test_health_of_a_silent_replica_is_not_ready() -> None:
    found = running(now=0.0)
    assert states(found, 6.1) == [("starting", "")]


def test_health_of_a_failed_replica_tells_why() -> None:
    found = fleet()
    found.actions(0.0)
    fail(found, 1.0, "1")
    assert states(found, 1.0) == [("failed", "no model")]


def test_health_of_a_replaced_replica_is_starting_until_it_is_ready() -> None:
    found = running()
    found.actions(5.0)
    assert states(found, 5.0) == [("starting", "")]
    found.heard(SITE, health(A, incarnation="2"), 6.0)
    assert states(found, 6.0) == [("ready", "")]


def test_health_is_told_for_wanted_replicas_in_the_order_of_their_names() -> None:
    found = fleet(B, A)
    found.found({"north/gone/0": "x"}, 0.0)
    assert [one.agent for one in found.health(0.0)] == ["a", "b"]


WANTED = (A, "north/a/1", B)
UNWANTED = ("north/gone/0", "north/gone/1")
names = st.sampled_from(WANTED)


class Site(RuleBasedStateMachine):
    """A site whose actors start, fail, fall silent and are found again as hypothesis likes."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = fleet(*WANTED)
        self.now = 0.0
        self.actors: dict[str, int] = {}
        """What runs, with the number of its incarnation."""
        self.to_end: set[str] = set()
        self.secretly_old: set[str] = set()
        """Mute when they were found, and running what is not wanted."""
        self.refused_at: dict[str, float] = {}
        self.incarnations = 0

    def begin(self, name: str) -> None:
        self.incarnations += 1
        self.actors[name] = self.incarnations

    @initialize(
        found=st.dictionaries(
            st.sampled_from(WANTED + UNWANTED), st.sampled_from(["wanted", "old", "mute", "mute and old"])
        )
    )
    def find(self, found: dict[str, str]) -> None:
        self.fleet.found({name: "" if "mute" in what else what for name, what in found.items()}, self.now)
        for name, what in found.items():
            self.begin(name)
            if name in UNWANTED or what == "old":
                self.to_end.add(name)
            elif what == "mute and old":
                self.secretly_old.add(name)

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0, 5.0, 20.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(refuses=st.sets(names), lingers=st.booleans())
    def reconcile(self, refuses: set[str], lingers: bool) -> None:
        """The shell: starts may be refused, ends may have to be asked for again."""
        actions = self.fleet.actions(self.now)
        assert all(action.verb == "end" for action in self.fleet.actions(self.now)), "something was asked for twice"
        assert len({action.name for action in actions}) == len(actions)
        for action in actions:
            if action.verb == "start":
                self.started(action.name, action.name in refuses)
            elif action.verb == "replace":
                assert action.name in self.actors.keys() & set(WANTED) - self.to_end
                self.begin(action.name)
            else:
                assert action.name in self.actors.keys() & self.to_end
                if not lingers:
                    del self.actors[action.name]
                    self.to_end.discard(action.name)
                    self.fleet.ended(action.name)

    def started(self, name: str, refused: bool) -> None:
        assert name in WANTED
        assert name not in self.actors, "a replica was started twice"
        assert self.now - self.refused_at.get(name, -1e9) >= SETTINGS.backoff_first_s
        if refused:
            self.fleet.start_failed(name, "no room", self.now)
            self.refused_at[name] = self.now
        else:
            self.begin(name)

    @precondition(lambda self: self.actors.keys() - self.to_end)
    @rule(data=st.data(), state=st.sampled_from(["starting", "ready", "failed", "draining"]))
    def beat(self, data: st.DataObject, state: ReplicaState) -> None:
        name = data.draw(st.sampled_from(sorted(self.actors.keys() - self.to_end)))
        reason = "broken" if state == "failed" else ""
        self.hear(name, state, reason)

    def hear(self, name: str, state: ReplicaState = "ready", reason: str = "") -> None:
        spec = "old" if name in self.secretly_old else "wanted"
        self.fleet.heard(SITE, health(name, state, reason, str(self.actors[name]), spec), self.now)
        if name in self.secretly_old:
            self.secretly_old.discard(name)
            self.to_end.add(name)

    @rule(name=st.sampled_from(UNWANTED), state=st.sampled_from(["ready", "failed"]))
    def stranger_beats(self, name: str, state: ReplicaState) -> None:
        self.fleet.heard(SITE, health(name, state), self.now)

    @invariant()
    def names_are_the_actors(self) -> None:
        assert self.fleet.names == tuple(sorted(self.actors))

    @invariant()
    def health_is_told_for_the_wanted_only(self) -> None:
        told = [f"{SITE}/{one.agent}/{one.index}" for one in self.fleet.health(self.now)]
        assert told == sorted(WANTED)

    def teardown(self) -> None:
        """Once nothing goes wrong any more everything wanted runs, and nothing else."""
        for _ in range(4):
            self.now += SETTINGS.backoff_max_s
            self.reconcile(set(), lingers=False)
            for name in sorted(self.actors):
                self.hear(name)
        assert sorted(self.actors) == sorted(WANTED)
        assert self.fleet.waiting_for() == ""
        assert {one.state for one in self.fleet.health(self.now)} == {"ready"}


Site.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestSite = Site.TestCase


def test_silence_is_no_replicas_fault_while_nobody_can_be_heard() -> None:
    found = running(now=0.0)
    for now in range(1, 60):
        found.excuse(float(now))
        assert done(found, float(now)) == []
    assert done(found, 59.0 + 4.1) == [("replace", A)]
