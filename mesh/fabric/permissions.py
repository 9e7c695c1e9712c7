"""What each role may publish and subscribe, and what a link may carry. Pure: rendered by `mesh.fabric.config`.

Inboxes are `_INBOX.<site>.<role>.<client>…` (`Subjects.inbox`), so a replica cannot read what the site process or an
application was answered, and a link carries answers to the roles that may ask across it and to no other.

nats-server's own exceptions, tried with 2.15.1: on a leaf connection `$MQTT.>` passes every allow-list, but not a
deny-list, so a leaf's permissions carry one; `$JS.ACK.>` and `_R_.>` pass both (and `_GR_.>` when the child claims to
be a hub). So no consumer of the mesh may rely on acknowledgements: all have `ack_policy: none` and keep their own
cursor, and then a `+NXT` or an acknowledgement from a hostile child has no effect.

Whoever listens to a link names scope, sender and receiver (`Subjects.link`), and the roles here are given exactly
those: what a link would not carry is refused at the site, with an error, rather than silently not arriving.
"""

from __future__ import annotations

from dataclasses import dataclass

from mesh.subjects import DISCOVERY, SCOPES, SERVER_FAMILIES, SITE_FAMILIES, Subjects
from mesh.topology.model import Topology
from mesh.topology.tree import children, parent, region, subtree

STREAM = "DECISIONS"
"""The stream that applications may read; the default of StreamSettings."""
ASKING_ROLES = ("app", "operator")
"""Roles whose requests cross links, so whose answers do."""
INBOX_ROLES = ("app", "operator", "replica", "site")
"""Every role that has inboxes."""


@dataclass(frozen=True)
class Permissions:
    """Allow-lists of one identity: everything else is refused."""

    publish: tuple[str, ...]
    """Subjects it may publish to; for a leaf, what the child may send up."""
    subscribe: tuple[str, ...]
    """Subjects it may subscribe to; for a leaf, what the child may receive."""
    allow_responses: bool
    """Whether it may answer, once, to the reply subject of a request it received."""
    deny: tuple[str, ...] = ()
    """Refused both ways in spite of the allow-lists; for a leaf, what nats-server would let pass them."""


@dataclass(frozen=True)
class Denials:
    """What a child's own server refuses on its uplink, whatever the parent allows."""

    imports: tuple[str, ...]
    """Subjects that must not come in."""
    exports: tuple[str, ...]
    """Subjects that must not go out."""


def replica(subjects: Subjects, topology: Topology, site: str) -> Permissions:
    """All replicas of a site: observe, decide, answer; nothing of JetStream, whose acknowledgement is a plain reply."""
    return Permissions(
        publish=(
            subjects.decision(topology.sites[site].tier, site, None, None),
            subjects.reject(site, None),
            subjects.health(site, None, None),
        ),
        subscribe=(
            subjects.telemetry(site, None, None),
            subjects.decisions,
            subjects.infer(None),
            subjects.infer(None, site),
            DISCOVERY,
            subjects.inboxes(site, "replica"),
        ),
        allow_responses=True,
    )


def site_process(subjects: Subjects, topology: Topology, site: str) -> Permissions:
    """The site process: supervisor, forwarder and sources of telemetry."""
    links = [(scope, other) for other in neighbours(topology, site) for scope in scopes(topology, site, other)]
    return Permissions(
        publish=(
            subjects.decisions,
            subjects.telemetry(site, None, None),
            subjects.status(site),
            *(subjects.link(scope, site, other) for scope, other in links),
            subjects.jetstream(">"),
        ),
        subscribe=(
            subjects.health(site, None, None),
            subjects.control(site, None),
            *(subjects.link(scope, other, site) for scope, other in links),
            subjects.inboxes(site, "site"),
        ),
        allow_responses=True,
    )


