"""What `mesh up` decided once for this machine: `machine.json`, shared by writers that each have keys of their own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from mesh.errors import FabricError
from mesh.folder import StateFolder

T = TypeVar("T")
_LOCK_POLL_S = 0.02


def usable_folder(path: Path) -> None:
    """Makes a folder when it is missing; raises FabricError when it cannot be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        usable = os.access(path, os.W_OK | os.X_OK)
        why = "it may not be written"
    except OSError as error:
        usable, why = False, error.strerror or str(error)
    if not usable:
        raise FabricError(f"the folder {path} cannot be used ({why})", "choose another state folder with --state")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the advisory lock file `path` (created when missing, mode 0600); waits for other processes.

    The file stays: removing a lock file that somebody waits on would let two holders in.
    """
    usable_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.asynccontextmanager
async def locked_async(path: Path) -> AsyncIterator[None]:
    """As `locked`, for holders that await: waits without blocking the event loop."""
    usable_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replaces `path` by `text` in one step with permission bits `mode`; readers see the old or the new text whole."""
    usable_folder(path.parent)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read_machine(folder: StateFolder) -> dict[str, Any]:
    """The whole document, empty when there is none; raises FabricError when it is garbled."""
    try:
        text = folder.machine.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise _garbled(folder) from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise _garbled(folder) from error
    if not isinstance(document, dict):
        raise _garbled(folder)
    return document


def update_machine(folder: StateFolder, change: Callable[[dict[str, Any]], T]) -> T:
    """Lets `change` edit the document under a lock and returns its result; keys it leaves alone are kept.

    Raises FabricError when the document is garbled; whatever `change` raises leaves the file as it was.
    """
    with locked(folder.machine.with_suffix(".lock")):
        document = read_machine(folder)
        before = _encode(document)
        result = change(document)
        after = _encode(document)
        if after != before or not folder.machine.exists():
            write_atomically(folder.machine, after)
        return result


def _encode(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _garbled(folder: StateFolder) -> FabricError:
    return FabricError(
        f"{folder.machine} is no JSON object",
        "stop the mesh and remove the file: ports are then chosen anew",
    )
