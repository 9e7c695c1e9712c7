"""Finds the running mesh that a command means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mesh.errors import ConnectError, CredentialError, NotRunningError, UsageError
from mesh.fabric.identity import Identities, ensure_identities
from mesh.fabric.machine import read_machine
from mesh.fabric.ports import read_ports
from mesh.folder import StateFolder
from mesh.settings import Settings
from mesh.subjects import Subjects
from mesh.topology.endpoint import Endpoint, endpoint
from mesh.topology.load import load
from mesh.topology.model import Topology
from mesh.topology.tree import top_down
from mesh.transport.connection import Connection, Login, connect

StateOption = Annotated[
    Path | None, typer.Option("--state", help="State folder of the mesh; default: the only one in .mesh.")
]


_CONNECT_S = 3.0
"""A server of this machine answers within milliseconds."""


@dataclass(frozen=True)
class Running:
    """A mesh of this machine, as its state folder tells."""

    folder: StateFolder
    file: Path
    topology: Topology
    identities: Identities

    @property
    def root(self) -> str:
        """The site without uplink."""
        return top_down(self.topology)[0]

    def endpoint(self, site: str) -> Endpoint:
        """Where the site's server listens; raises UsageError for an unknown site."""
        if site not in self.topology.sites:
            known = ", ".join(sorted(self.topology.sites))
            raise UsageError(f"{self.topology.mesh} has no site {site!r}", f"name one of {known}")
        port = read_ports(self.folder, self.topology, (site,))[site].client
        return endpoint(self.topology, site, port, self.file.absolute().parent)


async def connect_as_operator(mesh: Running, site: str, client: str) -> Connection:
    """A connection at `site`; `client` names the command.

    Raises CredentialError when the server refuses the operator's key, NotRunningError when none answers.
    """
    inbox = Subjects(mesh.topology.mesh).inbox(site, "operator", client)
    login = Login(mesh.endpoint(site), f"operator {client}", inbox, mesh.identities.get("operator").seed_file)
    try:
        return await connect(login, Settings().client, _CONNECT_S)
    except CredentialError:
        raise
    except ConnectError as error:
        raise NotRunningError(f"site {site}", str(mesh.folder.root)) from error


def find_folder(state: Path | None) -> StateFolder:
    """The state folder a command means; raises NotRunningError or UsageError when that is not clear."""
    if state is not None:
        folder = StateFolder(state.absolute())
        if not folder.machine.exists():
            raise NotRunningError("a mesh", str(folder.root))
        return folder
    found = sorted(path.parent for path in Path(".mesh").glob("*/keys") if path.is_dir())
    if not found:
        raise NotRunningError("a mesh", str(Path(".mesh").absolute()))
    if len(found) > 1:
        names = ", ".join(f"--state {path}" for path in found)
        raise UsageError("there are several meshes here", f"choose one: {names}")
    return StateFolder(found[0].absolute())


def find_running(state: Path | None) -> Running:
    """The mesh a command means, with its topology; raises NotRunningError, UsageError or TopologyError."""
    folder = find_folder(state)
    name = read_machine(folder).get("topology")
    if not isinstance(name, str):
        raise NotRunningError("a mesh", str(folder.root))
    topology = load(Path(name))
    return Running(folder, Path(name), topology, ensure_identities(folder, topology))
