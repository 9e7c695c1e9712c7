"""Running meshes for tests: started by the command line as an operator would, watched over NATS, always taken down.

Everything a test starts carries the variable RUN_MARK in its environment, by which leftovers are found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from mesh.clock import SystemClock
from mesh.fabric.identity import Identities, Role, ensure_identities
from mesh.fabric.machine import read_machine
from mesh.fabric.ports import read_ports
from mesh.folder import StateFolder
from mesh.health import ReplicaHealth, SiteStatus
from mesh.processes import recorded
from mesh.settings import Settings
from mesh.site.statuses import Statuses, Watch
from mesh.subjects import Subjects
from mesh.topology.endpoint import Endpoint
from mesh.topology.load import load
from mesh.topology.model import Topology
from mesh.topology.tree import top_down
from mesh.transport.connection import Connection, Login, connect
from mesh.transport.stream import Stored, extent, read

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
RUN_MARK = "MESH_TEST_RUN"
RUN_ID = secrets.token_hex(8)
STREAM = Settings().stream.name


def environment() -> dict[str, str]:
    """Of every process that a test starts."""
    return {**os.environ, RUN_MARK: RUN_ID, "COLUMNS": "200"}


def leftovers() -> dict[int, str]:
    """Living processes of this test run besides this one: number and command line."""
    mark = f"{RUN_MARK}={RUN_ID}".encode()
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:160]
    return found


def kill_leftovers() -> dict[int, str]:
    """Waits a little for what is ending, kills the rest and returns it."""
    ends = time.monotonic() + 10.0
    while leftovers() and time.monotonic() < ends:
        _pause()
    rest = leftovers()
    for pid in rest:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return rest


def _pause(seconds: float = 0.1) -> None:
    asyncio.run(asyncio.sleep(seconds))


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float) -> Any:
    """Polls `condition` and returns what it found; fails the test after `deadline_s`."""
    ends = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < ends, f"not within {deadline_s} s: {what}"
        _pause()
    return found


async def until(condition: Callable[[], Any], what: str, deadline_s: float) -> float:
    """Polls `condition` without blocking the loop; seconds it took. Fails the test after `deadline_s`."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < deadline_s, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - begin


