"""Conditions and look-ups in the statements of the catalog."""

import re
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from ...errors import RevisionConflict
from .references import CONTROL_CHARACTERS
from .tables import documents


class Found(NamedTuple):
    """A document that is about to change."""

    id: int
    revision: int
    created_ns: int


def is_document(type: str, reference: str) -> sa.ColumnElement[bool]:
    """The document of that type and reference."""
    return sa.and_(_equals(documents.c.type, type), _equals(documents.c.reference, reference))


def _equals(column: sa.Column[str], value: str) -> sa.ColumnElement[bool]:
    # Characters that no document has, and that some databases reject, are not queried.
    return sa.false() if CONTROL_CHARACTERS.search(value) else column == value


def filters(
    type: str | None, state: str | None, text: str | None, pattern: str | None
) -> list[sa.ColumnElement[bool]]:
    """The documents that `Catalog.list` selects."""
    columns = documents.c
    found: list[sa.ColumnElement[bool]] = []
    if type is not None:
        found.append(_equals(columns.type, type))
    if state is not None:
        found.append(_equals(columns.state, state))
    if CONTROL_CHARACTERS.search(text or pattern or ""):
        return [sa.false()]
    if text:
        found.append(columns.folded.contains(text.casefold(), autoescape=True))
    if pattern:
        found.append(_matches(pattern))
    return found


def _matches(pattern: str) -> sa.ColumnElement[bool]:
    escaped = re.sub(r"([\\_])", r"\\\1", pattern.casefold())
    # One line of several: the first, one in the middle, the last; or the only one.
    places = (f"{escaped}\n%", f"%\n{escaped}\n%", f"%\n{escaped}", escaped)
    return sa.or_(*(documents.c.folded.like(place, escape="\\") for place in places))


async def find_document(
    connection: AsyncConnection, type: str, reference: str, if_revision: int | None
) -> Found | None:
    """ID, revision and creation time of a document, None if there is none. Raises RevisionConflict."""
    columns = documents.c
    query = sa.select(columns.id, columns.revision, columns.created_ns).where(is_document(type, reference))
    row = (await connection.execute(query)).one_or_none()
    revision = 0 if row is None else row.revision
    if if_revision is not None and if_revision != revision:
        now = f"is at revision {revision}" if revision else "does not exist"
        expected = f"revision {if_revision} was expected" if if_revision else "it was to be new"
        raise RevisionConflict(f'{type} "{reference}" {now}, {expected}; read it again and repeat the change')
    return None if row is None else Found(*row)
