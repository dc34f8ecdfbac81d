"""The earlier revisions of documents that are retained."""

import msgspec
import sqlalchemy as sa

from ...errors import DocumentNotFound
from .database import CatalogDatabase
from .revisions import RevisionInfo
from .tables import Document, document_revisions


class RevisionHistory:
    """Reads the revisions of documents; `revisions.note_revision` writes them with each change.

    Raises CatalogUnavailable as the catalog does.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    async def list(
        self, document: Document, *, before: int | None = None, limit: int = 1000
    ) -> list[RevisionInfo]:
        """At most `limit` retained revisions of a document, the newest first.

        `before` is the last revision on the previous page.
        """
        columns = document_revisions.c
        query = (
            sa.select(*(columns[name] for name in RevisionInfo.__struct_fields__))
            .where(columns.document_id == document.id)
            .order_by(columns.revision.desc())
            .limit(max(0, limit))
        )
        if before is not None:
            query = query.where(columns.revision < before)
        async with self._database.reading() as connection:
            found = [RevisionInfo(*row) for row in await connection.execute(query)]
        if before is None and (not found or found[0].revision < document.revision):
            # Its type retains no revisions, or it was put by a version without them.
            now = RevisionInfo(
                document.revision, "saved", document.state, document.title, document.modified_ns
            )
            found.insert(0, now)
        return found[: max(0, limit)]

    async def at(self, document: Document, revision: int) -> Document:
        """The document at one of its revisions. Raises DocumentNotFound if the revision is not retained."""
        if revision == document.revision:
            return document
        columns = document_revisions.c
        query = sa.select(columns.state, columns.title, columns.body, columns.modified_ns).where(
            columns.document_id == document.id, columns.revision == revision
        )
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise DocumentNotFound(
                f'{document.type} "{document.reference}" has no revision {revision} that is kept'
            )
        return msgspec.structs.replace(
            document,
            revision=revision,
            state=row.state,
            title=row.title,
            body=row.body,
            modified_ns=row.modified_ns,
        )