@contextlib.contextmanager
def running(arguments: list[str], output: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose stdout and stderr go to `output` with .out and .err; ended at the end."""
    with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(arguments, stdout=out, stderr=err, env=environment(), **more)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def mesh_command(*arguments: str, cwd: Path, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs one command of the command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "mesh", *arguments],
        cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip


@dataclass
class Live:
    """One mesh in a state folder of its own."""

    file: Path
    work: Path
    """Working folder of the commands; the state folder lies in it."""
    up: subprocess.Popen[bytes] | None = None
    _log: Path | None = None
    _starts: int = 0

    def __post_init__(self) -> None:
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def state(self) -> StateFolder:
        return StateFolder(self.work / "state")

    @property
    def topology(self) -> Topology:
        return load(self.file)

    @property
    def subjects(self) -> Subjects:
        return Subjects(self.topology.mesh)

    @property
    def root(self) -> str:
        return top_down(self.topology)[0]

    @property
    def identities(self) -> Identities:
        return ensure_identities(self.state, self.topology)

    @property
    def stdout(self) -> str:
        assert self._log is not None
        return self._log.with_suffix(".out").read_text()

    @property
    def stderr(self) -> str:
        assert self._log is not None
        return self._log.with_suffix(".err").read_text()

    def start(self, *options: str) -> None:
        """Starts `mesh up` and does not wait."""
        self._starts += 1
        self._log = self.work / f"up-{self._starts}"
        arguments = [sys.executable, "-m", "mesh", "up", str(self.file), "--state", str(self.state.root), *options]
        with self._log.with_suffix(".out").open("wb") as out, self._log.with_suffix(".err").open("wb") as err:
            self.up = subprocess.Popen(
                arguments, cwd=self.work, stdout=out, stderr=err, env=environment(), start_new_session=True
            )

    def ready(self, deadline_s: float = 80.0) -> float:
        """Waits until `mesh up` says that all replicas answered; the seconds it reports."""
        assert self.up is not None
        up, found = self.up, re.compile(r"all replicas answered after ([\d.]+) s")

        def answered() -> re.Match[str] | None:
            assert up.poll() is None, f"mesh up ended with {up.returncode}: {self.stderr[-2000:]}"
            return found.search(self.stderr)

        try:
            return float(wait_until(answered, "all replicas answered", deadline_s)[1])
        except AssertionError as error:
            raise AssertionError(f"{error}; it said: {self.stderr[-2000:]}") from error

    def interrupt(self, deadline_s: float = 60.0) -> int:
        """Ctrl-C; the exit code."""
        assert self.up is not None
        self.up.send_signal(signal.SIGINT)
        return self.up.wait(deadline_s)

    def kill_up(self) -> None:
        """kill -9 of `mesh up`."""
        assert self.up is not None
        self.up.kill()
        self.up.wait()

    def command(self, *arguments: str, timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Runs a command against this mesh."""
        return mesh_command(*arguments, "--state", str(self.state.root), cwd=self.work, timeout_s=timeout_s)

    def down(self) -> None:
        """Takes everything down, whatever state it is in."""
        try:
            if self.up is not None and self.up.poll() is None:
                self.interrupt()
        finally:
            if self.up is not None and self.up.poll() is None:
                self.kill_up()
            if self.state.machine.exists():
                self.command("down")

    def url(self, site: str) -> str:
        given = self.topology.sites[site].nats
        return given or f"nats://127.0.0.1:{read_ports(self.state, self.topology)[site].client}"

    def nats_pid(self, site: str) -> int | None:
        files = self.state.site(site)
        found = recorded(files.nats_pid, files.nats_mark)
        return None if found is None else found.pid

    def ray_temps(self) -> list[Path]:
        """Temporary folders of the Ray heads that run now."""
        return [Path(head["temp"]) for head in read_machine(self.state).get("ray", {}).values()]

    def ray_address(self, key: str = "shared") -> str:
        return str(read_machine(self.state)["ray"][key]["address"])


def assert_plain_error(text: str) -> None:
    """One sentence for people: no stack."""
    assert "Traceback" not in text, text
    assert 'File "' not in text, text


@dataclass
class View:
    """A test's connections to a running mesh, and what its sites say."""

    live: Live
    statuses: Statuses
    connections: list[Connection] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    def status(self, site: str) -> SiteStatus:
        return self.statuses.latest[site]

    def replica(self, site: str, agent: str, index: int = 0) -> ReplicaHealth:
        found = (r for r in self.status(site).replicas if (r.agent, r.index) == (agent, index))
        return next(found)

    async def as_role(self, role: Role, site: str, inbox: str = "") -> Connection:
        """A connection of our own client as an identity of the mesh; closed at the end."""
        at = None if role == "operator" else site
        seed = self.live.identities.get(role, at).seed_file
        client = "default" if role == "app" else f"test{len(self.connections)}"
        prefix = inbox or Subjects.inbox(site, role, client)
        login = Login(Endpoint(self.live.url(site)), f"test {role}", prefix, seed)
        connection = await connect(login, Settings().client)
        self.connections.append(connection)
        return connection

    async def outside(self, site: str, name: str = "default") -> Client:
        """A plain nats-py client with the credential that the command writes for an application."""
        done = self.live.command("credentials", "app", name, "--site", site, "--json")
        assert done.returncode == 0, done.stderr
        credential = json.loads(done.stdout)
        client = await nats.connect(
            credential["url"],
            nkeys_seed=credential["seed_file"],
            inbox_prefix=credential["inbox_prefix"].encode(),
            connect_timeout=10,
        )
        self.clients.append(client)
        return client

    def well(self) -> bool:
        """Whether every site is ready, every link up, and decisions travel without delay."""
        sites = self.live.topology.sites
        if not self.statuses.ready(sites):
            return False
        found = [self.statuses.latest[site] for site in sites]
        linked = all(s.link is None or (s.link.up and not s.link.cut) for s in found)
        return linked and all(s.backlog < 300 for s in found)

    async def all_well(self, deadline_s: float = 60.0) -> float:
        """Waits until all is well; says what is not when it takes longer."""
        try:
            return await until(self.well, "all is well", deadline_s)
        except AssertionError as error:
            told = {s: (x.waiting_for, x.link, x.backlog) for s, x in self.statuses.latest.items()}
            raise AssertionError(f"{error}: {told}") from error

    async def last(self, site: str) -> int:
        """Newest sequence of the site's stream."""
        return (await extent(await self._reader(site), STREAM)).last

    async def stored(self, site: str, after: int, subject: str = "") -> list[Stored]:
        """What the site's stream holds after a sequence, up to now."""
        connection = await self._reader(site)
        last = (await extent(connection, STREAM)).last
        found: list[Stored] = []
        batches = read(connection, STREAM, subject or self.live.subjects.decisions, after, 500, 1.0)
        async with contextlib.aclosing(batches):  # type: ignore[type-var]
            async for batch in batches:
                found += [one for one in batch if one.sequence <= last]
                if not batch or batch[-1].sequence >= last:
                    return found
        return found

    async def arrived(self, site: str, after: int, wanted: set[str], deadline_s: float = 30.0) -> list[str]:
        """Waits until the site's stream holds all `wanted` ids after a sequence; all ids there, in order."""
        begin = time.monotonic()
        ids: list[str] = []
        while True:
            news = await self.stored(site, after)
            if news:
                after = news[-1].sequence
                ids += [one.id for one in news]
            missing = wanted - set(ids)
            if not missing:
                return ids
            assert time.monotonic() - begin < deadline_s, f"{len(missing)} of {len(wanted)} never came to {site}"
            await asyncio.sleep(0.2)

    async def _reader(self, site: str) -> Connection:
        for connection in self.connections:
            if connection.login.url == self.live.url(site) and connection.login.name == "test operator":
                await until(lambda found=connection: found.connected, f"a connection to {site}", 15.0)
                return connection
        return await self.as_role("operator", site)


@contextlib.asynccontextmanager
async def view(live: Live) -> AsyncIterator[View]:
    """Follows the mesh until the end of the test."""
    statuses = Statuses(SystemClock())
    watch = Watch(live.topology.mesh, live.identities.get("operator"), statuses, Settings())
    seen = View(live, statuses)
    for site in live.topology.sites:
        watch.follow(site, Endpoint(live.url(site)))
    try:
        await until(lambda: set(statuses.latest) == set(live.topology.sites), "a status of every site", 20.0)
        yield seen
    finally:
        await asyncio.gather(*(client.close() for client in seen.clients), return_exceptions=True)
        await asyncio.gather(*(one.aclose() for one in seen.connections), return_exceptions=True)
        await watch.aclose()
