"""Reads what a nats-server wrote before it failed, and says it in one sentence. Pure."""

from __future__ import annotations

import re

from mesh.errors import FabricError, PortInUseError

_LINE = re.compile(r"^(?:\[\d+\] \S+ \S+ )?(?:UTC )?\[(?P<level>FTL|ERR|WRN)\] (?P<text>.+)$")
_OWN = re.compile(r"^nats-server: (?P<text>.+)$")
_ADDRESS = re.compile(r"listen (?:tcp )?(?P<host>\[[0-9a-f:]+\]|[0-9.]+):(?P<port>\d+): .*address already in use")
_REMEDIES = (
    (re.compile(r"tls|x509|certificate|private key|\.pem", re.I), "check the files under listen.tls in the topology"),
    (re.compile(r"no space left", re.I), "free some space or choose another folder with --state"),
    (
        re.compile(r"jetstream|stream|store|storage|recover", re.I),
        "move the site's jetstream folder away (its decisions are then lost here) or restore it, and start again",
    ),
    (re.compile(r"permission denied", re.I), "let this user read and write the site's folder"),
    (re.compile(r"cannot assign requested address", re.I), "name an address of this machine as listen.host"),
    (re.compile(r"include|variable|parse|unknown field|\.conf", re.I), "remove nats.conf; it is rendered anew"),
)


def telling_line(log: str) -> str | None:
    """The line that best explains a failure: the first fatal one, else the first error, else the first warning."""
    found: dict[str, str] = {}
    for line in log.splitlines():
        if match := _LINE.match(line):
            found.setdefault(match["level"], match["text"].strip())
        elif match := _OWN.match(line):
            found.setdefault("FTL", match["text"].strip())
    return found.get("FTL") or found.get("ERR") or found.get("WRN")


def failure(site: str, log: str, otherwise: str, what: str = "did not start") -> FabricError:
    """The error for a nats-server that `what`, because of `log`'s telling line; `otherwise` when it has none."""
    line = telling_line(log)
    for candidate in log.splitlines():
        if match := _ADDRESS.search(candidate):
            return PortInUseError(f"the nats-server of site {site}", match["host"].strip("[]"), int(match["port"]))
    if line is None:
        return FabricError(f"the nats-server of site {site} {otherwise}", "see nats.log in the site's folder")
    line = line.rstrip(".")
    remedies = (remedy for pattern, remedy in _REMEDIES if pattern.search(line))
    return FabricError(
        f"the nats-server of site {site} {what}: {line}",
        next(remedies, "see nats.log in the site's folder"),
    )
