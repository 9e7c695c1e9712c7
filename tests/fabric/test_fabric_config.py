"""Seeds, ports and the rendered configuration, without a running server but for one check of the text."""

from __future__ import annotations

import multiprocessing
import socket
import stat
import subprocess
from pathlib import Path

import pytest
from fabric_mesh import PAIR, metro, topology_of

from mesh.errors import FabricError, NotRunningError, PortInUseError, UsageError
from mesh.fabric import config
from mesh.fabric.identity import IdentityError, ensure_app, ensure_identities, read_seed
from mesh.fabric.machine import read_machine, update_machine
from mesh.fabric.monitor import seconds
from mesh.fabric.ports import SitePorts, ensure_ports, read_ports
from mesh.fabric.serverlog import failure, telling_line
from mesh.folder import StateFolder
from mesh.processes import launch
from mesh.settings import Settings
from mesh.topology.model import Topology

SITES_APART = """
{sites: {
  hub: {tier: regional, listen: {host: 10.0.0.1, client: 4222, leaf: 7422, tls: {cert: c.pem, key: k.pem, ca: ca.pem}}},
  rim: {tier: edge, uplink: {to: hub}}}}
"""


def text_of(folder: StateFolder, topology: Topology, site: str, base: Path = Path("/files")) -> str:
    ports = {name: SitePorts(4000 + n, 5000 + n, 6000 + n, 7000 + n) for n, name in enumerate(topology.sites)}
    identities = ensure_identities(folder, topology)
    return config.render(topology, site, ports, identities, folder.site(site), Settings(), base)


