"""Processes are found by the mark they were started with, and never mistaken for others; on real processes."""

from __future__ import annotations

import asyncio
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mesh.processes import (
    MARK,
    Process,
    end,
    end_marked,
    launch,
    marked,
    read_pid,
    recorded,
    running_command,
)

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
READY = "open({fifo!r}, 'w').write('ready'); "
WAITS = "import time; time.sleep(60)"
PATIENCE_S = 10.0


def until(came_true: Callable[[], bool]) -> None:
    """Waits for what takes no longer than the kernel needs to show a program's environment after its start."""
    ends = time.monotonic() + PATIENCE_S
    while not came_true():
        assert time.monotonic() < ends, "it did not come true"
        os.sched_yield()


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether a child ended; it is not reaped."""
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


class Family:
    """Children with a mark of their own, all ended and reaped afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"test {secrets.token_hex(8)}"
        self.children: list[subprocess.Popen[bytes]] = []

    def launch(self, arguments: Sequence[str] = ("sleep", "60"), mark: str | None = None) -> subprocess.Popen[bytes]:
        child = launch(arguments, mark or self.mark, self.folder / "logs" / "child.log", {"COLOUR": "blue"})
        self.children.append(child)
        until(lambda: Process(child.pid, mark or self.mark).verified() or has_ended(child))
        return child

    def python(self, before: str = "", after: str = WAITS) -> subprocess.Popen[bytes]:
        """A Python child that has come as far as `after`."""
        fifo = self.folder / secrets.token_hex(4)
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            child = self.launch([sys.executable, "-c", before + READY.format(fifo=str(fifo)) + after])
            assert select.select([reader], [], [], PATIENCE_S)[0], "the child did not come up"
        finally:
            os.close(reader)
        return child

    def end(self) -> None:
        for child in self.children:
            child.kill()
            child.wait(PATIENCE_S)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    found = Family(tmp_path)
    yield found
    found.end()


def test_launched_process_is_found_by_its_mark(family: Family) -> None:
    child = family.launch()
    assert marked(family.mark) == [Process(child.pid, family.mark)]


def test_only_processes_with_exactly_the_mark_are_found(family: Family) -> None:
    family.launch(mark=family.mark + " and more")
    assert marked(family.mark) == []


def test_all_with_the_mark_are_found_the_lowest_number_first(family: Family) -> None:
    pids = {family.launch().pid for _ in range(3)}
    found = [process.pid for process in marked(family.mark)]
    assert found == sorted(pids)


def test_children_of_a_marked_process_carry_its_mark(family: Family) -> None:
    child = family.python("import subprocess; child = subprocess.Popen(['sleep', '60']); ", "child.wait()")
    try:
        until(lambda: len(marked(family.mark)) == 2)
        assert child.pid in {process.pid for process in marked(family.mark)}
    finally:
        for process in marked(family.mark):
            process.signal(signal.SIGKILL)


def test_caller_is_not_found_by_its_own_mark(family: Family) -> None:
    code = "import os; from mesh.processes import marked; print(len(marked(os.environ['MESH_PROCESS'])))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, MARK: family.mark},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "0"


