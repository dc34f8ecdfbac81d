"""The JSON of documents as types: generic ones decode, those of each type describe the API."""

from collections.abc import Iterable
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ...store.catalog.catalog import Deletion, Document
from ...store.catalog.document_type import DocumentType, document_states, document_types
from ...store.catalog.references import MAX_REFERENCE_BYTES, MAX_TITLE_BYTES
from ..answers import DocumentInfo, rfc3339
from ..pages import LimitQuery
from ..parameters import LARGEST_INTEGER
from ..problems import RequestRejected

Reference = Annotated[
    str,
    Meta(
        description="1 to 500 bytes of UTF-8 without control characters, not of digits alone; no part "
        'between slashes is empty, "." or "..".',
        extra_json_schema={"minLength": 1, "maxLength": MAX_REFERENCE_BYTES},
    ),
]
"""Described here, and checked by the catalog, whose message names the rule."""
Title = Annotated[str, Meta(max_length=MAX_TITLE_BYTES)]
Type = Annotated[
    str | None,
    Meta(description="Only documents of this type.", extra_json_schema={"enum": list(document_types())}),
]
State = Annotated[
    str | None,
    Meta(description="Only documents in this state.", extra_json_schema={"enum": list(document_states())}),
]
NO_SUCH_STATE = {HTTPStatus.UNPROCESSABLE_ENTITY: "Documents of that type are never in that state."}
Revision = Annotated[int, Meta(ge=0, le=LARGEST_INTEGER)]


class DocumentEntry(Struct):
    """A document in a list. Of one that was deleted `deleted` is true, and the other members are null.

    Times are RFC 3339.
    """

    type: str
    reference: str
    id: int
    revision: int
    deleted: bool
    state: str | None
    title: str | None
    body: dict[str, Any] | None
    created: str | None
    modified: str


class RevisionEntry(Struct):
    """A revision of a document that is kept; `action` says how it came about."""

    revision: int
    action: str
    state: str
    title: str
    modified: str


class AttachmentEntry(Struct):
    """An attachment. `revision`, its ETag, is that of the document when the attachment was written."""

    name: str
    media_type: str
    size_bytes: int
    revision: int
    modified: str


class Draft(Struct, forbid_unknown_fields=True):
    """A document to create."""

    reference: Reference
    body: dict[str, Any]
    title: Title = ""


class Replacement(Struct, forbid_unknown_fields=True):
    """What is to replace body and title; without a title it stays."""

    body: dict[str, Any]
    title: Title | None = None


class Retitling(Struct, forbid_unknown_fields=True):
    """A new title, which is all that users can change of documents that a tier registers."""

    title: Title


class Cloning(Struct, forbid_unknown_fields=True):
    """The reference of the copy, and its title; by default that of the original."""

    reference: Reference
    title: Title | None = None


class TypeListQuery(LimitQuery, frozen=True, kw_only=True):
    """Which documents of a type."""

    q: Annotated[
        str,
        Meta(
            description="A part of the reference, the title or a search field, in any case. With %, which "
            "stands for any characters, the whole of one of them."
        ),
    ] = ""
    state: State = None
    since: Annotated[
        Revision | None,
        Meta(
            description="Only what has changed after this revision, the oldest change first, with deletions."
        ),
    ] = None
    after: Annotated[str, Meta(description="The page begins after this reference.")] = ""


class ListQuery(TypeListQuery, frozen=True, kw_only=True):
    """Which documents."""

    type: Type = None


class RevisionQuery(Struct, frozen=True):
    """Which revision."""

    revision: Annotated[
        Revision | None, Meta(description="The document as it was at this revision; by default the current.")
    ] = None


class AttachmentPath(Struct, frozen=True):
    """An attachment in the path."""

    ref: Annotated[str, Meta(description="The reference or the numeric ID, percent-encoded.")]
    name: Annotated[str, Meta(description="The name of the attachment, percent-encoded.")]


class DocumentPath(Struct, frozen=True):
    """A document in the path."""

    ref: Annotated[str, Meta(description="The reference or the numeric ID, percent-encoded.")]


class TypeSchemas(Struct, frozen=True):
    """The JSON of one type: its documents, and what creates and replaces them."""

    document: Any
    draft: Any
    replacement: Any


@cache
def schemas_of(kind: DocumentType) -> TypeSchemas:
    """The same members as the generic structs have, with the type's own body."""
    name = "".join(part.capitalize() for part in kind.name.split("_"))
    fields = {each.name: each.type for each in msgspec.structs.fields(DocumentInfo)}
    own = {"type": Literal[kind.name], "state": Literal[kind.states], "body": kind.body}
    document = msgspec.defstruct(
        f"{name}Document",
        [(field, own.get(field, fields[field])) for field in fields],
        namespace={"__doc__": f"A document of the type {kind.name}. Times are RFC 3339."},
    )
    draft = msgspec.defstruct(
        f"{name}Draft",
        [("reference", Reference), ("body", kind.body), ("title", Title, "")],
        namespace={"__doc__": f"A document of the type {kind.name} to create."},
        forbid_unknown_fields=True,
    )
    replacement = msgspec.defstruct(
        f"{name}Replacement",
        [("body", kind.body), ("title", Title | None, None)],
        namespace={"__doc__": "What is to replace body and title; without a title it stays."},
        forbid_unknown_fields=True,
    )
    return TypeSchemas(document, draft, replacement)


def entry_of(change: Document | Deletion) -> DocumentEntry:
    """A document, or one that was deleted, in a list."""
    if isinstance(change, Deletion):
        return DocumentEntry(
            type=change.type,
            reference=change.reference,
            id=change.id,
            revision=change.revision,
            deleted=True,
            state=None,
            title=None,
            body=None,
            created=None,
            modified=rfc3339(change.deleted_ns),
        )
    return DocumentEntry(
        type=change.type,
        reference=change.reference,
        id=change.id,
        revision=change.revision,
        deleted=False,
        state=change.state,
        title=change.title,
        body=change.body,
        created=rfc3339(change.created_ns),
        modified=rfc3339(change.modified_ns),
    )


def check_type_and_state(type: str | None, state: str | None) -> None:
    """RequestRejected names the types or the states that there are if one of a query does not exist."""
    kinds = document_types()
    if type is not None and type not in kinds:
        raise _unknown(HTTPStatus.BAD_REQUEST, "type", type, kinds)
    if state is None:
        return
    if state not in document_states():
        known = document_states() if type is None else kinds[type].states
        raise _unknown(HTTPStatus.BAD_REQUEST, "state", state, known)
    if type is not None and state not in kinds[type].states:
        raise _unknown(HTTPStatus.UNPROCESSABLE_ENTITY, "state", state, kinds[type].states)


def _unknown(status: HTTPStatus, name: str, value: str, known: Iterable[str]) -> RequestRejected:
    return RequestRejected(status, f"{name}={value[:40]} is not known; it may be {', '.join(known)}.")
