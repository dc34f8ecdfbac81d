"""The catalog: the database of documents. SQLite by default, PostgreSQL by URL, with the same statements.

`tables.py` has the tables, `queries.py` the conditions of statements, `references.py` the rules of
references, `document_type.py` the types of documents, `documents.py` the operations of users on documents,
and `follower.py` follows the changes of one type.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import sqlalchemy as sa

from ...errors import ChangesForgotten, DocumentNotFound
from .attachments import AttachmentStore, copy_attachments, delete_attachments
from .database import CatalogDatabase, to_its_end
from .document_type import DocumentType, document_type, document_types
from .history import RevisionHistory
from .queries import filters, find_document, is_document
from .references import CONTROL_CHARACTERS, check_names
from .revisions import (
    Head,
    next_id,
    next_revision,
    note_creation,
    note_deletion,
    note_revision,
    read_head,
)
from .tables import DOCUMENT, deleted_documents, document_revisions, documents
from .tables import Document as Document

LARGEST_ID = 2**63 - 1


class Deletion(msgspec.Struct, frozen=True):
    """A document that was deleted, at `deleted_ns` since the epoch."""

    type: str
    reference: str
    id: int
    revision: int
    deleted_ns: int


_DELETION = tuple(deleted_documents.c[name] for name in Deletion.__struct_fields__)

Documents: TypeAlias = list[Document]
"""`Catalog.list` shadows the built-in name in its class."""
Changes: TypeAlias = list[Document | Deletion]


class Catalog:
    """The documents, for one event loop; any number of processes may each have the database open.

    A put or delete is one transaction: if it is cancelled or the process ends, it was applied completely or
    not at all. Every method raises CatalogUnavailable if the database cannot be reached.
    """

    def __init__(self, database: CatalogDatabase) -> None:
        """Use `Catalog.open`, which also creates the tables."""
        self.database = database
        self.attachments = AttachmentStore(database)
        self.history = RevisionHistory(database)

    @classmethod
    async def open(cls, url: str, *, copy: Path | None = None) -> "Catalog":
        """Connect, and create what is missing: the SQLite file with its folders, the tables.

        `url` is SQLAlchemy's: `sqlite:///relative.sqlite`, `sqlite:////absolute/catalog.sqlite`,
        `postgresql://user:password@host/database`. Raises ConfigInvalid for one that cannot be used,
        StoreFailed for an SQLite file that cannot be opened. A catalog of an earlier version is upgraded.

        `copy` is the file of the policies that were last in force. With it, a damaged database, or a missing
        file although there are such policies, does not raise: the catalog's methods raise CatalogUnavailable
        until the database is repaired, `fallback` returns these policies, and the file is left unchanged.
        """
        return cls(await CatalogDatabase.open(url, copy=copy))

    async def close(self) -> None:
        """Close the connections."""
        await self.database.close()

    def fallback(self) -> list[dict[str, Any]]:
        """The bodies of this home's policies that were last in force; empty if there is no copy."""
        return self.database.fallback()

    async def keep_copy(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Save the policies in force for `fallback`; errors of the disk are ignored."""
        await self.database.keep_copy(bodies)

    async def revision(self, type: str | None = None) -> int:
        """The revision of the last put or delete, of one type or of all: if it is equal, nothing changed.

        Takes no lock.
        """
        return (await self.head(type)).revision

    async def head(self, type: str | None = None) -> Head:
        """The same, with how far back deletions are recorded."""
        async with self.database.reading() as connection:
            return await read_head(connection, type)

    async def get(self, type: str, reference: str) -> Document:
        """One document. Raises DocumentNotFound."""
        return await self._one(type, reference, is_document(type, reference))

    async def get_by_id(self, type: str, id: int) -> Document:
        """The document of that numeric ID, if it is of that type. Raises DocumentNotFound."""
        wanted = sa.and_(documents.c.id == id, documents.c.type == type)
        return await self._one(type, str(id), wanted if 0 < id <= LARGEST_ID else sa.false())

    async def _one(self, type: str, name: str, wanted: sa.ColumnElement[bool]) -> Document:
        async with self.database.reading() as connection:
            row = (await connection.execute(sa.select(*DOCUMENT).where(wanted))).one_or_none()
        if row is None:
            raise not_found(type, name)
        return Document(*row)

    async def put(
        self,
        type: str,
        reference: str,
        *,
        title: str = "",
        body: dict[str, Any],
        state: str | None = None,
        if_revision: int | None = None,
        action: str = "saved",
        attachments_of: int | None = None,
    ) -> Document:
        """Create or replace a document and return it as stored.

        `state` is by default the initial state of the type. With `if_revision` only if the document has
        that revision, 0 if it must not exist; otherwise RevisionConflict, and nothing changes.
        `action` is shown in the list of revisions. `attachments_of` is the ID of a document whose
        attachments are copied. Raises DocumentInvalid for what the catalog cannot store.
        """
        kind = document_type(type)
        state = kind.initial_state if state is None else state
        _check(kind, reference, title, state)
        return await to_its_end(
            self._put(kind, reference, title, body, state, if_revision, action, attachments_of)
        )

    async def _put(
        self,
        kind: DocumentType,
        reference: str,
        title: str,
        body: dict[str, Any],
        state: str,
        if_revision: int | None,
        action: str,
        attachments_of: int | None,
    ) -> Document:
        now_ns = time.time_ns()
        async with self.database.writing() as connection:
            revision = await next_revision(connection, kind.name)
            old = await find_document(connection, kind.name, reference, if_revision)
            document = Document(
                type=kind.name,
                reference=reference,
                state=state,
                title=title,
                body=body,
                revision=revision,
                created_ns=now_ns if old is None else int(old.created_ns),
                modified_ns=now_ns,
                id=await next_id(connection) if old is None else int(old.id),
            )
            values = {
                **msgspec.structs.asdict(document),
                "folded": "\n".join([reference, title, *kind.searched_text(body)]).casefold(),
            }
            if old is None:
                await note_creation(connection, type=kind.name, reference=reference)
                await connection.execute(documents.insert().values(**values))
            else:
                await connection.execute(
                    documents.update().where(is_document(kind.name, reference)).values(**values)
                )
            await note_revision(connection, document, action, kept=kind.revisions_kept)
            if attachments_of is not None:
                await copy_attachments(connection, attachments_of, document)
        return document

    async def delete(self, type: str, reference: str, *, if_revision: int | None = None) -> None:
        """Remove a document with its revisions and attachments.

        Raises DocumentNotFound, and RevisionConflict as `put` does.
        """
        await to_its_end(self._delete(type, reference, if_revision))

    async def _delete(self, type: str, reference: str, if_revision: int | None) -> None:
        async with self.database.writing() as connection:
            revision = await next_revision(connection, type)
            old = await find_document(connection, type, reference, if_revision)
            if old is None:
                raise not_found(type, reference)
            await connection.execute(documents.delete().where(is_document(type, reference)))
            await connection.execute(
                document_revisions.delete().where(document_revisions.c.document_id == old.id)
            )
            await delete_attachments(connection, old.id)
            await note_deletion(
                connection,
                type=type,
                reference=reference,
                id=old.id,
                revision=revision,
                now_ns=time.time_ns(),
            )

    async def list(
        self,
        type: str | None = None,
        *,
        state: str | None = None,
        text: str | None = None,
        pattern: str | None = None,
        limit: int = 1000,
        after: str | None = None,
    ) -> Documents:
        """At most `limit` documents, by type, then by reference, both in code point order.

        `text` is a substring of the reference, the title or a search field, in any case. `pattern` is the
        whole of one of them, in any case, with `%` for any characters. `after` is the end of the previous
        page: a reference, or `type/reference` if no `type` is given.
        """
        columns = documents.c
        query = sa.select(*DOCUMENT).order_by(columns.type, columns.reference).limit(max(0, limit))
        query = query.where(*filters(type, state, text, pattern))
        if after is not None:
            after = CONTROL_CHARACTERS.split(after)[0]
            after_type, _, after_reference = (after if type is None else f"{type}/{after}").partition("/")
            query = query.where(
                sa.or_(
                    columns.type > after_type,
                    sa.and_(columns.type == after_type, columns.reference > after_reference),
                )
            )
        return await self._read(query)

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
        """At most `limit` documents in the order of their revisions, in one of `states` if given.

        With `after_revision` those that were put since then, the oldest change first; otherwise the newest
        change first, and `before_revision` is that of the last one on the previous page. `prefix` is the
        prefix of their references.
        """
        revision = documents.c.revision
        order = revision.desc() if after_revision is None else revision
        query = sa.select(*DOCUMENT).where(documents.c.type == type).order_by(order).limit(max(0, limit))
        if states:
            query = query.where(documents.c.state.in_(states))
        if prefix:
            # Not LIKE, which ignores case on SQLite.
            query = query.where(sa.func.substr(documents.c.reference, 1, len(prefix)) == prefix)
        if before_revision is not None:
            query = query.where(revision < before_revision)
        if after_revision is not None:
            query = query.where(revision > after_revision)
        return await self._read(query)

    async def changes(
        self,
        since: int,
        *,
        type: str | None = None,
        state: str | None = None,
        text: str | None = None,
        pattern: str | None = None,
        limit: int = 1000,
    ) -> Changes:
        """At most `limit` changes after revision `since`, the oldest first: documents as they are now, and
        deletions. Of a document that was changed several times only the last change is returned.

        `state`, `text` and `pattern` filter the documents as in `list`; deletions are always returned.
        Raises ChangesForgotten if there were deletions after `since` that are no longer recorded, or if
        `since` is beyond the catalog's revision.
        """
        async with self.database.reading() as connection:
            head = await read_head(connection, type)
            if since > head.revision or since < head.forgotten_revision:
                raise ChangesForgotten(
                    f"the catalog does not know all changes since revision {since}; read all documents, then "
                    f"continue from revision {head.revision}"
                )
            if since == head.revision:
                return []
            # Changes after the head are left to the next call: others may write between these statements.
            found: Changes = []
            for table, columns, make in (
                (deleted_documents, _DELETION, Deletion),
                (documents, DOCUMENT, Document),
            ):
                query = (
                    sa.select(*columns)
                    .where(table.c.revision > since, table.c.revision <= head.revision)
                    .order_by(table.c.revision)
                    .limit(max(0, limit))
                )
                if table is documents:
                    query = query.where(*filters(type, state, text, pattern))
                elif type is not None:
                    query = query.where(table.c.type == type)
                found += [make(*row) for row in await connection.execute(query)]
        return sorted(found, key=lambda change: change.revision)[: max(0, limit)]

    async def _read(self, query: sa.Select[Any]) -> Documents:
        async with self.database.reading() as connection:
            return [Document(*row) for row in await connection.execute(query)]


def _check(kind: DocumentType, reference: str, title: str, state: str) -> None:
    kind.check_state(state)
    check_names(kind.name, reference, title)


def not_found(type: str, reference: str) -> DocumentNotFound:
    """The error for a document that does not exist, with the command that lists those that do."""
    kind = document_types().get(type)
    listing = "" if kind is None else f"; `{kind.list_command}` lists the {kind.plural}"
    return DocumentNotFound(f'there is no {type} "{reference}"{listing}')
