"""Who connects: one nkey per role and site, kept as a seed file that only its owner may read.

Files are `keys/<role>.<site>.nk`, `keys/app.<site>.<name>.nk` and `keys/operator.nk`; a dot is in no site's name.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nkeys
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from mesh.errors import FabricError, UsageError
from mesh.fabric.machine import locked, usable_folder, write_atomically
from mesh.folder import StateFolder
from mesh.topology.model import NAME_PATTERN, Topology
from mesh.topology.tree import parent

Role = Literal["site", "replica", "leaf", "app", "operator"]
DEFAULT_APP = "default"
"""The application identity that every site has."""


class IdentityError(FabricError):
    """Raised when a seed file cannot be used."""

    def __init__(self, file: Path, why: str) -> None:
        self.file = file
        super().__init__(
            f"{file} {why}",
            "restore it from a backup, or remove it for a fresh key (holders of the old one are then refused)",
        )


@dataclass(frozen=True)
class Identity:
    """One nkey. `site` is None for the operator; `name` tells applications apart and is the role for others."""

    role: Role
    site: str | None
    name: str
    public: str
    """Public nkey, `U…`."""
    seed_file: Path
    """File with the seed, mode 0600; the seed itself is never kept in an object that could be printed."""


@dataclass(frozen=True)
class Identities:
    """All identities of one mesh on this machine."""

    all: tuple[Identity, ...]

    def __iter__(self) -> Iterator[Identity]:
        return iter(self.all)

    def get(self, role: Role, site: str | None = None, name: str | None = None) -> Identity:
        """One identity; `name` only for applications (default: the site's default one). Raises FabricError."""
        wanted = name or (DEFAULT_APP if role == "app" else role)
        for identity in self.all:
            if (identity.role, identity.site, identity.name) == (role, site, wanted):
                return identity
        who = f"{role} {wanted}" if role == "app" else role
        raise FabricError(
            f"there is no {who} identity" + (f" at site {site}" if site else ""),
            "run 'mesh up FILE', or 'mesh credentials app' for an application",
        )

    def apps(self, site: str) -> tuple[Identity, ...]:
        """Applications of a site, sorted by name."""
        found = (one for one in self.all if one.role == "app" and one.site == site)
        return tuple(sorted(found, key=lambda one: one.name))


def ensure_identities(folder: StateFolder, topology: Topology) -> Identities:
    """Every identity of the mesh; missing seeds are made, existing ones reused.

    Safe when several processes call it at once. Raises IdentityError when a seed file is garbled.
    """
    _private_folder(folder.keys)
    wanted: list[tuple[Role, str | None, str]] = [("operator", None, "operator")]
    for site in sorted(topology.sites):
        wanted += [("site", site, "site"), ("replica", site, "replica"), ("app", site, DEFAULT_APP)]
        if parent(topology, site) is not None:
            wanted.append(("leaf", site, "leaf"))
        wanted += [("app", site, name) for name in _named_apps(folder, site) if name != DEFAULT_APP]
    with locked(folder.keys / ".lock"):
        return Identities(tuple(_ensure(folder, role, site, name) for role, site, name in wanted))


def ensure_app(folder: StateFolder, site: str, name: str) -> Identity:
    """The identity of the application `name` at `site`, made when missing.

    Raises UsageError for a name that is none and IdentityError for a garbled seed file.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name!r} is no application name", "use 1 to 40 letters, digits, '-' and '_', a letter or digit first"
        )
    _private_folder(folder.keys)
    with locked(folder.keys / ".lock"):
        return _ensure(folder, "app", site, name)


def read_seed(file: Path) -> str:
    """The seed in `file`, checked; raises IdentityError. Never log what this returns."""
    return _read(file)[0]


def seed_path(folder: StateFolder, role: Role, site: str | None, name: str) -> Path:
    """Where a seed is kept."""
    parts = [role, *([site] if site else []), *([name] if role == "app" else [])]
    return folder.keys / (".".join(parts) + ".nk")


def _named_apps(folder: StateFolder, site: str) -> list[str]:
    files = (path.name.split(".") for path in folder.keys.glob(f"app.{site}.*.nk"))
    return sorted(parts[2] for parts in files if len(parts) == 4)


def sign(seed_file: Path, message: bytes) -> bytes:
    """The Ed25519 signature of `message` by the nkey in `seed_file`; raises IdentityError."""
    signature: bytes = nkeys.from_seed(bytearray(read_seed(seed_file).encode())).sign(message)
    return signature


def is_signed(public: str, message: bytes, signature: bytes) -> bool:
    """Whether the holder of the nkey `public` signed `message`."""
    key = base64.b32decode(public + "=" * (-len(public) % 8))[1:-2]  # without the prefix byte and the checksum
    try:
        VerifyKey(key).verify(message, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def _private_folder(path: Path) -> None:
    usable_folder(path)
    path.chmod(0o700)


def _ensure(folder: StateFolder, role: Role, site: str | None, name: str) -> Identity:
    file = seed_path(folder, role, site, name)
    if not file.exists():
        seed: bytes = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        write_atomically(file, seed.decode() + "\n", mode=0o600)
    return Identity(role, site, name, _read(file)[1], file)


def _read(file: Path) -> tuple[str, str]:
    """Seed and public key of a file; raises IdentityError."""
    try:
        mode = file.stat().st_mode & 0o777
        text = file.read_text(encoding="ascii").strip()
    except FileNotFoundError as error:
        raise IdentityError(file, "is missing") from error
    except PermissionError as error:
        raise IdentityError(file, "cannot be read by this user") from error
    except UnicodeDecodeError as error:
        raise IdentityError(file, "holds no nkey seed") from error
    if mode & 0o077:
        file.chmod(0o600)
    try:
        prefix, raw = nkeys.decode_seed(text.encode())
        if prefix != nkeys.PREFIX_BYTE_USER or nkeys.encode_seed(raw, prefix).decode() != text:
            raise IdentityError(file, "holds no nkey seed of a user")
        public: bytes = nkeys.from_seed(text.encode()).public_key
    except (nkeys.NkeysError, ValueError) as error:
        raise IdentityError(file, "holds no nkey seed") from error
    if base64.b32decode(public)[0] != nkeys.PREFIX_BYTE_USER:
        raise IdentityError(file, "holds no nkey seed of a user")
    return text, public.decode()
