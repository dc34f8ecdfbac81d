"""One database, SQLite or PostgreSQL: how Windvane opens it, prepares its tables, reads and writes it.

Statements are SQLAlchemy's, so that each is written once for both. A `Path` is a SQLite file of the home,
a URL a PostgreSQL server. On either a transaction is durable when it has returned, and stored completely or
not at all, however the process ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from ...errors import ConfigInvalid, DatabaseUnavailable, DiskFull, StoreFailed
from .sqlite_file import BUSY_TIMEOUT_S, ReadOnlySqliteFile, SqliteFile

POOL_CONNECTIONS = 4
"""Connections of one process to PostgreSQL for each schema; a thread that finds all in use waits."""

CONNECT_TIMEOUT_S = 10
KEEPALIVE_S = 10
"""A network that is lost without a word ends a connection after about four times that."""

Place: TypeAlias = Path | str
"""Where a database is: the path of a SQLite file, or `postgresql://user:password@host/database`."""

_EXAMPLE = "postgresql://user:password@host/database"
_DISK_FULL = "53100"  # SQLSTATE disk_full
# SQLSTATE classes: connection exception, invalid authorization, operator intervention, too many connections.
_CONNECTION_ENDED = ("08", "28", "57", "53300", "25P03")
_SCHEMA_VERSION = sa.table("schema_version", sa.column("version", sa.Integer))
_NEWER = "has format {found}, this Windvane knows format {version}. Use the Windvane that wrote it"


@dataclass(frozen=True)
class Schema:
    """The tables of a database.

    `name` is the PostgreSQL schema that they are in. `setup` holds, by dialect, the statements for first rows
    and triggers; the upgrades, by the version that is found, those that make the next version of it.
    """

    name: str
    version: int
    metadata: sa.MetaData
    setup: Mapping[str, str] = field(default_factory=dict)
    sqlite_upgrades: Mapping[int, str] = field(default_factory=dict)
    postgresql_upgrades: Mapping[int | None, str] = field(default_factory=dict)

    def statements(self, dialect: sa.Dialect) -> Iterator[str]:
        """What makes the tables and their first rows, statement by statement."""
        for table in self.metadata.sorted_tables:
            yield str(CreateTable(table).compile(dialect=dialect))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                yield str(CreateIndex(index).compile(dialect=dialect))
        if setup := self.setup.get(dialect.name):
            yield setup


class Database(ABC):
    """A database with the tables of a `Schema`; every method may be called from any thread.

    A call may wait for other threads and processes: on an event loop, call from a worker thread.
    """

    @abstractmethod
    def insert(self, table: sa.Table) -> Any:
        """The `INSERT` of the dialect, which has `on_conflict_do_update`."""

    @abstractmethod
    def lock(self, connection: sa.Connection) -> None:
        """In a transaction: wait until no other holds this lock, and hold it until the transaction ends."""

    @abstractmethod
    def transaction(self, purpose: str) -> AbstractContextManager[sa.Connection]:
        """Write: committed and durable when the block ends, undone whole when it raises. StoreFailed."""

    @abstractmethod
    def reading(self, purpose: str) -> AbstractContextManager[sa.Connection]:
        """Read what is committed; fetch within the block. StoreFailed."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections; closing twice is allowed."""


def open_database(place: Place, schema: Schema) -> Database:
    """Open the database, and make or upgrade its tables. Raises StoreFailed, and ConfigInvalid for a URL."""
    if isinstance(place, Path):
        return SqliteDatabase(place, schema)
    return PostgresqlDatabase(place, schema)


def open_reader(place: Place, schema: Schema) -> Database:
    """Open a database that exists, for reading alone: nothing of it is changed, and `transaction` fails.

    A file of an earlier version is read as it is. Raises StoreFailed, also for a file that does not exist.
    """
    if isinstance(place, Path):
        return SqliteReader(place, schema)
    return PostgresqlDatabase(place, schema, read_only=True)


class SqliteDatabase(Database):
    """A file of its own; one connection serves all threads, one after the other."""

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path, schema: Schema) -> None:
        """Open or make the file. Raises StoreFailed."""
        statements = ";".join(schema.statements(sqlite.dialect()))
        self._file = SqliteFile(
            path, version=schema.version, schema=statements, upgrades=schema.sqlite_upgrades
        )
        self._connection = _over(self._file)

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._file.transaction(purpose):
            yield self._connection

    @contextmanager
    def reading(self, purpose: str) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._file.reading(purpose):
            yield self._connection

    def lock(self, connection: sa.Connection) -> None:
        """Nothing: SQLite has one writer."""

    def close(self) -> None:
        """See `Database`."""
        self._file.close()


class SqliteReader(Database):
    """A file that another process writes."""

    insert = staticmethod(sqlite.insert)

    def __init__(self, path: Path, schema: Schema) -> None:
        """Open the file. Raises StoreFailed."""
        self._file = ReadOnlySqliteFile(path)
        if self._file.version > schema.version:
            self._file.close()
            raise StoreFailed(f"{path}: {_NEWER.format(found=self._file.version, version=schema.version)}")
        self._connection = _over(self._file)

    def transaction(self, purpose: str) -> AbstractContextManager[sa.Connection]:
        """Raises StoreFailed."""
        raise StoreFailed(f"{self._file.path}: cannot {purpose}: it was opened for reading alone")

    @contextmanager
    def reading(self, purpose: str) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._file.reading(purpose):
            yield self._connection

    def lock(self, connection: sa.Connection) -> None:
        """Nothing: there is no transaction."""

    def close(self) -> None:
        """See `Database`."""
        self._file.close()


