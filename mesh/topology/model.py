"""What a topology file may hold, as pydantic models; JSON Schema for editors is generated from them.

Fields of later work (`batch`, `escalate`) are refused by name in `check`, so a file never asks for what is not done.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from mesh.units import format_duration, format_rate, format_size, parse_duration, parse_rate, parse_size

API_VERSION = "mesh/v1"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}"

Tier = Literal["edge", "regional", "cloud"]
TIERS: tuple[Tier, ...] = ("edge", "regional", "cloud")


def _unit(parse: Any, kind: str, pattern: str, example: str, write: Any) -> tuple[Any, ...]:
    schema = WithJsonSchema({"type": "string", "pattern": pattern, "description": kind, "examples": [example]})
    return BeforeValidator(parse), schema, PlainSerializer(write, return_type=str)


_DURATION = _unit(parse_duration, "a duration", r"^\d+(\.\d+)?\s*(us|µs|ms|s|m|h|d)$", "18ms", format_duration)
_SIZE = _unit(parse_size, "a size", r"^\d+(\.\d+)?\s*([kMGT]?B|[KMGT]iB)$", "300MiB", format_size)
_RATE = _unit(parse_rate, "a bandwidth", r"^\d+(\.\d+)?\s*[kMG]?bit$", "1Gbit", format_rate)

Duration = Annotated[float, *_DURATION]
"""Seconds, written as `18ms`."""
Size = Annotated[int, *_SIZE]
"""Bytes, written as `300MiB`."""
Rate = Annotated[float, *_RATE]
"""Bits per second, written as `1Gbit`."""


def _name(value: str) -> str:
    if not re.fullmatch(NAME_PATTERN, value):
        raise ValueError("a name is 1 to 40 letters, digits, '-' and '_', and begins with a letter or digit")
    return value


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})]


class Section(BaseModel):
    """Base of every section: unknown fields are findings, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Uplink(Section):
    """The leaf-node connection from a site to its parent."""

    to: Name
    """Name of the parent site."""
    latency: Duration | None = None
    """One-way latency; emulated by a relay when both ends are on this machine."""
    bandwidth: Rate | None = None
    """Bandwidth each way; emulated by a relay when both ends are on this machine."""


class Tls(Section):
    """Certificates of a site's nats-server, for links and clients that come from other hosts."""

    cert: str
    """PEM file of the server's certificate."""
    key: str
    """PEM file of its private key."""
    ca: str
    """PEM file of the authority that signs the neighbours' certificates."""


class Listen(Section):
    """Addresses of a site's nats-server. Without it: loopback only, ports chosen once and kept in the state folder."""

    host: str = "127.0.0.1"
    """Address clients and links reach; anything beyond loopback needs `tls`."""
    client: int | None = Field(default=None, ge=1, le=65535)
    """Port for clients."""
    leaf: int | None = Field(default=None, ge=1, le=65535)
    """Port for the links of child sites."""
    tls: Tls | None = None
    """Certificates; required as soon as `host` is not loopback."""


class Capacity(Section):
    """What a site may spend on replicas."""

    cpus: float = Field(default=1.0, gt=0)
    """Processor shares, in cores."""
    memory: Size = 2 * 2**30
    """Memory."""
    disk: Size = 512 * 2**20
    """Most that the site's decision stream may hold on disk."""
    gpus: float = Field(default=0.0, ge=0)
    """Accelerators."""


class Site(Section):
    """A unit of failure and autonomy: one site process, one nats-server, one Ray cluster, any number of agents."""

    tier: Tier
    """Where in the hierarchy the site stands."""
    uplink: Uplink | None = None
    """Connection to the parent; exactly one site has none."""
    location: tuple[float, float] | None = None
    """Latitude and longitude, degrees."""
    labels: dict[Name, str] = {}
    """Free labels for selectors."""
    capacity: Capacity = Capacity()
    """What replicas may use here."""
    listen: Listen = Listen()
    """Addresses of the nats-server."""
    nats: str | None = None
    """URL of a nats-server that is already there; the mesh then starts none for this site."""
    ray: str | None = None
    """Address `host:port` of a Ray cluster that is already there; the mesh then starts none for this site."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """ONNX Runtime execution provider of the site's replicas."""


class ModelFile(Section):
    """An ONNX model."""

    file: str
    """Path of the `.onnx` file, relative to the topology file."""


class Selector(Section):
    """Chooses sites; a site must match every part that is given."""

    tier: Tier | None = None
    """Sites of this tier."""
    names: list[Name] | None = None
    """These sites."""
    labels: dict[Name, str] = {}
    """Sites that carry all these labels."""


