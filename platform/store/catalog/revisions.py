"""The revisions of the catalog: the counter, the head of each type, and the earlier revisions of a document.

All functions take the connection of the write transaction that they are part of; see `tables.py`.
"""

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from .tables import (
    Document,
    catalog_revision,
    catalog_types,
    deleted_documents,
    document_revisions,
    documents,
)

MAX_DELETIONS = 10_000
"""Deletions that are retained for each type; a follower that is further behind rereads all documents."""


class Head(msgspec.Struct, frozen=True):
    """The head of a type: the revision of its last change.

    Deletions up to `forgotten_revision` are no longer recorded.
    """

    revision: int
    forgotten_revision: int


class RevisionInfo(msgspec.Struct, frozen=True):
    """A revision of a document, without its body; `action` is the change that made it."""

    revision: int
    action: str
    state: str
    title: str
    modified_ns: int


async def next_revision(connection: AsyncConnection, type: str) -> int:
    """Begin a write to a document of `type`: raise the counter, and the head of the type to it.

    The row of the counter stays locked until the transaction ends.
    """
    raised = (
        catalog_revision.update()
        .values(value=catalog_revision.c.value + 1)
        .returning(catalog_revision.c.value)
    )
    revision = int((await connection.execute(raised)).scalar_one())
    head = catalog_types.update().where(catalog_types.c.type == type).values(revision=revision)
    if (await connection.execute(head)).rowcount == 0:
        new = catalog_types.insert().values(type=type, revision=revision, forgotten_revision=0)
        await connection.execute(new)
    return revision


async def next_id(connection: AsyncConnection) -> int:
    """The numeric ID of a new document."""
    raised = catalog_revision.update().values(last_id=catalog_revision.c.last_id + 1)
    return int((await connection.execute(raised.returning(catalog_revision.c.last_id))).scalar_one())


async def read_head(connection: AsyncConnection, type: str | None) -> Head:
    """The head of one type, or of all types together."""
    columns = catalog_types.c
    if type is not None:
        query = sa.select(columns.revision, columns.forgotten_revision).where(columns.type == type)
        row = (await connection.execute(query)).one_or_none()
        return Head(0, 0) if row is None else Head(int(row[0]), int(row[1]))
    forgotten = sa.select(sa.func.coalesce(sa.func.max(columns.forgotten_revision), 0)).scalar_subquery()
    row = (await connection.execute(sa.select(catalog_revision.c.value, forgotten))).one()
    return Head(int(row[0]), int(row[1]))


async def note_revision(connection: AsyncConnection, document: Document, action: str, *, kept: int) -> None:
    """Add the current document to its revisions; `kept` earlier ones are retained."""
    if not kept:
        return
    columns = document_revisions.c
    await connection.execute(
        document_revisions.insert().values(
            document_id=document.id,
            revision=document.revision,
            action=action,
            state=document.state,
            title=document.title,
            body=document.body,
            modified_ns=document.modified_ns,
        )
    )
    of_document = columns.document_id == document.id
    first_surplus = (
        sa.select(columns.revision)
        .where(of_document)
        .order_by(columns.revision.desc())
        .limit(1)
        .offset(kept + 1)
        .scalar_subquery()
    )
    await connection.execute(
        document_revisions.delete().where(of_document, columns.revision <= first_surplus)
    )


async def note_deletion(
    connection: AsyncConnection, *, type: str, reference: str, id: int, revision: int, now_ns: int
) -> None:
    """Record a deletion for the followers of the type, and drop the oldest beyond MAX_DELETIONS."""
    columns = deleted_documents.c
    await connection.execute(
        deleted_documents.insert().values(
            type=type, reference=reference, id=id, revision=revision, deleted_ns=now_ns
        )
    )
    surplus = (
        sa.select(columns.revision)
        .where(columns.type == type)
        .order_by(columns.revision.desc())
        .limit(1)
        .offset(MAX_DELETIONS)
    )
    forgotten = (await connection.execute(surplus)).scalar_one_or_none()
    if forgotten is not None:
        await connection.execute(
            deleted_documents.delete().where(columns.type == type, columns.revision <= forgotten)
        )
        await connection.execute(
            catalog_types.update().where(catalog_types.c.type == type).values(forgotten_revision=forgotten)
        )


async def note_creation(connection: AsyncConnection, *, type: str, reference: str) -> None:
    """Drop the deletion of a document that was recreated."""
    columns = deleted_documents.c
    await connection.execute(
        deleted_documents.delete().where(columns.type == type, columns.reference == reference)
    )


async def touch(connection: AsyncConnection, document: Document) -> None:
    """Set the document's revision and modification time; nothing else changes."""
    await connection.execute(
        documents.update()
        .where(documents.c.id == document.id)
        .values(revision=document.revision, modified_ns=document.modified_ns)
    )
