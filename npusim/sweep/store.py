"""Results in one SQLite file, keyed by content: what was computed once is never computed again.

| table    | holds                                                                                            |
|----------|--------------------------------------------------------------------------------------------------|
| results  | one row per key: status, message and METRICS; nothing in it depends on when or where it ran       |
| attempts | when, where and how long                                                                         |
| sweeps   | the description of each sweep that used this file                                                |
| members  | which points a sweep has (as JSON) and the key of each                                           |

Write-ahead log, one writer: a lock file beside the store says who. A result is committed as soon as it is there;
`INSERT OR IGNORE` makes a second one of the same key harmless.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from npusim.errors import NpusimError
from npusim.sweep.metrics import METRICS

SCHEMA = 1
# Of these, only FAILED, INVALID and DONE follow from the point alone.
DONE, FAILED, INVALID, TIMEOUT, CRASHED = "done", "failed", "invalid", "timeout", "crashed"
STATUSES = (DONE, FAILED, INVALID, TIMEOUT, CRASHED)
_TYPES = {int: "INTEGER", float: "REAL"}
_TABLES = f"""
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE results (
  key TEXT PRIMARY KEY, status TEXT NOT NULL, message TEXT NOT NULL,
  {", ".join(f"{name} {_TYPES[kind]}" for name, kind in METRICS.items())}
) WITHOUT ROWID;
CREATE TABLE attempts (key TEXT NOT NULL, status TEXT NOT NULL, worker TEXT NOT NULL, seconds REAL, date TEXT NOT NULL);
CREATE TABLE sweeps (name TEXT PRIMARY KEY, description TEXT NOT NULL, date TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE members (
  sweep TEXT NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, point TEXT NOT NULL,
  PRIMARY KEY (sweep, position)
) WITHOUT ROWID;
"""
_INSERT = (
    f"INSERT OR IGNORE INTO results (key, status, message, {', '.join(METRICS)}) "
    f"VALUES ({', '.join('?' * (3 + len(METRICS)))})"
)


class StoreError(NpusimError):
    """A store that cannot be opened, is in use, or cannot be written."""


class Result(NamedTuple):
    """What came of one key."""

    key: str
    status: str
    message: str
    metrics: Mapping[str, float]
    worker: str = ""
    seconds: float = 0.0

    def row(self) -> tuple:
        return (self.key, self.status, self.message, *(self.metrics.get(name) for name in METRICS))


class Store:
    """An open store; use it as a context. `writing` takes the lock, StoreError when someone else has it."""

    def __init__(self, path: str | Path, writing: bool = True) -> None:
        self.path = Path(path)
        self._lock: int | None = None
        new = not self.path.exists()
        if not writing and new:
            raise StoreError(f"no such store: {self.path}")
        if writing:
            self._take_lock()
        try:
            with self._clear_errors():
                self._connection = sqlite3.connect(self.path, isolation_level=None)
                self._prepare(writing)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._release()

    def keys(self, statuses: Sequence[str] = STATUSES) -> set[str]:
        """Keys that have a result of these statuses."""
        marks = ", ".join("?" * len(statuses))
        with self._clear_errors():
            found = self._connection.execute(f"SELECT key FROM results WHERE status IN ({marks})", list(statuses))
            return {row[0] for row in found}

    def begin(self, name: str, description: Mapping[str, Any], members: Iterable[tuple[str, Mapping[str, Any]]],
              date: str) -> None:  # fmt: skip
        """Note a sweep and its points (key, point), in place of an older one of this name; all of it or nothing."""
        rows = ((name, i, key, json.dumps(dict(point))) for i, (key, point) in enumerate(members))
        with self._transaction() as connection:
            text = json.dumps(description, sort_keys=True, default=str)
            connection.execute("INSERT OR REPLACE INTO sweeps VALUES (?, ?, ?)", (name, text, date))
            connection.execute("DELETE FROM members WHERE sweep = ?", (name,))
            connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", rows)

    def extend(self, name: str, members: Iterable[tuple[int, str, Mapping[str, Any]]]) -> None:
        """Add points (position, key, point) of a sweep; what is there already stays."""
        rows = [(name, position, key, json.dumps(dict(point))) for position, key, point in members]
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)", rows)

    def add(self, results: Iterable[Result], date: str) -> None:
        """Commit results; the first of a key stays."""
        with self._transaction() as connection:
            for result in results:
                connection.execute(_INSERT, result.row())
                attempt = (result.key, result.status, result.worker, result.seconds, date)
                connection.execute("INSERT INTO attempts VALUES (?, ?, ?, ?, ?)", attempt)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop results, to compute them again."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM results WHERE key = ?", ((key,) for key in keys))

    def results(self, keys: Sequence[str]) -> dict[str, Result]:
        """The results of those keys that have one."""
        found = {}
        for first in range(0, len(keys), 500):
            part = list(keys[first : first + 500])
            marks = ", ".join("?" * len(part))
            with self._clear_errors():
                rows = self._connection.execute(
                    f"SELECT key, status, message, {', '.join(METRICS)} FROM results WHERE key IN ({marks})", part
                ).fetchall()
            for key, status, message, *numbers in rows:
                known = {name: n for name, n in zip(METRICS, numbers, strict=True) if n is not None}
                found[key] = Result(key, status, message, known)
        return found

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """Description of every sweep by name."""
        with self._clear_errors():
            rows = self._connection.execute("SELECT name, description FROM sweeps ORDER BY date, name").fetchall()
        try:
            found = {str(name): json.loads(text) for name, text in rows}
        except (ValueError, TypeError, RecursionError):
            raise StoreError(f"{self.path}: the description of a sweep is no JSON: the store is damaged") from None
        if not all(isinstance(value, dict) for value in found.values()):
            raise StoreError(f"{self.path}: the description of a sweep is no table: the store is damaged")
        return found

    def rows(self, sweep: str) -> tuple[list[str], list[tuple]]:
        """Column names and rows (position, point as JSON, key, status, message, METRICS) of a sweep's points that
        have a result, in the order of the sweep."""
        columns = ["position", "point", "key", "status", "message", *METRICS]
        chosen = ", ".join(f"{'m' if name in ('position', 'point', 'key') else 'r'}.{name}" for name in columns)
        query = f"SELECT {chosen} FROM members m JOIN results r ON r.key = m.key WHERE m.sweep = ? ORDER BY m.position"
        with self._clear_errors():
            return columns, self._connection.execute(query, (sweep,)).fetchall()

    def integrity(self) -> str:
        """'ok', or what SQLite found wrong."""
        with self._clear_errors():
            return self._connection.execute("PRAGMA integrity_check").fetchone()[0]

    def _prepare(self, writing: bool) -> None:
        connection = self._connection
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables and writing:
            connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction():
                for statement in _TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO about VALUES ('schema', ?)", (f"{SCHEMA} {len(METRICS)}",))
        elif "about" not in tables or "results" not in tables:
            raise StoreError(f"{self.path}: an SQLite file, but not a store of sweep results")
        schema = connection.execute("SELECT value FROM about WHERE key = 'schema'").fetchone()
        columns = [row[1] for row in connection.execute("PRAGMA table_info(results)")]
        if schema is None or columns != ["key", "status", "message", *METRICS]:
            raise StoreError(f"{self.path}: written by another version of npusim; choose another --store")
        connection.execute("PRAGMA synchronous = NORMAL")
        # What is left in the log of a process that was killed is moved into the file now.
        if writing:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _take_lock(self) -> None:
        path = self.path.with_name(f"{self.path.name}.lock")
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._lock, 0)
            os.write(self._lock, f"process {os.getpid()} on {platform.node()}".encode())
        except BlockingIOError:
            assert self._lock is not None
            holder = os.pread(self._lock, 200, 0).decode(errors="replace") or "unknown process"
            self._release()
            raise StoreError(
                f"{self.path} is in use by another sweep ({holder}); wait for it, or choose another --store"
            ) from None
        except OSError as error:
            self._release()
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from None

    def _release(self) -> None:
        """The lock file stays: removing it would let two processes lock two files of one name."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._clear_errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:  # of a name in SQLite's own message
            raise StoreError(f"{self.path}: the store is damaged: text that is not UTF-8") from None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.ProgrammingError):
                raise
            raise StoreError(f"{self.path}: {_reason(error, self.path)}") from None


def _reason(error: sqlite3.DatabaseError, path: Path) -> str:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_FULL") or name.startswith("SQLITE_IOERR"):
        return (
            f"cannot be written ({error}): the disk is full or a size limit is reached. Every result committed so far "
            "is kept; free some space and run the same command again"
        )
    if name.startswith("SQLITE_NOTADB"):
        return "not an SQLite file"
    if name.startswith("SQLITE_CANTOPEN"):
        return f"cannot be opened; is {path.parent} a folder that can be written?"
    if name.startswith("SQLITE_BUSY"):
        return "locked by another program"
    return f"{error} ({name or type(error).__name__})"
