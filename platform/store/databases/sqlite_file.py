"""One SQLite database file, shared by threads and processes: how Windvane opens and writes it.

Write-ahead log, so that readers never wait for the writer; `synchronous=FULL`, so that a transaction that
has returned also survives a loss of power (one fdatasync each); transactions begin IMMEDIATE, so that a
transaction never has to be aborted because another process wrote in between.
"""

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa

from ...directories import make_directory
from ...errors import DatabaseDamaged, DiskFull, StoreFailed

BUSY_TIMEOUT_S = 30.0
"""How long a transaction waits for that of another process before it gives up with StoreFailed."""

READ_TIMEOUT_S = 5.0
"""How long a process that only reads waits for the file."""

WAL_LIMIT_BYTES = 16 * 1024 * 1024
"""What a write-ahead log is cut back to after a large transaction."""

CACHE_KIB = 512
"""Pages that a connection keeps. SQLite's 2 MiB fill over hours in a small database, and look like a leak."""


MOST_VERSIONS = 1000
"""A format beyond this is damage, not a file of a later version."""


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Hold the advisory lock of `directory`.

    SQLite does not wait, whatever its timeout, if two processes switch a new file to write-ahead logging
    at once; this does. The kernel releases the lock when a process is killed.
    """
    make_directory(directory)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path, purpose: str) -> Iterator[None]:
    """Convert an error of SQLite or the system to StoreFailed with file, purpose, cause and next step."""
    try:
        yield
    except StoreFailed:
        raise
    except sa.exc.SQLAlchemyError as error:
        raise database_failure(path, purpose, getattr(error, "orig", None) or error) from error
    except (sqlite3.Error, OSError) as error:
        raise database_failure(path, purpose, error) from error


def database_failure(path: Path, purpose: str, error: BaseException) -> StoreFailed:
    """The error of Windvane for an error of SQLite or the system at `path`, with what to do.

    DatabaseDamaged if the file's content is wrong, DiskFull if there is no room, StoreFailed for the rest.
    """
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & _PRIMARY_CODE
    number = error.errno if isinstance(error, OSError) else None
    kind: type[StoreFailed] = StoreFailed
    cause = str(error)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code == sqlite3.SQLITE_IOERR_SHORT_READ:
        kind, advice = DatabaseDamaged, DAMAGED_ADVICE
    elif primary == sqlite3.SQLITE_FULL or number in (errno.ENOSPC, errno.EDQUOT):
        kind, advice = DiskFull, "Make room on its file system"
    elif primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        advice = f"Another process has been writing to it for more than {BUSY_TIMEOUT_S:g} s: end that one"
    elif primary == sqlite3.SQLITE_IOERR or number == errno.EIO:
        cause = f"{cause} (EIO)"
        advice = "Check the disk; the data is untouched. Then restart"
    elif "no such table" in cause or "no such column" in cause:
        kind, advice = DatabaseDamaged, DAMAGED_ADVICE
    elif "closed" in cause:
        advice = "It was closed before"
    else:
        advice = "Check that the file and its folder can be written, and that the disk is sound"
    return kind(f"{path}: cannot {purpose}: {cause}. {advice}")


DAMAGED_ADVICE = (
    "The file is damaged and stays as it is. Put a copy of it back if you have one; else stop Windvane and "
    "run `windvane verify --repair`: it saves every row that can be read and sets the damaged file aside"
)
_PRIMARY_CODE = 0xFF


def make_wal_database(path: Path) -> None:
    """Make `path` a database with a write-ahead log, for a library that opens it itself.

    The mode is a property of the file and stays. Parent folders are made. Raises StoreFailed.
    """
    with _explained(path, "open it"), _alone_in(path.parent):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()


def copy_database(path: Path, target: Path) -> None:
    """Copy a database that other processes may be writing, as of one moment, into the new file `target`.

    Pages are read in one transaction (SQLite's online backup): writers do not wait for it. The copy is a
    single file. Raises StoreFailed; DatabaseDamaged if the copy fails SQLite's check.
    """
    target.unlink(missing_ok=True)
    with _explained(path, "copy it"):
        live = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=READ_TIMEOUT_S)
        try:
            copy = sqlite3.connect(target, isolation_level=None)
            try:
                live.backup(copy)
                # The copied header says write-ahead log: readers of the copy would make its files.
                copy.execute("PRAGMA journal_mode = DELETE")
                problem = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            finally:
                copy.close()
        finally:
            live.close()
    if problem != "ok":
        raise DatabaseDamaged(f"{path}: cannot copy it: {problem}. {DAMAGED_ADVICE}")


class ReadOnlySqliteFile:
    """A database file that another process writes; nothing of it is changed. `version` is its format."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises StoreFailed; DatabaseDamaged for another kind of file."""
        self.path = path
        self._lock = threading.Lock()
        with _explained(path, "read it"):
            self.connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=READ_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self.version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
            except BaseException:
                self.connection.close()
                raise

    @contextmanager
    def reading(self, purpose: str) -> Iterator[sqlite3.Connection]:
        """Read what is committed; fetch within the block. StoreFailed."""
        with self._lock, _explained(self.path, purpose):
            yield self.connection

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._lock:
            self.connection.close()


class SqliteFile:
    """A database file with a schema and its versions; every method may be called from any thread.

    One connection serves all threads of the process, one after the other, so a call may wait for as long as
    another thread's transaction runs: on an event loop, call from a worker thread.

    The file's `user_version` is the version of the schema. A file of an older version that `upgrades` has is
    upgraded; any other version raises StoreFailed. A transaction is stored completely or not at all, however
    the process ends.
    """

    def __init__(
        self, path: Path, *, version: int, schema: str, upgrades: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Open or make the database; parent folders too. `schema` holds CREATE statements. StoreFailed.

        `upgrades` holds, by the version that is found, the statements that make the next one of it.
        """
        self.path = path
        self._lock = threading.Lock()
        with _explained(path, "open it"), _alone_in(path.parent):
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(version, schema, upgrades)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, version: int, schema: str, upgrades: Mapping[int, str]) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        found = execute("PRAGMA user_version").fetchone()[0]
        while 0 < found < version and found in upgrades:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {upgrades[found]}; PRAGMA user_version = {found + 1}; COMMIT"
            )
            found += 1
        if found == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {version}; COMMIT"
            )
        elif found != version and (found < 0 or found > MOST_VERSIONS):
            raise DatabaseDamaged(f"{self.path}: has format {found}, which never existed. {DAMAGED_ADVICE}")
        elif found != version:
            raise StoreFailed(
                f"{self.path}: has format {found}, this Windvane knows format {version}. "
                "Use the Windvane that wrote it"
            )

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for statements within `transaction` and `reading`."""
        return self._connection

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[sqlite3.Connection]:
        """Write: committed and durable when the block ends, undone whole when it raises. StoreFailed."""
        with self._lock, _explained(self.path, purpose):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Some failures (a full disk) have rolled back already.
                with suppress(sqlite3.Error):
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self, purpose: str) -> Iterator[sqlite3.Connection]:
        """Read what is committed; fetch within the block. StoreFailed."""
        with self._lock, _explained(self.path, purpose):
            yield self._connection

    def close(self) -> None:
        """Close the file; closing twice is allowed."""
        with self._lock:
            self._connection.close()
