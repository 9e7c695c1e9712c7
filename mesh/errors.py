"""Every error the mesh raises on purpose: each carries its data and says the remedy in one sentence."""

from __future__ import annotations


class MeshError(Exception):
    """Base of all expected failures; the CLI prints `str(error)` on one line and exits with `exit_code`.

    `problem` says what is wrong, `remedy` what to do about it; both are kept as attributes.
    """

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class UsageError(MeshError):
    """Raised when a command or a call is used wrongly (exit code 2)."""

    exit_code = 2


class UnitError(MeshError, ValueError):
    """Raised when a duration, size or rate cannot be read."""

    def __init__(self, text: object, kind: str, examples: str) -> None:
        self.text = text
        self.kind = kind
        super().__init__(f"{text!r} is no {kind}", f"write a number and a unit, such as {examples}")


class SubjectError(MeshError, ValueError):
    """Raised when a name cannot become a subject token or a subject is none of the mesh's."""


class TopologyError(MeshError):
    """Raised when a topology file has findings; `findings` is the complete rendered list."""

    def __init__(self, file: str, findings: tuple[str, ...]) -> None:
        self.file = file
        self.findings = findings
        super().__init__(
            f"{file} has {len(findings)} finding{'s' if len(findings) != 1 else ''}: {findings[0]}",
            f"run 'mesh validate {file}' to see all of them",
        )


class PlacementError(MeshError):
    """Raised when replicas cannot be placed; `shortages` names every unsatisfiable demand."""

    def __init__(self, shortages: tuple[str, ...]) -> None:
        self.shortages = shortages
        super().__init__(
            "nothing was started because replicas do not fit: " + "; ".join(shortages),
            "lower resources or replicas, or raise the site's capacity in the topology",
        )


class AgentError(MeshError):
    """Raised when an agent class is declared or used wrongly."""


class NotYetError(AgentError):
    """Raised for a field or method of later work, so that nobody relies on it silently doing nothing."""

    def __init__(self, feature: str) -> None:
        self.feature = feature
        super().__init__(f"{feature} is not available yet", "remove it until a release's notes name it as working")


class ModelError(MeshError):
    """Raised when a model cannot be loaded, does not fit the agent's features, or its provider is absent."""


class FabricError(MeshError):
    """Raised when a nats-server cannot be started, reached or configured."""


class PortInUseError(FabricError):
    """Raised when an address a server must listen on is taken."""

    def __init__(self, what: str, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"{what} cannot listen on {host}:{port} because the port is in use",
            "stop the process that holds it or name another port in the topology",
        )


class DiskFullError(FabricError):
    """Raised when the site's disk has less room than its stores need."""

    def __init__(self, folder: str, free_bytes: int, needed_bytes: int) -> None:
        self.folder = folder
        self.free_bytes = free_bytes
        self.needed_bytes = needed_bytes
        super().__init__(
            f"the disk of {folder} has {free_bytes // 2**20} MiB free and the site needs {needed_bytes // 2**20} MiB",
            "free some space or choose another folder with --state",
        )


class ConnectError(MeshError):
    """Raised when no connection to a NATS server can be had before the deadline."""


class CredentialError(ConnectError):
    """Raised when a server refuses the identity that was presented."""

    def __init__(self, url: str, who: str) -> None:
        self.url = url
        self.who = who
        super().__init__(
            f"the server at {url} refused the credential of {who}",
            "write a fresh one with 'mesh credentials app' or check that the file belongs to this mesh",
        )


class RayError(MeshError):
    """Raised when a Ray cluster cannot be started or joined, or an actor cannot be placed."""


class BringUpError(MeshError):
    """Raised when replicas cannot serve while a mesh is brought up; `reasons` has one sentence each."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        self.reasons = reasons
        super().__init__("replicas cannot serve: " + " | ".join(reasons), "the mesh was taken down again")


class NotRunningError(MeshError):
    """Raised when a command needs a running mesh and finds none."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} is not running (looked in {where})", "start it with 'mesh up FILE'")


class TelemetryError(MeshError):
    """Raised when a source of telemetry cannot be opened."""
