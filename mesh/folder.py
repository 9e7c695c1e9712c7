"""Where a mesh keeps its files on one machine: names only, nothing is read or written here.

<root>/                      .mesh/<mesh> in the working folder unless --state names another
  machine.json               ports, Ray address, epoch of the replay: what `mesh up` decided once
  ray-token                  token that guards the Ray clusters of this machine
  keys/<identity>.nk         nkey seeds, mode 0600
  credentials/               what `mesh credentials app` wrote
  sites/<site>/              one folder per site: nats.conf, uplink.conf, jetstream/, logs, process ids, memory/
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SiteFolder:
    """Files of one site."""

    root: Path

    @property
    def mark(self) -> str:
        """Mark of the site process (`mesh.processes`)."""
        return str(self.root)

    @property
    def nats_mark(self) -> str:
        """Mark of the nats-server."""
        return str(self.nats_config)

    @property
    def nats_config(self) -> Path:
        return self.root / "nats.conf"

    @property
    def uplink_config(self) -> Path:
        """Included by `nats.conf`; holds the leaf's seed, mode 0600."""
        return self.root / "uplink.conf"

    @property
    def nats_pid(self) -> Path:
        return self.root / "nats.pid"

    @property
    def nats_log(self) -> Path:
        return self.root / "nats.log"

    @property
    def jetstream(self) -> Path:
        return self.root / "jetstream"

    @property
    def site_pid(self) -> Path:
        return self.root / "site.pid"

    @property
    def site_log(self) -> Path:
        return self.root / "site.log"

    @property
    def forwarding(self) -> Path:
        """Cursors of the decision forwarder."""
        return self.root / "forwarding.json"

    @property
    def memory(self) -> Path:
        """Folder of the replicas' private memories."""
        return self.root / "memory"


@dataclass(frozen=True)
class StateFolder:
    """Files of one mesh on this machine."""

    root: Path

    @property
    def machine(self) -> Path:
        return self.root / "machine.json"

    @property
    def ray_token(self) -> Path:
        return self.root / "ray-token"

    @property
    def ray_log(self) -> Path:
        return self.root / "ray.log"

    @property
    def up_pid(self) -> Path:
        return self.root / "up.pid"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def credentials(self) -> Path:
        return self.root / "credentials"

    @property
    def sites(self) -> Path:
        """Holds one folder per site."""
        return self.root / "sites"

    def site(self, name: str) -> SiteFolder:
        return SiteFolder(self.sites / name)


def state_folder(mesh: str, state: Path | None) -> StateFolder:
    """The folder of a mesh: `state` when given, else `.mesh/<mesh>` in the working folder."""
    return StateFolder((state or Path(".mesh") / mesh).absolute())