def test_ended_process_is_not_found_even_before_it_is_reaped(family: Family) -> None:
    child = family.launch(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert marked(family.mark) == []
    assert not Process(child.pid, family.mark).verified()


def test_signal_reaches_the_process(family: Family) -> None:
    child = family.launch()
    assert Process(child.pid, family.mark).signal(signal.SIGTERM)
    assert child.wait(PATIENCE_S) == -signal.SIGTERM


def test_process_that_has_the_number_but_another_mark_is_not_signalled(family: Family) -> None:
    """Given the number of a process that ended belongs to a foreign one by now."""
    foreign = family.launch(mark="foreign")
    remembered = Process(foreign.pid, family.mark)
    assert not remembered.verified()
    assert not remembered.signal(signal.SIGKILL)
    assert foreign.poll() is None
    assert Process(foreign.pid, "foreign").verified()


def test_process_that_is_gone_is_not_signalled(family: Family) -> None:
    child = family.launch(["true"])
    child.wait(PATIENCE_S)
    assert not Process(child.pid, family.mark).signal(signal.SIGTERM)


def test_gone_tells_that_a_process_ended(family: Family) -> None:
    child = family.launch()
    child.kill()
    assert asyncio.run(Process(child.pid, family.mark).gone(PATIENCE_S))


def test_gone_gives_up_at_its_deadline(family: Family) -> None:
    child = family.launch()
    assert not asyncio.run(Process(child.pid, family.mark).gone(0.0))
    assert child.poll() is None


def test_foreign_process_with_the_number_counts_as_gone(family: Family) -> None:
    foreign = family.launch(mark="foreign")
    assert asyncio.run(Process(foreign.pid, family.mark).gone(0.0))


def test_end_marked_asks_every_process_to_end_and_tells_how_many(family: Family) -> None:
    children = [family.launch() for _ in range(2)]
    assert asyncio.run(end_marked(family.mark, PATIENCE_S)) == 2
    assert [child.wait(PATIENCE_S) for child in children] == [-signal.SIGTERM] * 2


def test_end_marked_kills_what_does_not_listen(family: Family) -> None:
    child = family.python(STUBBORN)
    assert asyncio.run(end_marked(family.mark, 0.1)) == 1
    assert child.wait(PATIENCE_S) == -signal.SIGKILL


def test_end_marked_leaves_foreign_processes_alone(family: Family) -> None:
    foreign = family.launch(mark="foreign")
    assert asyncio.run(end_marked(family.mark, 0.0)) == 0
    assert foreign.poll() is None


def test_end_asks_a_process_to_end(family: Family) -> None:
    child = family.launch()
    asyncio.run(end(Process(child.pid, family.mark), PATIENCE_S))
    assert child.wait(PATIENCE_S) == -signal.SIGTERM


def test_end_kills_a_process_that_does_not_listen(family: Family) -> None:
    child = family.python(STUBBORN)
    asyncio.run(end(Process(child.pid, family.mark), 0.0))
    assert child.wait(PATIENCE_S) == -signal.SIGKILL


def test_recorded_process_is_the_one_that_the_pid_file_names(family: Family) -> None:
    pids = sorted(family.launch().pid for _ in range(2))
    pid_file = family.folder / "pid"
    for pid in pids:
        pid_file.write_text(f"{pid}\n")
        assert recorded(pid_file, family.mark) == Process(pid, family.mark)


@pytest.mark.parametrize("content", [None, "", "no number", "1", "-5"], ids=repr)
def test_recorded_process_is_found_by_its_mark_when_the_pid_file_is_lost_or_stale(
    family: Family, content: str | None
) -> None:
    child = family.launch()
    if content is not None:
        (family.folder / "pid").write_text(content)
    assert recorded(family.folder / "pid", family.mark) == Process(child.pid, family.mark)


def test_nothing_is_recorded_when_nothing_carries_the_mark(family: Family) -> None:
    foreign = family.launch(mark="foreign")
    (family.folder / "pid").write_text(str(foreign.pid))
    assert recorded(family.folder / "pid", family.mark) is None


@pytest.mark.parametrize(
    ("content", "number"), [(b"42", 42), (b" 42\n", 42), (b"", None), (b"4 2", None), (b"\xff", None), (b"-1", None)]
)
def test_pid_file_holds_a_number_or_nothing(tmp_path: Path, content: bytes, number: int | None) -> None:
    (tmp_path / "pid").write_bytes(content)
    assert read_pid(tmp_path / "pid") == number


def test_missing_pid_file_holds_nothing(tmp_path: Path) -> None:
    assert read_pid(tmp_path / "pid") is None


def test_running_command_is_known_by_a_word_of_its_command_line(family: Family) -> None:
    child = family.launch(["sh", "-c", "sleep 60 & wait", "up"])
    pid_file = family.folder / "pid"
    pid_file.write_text(str(child.pid))
    try:
        assert running_command(pid_file, "up") == child.pid
        assert running_command(pid_file, "u") is None
    finally:
        asyncio.run(end_marked(family.mark, PATIENCE_S))


def test_ended_command_is_not_running(family: Family) -> None:
    child = family.launch(["true", "up"])
    child.wait(PATIENCE_S)
    (family.folder / "pid").write_text(str(child.pid))
    assert running_command(family.folder / "pid", "up") is None


def test_caller_is_not_taken_for_another_command(tmp_path: Path) -> None:
    """Given the pid file is stale and the caller has its number by chance."""
    (tmp_path / "pid").write_text(str(os.getpid()))
    word = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
    assert running_command(tmp_path / "pid", word) is None


def test_launched_process_has_a_session_of_its_own(family: Family) -> None:
    child = family.launch()
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_output_goes_to_the_log_and_is_added_to_it(family: Family) -> None:
    for number in range(2):
        family.launch(["sh", "-c", f"echo out {number}; echo error {number} >&2"]).wait(PATIENCE_S)
    assert (family.folder / "logs" / "child.log").read_text().split("\n") == [
        "out 0",
        "error 0",
        "out 1",
        "error 1",
        "",
    ]


def test_environment_is_passed_on_with_additions_and_the_mark(family: Family) -> None:
    family.launch(["sh", "-c", 'echo "$COLOUR $MESH_PROCESS $HOME"']).wait(PATIENCE_S)
    told = (family.folder / "logs" / "child.log").read_text().strip()
    assert told == f"blue {family.mark} {os.environ.get('HOME', '')}"
