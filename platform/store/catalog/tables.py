"""The tables of the catalog, version 2, and the migration from version 1.

`catalog_revision` has one row. Every write begins by incrementing its `value`, so writes are serialized on
any database, and a revision is never reused. `last_id` is the last numeric ID that was assigned.
`catalog_types` has, for each type, the revision of its last change: a follower of one type reads that row.

Version 1 had neither numeric IDs nor the other tables. `prepare` adds what is missing in one transaction.
"""

from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.schema import CreateIndex, CreateTable


class Document(msgspec.Struct, frozen=True):
    """One document as it is in the catalog.

    `revision` is that of the catalog when the document was last put, so it increases with each put and is
    never reused, not even for a document that was deleted and recreated: it can serve as an ETag.
    `created_ns` and `modified_ns` are ns since the epoch, UTC. `id` is the numeric ID, never reused.
    """

    type: str
    reference: str
    state: str
    title: str
    body: dict[str, Any]
    revision: int
    created_ns: int
    modified_ns: int
    id: int


metadata = sa.MetaData()


def _name(name: str, *, primary_key: bool = False) -> sa.Column[str]:
    # PostgreSQL sorts by the rules of a locale by default; "C" is code point order, as in SQLite and
    # Python.
    kind = sa.String().with_variant(postgresql.VARCHAR(collation="C"), "postgresql")
    return sa.Column(name, kind, primary_key=primary_key, nullable=False)


def _number(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=primary_key, autoincrement=False, nullable=False)


documents = sa.Table(
    "documents",
    metadata,
    _name("type", primary_key=True),
    _name("reference", primary_key=True),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    _number("revision"),
    _number("created_ns"),
    _number("modified_ns"),
    # Reference, title and search fields, a line each, case-folded by Python: SQLite's lower() supports
    # only ASCII.
    sa.Column("folded", sa.String, nullable=False),
    # 0 is a row of version 1, which has no ID yet.
    sa.Column("id", sa.BigInteger, nullable=False, server_default="0"),
)
DOCUMENT = tuple(documents.c[name] for name in Document.__struct_fields__)

catalog_revision = sa.Table(
    "catalog_revision",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    _number("value"),
    sa.Column("last_id", sa.BigInteger, nullable=False, server_default="0"),
)

catalog_types = sa.Table(
    "catalog_types",
    metadata,
    _name("type", primary_key=True),
    _number("revision"),
    # The highest revision of a deletion that is no longer in `deleted_documents`.
    _number("forgotten_revision"),
)

deleted_documents = sa.Table(
    "deleted_documents",
    metadata,
    _name("type", primary_key=True),
    _name("reference", primary_key=True),
    _number("id"),
    _number("revision"),
    _number("deleted_ns"),
)

document_revisions = sa.Table(
    "document_revisions",
    metadata,
    _number("document_id", primary_key=True),
    _number("revision", primary_key=True),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("title", sa.String, nullable=False),
    sa.Column("body", sa.JSON, nullable=False),
    _number("modified_ns"),
)

attachments = sa.Table(
    "attachments",
    metadata,
    _number("document_id", primary_key=True),
    _name("name", primary_key=True),
    sa.Column("media_type", sa.String, nullable=False),
    _number("revision"),
    _number("modified_ns"),
    _number("size_bytes"),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

INDEXES = (
    sa.Index("documents_by_change", documents.c.type, documents.c.revision),
    sa.Index("documents_by_revision", documents.c.revision),
    sa.Index("documents_by_id", documents.c.id),
    sa.Index("deleted_documents_by_change", deleted_documents.c.type, deleted_documents.c.revision),
)

_NEW_COLUMNS = ((documents, "id"), (catalog_revision, "last_id"))


async def is_prepared(connection: AsyncConnection) -> bool:
    """Whether tables and columns exist, and every document has a numeric ID. Takes no lock."""
    if await connection.run_sync(_missing):
        return False
    first_row = sa.select(catalog_revision.c.last_id)
    unnumbered = sa.select(documents.c.id).where(documents.c.id == 0).limit(1)
    return (await connection.execute(first_row)).first() is not None and (
        await connection.execute(unnumbered)
    ).first() is None


def _missing(connection: sa.Connection) -> list[str]:
    inspector = sa.inspect(connection)
    tables = set(inspector.get_table_names())
    missing = [name for name in metadata.tables if name not in tables]
    for table, column in _NEW_COLUMNS:
        if table.name in tables and column not in {
            each["name"] for each in inspector.get_columns(table.name)
        }:
            missing.append(f"{table.name}.{column}")
    return missing


async def prepare(connection: AsyncConnection) -> None:
    """Create what is missing, in a transaction that the caller begins and ends."""
    for table in metadata.sorted_tables:
        await connection.execute(CreateTable(table, if_not_exists=True))
    first_row = sa.select(sa.literal(1), sa.literal(0)).where(~sa.exists(sa.select(catalog_revision.c.id)))
    await connection.execute(catalog_revision.insert().from_select(["id", "value"], first_row))
    # From here on no other process writes; on SQLite, schema changes are part of the transaction.
    await connection.execute(catalog_revision.update().values(value=catalog_revision.c.value))
    missing = await connection.run_sync(_missing)
    for table, column in _NEW_COLUMNS:
        if f"{table.name}.{column}" in missing:
            ddl = f"ALTER TABLE {table.name} ADD COLUMN {column} BIGINT NOT NULL DEFAULT 0"
            await connection.execute(sa.text(ddl))
    for index in INDEXES:
        await connection.execute(CreateIndex(index, if_not_exists=True))
    await _number_documents(connection)
    await _note_types(connection)


async def _number_documents(connection: AsyncConnection) -> None:
    """Assign numeric IDs to the documents of version 1, in the order of their creation."""
    last_used = sa.select(sa.func.coalesce(sa.func.max(documents.c.id), 0)).scalar_subquery()
    last_given = sa.select(catalog_revision.c.last_id).scalar_subquery()
    used, given = (await connection.execute(sa.select(last_used, last_given))).one()
    last_id = max(used, given)
    keys = sa.select(documents.c.type, documents.c.reference).where(documents.c.id == 0)
    rows = (await connection.execute(keys.order_by(documents.c.created_ns, *keys.selected_columns))).all()
    if rows:
        update = documents.update().where(
            documents.c.type == sa.bindparam("of_type"), documents.c.reference == sa.bindparam("of_reference")
        )
        values = [
            {"of_type": row.type, "of_reference": row.reference, "number": number}
            for number, row in enumerate(rows, start=last_id + 1)
        ]
        await connection.execute(update.values(id=sa.bindparam("number")), values)
    await connection.execute(catalog_revision.update().values(last_id=last_id + len(rows)))


async def _note_types(connection: AsyncConnection) -> None:
    """Add the missing rows of types: earlier deletions are not recorded."""
    value = sa.select(catalog_revision.c.value).scalar_subquery()
    known = sa.select(catalog_types.c.type)
    types = sa.select(documents.c.type, value, value).where(documents.c.type.not_in(known)).distinct()
    await connection.execute(
        catalog_types.insert().from_select(["type", "revision", "forgotten_revision"], types)
    )
