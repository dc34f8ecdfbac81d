"""The catalog: the database of documents. SQLite by default, PostgreSQL by URL, with the same statements.

Every write begins by raising the one row of `catalog_revision`. That row gives each document a revision that
is never given twice, gives whoever polls something cheap to look at, and, as it stays locked until the
transaction ends, makes writes come one after the other on any database: what follows in the transaction may
look first and write then.
"""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateIndex, CreateTable

from ...errors import (
    CatalogUnavailable,
    ConfigInvalid,
    DatabaseDamaged,
    DocumentInvalid,
    DocumentNotFound,
    RevisionConflict,
)
from ..databases.sqlite_file import BUSY_TIMEOUT_S, DAMAGED_ADVICE, database_failure, make_wal_database
from .policy_copy import read_policy_copy, write_policy_copy

DOCUMENT_TYPES: Mapping[str, tuple[str, ...]] = {
    "policy": ("draft", "published"),
    "stream": ("published", "archived"),
    "array": ("published", "archived"),
    "alarm": ("raised", "acknowledged", "shelved", "cleared"),
}
"""The types of documents and the workflow states that each may be in."""

_LISTINGS = {
    "policy": ("policies", "windvane policy list"),
    "stream": ("data streams", "windvane ls streams"),
    "array": ("data arrays", "windvane ls arrays"),
    "alarm": ("alarms", "windvane alarm list"),
}

REOPEN_S = 5.0
"""How often a damaged database is looked at again."""

MAX_REFERENCE_BYTES = 500
MAX_TITLE_BYTES = 500


class Document(msgspec.Struct, frozen=True):
    """One document as it is in the catalog.

    `revision` is that of the catalog when the document was last put, so it rises with each put and is never
    given twice, not even to a document that was deleted and made anew: it can serve as an ETag.
    `created_ns` and `modified_ns` are ns since the epoch, UTC.
    """

    type: str
    reference: str
    state: str
    title: str
    body: dict[str, Any]
    revision: int
    created_ns: int
    modified_ns: int


Documents: TypeAlias = list[Document]
"""`Catalog.list` hides the built-in name in its own class."""

_metadata = sa.MetaData()


def _name_column(name: str) -> sa.Column[str]:
    # PostgreSQL sorts by the rules of a language unless told otherwise; "C" is code point order, which is
    # what SQLite and Python do.
    return sa.Column(
        name, sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql"), primary_key=True
    )


_documents = sa.Table(
    "documents",
    _metadata,
    _name_column("type"),
    _name_column("reference"),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("created_ns", sa.BigInteger, nullable=False),
    sa.Column("modified_ns", sa.BigInteger, nullable=False),
    # Reference and title, case-folded by Python: SQLite's lower() knows ASCII alone.
    sa.Column("folded", sa.String, nullable=False),
)
_DOCUMENT = tuple(_documents.c[name] for name in Document.__struct_fields__)

_by_change = sa.Index("documents_by_change", _documents.c.type, _documents.c.revision)

