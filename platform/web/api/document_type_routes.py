"""The routes of each type of document, derived from its `DocumentType`: what its documents allow."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, NamedTuple

from ...store.catalog.document_type import AttachmentRules, DocumentType, NoArguments, document_types
from ..pages import RevisionPageQuery
from ..route import API, BINARY, JSON, NOT_MODIFIED, REF, Answer, Route, json_answer, page_of
from .conditions import ConditionHeaders, IfMatchHeader, IfNoneMatchHeader
from .document_schemas import (
    NO_SUCH_STATE,
    AttachmentEntry,
    AttachmentPath,
    Cloning,
    DocumentEntry,
    DocumentPath,
    Retitling,
    RevisionEntry,
    RevisionQuery,
    TypeListQuery,
    schemas_of,
)

TAG = "documents"
NAME = "{name:[^/]+}"
LIST_ETAG = {"ETag": "The revision of the last change, from which `since` continues."}
GONE = {HTTPStatus.GONE: "Changes since that revision are no longer known: read all documents."}

_ETAG = {"ETag": "The revision."}
_PRECONDITION = {HTTPStatus.PRECONDITION_FAILED: "It does not have the revision that If-Match names."}
_TAKEN = {HTTPStatus.CONFLICT: "There is a document of that reference."}
_BUSY = {HTTPStatus.CONFLICT: "The state of the document does not allow it; the detail says why."}
_TOO_LARGE = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "It is larger than the type allows."}
_MEDIA_TYPE = {HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The type does not allow attachments of this media type."}
_DELETED = Answer(HTTPStatus.NO_CONTENT, "It is deleted.")


class Served(NamedTuple):
    """A route, the name of the method of `DocumentRoutes` that handles it, and its first arguments."""

    route: Route
    handler: str
    arguments: tuple[Any, ...]


def served_routes() -> Iterator[Served]:
    """The routes of all types."""
    for kind in document_types().values():
        served = _Routes(kind)
        yield from served.reading()
        yield from served.editing()
        yield from served.transitions()
        if kind.attachments is not None:
            yield from served.attachments(kind.attachments)


def document_type_routes() -> list[Route]:
    """The same, for the description."""
    return [served.route for served in served_routes()]


class _Routes:
    """The routes of one type."""

    def __init__(self, kind: DocumentType) -> None:
        self._kind = kind
        self._all_path = f"{API}/documents/{kind.name}"
        self._one_path = f"{self._all_path}/{REF}"
        self._schemas = schemas_of(kind)
        self._now = json_answer(self._schemas.document, "The document as it is now.", headers=_ETAG)
        self._created = json_answer(
            self._schemas.document,
            "The new document.",
            status=HTTPStatus.CREATED,
            headers={**_ETAG, "Location": "Its address."},
        )

    def _serve(
        self,
        method: str,
        path: str,
        handler: str,
        summary: str,
        answers: list[Answer],
        *arguments: str,
        **more: Any,
    ) -> Served:
        declared = Route(
            method=method,
            path=path,
            name="_".join([self._kind.name, handler, *arguments]),
            tag=TAG,
            summary=summary,
            answers=tuple(answers),
            **{"path_parameters": DocumentPath if path != self._all_path else None, **more},
        )
        return Served(declared, handler, (self._kind, *arguments))

    def reading(self) -> Iterator[Served]:
        """Lists, one document, its revisions."""
        kind = self._kind
        yield self._serve(
            "GET",
            self._all_path,
            "list",
            f"List or search {kind.plural}, or what has changed since a revision",
            [page_of(DocumentEntry, headers=LIST_ETAG), NOT_MODIFIED],
            problems={**GONE, **NO_SUCH_STATE},
            query=TypeListQuery,
            headers=IfNoneMatchHeader,
        )
        yield self._serve(
            "GET",
            self._one_path,
            "get",
            f"Get one document of the type {kind.name}",
            [self._now, NOT_MODIFIED],
            query=RevisionQuery,
            headers=IfNoneMatchHeader,
        )
        yield self._serve(
            "GET",
            f"{self._one_path}/revisions",
            "revisions",
            "List the revisions that are kept, the newest first",
            [page_of(RevisionEntry)],
            query=RevisionPageQuery,
        )

    def editing(self) -> Iterator[Served]:
        """What users may do besides transitions."""
        kind = self._kind
        if "create" in kind.edits:
            yield self._serve(
                "POST",
                self._all_path,
                "create",
                f"Create a document of the type {kind.name}",
                [self._created],
                problems=_TAKEN,
                body={JSON: self._schemas.draft},
            )
            yield self._serve(
                "POST",
                f"{self._one_path}/clone",
                "clone",
                "Copy a document under another reference",
                [self._created],
                problems=_TAKEN,
                body={JSON: Cloning},
            )
        if "replace" in kind.edits or "retitle" in kind.edits:
            is_whole = "replace" in kind.edits
            yield self._serve(
                "PUT",
                self._one_path,
                "replace" if is_whole else "retitle",
                "Create or replace a document" if is_whole else "Change the title of a document",
                [self._now, self._created] if "create" in kind.edits else [self._now],
                problems={**_PRECONDITION, **_BUSY},
                headers=ConditionHeaders,
                body={JSON: self._schemas.replacement if is_whole else Retitling},
            )
        if "delete" in kind.edits:
            yield self._serve(
                "DELETE",
                self._one_path,
                "delete",
                "Delete a document with its revisions and attachments",
                [_DELETED],
                problems=_PRECONDITION,
                headers=ConditionHeaders,
            )

    def transitions(self) -> Iterator[Served]:
        """One route for each transition, with its arguments as the body."""
        for each in self._kind.transitions:
            takes_none = each.arguments is NoArguments
            yield self._serve(
                "POST",
                f"{self._one_path}/transitions/{each.name}",
                "transition",
                each.summary.partition(".")[0] or f"Take the transition {each.name}",
                [self._now],
                each.name,
                problems={**_PRECONDITION, **_BUSY},
                headers=IfMatchHeader,
                body=None if takes_none else {JSON: each.arguments},
            )

    def attachments(self, rules: AttachmentRules) -> Iterator[Served]:
        """List, read, write and delete attachments."""
        content = {media_type: BINARY for media_type in rules.media_types}
        path = f"{self._one_path}/attachments"
        yield self._serve(
            "GET",
            path,
            "attachments",
            "List the attachments",
            [json_answer(list[AttachmentEntry], "The attachments.")],
        )
        yield self._serve(
            "GET",
            f"{path}/{NAME}",
            "attachment",
            "Download an attachment",
            [Answer(HTTPStatus.OK, "Its content.", content, _ETAG), NOT_MODIFIED],
            path_parameters=AttachmentPath,
            headers=IfNoneMatchHeader,
        )
        yield self._serve(
            "PUT",
            f"{path}/{NAME}",
            "attach",
            "Write or replace an attachment",
            [json_answer(AttachmentEntry, "The attachment as it is now.", headers=_ETAG)],
            path_parameters=AttachmentPath,
            problems={**_PRECONDITION, **_TOO_LARGE, **_MEDIA_TYPE},
            headers=ConditionHeaders,
            body=content,
        )
        yield self._serve(
            "DELETE",
            f"{path}/{NAME}",
            "detach",
            "Delete an attachment",
            [_DELETED],
            path_parameters=AttachmentPath,
            problems=_PRECONDITION,
            headers=ConditionHeaders,
        )
