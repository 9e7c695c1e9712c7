"""Every tunable of the mesh: unit in the name, reason beside it. Passed in, never read at import."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FabricSettings:
    """How nats-servers are run and links watched."""

    ping_interval_s: float = 0.75
    """A dead link shows after interval × (max + 1) at most; 0.75 s × 2 was measured at 1.75–1.94 s."""
    ping_max: int = 2
    """Unanswered pings before a link counts as dead; 1 flaps on slow links."""
    leaf_reconnect_s: float = 0.25
    """Pause between a leaf's attempts to reach its parent."""
    ready_deadline_s: float = 10.0
    """A nats-server that is not ready by then has failed; a start takes about 0.2 s."""
    stop_deadline_s: float = 5.0
    """Time for a lame-duck-free shutdown before SIGKILL."""
    max_payload_bytes: int = 1024 * 1024
    """Largest message; the default of nats-server, stated so that refusals can name it."""
    disk_reserve_bytes: int = 256 * 2**20
    """Room a site wants beside its stream, for logs and memory."""


@dataclass(frozen=True)
class StreamSettings:
    """The site-local stream of decisions."""

    name: str = "DECISIONS"
    max_age_s: float = 7 * 86400.0
    """A week: longer than a usual outage, shorter than the disk lasts."""
    duplicate_window_s: float = 120.0
    """nats-server's default; a resent decision within it is stored once."""
    sync_interval_s: float = 1.0
    """How often nats-server flushes to disk: what a power cut may cost."""


@dataclass(frozen=True)
class ClientSettings:
    """Connections of our own processes."""

    connect_deadline_s: float = 10.0
    """A server that is not reached by then counts as away."""
    ping_interval_s: float = 1.0
    ping_max: int = 2
    """With 1 s pings a stopped server is noticed in 2.1 s (measured)."""
    reconnect_wait_s: float = 0.2
    """A restarted server is found again within this."""
    pending_bytes: int = 8 * 2**20
    """Most that a disconnected client buffers."""


@dataclass(frozen=True)
class ReplicaSettings:
    """One agent replica."""

    inlet_capacity: int = 4096
    """Observations waiting per inlet; beyond it the declared `on_full` applies."""
    outbox_capacity: int = 20_000
    """Decisions not yet acknowledged by the stream; the oldest are dropped and counted beyond it."""
    outbox_window: int = 256
    """Decisions in flight to the stream at once."""
    outbox_linger_s: float = 0.005
    """Decisions that answered an inference request wait this long to be sent together, off the asker's path."""
    ack_timeout_s: float = 2.0
    """A decision not acknowledged by then is sent again under the same id."""
    payload_bytes_max: int = 64 * 1024
    """Largest observation that is parsed; KPIs are a few hundred bytes."""
    heartbeat_s: float = 0.5
    """Between health messages."""
    memory_flush_s: float = 0.25
    """Between writes of memory to disk: what a kill -9 may cost."""
    inline_model_s: float = 0.001
    """A model slower than this runs in a thread, so that it never blocks the loop."""
    reject_log_s: float = 1.0
    """At most one log line per reason in this time."""
    ids_max: int = 100_000
    """Ids whose freshness and memory are tracked; the least recently seen is forgotten beyond it."""


@dataclass(frozen=True)
class SupervisorSettings:
    """How a site process watches its replicas."""

    tick_s: float = 0.25
    """Between reconciliations."""
    stuck_after_s: float = 4.0
    """A replica without heartbeat for this long is replaced; eight heartbeats."""
    start_deadline_s: float = 60.0
    """A replica not ready by then is replaced; a start takes 2–10 s on two busy cores."""
    backoff_first_s: float = 0.5
    backoff_max_s: float = 15.0
    """Failed starts are retried with doubling pauses between these."""
    status_s: float = 0.5
    """Between status messages."""


@dataclass(frozen=True)
class ForwarderSettings:
    """How decisions travel to the parent."""

    batch_max: int = 256
    """Decisions per message."""
    batch_bytes_max: int = 512 * 1024
    """Half of NATS's default largest message."""
    ack_timeout_s: float = 2.0
    """A batch not acknowledged by then is sent again."""
    retry_wait_s: float = 0.25
    """Pause after a failed batch: the link is probably away."""
    idle_wait_s: float = 0.5
    """Longest wait for new decisions in one fetch."""


@dataclass(frozen=True)
class Settings:
    """All of them."""

    fabric: FabricSettings = field(default_factory=FabricSettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    replica: ReplicaSettings = field(default_factory=ReplicaSettings)
    supervisor: SupervisorSettings = field(default_factory=SupervisorSettings)
    forwarder: ForwarderSettings = field(default_factory=ForwarderSettings)