_revision = sa.Table(
    "catalog_revision",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# What databases differ on, NUL and lone surrogates among it.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def _is(type: str, reference: str) -> sa.ColumnElement[bool]:
    return sa.and_(_documents.c.type == type, _documents.c.reference == reference)


def _check(type: str, reference: str, title: str, state: str) -> None:
    if type not in DOCUMENT_TYPES:
        raise DocumentInvalid(f'"{type}" is no type of document; there are {", ".join(DOCUMENT_TYPES)}')
    if state not in DOCUMENT_TYPES[type]:
        raise DocumentInvalid(
            f'{type} "{reference}": "{state}" is no state of a {type}; use one of '
            f"{', '.join(DOCUMENT_TYPES[type])}"
        )
    if not reference:
        raise DocumentInvalid(f"a {type} needs a reference")
    for what, value, limit_bytes in (
        ("reference", reference, MAX_REFERENCE_BYTES),
        ("title", title, MAX_TITLE_BYTES),
    ):
        if _CONTROL.search(value):
            raise DocumentInvalid(f"the {what} of a {type} may hold no control characters: {value[:60]!r}")
        if len(value.encode()) > limit_bytes:
            raise DocumentInvalid(f"the {what} of a {type} has at most {limit_bytes} bytes: {value[:60]!r}…")


def _require_no_lost_file(url: str, copy: Path) -> None:
    """A new catalog is not made in silence where one had policies: it was removed, or truncated."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return
    path = Path(parsed.database)
    is_lost = not path.exists() or path.stat().st_size == 0
    if is_lost and not path.with_name(f"{path.name}-wal").exists() and read_policy_copy(copy):
        raise DatabaseDamaged(
            f"{path} is missing or empty, and {copy.name} says that there were policies. {DAMAGED_ADVICE}"
        )


async def _engine(url: str) -> AsyncEngine:
    try:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=_ASYNC_DRIVERS.get(parsed.drivername, parsed.drivername))
        is_sqlite = parsed.get_backend_name() == "sqlite"
        options: dict[str, Any] = (
            {"connect_args": {"timeout": BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
        )
        # NaN is no JSON: PostgreSQL would refuse it, SQLite keep what nobody else can read.
        engine = create_async_engine(parsed, json_serializer=partial(json.dumps, allow_nan=False), **options)
    except ModuleNotFoundError as error:
        raise ConfigInvalid(
            f"catalog {sa.make_url(url)!r}: its driver is missing: pip install {error.name}"
        ) from error
    except sa.exc.SQLAlchemyError as error:
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
    """A commit is durable when it returns, also where SQLite was built to wait for less."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


_Result = TypeVar("_Result")


async def _to_its_end(writing: Coroutine[Any, Any, _Result]) -> _Result:
    """Awaits a transaction; cancelled, it waits for its end before it lets the cancellation through.

    A transaction that is broken off half-way leaves SQLite locked until its connection is collected.
    """
    task = asyncio.ensure_future(writing)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


class Catalog:
    """The documents, for one event loop; any number of processes may each have the database open.

    A put or delete is one transaction: where it is cancelled or the process ends, it has happened whole or
    not at all. Every method raises CatalogUnavailable where the database cannot be reached.
    """

    def __init__(self, engine: AsyncEngine | None) -> None:
        """Use `Catalog.open`, which also makes the tables."""
        self._usable_engine = engine
        self._url = ""
        self._copy: Path | None = None
        self._broken: Exception | None = None
        self._look_again_s = 0.0
        self._write_turn = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, copy: Path | None = None) -> "Catalog":
        """Connect, and make what is missing: the SQLite file with its folders, the tables.

        `url` is SQLAlchemy's: `sqlite:///relative.sqlite`, `sqlite:////absolute/catalog.sqlite`,
        `postgresql://user:password@host/database`. Raises ConfigInvalid for one that cannot be used,
        StoreFailed for an SQLite file that cannot be opened.

        `copy` is the file of the policies that were in force last. With it, a database that is damaged, or
        whose file has vanished although there are such policies, does not raise: the catalog's methods raise
        CatalogUnavailable until the database is repaired, `fallback` gives these policies, and the file stays
        as it is.
        """
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
    async def _open(cls, url: str) -> "Catalog":
        catalog = cls(await _engine(url))
        try:
            await catalog._make_tables()
        except BaseException:
            await catalog.close()
            raise
        return catalog

    @property
    def _engine(self) -> AsyncEngine:
        if self._usable_engine is None:
            raise CatalogUnavailable(str(self._broken)) from self._broken
        return self._usable_engine

    async def _mend(self) -> None:
        """Open a database that was damaged, now and then, in case it has been repaired."""
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
        """The bodies of the policies that were in force last, of this home; empty if nobody kept them."""
        return [] if self._copy is None else read_policy_copy(self._copy)

    async def keep_copy(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Remember the policies in force for `fallback`; a disk that cannot take them changes nothing."""
        if self._copy is not None:
            with suppress(OSError):
                await asyncio.to_thread(write_policy_copy, self._copy, bodies)

    async def _make_tables(self) -> None:
        # Where two processes begin at once on PostgreSQL, IF NOT EXISTS of the later one can still collide;
        # its second try finds what the other has made.
        try:
            await self._make_missing_tables()
        except CatalogUnavailable:
            await self._make_missing_tables()

    async def _make_missing_tables(self) -> None:
        first_row = sa.select(sa.literal(1), sa.literal(0)).where(~sa.exists(sa.select(_revision.c.id)))
        async with self._writing() as connection:
            for table in _metadata.sorted_tables:
                await connection.execute(CreateTable(table, if_not_exists=True))
            await connection.execute(CreateIndex(_by_change, if_not_exists=True))
            await connection.execute(_revision.insert().from_select(["id", "value"], first_row))

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
                f"the catalog at {self._engine.url!r} cannot be used: {cause}; "
                "see that its database runs and can be reached, then try again"
            ) from error
        except sa.exc.StatementError as error:
            # Not the database's error, so one of turning a value into what the database takes.
            raise DocumentInvalid(
                f"the body of a document must be JSON: {error.orig}; take the offending value out"
            ) from error

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        await self._mend()
        with self._explained():
            async with self._engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[AsyncConnection]:
        # Writes come one after the other anyway. Within this process they queue here, in order; SQLite would
        # have each of them sleep and try again, and the unlucky one give up.
        await self._mend()
        with self._explained():
            async with self._write_turn, self._engine.begin() as connection:
                yield connection

    async def _next_revision(self, connection: AsyncConnection) -> int:
        raised = _revision.update().values(value=_revision.c.value + 1).returning(_revision.c.value)
        return int((await connection.execute(raised)).scalar_one())

    async def revision(self) -> int:
        """How many puts and deletes there ever were: while it stays, nothing has changed. Takes no lock."""
        async with self._reading() as connection:
            return int((await connection.execute(sa.select(_revision.c.value))).scalar_one())

    async def get(self, type: str, reference: str) -> Document:
        """One document. Raises DocumentNotFound."""
        async with self._reading() as connection:
            row = (await connection.execute(sa.select(*_DOCUMENT).where(_is(type, reference)))).one_or_none()
        if row is None:
            raise not_found(type, reference)
        return Document(*row)

    async def put(
        self,
        type: str,
        reference: str,
        *,
        title: str = "",
        body: dict[str, Any],
        state: str = "published",
        if_revision: int | None = None,
    ) -> Document:
        """Create or replace a document and give it back as it is now.

        With `if_revision` only while the document has that revision, 0 meaning that there is none; otherwise
        RevisionConflict, and nothing has changed. Raises DocumentInvalid for what the catalog cannot keep.
        """
        _check(type, reference, title, state)
        return await _to_its_end(self._put(type, reference, title, body, state, if_revision))

    async def _put(
        self, type: str, reference: str, title: str, body: dict[str, Any], state: str, if_revision: int | None
    ) -> Document:
        now_ns = time.time_ns()
        async with self._writing() as connection:
            revision = await self._next_revision(connection)
            made_ns = await self._made_ns(connection, type, reference, if_revision)
            document = Document(
                type=type,
                reference=reference,
                state=state,
                title=title,
                body=body,
                revision=revision,
                created_ns=now_ns if made_ns is None else made_ns,
                modified_ns=now_ns,
            )
            write: sa.Insert | sa.Update = (
                _documents.insert() if made_ns is None else _documents.update().where(_is(type, reference))
            )
            values = msgspec.structs.asdict(document)
            await connection.execute(write.values(**values, folded=f"{reference}\n{title}".casefold()))
        return document

    async def delete(self, type: str, reference: str, *, if_revision: int | None = None) -> None:
        """Remove a document. Raises DocumentNotFound, and RevisionConflict as `put` does."""
        await _to_its_end(self._delete(type, reference, if_revision))

    async def _delete(self, type: str, reference: str, if_revision: int | None) -> None:
        async with self._writing() as connection:
            await self._next_revision(connection)
            if await self._made_ns(connection, type, reference, if_revision) is None:
                raise not_found(type, reference)
            await connection.execute(_documents.delete().where(_is(type, reference)))

    async def _made_ns(
        self, connection: AsyncConnection, type: str, reference: str, if_revision: int | None
    ) -> int | None:
        """When the document was made, None where there is none. Raises RevisionConflict."""
        query = sa.select(_documents.c.revision, _documents.c.created_ns).where(_is(type, reference))
        row = (await connection.execute(query)).one_or_none()
        revision = 0 if row is None else row.revision
        if if_revision is not None and if_revision != revision:
            now = f"is at revision {revision}" if revision else "does not exist"
            expected = f"revision {if_revision} was expected" if if_revision else "it was to be new"
            raise RevisionConflict(
                f'{type} "{reference}" {now}, {expected}; read it again and repeat the change'
            )
        return None if row is None else int(row.created_ns)

    async def close(self) -> None:
        """Close the connections."""
        if self._usable_engine is not None:
            await self._usable_engine.dispose()

    async def list(
        self,
        type: str | None = None,
        *,
        state: str | None = None,
        text: str | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Documents:
        """At most `limit` documents, by type, then by reference, both in code point order.

        `text` is a substring of the reference or the title, in any case. `after` is where the page before
        this one ended: a reference, or `type/reference` where no `type` is given.
        """
        columns = _documents.c
        query = sa.select(*_DOCUMENT).order_by(columns.type, columns.reference).limit(max(0, limit))
        if type is not None:
            query = query.where(columns.type == type)
        if state is not None:
            query = query.where(columns.state == state)
        if text:
            query = query.where(columns.folded.contains(text.casefold(), autoescape=True))
        if after is not None:
            after_type, _, after_reference = (after if type is None else f"{type}/{after}").partition("/")
            query = query.where(
                sa.or_(
                    columns.type > after_type,
                    sa.and_(columns.type == after_type, columns.reference > after_reference),
                )
            )
        async with self._reading() as connection:
            return [Document(*row) for row in await connection.execute(query)]

    async def by_change(
        self,
        type: str,
        *,
        states: Sequence[str] = (),
        prefix: str = "",
        before_revision: int | None = None,
        after_revision: int | None = None,
        limit: int = 1000,
    ) -> Documents:
        """At most `limit` documents in the order of their revisions, in one of `states` where some are given.

        With `after_revision` those that were put since then, the oldest change first; otherwise the newest
        change first, where `before_revision` is that of the last one on the page before. `prefix` is how
        their references begin.
        """
        revision = _documents.c.revision
        order = revision.desc() if after_revision is None else revision
        query = sa.select(*_DOCUMENT).where(_documents.c.type == type).order_by(order).limit(max(0, limit))
        if states:
            query = query.where(_documents.c.state.in_(states))
        if prefix:
            # Not LIKE, which on SQLite takes capitals for small letters.
            query = query.where(sa.func.substr(_documents.c.reference, 1, len(prefix)) == prefix)
        if before_revision is not None:
            query = query.where(revision < before_revision)
        if after_revision is not None:
            query = query.where(revision > after_revision)
        async with self._reading() as connection:
            return [Document(*row) for row in await connection.execute(query)]


def not_found(type: str, reference: str) -> DocumentNotFound:
    """The error of a document that is not there: says how to see those that are."""
    plural, command = _LISTINGS[type]
    return DocumentNotFound(f'there is no {type} "{reference}"; `{command}` lists the {plural}')
