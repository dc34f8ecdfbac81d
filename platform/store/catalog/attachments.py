"""Attachments: files that belong to a document, read and written whole.

An attachment has at most MAX_ATTACHMENT_BYTES; the document type sets the size, the number and the media
types. Each change of an attachment gives its document a new revision.
"""

import re
import time

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import AttachmentNotFound, DocumentInvalid, RevisionConflict
from .database import CatalogDatabase, to_its_end
from .document_type import MAX_ATTACHMENT_BYTES, document_type
from .revisions import next_revision, note_revision, touch
from .tables import DOCUMENT, Document, attachments, documents

MAX_NAME_CHARACTERS = 200
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff/\\]+")
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")


class AttachmentInfo(msgspec.Struct, frozen=True):
    """An attachment without its content. `revision` is that of its document when it was written."""

    name: str
    media_type: str
    size_bytes: int
    revision: int
    modified_ns: int


class Attachment(AttachmentInfo, frozen=True):
    """An attachment with its content."""

    content: bytes


_INFO = tuple(attachments.c[name] for name in AttachmentInfo.__struct_fields__)
_WHOLE = (*_INFO, attachments.c.content)


class AttachmentStore:
    """The attachments of the catalog's documents. Raises CatalogUnavailable as the catalog does."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    async def list(self, document: Document) -> list[AttachmentInfo]:
        """The attachments of a document, in the order of their names."""
        query = sa.select(*_INFO).where(attachments.c.document_id == document.id)
        async with self._database.reading() as connection:
            rows = await connection.execute(query.order_by(attachments.c.name))
            return [AttachmentInfo(*row) for row in rows]

    async def get(self, document: Document, name: str) -> Attachment:
        """One attachment with its content. Raises AttachmentNotFound."""
        async with self._database.reading() as connection:
            query = sa.select(*_WHOLE).where(_is(document.id, name))
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise AttachmentNotFound(
                f'{document.type} "{document.reference}" has no attachment "{name[:60]}"'
            )
        return Attachment(*row)

    async def put(
        self,
        document: Document,
        name: str,
        *,
        content: bytes,
        media_type: str,
        if_revision: int | None = None,
    ) -> Attachment:
        """Write an attachment, or replace it.

        With `if_revision` only if the attachment has that revision, 0 if it must not exist;
        otherwise RevisionConflict. Raises DocumentInvalid for what the document's type does not allow,
        AttachmentNotFound if the document was deleted.
        """
        _check(document.type, name, content, media_type)
        return await to_its_end(self._put(document, name, content, media_type, if_revision))

    async def _put(
        self, document: Document, name: str, content: bytes, media_type: str, if_revision: int | None
    ) -> Attachment:
        async with self._database.writing() as connection:
            changed = await self._begin(connection, document, name, if_revision)
            rules = document_type(document.type).attachments
            assert rules is not None
            count = sa.select(sa.func.count()).where(
                attachments.c.document_id == document.id, attachments.c.name != name
            )
            if (await connection.execute(count)).scalar_one() >= rules.max_count:
                raise DocumentInvalid(
                    f'{document.type} "{document.reference}" has {rules.max_count} attachments, which is the '
                    "limit; delete one first"
                )
            written = Attachment(
                name=name,
                media_type=media_type,
                size_bytes=len(content),
                revision=changed.revision,
                modified_ns=changed.modified_ns,
                content=content,
            )
            await connection.execute(attachments.delete().where(_is(document.id, name)))
            await connection.execute(
                attachments.insert().values(document_id=document.id, **msgspec.structs.asdict(written))
            )
            await self._note(connection, changed, f"attached {name}")
        return written

    async def delete(self, document: Document, name: str, *, if_revision: int | None = None) -> None:
        """Delete an attachment. Raises AttachmentNotFound, and RevisionConflict as `put` does."""
        await to_its_end(self._delete(document, name, if_revision))

    async def _delete(self, document: Document, name: str, if_revision: int | None) -> None:
        async with self._database.writing() as connection:
            changed = await self._begin(connection, document, name, if_revision)
            removed = await connection.execute(attachments.delete().where(_is(document.id, name)))
            if not removed.rowcount:
                raise AttachmentNotFound(
                    f'{document.type} "{document.reference}" has no attachment "{name[:60]}"'
                )
            await self._note(connection, changed, f"deleted attachment {name}")

    async def _begin(
        self, connection: AsyncConnection, document: Document, name: str, if_revision: int | None
    ) -> Document:
        """The document as it is now, with its next revision."""
        revision = await next_revision(connection, document.type)
        query = sa.select(*DOCUMENT).where(documents.c.id == document.id)
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise AttachmentNotFound(f'{document.type} "{document.reference}" was deleted')
        if if_revision is not None:
            present = sa.select(attachments.c.revision).where(_is(document.id, name))
            found = (await connection.execute(present)).scalar_one_or_none() or 0
            if found != if_revision:
                now = f"is at revision {found}" if found else "does not exist"
                raise RevisionConflict(
                    f'attachment "{name}" {now}, revision {if_revision} was expected; read it again and '
                    "repeat the change"
                )
        return msgspec.structs.replace(Document(*row), revision=revision, modified_ns=time.time_ns())

    async def _note(self, connection: AsyncConnection, changed: Document, action: str) -> None:
        await touch(connection, changed)
        kept = document_type(changed.type).revisions_kept
        await note_revision(connection, changed, action, kept=kept)


async def copy_attachments(connection: AsyncConnection, source_id: int, target: Document) -> None:
    """Give a new document copies of the attachments of another."""
    columns = attachments.c
    copied = sa.select(
        sa.literal(target.id),
        columns.name,
        columns.media_type,
        sa.literal(target.revision),
        sa.literal(target.modified_ns),
        columns.size_bytes,
        columns.content,
    ).where(columns.document_id == source_id)
    names = ["document_id", "name", "media_type", "revision", "modified_ns", "size_bytes", "content"]
    await connection.execute(attachments.insert().from_select(names, copied))


async def delete_attachments(connection: AsyncConnection, document_id: int) -> None:
    """Delete all attachments of a deleted document."""
    await connection.execute(attachments.delete().where(attachments.c.document_id == document_id))


def _is(document_id: int, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(attachments.c.document_id == document_id, attachments.c.name == name)


def _check(type: str, name: str, content: bytes, media_type: str) -> None:
    kind = document_type(type)
    rules = kind.attachments
    if rules is None:
        raise DocumentInvalid(f"{kind.plural} have no attachments")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS or name in (".", ".."):
        raise DocumentInvalid(
            f"{name[:60]!r} is not a valid name of an attachment; use 1 to {MAX_NAME_CHARACTERS} characters "
            "without control characters and slashes"
        )
    if not _MEDIA_TYPE.fullmatch(media_type) or not rules.allows(media_type):
        raise DocumentInvalid(
            f"a {type} takes attachments of type {', '.join(rules.media_types)}, not {media_type[:60]!r}"
        )
    max_bytes = min(rules.max_bytes, MAX_ATTACHMENT_BYTES)
    if len(content) > max_bytes:
        raise DocumentInvalid(f"an attachment has at most {max_bytes} bytes, and {name!r} has {len(content)}")