class Resources(Section):
    """What one replica is allowed."""

    cpus: float = Field(default=0.1, gt=0)
    """Processor share, in cores."""
    memory: Size = 300 * 2**20
    """Memory."""
    gpus: float = Field(default=0.0, ge=0)
    """Accelerators."""


class Slo(Section):
    """What an operator expects of an agent; `mesh up` marks an agent that misses it."""

    p99: Duration
    """99th percentile of decision latency."""


class AgentSpec(Section):
    """One agent: which class, where, with which model and limits."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)

    class_: str = Field(alias="class", pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:Class`, found beside the topology file, then on the Python path."""
    sites: Selector
    """Where it runs."""
    model: Name | None = None
    """Model it predicts with."""
    consumes: list[Name] = []
    """Agents whose decisions are its observations, at its own site and below."""
    parameters: dict[Name, float | int | str | bool] = {}
    """Handed to the agent as `self.parameters`."""
    replicas: int = Field(default=1, ge=1, le=64)
    """Replicas per selected site; observations are partitioned over them by id."""
    resources: Resources = Resources()
    """What each replica is allowed."""
    slo: Slo | None = None
    """Latency that is expected."""
    batch: dict[str, Any] | None = None
    """Dynamic batching; not available yet."""
    escalate: dict[str, Any] | None = None
    """Escalation to a stronger agent; not available yet."""


class WideSource(Section):
    """A matrix without header: one row per id, one column per step."""

    format: Literal["wide"]
    """Says that this is a wide matrix."""
    file: str
    """CSV file, relative to the folder given with `--telemetry` or `folder`."""
    ids: str
    """File with one id a line, in the order of the rows."""
    start: datetime
    """Time of the first column, with its offset from UTC."""
    step: Duration
    """Time between columns."""
    field: Name
    """Observation field that the values fill."""
    unit: Literal["raw", "percent_of_p99"] = "raw"
    """`percent_of_p99` turns a count into a percentage of the id's own 99th percentile."""


class Column(Section):
    """Where an observation field comes from in a long table."""

    column: str
    """Name in the header."""
    unit: Literal["raw", "percent_of_p99"] = "raw"
    """`percent_of_p99` turns a count into a percentage of the id's own 99th percentile."""


class LongSource(Section):
    """A CSV file with a header: one row per id and time."""

    format: Literal["long"]
    """Says that this is a long table."""
    file: str
    """CSV file, relative to the folder given with `--telemetry` or `folder`."""
    time: str
    """Column with the time, RFC 3339."""
    id: str
    """Column with the id."""
    fields: dict[Name, Column]
    """Observation fields and the columns they come from."""


class GeneratorSource(Section):
    """Seeded synthetic telemetry with measured daily and weekly shapes."""

    profile: str
    """JSON file of calibrated figures, relative to the topology file."""
    seed: int = 1
    """Same seed, same telemetry."""
    field: Name
    """Observation field that the values fill."""
    step: Duration = 3600.0
    """Event time between observations."""


class Telemetry(Section):
    """Where one kind of observation comes from. Anything else may publish to the same subjects."""

    sites: dict[Name, list[str]]
    """Ids that belong to each site."""
    replay: Annotated[WideSource | LongSource, Field(discriminator="format")] | None = None
    """Recorded telemetry, replayed when a folder is known."""
    folder: str | None = None
    """Folder of the recorded telemetry, relative to the topology file; `--telemetry` overrides it."""
    generator: GeneratorSource | None = None
    """Used when there is no recorded telemetry."""
    begin: datetime | None = None
    """Event time at which replay begins; default: the start of the data."""
    repeat: bool = False
    """After the end, recorded telemetry begins again, in whole weeks where it has them; event time goes on."""
    speed: float = Field(default=1.0, gt=0, le=1e6)
    """Event seconds per second of the clock."""


class Topology(Section):
    """A whole file."""

    api_version: Literal["mesh/v1"] = Field(alias="apiVersion")
    """Version of this form."""
    mesh: Name
    """Name of the mesh: first token of every subject."""
    sites: dict[Name, Site] = Field(min_length=1)
    """Sites by name; they form one tree."""
    models: dict[Name, ModelFile] = {}
    """Models by name."""
    agents: dict[Name, AgentSpec] = {}
    """Agents by name."""
    telemetry: dict[Name, Telemetry] = {}
    """Sources by kind of observation."""
