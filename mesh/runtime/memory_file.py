"""An agent's memory on the site's disk: one SQLite file per replica, written in small transactions off the loop.

`synchronous=NORMAL` in WAL mode survives a kill -9 of the process; a power cut may cost the last transactions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from mesh.agent.memory import Address
from mesh.errors import AgentError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS memory (name TEXT, key TEXT, value BLOB, PRIMARY KEY (name, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lineage (id TEXT);
INSERT INTO lineage SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM lineage);
"""


class MemoryFile:
    """Use it from one thread at a time; raises AgentError when the file cannot be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._unusable(error) from error

    def lineage(self) -> str:
        """Identity of this file's memory, chosen when the file was made."""
        try:
            return str(self._database.execute("SELECT id FROM lineage").fetchone()[0])
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def entries(self) -> list[tuple[Address, bytes]]:
        """Everything that was kept."""
        try:
            rows = self._database.execute("SELECT name, key, value FROM memory").fetchall()
        except sqlite3.Error as error:
            raise self._unusable(error) from error
        return [((name, key), value) for name, key, value in rows]

    def write(self, changes: Mapping[Address, bytes | None]) -> None:
        """Keeps `changes` in one transaction; None deletes."""
        kept = [(*address, value) for address, value in changes.items() if value is not None]
        gone = [address for address, value in changes.items() if value is None]
        try:
            with self._database:
                self._database.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?, ?)", kept)
                self._database.executemany("DELETE FROM memory WHERE name = ? AND key = ?", gone)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def close(self) -> None:
        self._database.close()

    def _unusable(self, error: OSError | sqlite3.Error) -> AgentError:
        return AgentError(f"the memory file {self._path} cannot be used ({error})", "free disk, or remove the file")