def test_every_identity_has_a_seed_of_its_own_for_its_owner_only(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    identities = ensure_identities(folder, metro())
    assert len(identities.all) == 1 + 7 * 3 + 6
    assert len({identity.public for identity in identities}) == len(identities.all)
    assert stat.S_IMODE(folder.keys.stat().st_mode) == 0o700
    for identity in identities:
        assert stat.S_IMODE(identity.seed_file.stat().st_mode) == 0o600
        assert read_seed(identity.seed_file) not in repr(identity)
    assert ensure_identities(folder, metro()) == identities
    with pytest.raises(FabricError, match="no leaf identity at site core"):
        identities.get("leaf", "core")


def test_sites_and_applications_whose_names_touch_stay_apart(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    topology = topology_of("{sites: {n: {tier: regional}, n-a: {tier: edge, uplink: {to: n}}}}")
    ensure_app(folder, "n", "a-x")
    ensure_app(folder, "n-a", "x")
    identities = ensure_identities(folder, topology)
    assert [app.name for app in identities.apps("n")] == ["a-x", "default"]
    assert [app.name for app in identities.apps("n-a")] == ["default", "x"]


def publics(root: str) -> list[str]:
    return [identity.public for identity in ensure_identities(StateFolder(Path(root)), metro())]


def test_processes_that_begin_together_agree_on_seeds(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        one, *others = pool.map(publics, [str(tmp_path)] * 6)
    assert all(other == one for other in others)


@pytest.mark.parametrize("text", ["", "garbage", "SUAOTHER", "é", "SAA" + "A" * 55])
def test_a_garbled_seed_is_named_with_its_file(tmp_path: Path, text: str) -> None:
    folder = StateFolder(tmp_path)
    file = ensure_identities(folder, metro()).get("leaf", "north").seed_file
    file.write_text(text, encoding="utf-8")
    with pytest.raises(IdentityError, match=r"leaf\.north\.nk holds no nkey seed.*restore it") as caught:
        ensure_identities(folder, metro())
    assert caught.value.file == file


def test_a_mistyped_seed_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    file = ensure_identities(folder, metro()).get("operator").seed_file
    seed = file.read_text().strip()
    file.write_text(seed[:20] + ("A" if seed[20] != "A" else "B") + seed[21:])
    with pytest.raises(IdentityError):
        ensure_identities(folder, metro())


def test_an_open_seed_file_is_closed_to_others(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    file = ensure_identities(folder, metro()).get("operator").seed_file
    file.chmod(0o644)
    ensure_identities(folder, metro())
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "a.b", "../x", "-a", "a b"])
def test_an_application_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        ensure_app(StateFolder(tmp_path), "north", name)


def test_the_machine_file_keeps_what_others_wrote(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    update_machine(folder, lambda document: document.update(ray={"port": 1}))
    ports = ensure_ports(folder, metro())
    assert read_machine(folder)["ray"] == {"port": 1}
    assert read_ports(folder, metro()) == ports == ensure_ports(folder, metro())
    folder.machine.write_text("{")
    with pytest.raises(FabricError, match="no JSON object"):
        ensure_ports(folder, metro())


def test_ports_are_distinct_and_declared_ones_win(tmp_path: Path) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        declared = one.getsockname()[1]
    topology = topology_of(PAIR.replace("tier: regional", f"tier: regional, listen: {{leaf: {declared}}}"))
    ports = ensure_ports(StateFolder(tmp_path), topology)
    assert ports["hub"].leaf == declared
    assert ports["hub"].relay is None
    assert ports["rim"].relay is not None
    each = [port for site in ports.values() for port in vars(site).values() if port is not None]
    assert len(each) == len(set(each)) == 7


def test_a_port_taken_while_nothing_runs_is_chosen_anew_and_the_others_stay(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    before = ensure_ports(folder, metro())
    with socket.create_server(("127.0.0.1", before["north"].client)):
        after = ensure_ports(folder, metro())
        folder.up_pid.write_text(f"{multiprocessing.current_process().pid}\n")
        assert ensure_ports(folder, metro()) == after
    assert after["north"].client != before["north"].client
    assert {site: after[site] for site in after if site != "north"} == {
        site: before[site] for site in before if site != "north"
    }


def test_ports_in_use_are_kept_while_the_mesh_runs(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    before = ensure_ports(folder, metro())
    site_process = launch(["sleep", "60"], folder.site("core").mark, tmp_path / "log")
    try:
        assert ensure_ports(folder, metro(), is_free=lambda host, port: False) == before
    finally:
        site_process.kill()
        site_process.wait()


def test_a_declared_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        topology = topology_of(f"{{sites: {{solo: {{tier: edge, listen: {{client: {port}}}}}}}}}")
        with pytest.raises(PortInUseError, match=f"solo.*{port}"):
            ensure_ports(StateFolder(tmp_path), topology)


def test_ports_of_a_mesh_that_never_ran_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(NotRunningError):
        read_ports(StateFolder(tmp_path), metro())


def test_rendering_is_deterministic_and_holds_no_seed(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    text = text_of(folder, metro(), "north")
    assert text_of(folder, metro(), "north") == text
    assert not any(read_seed(identity.seed_file) in text for identity in ensure_identities(folder, metro()))
    assert 'server_name: "metro-north"' in text
    assert 'domain: "north"' in text
    assert 'ping_interval: "750ms"' in text
    assert "max_file_store: 536870912" in text
    assert text.count('allowed_connection_types: ["LEAFNODE"]') == 2
    assert text.count('allowed_connection_types: ["STANDARD"]') == 4


@pytest.mark.parametrize("site", ["core", "north", "north-a"])
def test_the_program_accepts_what_is_rendered(nats_server: Path, tmp_path: Path, site: str) -> None:
    folder = StateFolder(tmp_path / 'a "folder" with spaces and $signs')
    files = folder.site(site)
    files.root.mkdir(parents=True)
    files.nats_config.write_text(text_of(folder, metro(), site))
    seed = ensure_identities(folder, metro()).get("operator").seed_file
    files.uplink_config.write_text(config.render_uplink(read_seed(seed)))
    done = subprocess.run([nats_server, "-t", "-c", files.nats_config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_clients_differ_when_an_application_is_added(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    before = text_of(folder, metro(), "north")
    ensure_app(folder, "north", "rapp")
    after = text_of(folder, metro(), "north")
    assert before != after
    assert config.reloadable(before, after)
    smaller = metro().model_copy(update={"sites": {k: v for k, v in metro().sites.items() if k != "north-b"}})
    assert not config.reloadable(before, text_of(folder, smaller, "north"))
    assert not config.reloadable("", before)


def test_a_parent_on_another_machine_is_reached_with_tls_and_without_a_relay(tmp_path: Path) -> None:
    topology = topology_of(SITES_APART)
    text = text_of(StateFolder(tmp_path), topology, "rim")
    assert 'url: "tls://10.0.0.1:7422"' in text
    assert 'ca_file: "/files/ca.pem"' in text
    hub = text_of(StateFolder(tmp_path), topology, "hub")
    assert hub.count('cert_file: "/files/c.pem"') == 2
    ports = ensure_ports(StateFolder(tmp_path), topology, ["rim"])
    assert ports["rim"].relay is None
    assert list(ports) == ["rim"]


def test_an_uplink_whose_port_cannot_be_known_is_refused(tmp_path: Path) -> None:
    topology = topology_of(PAIR.replace("tier: regional", "tier: regional, nats: 'nats://127.0.0.1:4222'"))
    with pytest.raises(FabricError, match=r"declare listen\.leaf for site hub"):
        text_of(StateFolder(tmp_path), topology, "rim")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4.21ms", 0.00421), ("1m2.5s", 62.5), ("850µs", 0.00085), ("0s", 0.0), ("", None), ("fast", None), (3, None)],
)
def test_durations_of_the_monitor_are_read(text: object, expected: float | None) -> None:
    assert seconds(text) == (None if expected is None else pytest.approx(expected))


def test_the_telling_line_is_the_fatal_one() -> None:
    log = (
        "[1] 2026/01/01 00:00:00.000000 [INF] Starting\n"
        "[1] 2026/01/01 00:00:00.000000 [ERR] an error\n"
        "[1] 2026/01/01 00:00:00.000000 [FTL] no space left on device\n"
    )
    assert telling_line(log) == "no space left on device"
    assert "free some space" in failure("north", log, "ended").remedy
    assert str(failure("north", "", "ended")) == (
        "the nats-server of site north ended; see nats.log in the site's folder"
    )
    taken = failure(
        "north", "[1] 1 2 [FTL] Error listening: listen tcp 127.0.0.1:4222: bind: address already in use", ""
    )
    assert isinstance(taken, PortInUseError)
    assert taken.port == 4222


@pytest.mark.parametrize("place", ["file/below", "x" * 300])
def test_a_state_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("no folder")
    folder = StateFolder(tmp_path / place)
    with pytest.raises(FabricError, match="choose another state folder"):
        ensure_identities(folder, metro())
    with pytest.raises(FabricError, match="choose another state folder"):
        ensure_ports(folder, metro())
