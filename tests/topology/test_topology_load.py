"""A topology file either loads or is told everything that is wrong with it, each with its place."""

from __future__ import annotations

import string
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from topology_expected import FORM, JUDGED

from mesh.errors import TopologyError
from mesh.topology.load import BYTES_MAX, inspect, load
from mesh.topology.model import Topology

FIXTURES = Path(__file__).parent / "fixtures"
TOPOLOGIES = Path(__file__).parents[2] / "topologies"
METRO = (TOPOLOGIES / "metro.yaml").read_text()
MINIMAL = "apiVersion: mesh/v1\nmesh: m\nsites:\n  core: {tier: cloud}\n"

in_one_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mesh.yaml"


@pytest.mark.parametrize("mistake", FORM)
def test_mistake_in_the_form_is_told_with_its_place(mistake: str) -> None:
    path = FIXTURES / f"{mistake}.yaml"
    told = [str(finding).removeprefix(f"{path}:") for finding in inspect(path).findings]
    assert len(told) == len(FORM[mistake])
    for finding, expected in zip(told, FORM[mistake], strict=True):
        assert finding.startswith(expected)


def test_every_fixture_is_expected() -> None:
    assert {path.stem for path in FIXTURES.glob("*.yaml")} == FORM.keys() | JUDGED.keys()


@pytest.mark.parametrize("name", ["metro", "single", "lombardy"])
def test_shipped_topology_loads(name: str) -> None:
    assert load(TOPOLOGIES / f"{name}.yaml").mesh == name


@pytest.mark.parametrize("name", ["metro", "single", "lombardy"])
def test_dumped_topology_is_the_same_again(name: str) -> None:
    topology = load(TOPOLOGIES / f"{name}.yaml")
    assert Topology.model_validate(topology.model_dump(by_alias=True, mode="json")) == topology


def test_load_raises_all_findings_at_once() -> None:
    path = FIXTURES / "several-mistakes.yaml"
    with pytest.raises(TopologyError) as raised:
        load(path)
    assert raised.value.findings == tuple(str(finding) for finding in inspect(path).findings)
    assert len(raised.value.findings) == len(FORM["several-mistakes"])


def test_findings_stand_in_the_order_of_the_file() -> None:
    findings = inspect(FIXTURES / "several-mistakes.yaml").findings
    assert [(finding.line, finding.column) for finding in findings] == sorted(
        (finding.line, finding.column) for finding in findings
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2013-12-06T00:00:00+01:00", datetime(2013, 12, 6, tzinfo=timezone(timedelta(hours=1)))),
        ("2013-12-06T00:00:00Z", datetime(2013, 12, 6, tzinfo=UTC)),
        ('"2013-12-06 12:30:00-05:00"', datetime(2013, 12, 6, 12, 30, tzinfo=timezone(timedelta(hours=-5)))),
    ],
)
def test_time_keeps_its_offset(file: Path, written: str, meant: datetime) -> None:
    file.write_text(METRO.replace("2013-12-06T00:00:00+01:00", written))
    topology = inspect(file).topology
    assert topology is not None
    begin = topology.telemetry["cell"].begin
    assert begin is not None
    assert begin == meant
    assert begin.utcoffset() == meant.utcoffset()


def test_plain_scalars_are_read_by_the_core_schema(file: Path) -> None:
    file.write_text(
        "apiVersion: mesh/v1\nmesh: m\nsites:\n"
        "  1: {tier: cloud, labels: {no: no, day: 2013-12-06, hex: '0x1F', empty: ''}, capacity: {cpus: 0x10}}\n"
        "agents:\n  forecast:\n    class: fixture_agents:Forecast\n    sites: {}\n"
        "    parameters: {whole: 7, octal: 0o17, real: 1e3, yes: true, text: 1_000}\n"
    )
    topology = inspect(file).topology
    assert topology is not None
    assert topology.sites["1"].labels == {"no": "no", "day": "2013-12-06", "hex": "0x1F", "empty": ""}
    assert topology.sites["1"].capacity.cpus == 16
    parameters = topology.agents["forecast"].parameters
    assert parameters == {"whole": 7, "octal": 15, "real": 1000.0, "yes": True, "text": "1_000"}
    assert [type(value) for value in parameters.values()] == [int, int, float, bool, str]