def application(subjects: Subjects, topology: Topology, site: str, name: str) -> Permissions:
    """The application `name` at a site: follows and resumes decisions, asks for inferences, sends telemetry.

    It may make consumers of the stream of decisions and read them, and change nothing else of JetStream.
    """
    return Permissions(
        publish=(
            subjects.infer(None),
            subjects.infer(None, None),
            subjects.telemetry(site, None, None),
            subjects.outcome(site, None),
            DISCOVERY,
            subjects.jetstream("INFO"),
            subjects.jetstream("STREAM", "INFO", STREAM),
            subjects.jetstream("CONSUMER", "CREATE", STREAM),
            subjects.jetstream("CONSUMER", "CREATE", STREAM, ">"),
            subjects.jetstream("CONSUMER", "INFO", STREAM, ">"),
            subjects.jetstream("CONSUMER", "MSG", "NEXT", STREAM, ">"),
            subjects.jetstream("CONSUMER", "DELETE", STREAM, ">"),
            subjects.flow_control(STREAM),
        ),
        subscribe=(
            subjects.decisions,
            subjects.status(site),
            subjects.reject(site, None),
            subjects.inboxes(site, "app", name),
        ),
        allow_responses=False,
    )


def operator(subjects: Subjects, topology: Topology, site: str) -> Permissions:
    """The operator, connected at `site`: sees everything of the mesh there, directs site processes."""
    return Permissions(
        publish=(
            subjects.control(site, None),
            subjects.infer(None),
            subjects.infer(None, None),
            DISCOVERY,
            subjects.jetstream(">"),
            subjects.flow_control(STREAM),
        ),
        subscribe=(subjects.everything, subjects.inboxes(site, "operator")),
        allow_responses=False,
    )


def leaf(subjects: Subjects, topology: Topology, child: str) -> Permissions:
    """What crosses the link of `child` to its parent, as the parent enforces it, also on a hostile child.

    Neighbours' link subjects by scope, routed inference towards the site it names, discovery, and answers to the
    applications and operators of the sites they belong to. Raises ValueError when `child` is the root.
    """
    above = parent(topology, child)
    if above is None:
        raise ValueError(f"{child} has no uplink")
    inside = subtree(topology, child)
    outside = tuple(name for name in sorted(topology.sites) if name not in inside)
    crossing = scopes(topology, child, above)
    return Permissions(
        publish=(
            *(subjects.link(scope, child, above) for scope in crossing),
            *(subjects.infer(None, name) for name in outside),
            DISCOVERY,
            *(subjects.inboxes(name, role) for name in outside for role in ASKING_ROLES),
        ),
        subscribe=(
            *(subjects.link(scope, above, child) for scope in crossing),
            *(subjects.infer(None, name) for name in inside),
            DISCOVERY,
            *(subjects.inboxes(name, role) for name in inside for role in ASKING_ROLES),
        ),
        allow_responses=False,
        deny=SERVER_FAMILIES,
    )


def uplink_denials(subjects: Subjects, topology: Topology, child: str) -> Denials:
    """What the child's server refuses by itself, so that it need not trust its parent.

    nats-server knows only deny-lists here, so they name every family that must not cross. It tells its `deny_imports`
    to the parent, where they stop both directions (seen with 2.15.1); so they hold what crosses neither way, and what
    may only go up could come down from a hostile parent: there no role of the child's site may subscribe to it.
    Raises ValueError when `child` is the root.
    """
    above = parent(topology, child)
    if above is None:
        raise ValueError(f"{child} has no uplink")
    everyone = sorted(topology.sites)
    inside = subtree(topology, child)
    others = [name for name in everyone if name not in (child, above)]
    silent = [role for role in INBOX_ROLES if role not in ASKING_ROLES]
    crossing = scopes(topology, child, above)
    never = (
        *(subjects.family(name) for name in SITE_FAMILIES),
        subjects.infer(None),
        *(subjects.link(scope, None, None) for scope in SCOPES if scope not in crossing),
        *(subjects.link(None, name, None) for name in others),
        *(subjects.link(None, None, name) for name in others),
        *(subjects.inboxes(name, role) for name in everyone for role in silent),
        *SERVER_FAMILIES,
    )
    return Denials(
        imports=never,
        exports=(
            *never,
            subjects.link(None, above, child),
            *(subjects.infer(None, name) for name in inside),
            *(subjects.inboxes(name, role) for name in inside for role in ASKING_ROLES),
        ),
    )


def neighbours(topology: Topology, site: str) -> tuple[str, ...]:
    """Parent, then children of a site."""
    above = parent(topology, site)
    return (*([] if above is None else [above]), *children(topology, site))


def scopes(topology: Topology, one: str, other: str) -> tuple[str, ...]:
    """Scopes that cross the link between two neighbours: `region` only when both lie in the same region."""
    at = region(topology, one)
    return ("global", "region") if at is not None and at == region(topology, other) else ("global",)
