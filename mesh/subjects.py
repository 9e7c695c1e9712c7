"""The only place that builds or parses a subject (`docs/subjects.md` lists them all).

Tokens follow NATS ADR-6. A name outside `[A-Za-z0-9_-]` is escaped as `=XX` per UTF-8 byte, a sequence that no plain
name can contain, so escaping is reversible and two names never collide in a token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mesh.errors import SubjectError

_PLAIN = re.compile(r"[A-Za-z0-9_-]+\Z")
_UNPLAIN = re.compile(r"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+\Z")
_TIERS = ("edge", "regional", "cloud")
SITE_FAMILIES = (
    "control", "decision", "health", "outcome", "reject", "state", "status", "telemetry",
)  # fmt: skip
"""Families that never cross a link as themselves; `link` does, and `infer` in its routed form."""
SCOPES = ("global", "local", "region")
"""How far things go: `global` crosses every link, `region` those within a region, `local` none."""
SERVER_FAMILIES = ("$JS.>", "$KV.>", "$O.>", "$SYS.>", "$MQTT.>", "_R_.>", "_GR_.>")
"""The server's own subjects, none of which may cross a link."""
DISCOVERY = "$SRV.>"
"""NATS micro discovery of agents; crosses links."""
TOKEN_BYTES_MAX = 200
"""Longest escaped token: leaves room for nine tokens within a protocol line of 4 KiB."""


def escape(name: str) -> str:
    """One token for any non-empty name; raises SubjectError when empty or over TOKEN_BYTES_MAX bytes."""
    token = name if _PLAIN.match(name) else _UNPLAIN.sub(_escape_character, name)
    if not token:
        raise SubjectError("an empty name cannot be a subject token", "give it at least one character")
    if len(token) > TOKEN_BYTES_MAX:
        raise SubjectError(
            f"the name {name[:40]!r}… is {len(token)} bytes long as a subject token",
            f"keep it to {TOKEN_BYTES_MAX} bytes",
        )
    return token


def _escape_character(match: re.Match[str]) -> str:
    try:
        return "".join(f"={byte:02X}" for byte in match[0].encode())
    except UnicodeEncodeError as error:
        raise SubjectError(f"{match[0]!r} is no encodable character", "use valid Unicode text") from error


def unescape(token: str) -> str:
    """The name a token stands for; raises SubjectError when no name escapes to `token`."""
    if not _ESCAPED.match(token):
        raise SubjectError(f"{token!r} is no token of the mesh", "build subjects with mesh.subjects only")
    raw = re.sub(rb"=([0-9A-F]{2})", lambda m: bytes([int(m[1], 16)]), token.encode())
    try:
        name = raw.decode()
    except UnicodeDecodeError as error:
        raise SubjectError(f"{token!r} is no token of the mesh", "build subjects with mesh.subjects only") from error
    if escape(name) != token:
        raise SubjectError(f"{token!r} is not the canonical token of {name!r}", f"write {escape(name)!r}")
    return name


@dataclass(frozen=True)
class DecisionSubject:
    """The parsed form of a decision's subject; `key` and the names are unescaped."""

    tier: str
    site: str
    agent: str
    key: str


@dataclass(frozen=True)
class TelemetrySubject:
    """The parsed form of an observation's subject."""

    site: str
    kind: str
    id: str


def _pattern(name: str | None) -> str:
    return "*" if name is None else escape(name)


