"""Where observations come from."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from mesh.errors import SubjectError
from mesh.subjects import escape
from mesh.topology.checks.links import is_file
from mesh.topology.finding import Problem, Where, shown
from mesh.topology.model import Topology, WideSource


def no_source(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Kinds of observation that come from nowhere."""
    for kind, telemetry in topology.telemetry.items():
        if telemetry.replay is None and telemetry.generator is None:
            yield Problem(("telemetry", kind), "it has no source", "add replay, generator or both", "key")


def id_claimed_twice(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Ids that belong to two sites, or twice to one."""
    for kind, telemetry in topology.telemetry.items():
        owners: dict[str, str] = {}
        for site, ids in telemetry.sites.items():
            for index, id_ in enumerate(ids):
                if id_ in owners:
                    problem = f"the id {shown(id_)} belongs to {owners[id_]!r} already"
                    path = ("telemetry", kind, "sites", site, index)
                    yield Problem(path, problem, "give each id to one site, once")
                owners.setdefault(id_, site)


def unusable_id(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Ids that no subject can carry."""
    for kind, telemetry in topology.telemetry.items():
        for site, ids in telemetry.sites.items():
            for index, id_ in enumerate(ids):
                try:
                    escape(id_)
                except SubjectError as error:
                    yield Problem(("telemetry", kind, "sites", site, index), error.problem, error.remedy)


def missing_folder(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Recordings that are not there, with no generator to stand in."""
    for kind, telemetry in topology.telemetry.items():
        if telemetry.folder is None or telemetry.generator is not None:
            continue
        if not _is_folder(folder, telemetry.folder):
            problem = f"there is no folder {shown(telemetry.folder)}"
            allowed = f"give its path from {shown(str(folder))}, or add a generator"
            yield Problem(("telemetry", kind, "folder"), problem, allowed)


def missing_profile(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Generators whose figures are not there."""
    for kind, telemetry in topology.telemetry.items():
        if telemetry.generator is not None and not is_file(folder, telemetry.generator.profile):
            problem = f"there is no file {shown(telemetry.generator.profile)}"
            path = ("telemetry", kind, "generator", "profile")
            yield Problem(path, problem, f"give its path from {shown(str(folder))}")


def naive_time(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Times that could be any of two dozen."""
    for kind, telemetry in topology.telemetry.items():
        times: list[tuple[Where, datetime | None]] = [(("begin",), telemetry.begin)]
        if isinstance(telemetry.replay, WideSource):
            times.append((("replay", "start"), telemetry.replay.start))
        for path, time in times:
            if time is not None and time.tzinfo is None:
                allowed = f"add one, such as {time.isoformat()}+01:00"
                yield Problem(("telemetry", kind, *path), "the time has no offset from UTC", allowed)


def zero_step(topology: Topology, folder: Path) -> Iterator[Problem]:
    """Telemetry that would come all at once."""
    for kind, telemetry in topology.telemetry.items():
        steps: list[tuple[Where, float | None]] = [
            (("replay", "step"), telemetry.replay.step if isinstance(telemetry.replay, WideSource) else None),
            (("generator", "step"), telemetry.generator.step if telemetry.generator else None),
        ]
        for path, step in steps:
            if step == 0:
                yield Problem(("telemetry", kind, *path), "the step is zero", "write one above zero, such as 1h")


def _is_folder(base: Path, folder: str) -> bool:
    try:
        return (base / folder).is_dir()
    except (OSError, ValueError):
        return False
