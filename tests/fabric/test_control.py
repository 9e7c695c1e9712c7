"""Requests of an operator to a site process: who may ask."""

from __future__ import annotations

from pathlib import Path

from fabric_mesh import topology_of

from mesh.fabric.identity import Identity, ensure_identities
from mesh.folder import StateFolder
from mesh.site.control import VALID_S, may_request, signed_request

CUT, HEAL, NOW = "m.control.solo.cut", "m.control.solo.heal", 1_700_000_000.0


def keys(folder: Path) -> tuple[Identity, Identity]:
    found = ensure_identities(StateFolder(folder), topology_of("{sites: {solo: {tier: edge}}}"))
    return found.get("operator"), found.get("app", "solo")


def test_the_operator_may_request_about_the_time_of_signing(tmp_path: Path) -> None:
    operator, _ = keys(tmp_path)
    request = signed_request(CUT, NOW, operator.seed_file)
    assert may_request(request, CUT, NOW, operator.public)
    assert may_request(request, CUT, NOW + VALID_S, operator.public)


def test_a_request_is_good_neither_later_nor_for_another_verb(tmp_path: Path) -> None:
    operator, _ = keys(tmp_path)
    request = signed_request(CUT, NOW, operator.seed_file)
    assert not may_request(request, CUT, NOW + VALID_S + 1.0, operator.public)
    assert not may_request(request, HEAL, NOW, operator.public)


def test_an_application_may_not_request_nor_may_an_answer_that_was_sent_astray(tmp_path: Path) -> None:
    operator, app = keys(tmp_path)
    assert not may_request(signed_request(CUT, NOW, app.seed_file), CUT, NOW, operator.public)
    for payload in (b"", b"null", b'{"specversion":"1.0"}', bytes(range(256))):
        assert not may_request(payload, CUT, NOW, operator.public)