@dataclass(frozen=True)
class Subjects:
    """Builds and parses every subject of one mesh; a `None` argument is a wildcard for that token."""

    mesh: str

    def __post_init__(self) -> None:
        if not _PLAIN.match(self.mesh):
            raise SubjectError(f"{self.mesh!r} is no mesh name", "use letters, digits, '-' and '_' only")

    def telemetry(self, site: str | None, kind: str | None, id: str | None) -> str:
        """Observations; stays at the site."""
        return f"{self.mesh}.telemetry.{_pattern(site)}.{_pattern(kind)}.{_pattern(id)}"

    def decision(self, tier: str | None, site: str | None, agent: str | None, key: str | None) -> str:
        """Decisions as CloudEvents; carried upstream by forwarders and republished there."""
        return f"{self.mesh}.decision.{_pattern(tier)}.{_pattern(site)}.{_pattern(agent)}.{_pattern(key)}"

    @property
    def decisions(self) -> str:
        """All decisions of the mesh."""
        return f"{self.mesh}.decision.>"

    def infer(self, agent: str | None, site: str | None = "") -> str:
        """Inference requests: at this site, or (with `site`) the routed form that crosses links."""
        return f"{self.mesh}.infer.{_pattern(agent)}" + ("" if site == "" else f".{_pattern(site)}")

    def outcome(self, site: str | None, agent: str | None) -> str:
        """What came of a decision, told by an application; stays at the site."""
        return f"{self.mesh}.outcome.{_pattern(site)}.{_pattern(agent)}"

    def family(self, name: str) -> str:
        """Everything of one family, such as `telemetry` or `state`."""
        return f"{self.mesh}.{escape(name)}.>"

    @property
    def everything(self) -> str:
        """Every subject of the mesh."""
        return f"{self.mesh}.>"

    def reject(self, site: str | None, agent: str | None) -> str:
        """What an agent refused and why; stays at the site."""
        return f"{self.mesh}.reject.{_pattern(site)}.{_pattern(agent)}"

    def health(self, site: str | None, agent: str | None, index: int | None) -> str:
        """Heartbeat and counters of a replica; stays at the site."""
        return f"{self.mesh}.health.{_pattern(site)}.{_pattern(agent)}.{'*' if index is None else index}"

    def status(self, site: str | None) -> str:
        """A site's own account of itself; stays at the site."""
        return f"{self.mesh}.status.{_pattern(site)}"

    def control(self, site: str, verb: str | None) -> str:
        """Operator's requests to a site process; stays at the site."""
        return f"{self.mesh}.control.{escape(site)}.{_pattern(verb)}"

    def link(self, scope: str | None, sender: str | None, receiver: str | None, topic: str | None = None) -> str:
        """Between neighbours, by scope; `topic` None is everything under it.

        Subscribe with scope, sender and receiver named: permissions allow no wider form.
        """
        tail = ">" if topic is None else escape(topic)
        return f"{self.mesh}.link.{_pattern(scope)}.{_pattern(sender)}.{_pattern(receiver)}.{tail}"

    def link_inbox(self, scope: str, sender: str, receiver: str) -> str:
        """Prefix of the replies `receiver` sends to `sender`'s link requests: itself a link subject."""
        return f"{self.mesh}.link.{escape(scope)}.{escape(receiver)}.{escape(sender)}.reply"

    @staticmethod
    def inbox(site: str, role: str, client: str | None = None) -> str:
        """Prefix of private inboxes: `_INBOX.<site>.<role>[.<client>]`, to be given to a client as its inbox prefix.

        `role` is `site`, `replica`, `app` or `operator`. Because it is a token, a role may read its own inboxes and no
        other's, and a link may carry answers to applications and operators only. An application's `client` is its
        name, which its permissions demand; others choose one freely.
        """
        prefix = f"_INBOX.{escape(site)}.{escape(role)}"
        return prefix if client is None else f"{prefix}.{escape(client)}"

    @staticmethod
    def inboxes(site: str, role: str | None = None, client: str | None = None) -> str:
        """All inboxes of a site, of one role there, or of one client."""
        if role is None:
            return f"_INBOX.{escape(site)}.>"
        return f"{Subjects.inbox(site, role, client)}.>"

    @staticmethod
    def jetstream(*tokens: str) -> str:
        """A request to the site's own JetStream: `jetstream("STREAM", "INFO", "DECISIONS")`; `>` may end it."""
        return ".".join(("$JS", "API", *(token if token == ">" else escape(token) for token in tokens)))

    @staticmethod
    def flow_control(stream: str) -> str:
        """Answers of a push consumer's client to flow control of one stream."""
        return f"$JS.FC.{escape(stream)}.>"

    def parse_decision(self, subject: str) -> DecisionSubject:
        """Names in a decision's subject; raises SubjectError."""
        tier, site, agent, key = self._tokens(subject, "decision", 4)
        if tier not in _TIERS:
            raise SubjectError(f"{tier!r} in {subject!r} is no tier", f"use one of {', '.join(_TIERS)}")
        return DecisionSubject(tier, site, agent, key)

    def parse_telemetry(self, subject: str) -> TelemetrySubject:
        """Names in an observation's subject; raises SubjectError."""
        return TelemetrySubject(*self._tokens(subject, "telemetry", 3))

    def _tokens(self, subject: str, family: str, count: int) -> list[str]:
        mesh, _, rest = subject.partition(".")
        found, *tokens = rest.split(".")
        if mesh != self.mesh or found != family or len(tokens) != count:
            form = f"{self.mesh}.{family}." + ".".join(["<name>"] * count)
            raise SubjectError(f"{subject[:200]!r} is no {family} subject", f"it has the form {form}")
        return [unescape(token) for token in tokens]
