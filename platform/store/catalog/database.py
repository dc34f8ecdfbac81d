"""The database of the catalog: opening, preparing and reconnecting, and the translation of its errors."""

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ...errors import CatalogUnavailable, ConfigInvalid, DatabaseDamaged, DocumentInvalid
from ..databases.database import shown_url
from ..databases.sqlite_file import BUSY_TIMEOUT_S, DAMAGED_ADVICE, database_failure, make_wal_database
from .policy_copy import read_policy_copy, write_policy_copy
from .tables import is_prepared, prepare

REOPEN_S = 5.0
"""How often opening a damaged database is retried."""

_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}

_Result = TypeVar("_Result")


def _require_no_lost_file(url: str, copy: Path) -> None:
    """Raises DatabaseDamaged if a catalog that had policies was removed or truncated."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return
    path = Path(parsed.database)
    is_lost = not path.exists() or path.stat().st_size == 0
    if is_lost and not path.with_name(f"{path.name}-wal").exists() and read_policy_copy(copy):
        raise DatabaseDamaged(
            f"{path} is missing or empty, and {copy.name} says that there were policies. {DAMAGED_ADVICE}"
        )


async def _create_engine(url: str) -> AsyncEngine:
    try:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=_ASYNC_DRIVERS.get(parsed.drivername, parsed.drivername))
        is_sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
        )
        # JSON has no NaN: PostgreSQL would reject it, SQLite would store what no other program can read.
        engine = create_async_engine(parsed, json_serializer=partial(json.dumps, allow_nan=False), **options)
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"catalog {shown_url(sa.make_url(url))}: its driver is missing: pip install {error.name}"
        ) from error
    except (sa.exc.SQLAlchemyError, ValueError) as error:  # ValueError: the port
        raise ConfigInvalid(
            f"the URL of the catalog cannot be used ({error}); it looks like "
            "sqlite:////home/me/catalog.sqlite or postgresql://user:password@host/database"
        ) from error
    file = parsed.database
    if is_sqlite:
        sa.event.listen(engine.sync_engine, "connect", _wait_for_the_disk)
    if is_sqlite and file and not file.startswith((":memory:", "file:")):
        await asyncio.to_thread(make_wal_database, Path(file))
    return engine


def _wait_for_the_disk(connection: Any, _: object) -> None:
    """A commit is durable when it returns, even if SQLite was built with a weaker default."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


async def to_its_end(writing: Coroutine[Any, Any, _Result]) -> _Result:
    """Awaits a transaction; if cancelled, waits for its end before it propagates the cancellation.

    A transaction that is interrupted leaves SQLite locked until its connection is collected.
    """
    task = asyncio.ensure_future(writing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class CatalogDatabase:
    """Connections to the database of the catalog, for one event loop.

    Reads and writes raise CatalogUnavailable if the database cannot be reached or is damaged; a damaged one
    is reopened after at least `REOPEN_S` seconds.
    """

    def __init__(self, engine: AsyncEngine | None) -> None:
        """Use `CatalogDatabase.open`, which also creates the tables."""
        self._usable_engine = engine
        self._url = ""
        self._copy: Path | None = None
        self._broken: Exception | None = None
        self._look_again_s = 0.0
        self._write_turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, copy: Path | None = None) -> "CatalogDatabase":
        """As `Catalog.open`."""
        if copy is None:
            return await cls._open(url)
        try:
            _require_no_lost_file(url, copy)
            opened = await cls._open(url)
        except (DatabaseDamaged, CatalogUnavailable) as error:
            opened = cls(None)
            opened._broken, opened._url = error, url
        opened._copy = copy
        return opened

    @classmethod
    async def _open(cls, url: str) -> "CatalogDatabase":
        database = cls(await _create_engine(url))
        try:
            await database._prepare()
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def _engine(self) -> AsyncEngine:
        if self._usable_engine is None:
            raise CatalogUnavailable(str(self._broken)) from self._broken
        return self._usable_engine

    async def _reopen(self) -> None:
        """Reopen a damaged database at intervals, in case it was repaired."""
        if self._usable_engine is not None or time.monotonic() < self._look_again_s:
            return
        self._look_again_s = time.monotonic() + REOPEN_S
        assert self._copy is not None
        try:
            _require_no_lost_file(self._url, self._copy)
            self._usable_engine = (await self._open(self._url))._usable_engine
        except (DatabaseDamaged, CatalogUnavailable) as error:
            self._broken = error

    def fallback(self) -> list[dict[str, Any]]:
        """The bodies of this home's policies that were last in force; empty if there is no copy."""
        return [] if self._copy is None else read_policy_copy(self._copy)

    async def keep_copy(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Save the policies in force for `fallback`; errors of the disk are ignored."""
        if self._copy is not None:
            with suppress(OSError):
                await asyncio.to_thread(write_policy_copy, self._copy, bodies)

    async def _prepare(self) -> None:
        async with self.reading() as connection:
            if await is_prepared(connection):
                return
        # If two processes start at once on PostgreSQL, IF NOT EXISTS of the later one can still collide;
        # its second try finds what the other has created.
        try:
            await to_its_end(self._make_missing())
        except CatalogUnavailable:
            await to_its_end(self._make_missing())

    async def _make_missing(self) -> None:
        async with self.writing() as connection:
            await prepare(connection)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            engine = self._usable_engine
            if isinstance(cause, sqlite3.Error) and engine is not None and engine.url.database:
                failure = database_failure(Path(engine.url.database), "use the catalog", cause)
                raise CatalogUnavailable(str(failure)) from failure
            raise CatalogUnavailable(
                f"the catalog at {shown_url(self._engine.url)} cannot be used: {cause}; "
                "see that its database runs and can be reached, then try again"
            ) from error
        except sa.exc.StatementError as error:
            # Not an error of the database, so one of converting a value for it.
            raise DocumentInvalid(
                f"the body of a document must be JSON: {error.orig}; take the offending value out"
            ) from error

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reads. Statements do not share a snapshot: a write may happen between two."""
        await self._reopen()
        with self._explained():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed and durable when the block ends, rolled back if it raises."""
        # Writes are serialized anyway. Within this process they queue here, in order; SQLite would let each
        # of them sleep and retry, and an unlucky one time out.
        await self._reopen()
        with self._explained():
            async with self._write_turn, self._engine.begin() as connection:
                yield connection

    async def close(self) -> None:
        """Close the connections."""
        if self._usable_engine is not None:
            await self._usable_engine.dispose()