def test_byte_order_mark_and_windows_lines_are_read(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert inspect(file).findings == ()


def test_missing_file_is_a_finding(file: Path) -> None:
    with pytest.raises(TopologyError, match=r"mesh\.yaml:1:1: the file cannot be read \(No such file or directory\)"):
        load(file)


def test_folder_is_a_finding(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="cannot be read"):
        load(tmp_path)


def test_path_with_a_null_byte_is_a_finding() -> None:
    with pytest.raises(TopologyError, match="cannot be read"):
        load(Path("mesh\0.yaml"))


def test_huge_file_is_refused(file: Path) -> None:
    file.write_text(MINIMAL + "#" * BYTES_MAX)
    with pytest.raises(TopologyError, match="larger than 1 MiB"):
        load(file)


def test_deep_brackets_are_refused_at_once(file: Path) -> None:
    file.write_text("a: " + "[" * (BYTES_MAX - 10))
    with pytest.raises(TopologyError, match="too deep"):
        load(file)


def test_long_cycle_of_uplinks_is_told_briefly(file: Path) -> None:
    ring = "".join(f"  s{n}: {{tier: cloud, uplink: {{to: s{(n + 1) % 1500}}}}}\n" for n in range(1500))
    file.write_text(MINIMAL + ring)
    (finding,) = inspect(file).findings
    assert finding.problem.endswith("(s0 → s1 → s2 → s3 → s4 → s5 → s6 → … → s0)")


def test_field_of_an_unrelated_name_gets_no_suggestion(file: Path) -> None:
    file.write_text(MINIMAL.replace("cloud}", "cloud, colour: red}"))
    (finding,) = inspect(file).findings
    assert finding.allowed.startswith("fields are tier, uplink,")


def test_python_name_of_a_field_is_not_accepted(file: Path) -> None:
    file.write_text(MINIMAL + "agents:\n  a: {class_: 'fixture_agents:Forecast', sites: {}}\n")
    assert [finding.path for finding in inspect(file).findings] == ["agents.a.class", "agents.a.class_"]


def test_finding_is_one_line_whatever_the_key(file: Path) -> None:
    file.write_text(MINIMAL + '"line\\nbreak. and: dot": 1\n')
    (finding,) = inspect(file).findings
    assert "\n" not in str(finding)
    assert finding.path == r"'line\nbreak. and: dot'"


def test_position_of_what_the_file_leaves_out_is_what_holds_it() -> None:
    positions = inspect(TOPOLOGIES / "metro.yaml").positions
    assert positions.find(("sites", "north-a", "capacity", "cpus")) == positions.keys["sites", "north-a"]
    assert positions.find(("sites", "north", "uplink", "to")) == positions.values["sites", "north", "uplink", "to"]


@in_one_folder
@given(raw=st.binary(max_size=200))
def test_any_bytes_load_or_raise_topology_error(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)
    with pytest.raises(TopologyError):
        load(file)


YAML_MARKS = [
    "&a",
    "*a",
    "!",
    "!!int ",
    "|\n",
    ">-\n",
    '"',
    "'",
    "\\",
    "%YAML 1.1\n",
    "---\n",
    "...\n",
    "? ",
    ": ",
    "- ",
]
YAML_MARKS += [
    "[",
    "]",
    "{",
    "}",
    "\t",
    " #",
    "<<: ",
    "~",
    "\u2028",
    '"\\U0fffffff"',
    "@",
    "`",
    "\r",
    ".nan",
    "1e999",
    "é",
]
yaml_like = st.lists(st.sampled_from([*YAML_MARKS, "a", "1", "\n", "\n  "]) | st.text(max_size=3), max_size=25)


@in_one_folder
@given(parts=yaml_like)
def test_any_text_loads_or_raises_topology_error(file: Path, parts: list[str]) -> None:
    file.write_text("".join(parts), encoding="utf-8", errors="replace", newline="")
    with pytest.raises(TopologyError):
        load(file)


@in_one_folder
@given(place=st.integers(0, len(METRO)), cut=st.integers(0, 12), put=st.sampled_from([*YAML_MARKS, *string.printable]))
def test_damaged_topology_loads_or_raises_topology_error(file: Path, place: int, cut: int, put: str) -> None:
    file.write_text(METRO[:place] + put + METRO[place + cut :], encoding="utf-8", newline="")
    told = [str(finding) for finding in inspect(file).findings]
    assert all(finding.startswith(f"{file}:") and "\n" not in finding for finding in told)
    with suppress(TopologyError):
        load(file)
        assert not told
