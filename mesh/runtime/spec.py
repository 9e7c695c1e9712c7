"""What a replica is told to run: plain data that travels to the actor's process."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec

from mesh.agent.agent import Parameter
from mesh.folder import StateFolder
from mesh.placement import Placed
from mesh.settings import Settings
from mesh.topology.classes import search_folders
from mesh.topology.endpoint import Endpoint
from mesh.topology.model import Topology


@dataclass(frozen=True)
class ReplicaSpec:
    """Everything a replica needs; equal digests mean that nothing has to be restarted."""

    mesh: str
    site: str
    tier: str
    agent: str
    index: int
    count: int
    class_: str
    folders: tuple[str, ...]
    """Where the class is looked for before the Python path."""
    model: str | None
    provider: Literal["cpu", "cuda"]
    consumes: tuple[str, ...]
    parameters: dict[str, Parameter]
    ids: dict[str, tuple[str, ...]]
    """Per kind the ids that belong to the site; a kind that is absent takes any id."""
    server: Endpoint
    seed_file: str | None
    memory_file: str
    settings: Settings

    @property
    def name(self) -> str:
        return f"{self.site}/{self.agent}/{self.index}"

    def digest(self) -> str:
        """Changes when the replica would behave otherwise, also when the model's or the class's file changed."""
        content = [msgspec.json.encode(dataclasses.asdict(self), order="deterministic")]
        module = self.class_.partition(":")[0].replace(".", "/")
        files = [Path(folder) / f"{module}.py" for folder in self.folders]
        for file in (*files, *([Path(self.model)] if self.model else ())):
            if file.is_file():
                content.append(sha256(file.read_bytes()).digest())
        return sha256(b"\n".join(content)).hexdigest()[:16]


def replica_spec(
    topology: Topology,
    base: Path,
    placed: Placed,
    folder: StateFolder,
    server: Endpoint,
    seed_file: Path | None,
    settings: Settings,
) -> ReplicaSpec:
    """The spec of `placed`; `base` is the topology file's folder, `server` the site's, `seed_file` the key."""
    spec = placed.spec
    model = topology.models[spec.model].file if spec.model else None
    memory = folder.site(placed.site).memory / f"{placed.agent}-{placed.index}.db"
    return ReplicaSpec(
        mesh=topology.mesh,
        site=placed.site,
        tier=placed.tier,
        agent=placed.agent,
        index=placed.index,
        count=placed.count,
        class_=spec.class_,
        folders=tuple(str(folder) for folder in search_folders(base)),
        model=str((base / model).resolve()) if model else None,
        provider=topology.sites[placed.site].provider,
        consumes=tuple(spec.consumes),
        parameters=dict(spec.parameters),
        ids={kind: tuple(source.sites.get(placed.site, [])) for kind, source in topology.telemetry.items()},
        server=server,
        seed_file=str(seed_file) if seed_file else None,
        memory_file=str(memory),
        settings=settings,
    )