def _over(file: SqliteFile | ReadOnlySqliteFile) -> sa.Connection:
    # The file begins, ends and closes; SQLAlchemy sends statements, over the same connection.
    engine = sa.create_engine(
        "sqlite://",
        creator=lambda: file.connection,
        poolclass=sa.pool.StaticPool,
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
    )
    return engine.connect()


class PostgresqlDatabase(Database):
    """A schema of a PostgreSQL database, with connections of its own."""

    insert = staticmethod(postgresql.insert)

    def __init__(self, url: str, schema: Schema, *, read_only: bool = False) -> None:
        """Connect, and make the tables if they do not exist. Raises StoreFailed, and ConfigInvalid.

        With `read_only` the server rejects writes, and tables that are missing are an error.
        """
        self._engine = _postgresql_engine(url, schema.name, read_only=read_only)
        self._lock = sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(schema.name)))
        try:
            with self.transaction("open it") as connection:
                if not read_only and _version(connection, schema) is None:
                    # Two processes that start together: the later one finds what the earlier has made.
                    self.lock(connection)
                    if _version(connection, schema) is None:
                        _prepare_postgresql(connection, schema)
                found = _version(connection, schema)
                if not read_only and found in schema.postgresql_upgrades:
                    self.lock(connection)
                    found = _upgrade_postgresql(connection, schema)
                if found is None or found > schema.version or (found < schema.version and not read_only):
                    raise StoreFailed(f"{shown_url(self._engine.url)}: {_wrong_version(found, schema)}")
        except BaseException:
            self._engine.dispose()
            raise

    @contextmanager
    def transaction(self, purpose: str) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._explained(purpose), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self, purpose: str) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._explained(purpose), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _explained(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            cause = getattr(error, "orig", None) or error
            first_line = str(cause).strip().partition("\n")[0]
            kind: type[StoreFailed] = StoreFailed
            advice = "The log of the server says more"
            state = getattr(cause, "sqlstate", None)
            if state == _DISK_FULL:
                kind, advice = DiskFull, "Make room on the disk of the server"
            elif state is None or state.startswith(_CONNECTION_ENDED):
                kind, advice = DatabaseUnavailable, "Check that the server runs and can be reached"
            place = shown_url(self._engine.url)
            raise kind(f"{place}: cannot {purpose}: {first_line}. {advice}") from error

    def lock(self, connection: sa.Connection) -> None:
        """See `Database`."""
        connection.execute(self._lock)

    def close(self) -> None:
        """See `Database`."""
        self._engine.dispose()


def shown_url(url: sa.URL) -> str:
    """The URL for messages: without its password, and without its query, which may have one too."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def _postgresql_engine(url: str, schema: str, *, read_only: bool) -> sa.Engine:
    # A session that is stopped in a transaction must not keep others from taking its partitions.
    bound_ms = int(BUSY_TIMEOUT_S * 1000)
    values = {
        "search_path": schema,
        "lock_timeout": bound_ms,
        "idle_in_transaction_session_timeout": bound_ms,
        "default_transaction_read_only": "on" if read_only else "off",
    }
    options = " ".join(f"-c {name}={value}" for name, value in values.items())
    try:
        return sa.create_engine(
            sa.make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            pool_pre_ping=True,
            # Not the server's default: a commit waits for the rows of its partitions, and then reads them.
            isolation_level="READ COMMITTED",
            connect_args={
                "options": options,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": KEEPALIVE_S,
                "keepalives_interval": KEEPALIVE_S,
                "keepalives_count": 3,
                "tcp_user_timeout": int(BUSY_TIMEOUT_S * 1000),
                "application_name": f"windvane {schema}",
            },
        )
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"database: the driver of PostgreSQL is missing: pip install 'windvane[postgres]' ({error.name})"
        ) from error
    except (sa.exc.SQLAlchemyError, ValueError) as error:  # ValueError: the port
        raise ConfigInvalid(
            f"database: the URL cannot be used ({error}); it looks like {_EXAMPLE}"
        ) from error


def _version(connection: sa.Connection, schema: Schema) -> int | None:
    """The version of the tables; None if they do not exist."""
    # From the catalog's rows: to_regclass may answer from before the lock was acquired.
    if not sa.inspect(connection).has_table(_SCHEMA_VERSION.name, schema=schema.name):
        return None
    return connection.scalar(sa.select(_SCHEMA_VERSION.c.version))


def _prepare_postgresql(connection: sa.Connection, schema: Schema) -> None:
    if not sa.inspect(connection).has_schema(schema.name):
        connection.exec_driver_sql(f"CREATE SCHEMA {schema.name}")
    connection.exec_driver_sql("CREATE TABLE schema_version (version INTEGER NOT NULL)")
    for statement in schema.statements(connection.dialect):
        connection.exec_driver_sql(statement)
    connection.execute(sa.insert(_SCHEMA_VERSION).values(version=schema.version))


def _upgrade_postgresql(connection: sa.Connection, schema: Schema) -> int | None:
    """Upgrade the tables of an earlier version; return the version that they have then. Under the lock."""
    while (found := _version(connection, schema)) in schema.postgresql_upgrades:
        connection.exec_driver_sql(schema.postgresql_upgrades[found])
        connection.execute(sa.update(_SCHEMA_VERSION).values(version=_SCHEMA_VERSION.c.version + 1))
    return found


def _wrong_version(found: int | None, schema: Schema) -> str:
    if found is None:
        return f"the tables of {schema.name} do not exist yet; `windvane up` makes them"
    return f"the schema {schema.name} {_NEWER.format(found=found, version=schema.version)}"
