"""Names become subject tokens and come back; no two names ever share one."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mesh.errors import SubjectError
from mesh.subjects import TOKEN_BYTES_MAX, DecisionSubject, Subjects, TelemetrySubject, escape, unescape

SUBJECTS = Subjects("metro")
# Three bytes of token per byte and four bytes per character fit within the longest token.
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=TOKEN_BYTES_MAX // 12)
tiers = st.sampled_from(["edge", "regional", "cloud"])


@given(texts)
def test_escaped_name_comes_back(name: str) -> None:
    assert unescape(escape(name)) == name


@given(texts)
def test_escaped_name_is_one_token_without_wildcards(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_=-]+", escape(name))


@given(texts, texts)
def test_two_names_never_share_a_token(one: str, other: str) -> None:
    assume(one != other)
    assert escape(one) != escape(other)


@given(st.text(alphabet="=0123456789ABCDEFabcdef.*> -_é", max_size=20))
def test_token_that_is_read_is_the_one_that_is_written(token: str) -> None:
    try:
        name = unescape(token)
    except SubjectError:
        return
    assert escape(name) == token


@pytest.mark.parametrize("name", ["", "\ud800", "x" * (TOKEN_BYTES_MAX + 1), "é" * TOKEN_BYTES_MAX])
def test_name_that_can_be_no_token_is_refused(name: str) -> None:
    with pytest.raises(SubjectError):
        escape(name)


@pytest.mark.parametrize("token", ["", "a.b", "*", ">", "=4", "=4g", "=41", "=c3=a9", "=FF", "a\n", "é"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(SubjectError):
        unescape(token)


@given(tiers, texts, texts, texts)
def test_decision_subject_round_trips(tier: str, site: str, agent: str, key: str) -> None:
    subject = SUBJECTS.decision(tier, site, agent, key)
    assert SUBJECTS.parse_decision(subject) == DecisionSubject(tier, site, agent, key)


@given(texts, texts, texts)
def test_telemetry_subject_round_trips(site: str, kind: str, id_: str) -> None:
    subject = SUBJECTS.telemetry(site, kind, id_)
    assert SUBJECTS.parse_telemetry(subject) == TelemetrySubject(site, kind, id_)


subject_like = st.lists(
    st.sampled_from(["metro", "decision", "telemetry", "edge", ".", "*", ">", "=41"]) | st.text(max_size=3)
)


@given(subject_like.map("".join) | subject_like.map(".".join))
def test_any_text_is_parsed_or_refused(subject: str) -> None:
    for parse in (SUBJECTS.parse_decision, SUBJECTS.parse_telemetry):
        with suppress(SubjectError):
            parse(subject)


@pytest.mark.parametrize(
    "subject", ["metro.decision.fog.a.b.c", "other.decision.edge.a.b.c", "metro.decision.edge.a.b"]
)
def test_subject_of_another_form_is_refused(subject: str) -> None:
    with pytest.raises(SubjectError):
        SUBJECTS.parse_decision(subject)


def test_wildcards_stand_for_names_left_open() -> None:
    assert SUBJECTS.decision(None, "north", None, None) == "metro.decision.*.north.*.*"
    assert SUBJECTS.telemetry("north", "cell", None) == "metro.telemetry.north.cell.*"


@pytest.mark.parametrize("mesh", ["", "a.b", "a b", "*", "é"])
def test_mesh_name_is_a_plain_token(mesh: str) -> None:
    with pytest.raises(SubjectError):
        Subjects(mesh)
