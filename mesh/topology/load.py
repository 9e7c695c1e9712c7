"""Reads a topology file and gives either the topology or everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from mesh.errors import TopologyError
from mesh.topology.check import CHECKS, VALUE_CHECKS, judge
from mesh.topology.finding import Finding, Problem, Where, dotted
from mesh.topology.model import API_VERSION, Topology
from mesh.topology.shape import fit, problems
from mesh.topology.source import Data, Positions, Source, read

BYTES_MAX = 2**20
"""Largest file; a thousand sites take about a tenth of it."""

# Required fields for entries that have mistakes of their own, so that the rest of the file can still be judged.
_STAND_INS: dict[str, dict[str, Data]] = {
    "sites": {"tier": "edge"},
    "models": {"file": "-"},
    "agents": {"class": "a:A", "sites": {}},
    "telemetry": {"sites": {}},
}


@dataclass(frozen=True)
class Loaded:
    """All that one reading of a file gives.

    `topology` is None when the file does not have the form of one; it may be usable only if `findings` is empty.
    """

    topology: Topology | None
    findings: tuple[Finding, ...]
    positions: Positions


def load(path: Path) -> Topology:
    """The topology in a file; raises TopologyError with all findings."""
    loaded = inspect(path)
    if loaded.findings or loaded.topology is None:
        raise TopologyError(str(path), tuple(str(finding) for finding in loaded.findings))
    return loaded.topology


def inspect(path: Path) -> Loaded:
    """The topology in a file, its findings in the order of the file, and where everything stands; raises nothing."""
    text = _text(path)
    if isinstance(text, Finding):
        return Loaded(None, (text,), Positions({}, {}))
    source = read(text, str(path))
    topology, judged = _judged(source, path.parent)
    found = list(source.findings)
    for problem in judged:
        place = source.positions.find(problem.path, problem.at)
        where = dotted(problem.path)
        found.append(Finding(str(path), place.line, place.column, where, problem.problem, problem.allowed))
    found.sort(key=lambda finding: (finding.line, finding.column, finding.path, finding.problem))
    return Loaded(topology, tuple(found), source.positions)


def _text(path: Path) -> str | Finding:
    def finding(problem: str, allowed: str, line: int = 1, column: int = 1) -> Finding:
        return Finding(str(path), line, column, "", problem, allowed)

    try:
        with path.open("rb") as file:
            raw = file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return finding(f"the file cannot be read ({reason})", "give the path of a topology file")
    if len(raw) > BYTES_MAX:
        return finding(f"the file is larger than {BYTES_MAX // 2**20} MiB", "split the mesh or shorten the file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        good = raw[: error.start].decode("utf-8-sig", "replace")
        column = len(good) - (good.rfind("\n") + 1) + 1
        return finding("the file is not UTF-8", "save it as UTF-8", good.count("\n") + 1, column)


def _judged(source: Source, folder: Path) -> tuple[Topology | None, list[Problem]]:
    """The topology, if the file has the form of one, and all problems beyond the YAML itself."""
    if () in source.broken or not isinstance(source.data, dict):
        wrong = Problem((), "this is no topology", "a mapping that begins with 'apiVersion: mesh/v1' is allowed")
        return None, [] if source.findings else [wrong]
    misfits: list[Problem] = []
    try:
        topology = fit(source.data)
    except ValidationError as error:
        misfits = [problem for problem in problems(error) if not _within(problem.path, source.unread)]
    else:
        if not source.broken:
            return topology, list(judge(topology, folder, CHECKS))
    broken = source.broken | {problem.path for problem in misfits}
    bad_names = {problem.path for problem in misfits if problem.at == "key" and len(problem.path) == 2}
    sound = _sound(source.data, broken, bad_names)
    return None, [*misfits, *_judged_rest(sound, broken, folder)]


def _within(path: Where, unread: Set[Where]) -> bool:
    return any(path[:length] in unread for length in range(len(path) + 1))


def _judged_rest(sound: Data, broken: Set[Where], folder: Path) -> Iterator[Problem]:
    """Problems of the sound fields of a file whose other fields do not have the right form."""
    if sound is None:
        return
    try:
        topology = fit(sound)
    except ValidationError:
        return
    fields = {path[:3] for path in broken}
    for problem in judge(topology, folder, VALUE_CHECKS):
        if problem.path[:3] not in fields:
            yield problem


def _sound(data: dict[str, Data], broken: Iterable[Where], bad_names: Iterable[Where]) -> Data:
    """The data without its broken fields; None when a whole section is broken, which leaves nothing to judge."""
    sound: dict[str, Data] = {
        name: dict(section) if isinstance(section, dict) else section for name, section in data.items()
    }
    for path in broken:
        section = str(path[0])
        if len(path) == 1 and section in ("apiVersion", "mesh"):
            sound |= {"apiVersion": API_VERSION} if section == "apiVersion" else {"mesh": "mesh"}
        elif len(path) == 1 or section not in _STAND_INS:
            return None
        else:
            entries = cast("dict[str, Data]", sound[section])
            entry = entries[str(path[1])]
            fields = entry.items() if isinstance(entry, dict) else ()
            entries[str(path[1])] = _STAND_INS[section] | {key: value for key, value in fields if key not in path[2:3]}
    for path in bad_names:
        del cast("dict[str, Data]", sound[str(path[0])])[str(path[1])]
    return sound
