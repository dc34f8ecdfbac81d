"""Conditional requests (RFC 9110, section 13): the ETag of a document is its revision."""

import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated

from msgspec import Meta, Struct, field

from ...errors import DocumentNotFound
from ...store.catalog.catalog import Document
from ..problems import RequestRejected


class IfNoneMatchHeader(Struct, frozen=True):
    """What the client has already."""

    if_none_match: Annotated[str | None, Meta(description="The ETag that the client has.")] = field(
        name="If-None-Match", default=None
    )


class IfMatchHeader(Struct, frozen=True):
    """Which revision a change is for."""

    if_match: Annotated[
        str | None, Meta(description="The ETag of the revision that is to be changed; * for any.")
    ] = field(name="If-Match", default=None)


class ConditionHeaders(Struct, frozen=True):
    """Which revision a change is for."""

    if_match: Annotated[
        str | None, Meta(description="The ETag of the revision that is to be changed; * for any.")
    ] = field(name="If-Match", default=None)
    if_none_match: Annotated[
        str | None, Meta(description="* allows the change only if the resource does not exist.")
    ] = field(name="If-None-Match", default=None)


def etag_of(document: Document) -> dict[str, str]:
    """The ETag header of a document: its revision."""
    return {"ETag": f'"{document.revision}"'}


def revision_in(header: str | None) -> int | None:
    """The revision in an If-Match or If-None-Match header, None if it has none."""
    match = re.fullmatch(r'\s*"(\d{1,18})"\s*', header or "")
    # Revision 0 would mean that the document must not exist.
    return int(match[1]) or None if match else None


async def expected_revision(
    headers: ConditionHeaders | IfMatchHeader, find: Callable[[], Awaitable[Document]]
) -> int | None:
    """The revision that a change is for: None for any, 0 if the document must not exist.

    `find` gets the document, for `If-Match: *`. Raises RequestRejected (412).
    """
    if isinstance(headers, ConditionHeaders) and (headers.if_none_match or "").strip() == "*":
        return 0
    wanted = headers.if_match
    if wanted is None:
        return None
    if wanted.strip() == "*":
        try:
            return (await find()).revision
        except DocumentNotFound as error:
            raise precondition_failed(error) from None
    revision = revision_in(wanted)
    if revision is None:
        raise RequestRejected(
            HTTPStatus.PRECONDITION_FAILED, f"If-Match: {wanted[:60]} is not an ETag that a document had."
        )
    return revision


def precondition_failed(error: Exception) -> RequestRejected:
    """The problem of a change whose condition does not hold."""
    return RequestRejected(HTTPStatus.PRECONDITION_FAILED, str(error))
