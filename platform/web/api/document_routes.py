"""Documents over HTTP: the handlers of the routes that `document_type_routes.py` derives from each type."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from ...errors import ChangesForgotten, DocumentInvalid, RevisionConflict
from ...store.catalog.catalog import Catalog, Document
from ...store.catalog.document_type import (
    MAX_ATTACHMENT_BYTES,
    DocumentType,
    NoArguments,
    document_type,
    document_types,
)
from ...store.catalog.documents import Documents
from ...store.catalog.policy import Policy, policy_from_mapping
from ..answers import document_info, rfc3339
from ..json_input import read_json
from ..pages import RevisionPageQuery, json_page, json_response, next_page
from ..problems import RequestRejected
from ..route import (
    API,
    NOT_MODIFIED,
    REF,
    page_of,
    route,
    route_definition,
    route_definitions,
)
from .conditions import (
    ConditionHeaders,
    IfMatchHeader,
    IfNoneMatchHeader,
    etag_of,
    expected_revision,
    precondition_failed,
    revision_in,
)
from .document_schemas import (
    NO_SUCH_STATE,
    AttachmentEntry,
    AttachmentPath,
    Cloning,
    DocumentEntry,
    DocumentPath,
    Draft,
    ListQuery,
    Replacement,
    Retitling,
    RevisionEntry,
    RevisionQuery,
    TypeListQuery,
    check_type_and_state,
    entry_of,
)
from .document_type_routes import GONE, LIST_ETAG, NAME, TAG, served_routes

MAX_TRANSFERS = 4
"""Attachments that are in memory at a time, of at most MAX_ATTACHMENT_BYTES each."""


class DocumentRoutes:
    """`GET documents`; for each type `GET|POST documents/{type}` and `GET|PUT|DELETE documents/{type}/{ref}`,
    with `/clone`, `/transitions/{name}`, `/revisions` and `/attachments/{name}` below it.

    A type has the routes of what its documents allow. The ETag of a document is its revision; with If-Match a
    change is made only to that revision.
    """

    def __init__(self, catalog: Catalog, check_policy: Callable[[Policy], None]) -> None:
        self._catalog = catalog
        self._documents = Documents(
            catalog, checks={"policy": lambda body: check_policy(policy_from_mapping(body))}
        )
        self._transfers = asyncio.Semaphore(MAX_TRANSFERS)

    def definitions(self) -> list[web.RouteDef]:
        """The routes of all types, for the application."""
        found = route_definitions(self)
        for served in served_routes():
            handler = partial(getattr(self, f"_{served.handler}"), *served.arguments)
            found.append(route_definition(served.route, handler))
        # After all others: what they do not match names a transition or a type that does not exist.
        one = f"{API}/documents/{{type:{_any_of(document_types())}}}/{REF}"
        others = f"(?!{_any_of(document_types())}(?:/|$))[^/]+"
        return [
            *found,
            web.post(f"{one}/transitions/{NAME}", _unknown_transition),
            web.route("*", f"{API}/documents/{{type:{others}}}{{rest:(?:/.*)?}}", _unknown_type),
        ]

    @route(
        "GET",
        f"{API}/documents",
        tag=TAG,
        answers=[page_of(DocumentEntry, headers=LIST_ETAG), NOT_MODIFIED],
        problems={**GONE, **NO_SUCH_STATE},
    )
    async def list_all(
        self, request: web.Request, query: ListQuery, headers: IfNoneMatchHeader
    ) -> web.Response:
        """List or search the documents of all types, or what has changed since a revision."""
        return await self._page(request, query.type, query, headers)

    async def _list(
        self, kind: DocumentType, request: web.Request, query: TypeListQuery, headers: IfNoneMatchHeader
    ) -> web.Response:
        return await self._page(request, kind.name, query, headers)

    async def _page(
        self, request: web.Request, type: str | None, query: TypeListQuery, headers: IfNoneMatchHeader
    ) -> web.Response:
        check_type_and_state(type, query.state)
        given = {"ETag": f'"{await self._catalog.revision(type)}"'}
        if headers.if_none_match == given["ETag"]:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=given)
        limit = query.entries
        chosen: dict[str, Any] = {
            "type": type,
            "state": query.state,
            "pattern" if "%" in query.q else "text": query.q or None,
            "limit": limit + 1,
        }
        if query.since is None:
            found: list[Any] = await self._catalog.list(**chosen, after=query.after or None)
        else:
            try:
                found = [*await self._catalog.changes(query.since, **chosen)]
            except ChangesForgotten as error:
                raise RequestRejected(HTTPStatus.GONE, str(error)) from None
        page = found[:limit]
        if len(found) > limit:
            last = page[-1]
            if query.since is not None:
                given |= next_page(request, since=str(last.revision))
            else:
                after = last.reference if type else f"{last.type}/{last.reference}"
                given |= next_page(request, after=after)
        return await json_page(lambda: [entry_of(each) for each in page], headers=given)

    async def _create(self, kind: DocumentType, request: web.Request) -> web.Response:
        draft = await read_json(request, msgspec.json.Decoder(Draft).decode)
        try:
            document = await self._documents.create(
                kind.name, draft.reference, title=draft.title, body=draft.body
            )
        except RevisionConflict:
            raise _exists(kind, draft.reference) from None
        return _answer(document, status=HTTPStatus.CREATED)

    async def _get(
        self,
        kind: DocumentType,
        _request: web.Request,
        path: DocumentPath,
        query: RevisionQuery,
        headers: IfNoneMatchHeader,
    ) -> web.Response:
        document = await self._documents.find(kind.name, path.ref)
        if query.revision is not None:
            document = await self._catalog.history.at(document, query.revision)
        if revision_in(headers.if_none_match) == document.revision:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=etag_of(document))
        return _answer(document)

    async def _replace(
        self, kind: DocumentType, request: web.Request, path: DocumentPath, headers: ConditionHeaders
    ) -> web.Response:
        given = await read_json(request, msgspec.json.Decoder(Replacement).decode)
        return await self._save(kind, path, headers, body=given.body, title=given.title)

    async def _retitle(
        self, kind: DocumentType, request: web.Request, path: DocumentPath, headers: ConditionHeaders
    ) -> web.Response:
        given = await read_json(request, msgspec.json.Decoder(Retitling).decode)
        return await self._save(kind, path, headers, body=None, title=given.title)

    async def _save(
        self,
        kind: DocumentType,
        path: DocumentPath,
        headers: ConditionHeaders,
        *,
        body: dict[str, Any] | None,
        title: str | None,
    ) -> web.Response:
        expected = await self._expected(kind, path.ref, headers)
        try:
            document = await self._documents.replace(
                kind.name, path.ref, body=body, title=title, if_revision=expected
            )
        except RevisionConflict as error:
            if expected is None:
                raise
            raise precondition_failed(error) from None
        is_new = document.created_ns == document.modified_ns
        return _answer(document, status=HTTPStatus.CREATED if is_new else HTTPStatus.OK)

    async def _delete(
        self, kind: DocumentType, _request: web.Request, path: DocumentPath, headers: ConditionHeaders
    ) -> web.Response:
        expected = await self._expected(kind, path.ref, headers)
        try:
            await self._documents.delete(kind.name, path.ref, if_revision=expected)
        except RevisionConflict as error:
            raise precondition_failed(error) from None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _clone(
        self, kind: DocumentType, _request: web.Request, path: DocumentPath, body: Cloning
    ) -> web.Response:
        try:
            document = await self._documents.clone(
                kind.name, path.ref, reference=body.reference, title=body.title
            )
        except RevisionConflict:
            raise _exists(kind, body.reference) from None
        return _answer(document, status=HTTPStatus.CREATED)

    async def _transition(
        self, kind: DocumentType, name: str, request: web.Request, path: DocumentPath, headers: IfMatchHeader
    ) -> web.Response:
        arguments = kind.transition(name).arguments
        if arguments is NoArguments and not request.can_read_body:
            body: Any = NoArguments()
        else:
            body = await read_json(request, msgspec.json.Decoder(arguments).decode)
        expected = await self._expected(kind, path.ref, headers)
        try:
            document = await self._documents.transition(kind.name, path.ref, name, body, if_revision=expected)
        except RevisionConflict as error:
            if expected is None:
                raise
            raise precondition_failed(error) from None
        return _answer(document)

    async def _revisions(
        self, kind: DocumentType, request: web.Request, path: DocumentPath, query: RevisionPageQuery
    ) -> web.Response:
        document = await self._documents.find(kind.name, path.ref)
        limit = query.entries
        found = await self._catalog.history.list(document, before=query.before, limit=limit + 1)
        given = next_page(request, before=str(found[limit - 1].revision)) if len(found) > limit else {}
        entries = [
            RevisionEntry(each.revision, each.action, each.state, each.title, rfc3339(each.modified_ns))
            for each in found[:limit]
        ]
        return json_response(entries, headers=given)

    async def _attachments(
        self, kind: DocumentType, _request: web.Request, path: DocumentPath
    ) -> web.Response:
        document = await self._documents.find(kind.name, path.ref)
        found = await self._catalog.attachments.list(document)
        return json_response([_attachment_entry(each) for each in found])

    async def _attachment(
        self, kind: DocumentType, _request: web.Request, path: AttachmentPath, headers: IfNoneMatchHeader
    ) -> web.Response:
        async with self._transfers:
            document = await self._documents.find(kind.name, path.ref)
            found = await self._catalog.attachments.get(document, path.name)
            given = {"ETag": f'"{found.revision}"', "Cache-Control": "no-cache"}
            if revision_in(headers.if_none_match) == found.revision:
                return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=given)
            # It is from a user: no browser may show it with the rights of the dashboard.
            given["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(found.name, safe='')}"
            given["Content-Security-Policy"] = "sandbox"
            return web.Response(body=found.content, content_type=found.media_type, headers=given)

    async def _attach(
        self, kind: DocumentType, request: web.Request, path: AttachmentPath, headers: ConditionHeaders
    ) -> web.Response:
        rules = kind.attachments
        assert rules is not None
        if not rules.allows(request.content_type):
            raise RequestRejected(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"A {kind.name} has attachments of type {', '.join(rules.media_types)}, not "
                f"{request.content_type[:60]}.",
            )
        async with self._transfers:
            document = await self._documents.find(kind.name, path.ref)
            expected = await self._expected_attachment(document, path.name, headers)
            content = await _read(request, min(rules.max_bytes, MAX_ATTACHMENT_BYTES))
            try:
                written = await self._catalog.attachments.put(
                    document,
                    path.name,
                    content=content,
                    media_type=request.content_type,
                    if_revision=expected,
                )
            except RevisionConflict as error:
                raise precondition_failed(error) from None
        return json_response(_attachment_entry(written), headers={"ETag": f'"{written.revision}"'})

    async def _detach(
        self, kind: DocumentType, _request: web.Request, path: AttachmentPath, headers: ConditionHeaders
    ) -> web.Response:
        document = await self._documents.find(kind.name, path.ref)
        expected = await self._expected_attachment(document, path.name, headers)
        try:
            await self._catalog.attachments.delete(document, path.name, if_revision=expected)
        except RevisionConflict as error:
            raise precondition_failed(error) from None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _expected(
        self, kind: DocumentType, reference: str, headers: ConditionHeaders | IfMatchHeader
    ) -> int | None:
        return await expected_revision(headers, lambda: self._documents.find(kind.name, reference))

    async def _expected_attachment(
        self, document: Document, name: str, headers: ConditionHeaders
    ) -> int | None:
        if (headers.if_match or "").strip() != "*":
            return await expected_revision(headers, lambda: self._documents.find(document.type, name))
        for each in await self._catalog.attachments.list(document):
            if each.name == name:
                return each.revision
        raise RequestRejected(HTTPStatus.PRECONDITION_FAILED, f"There is no attachment {name[:60]!r}.")


def _any_of(names: Iterable[str]) -> str:
    return f"(?:{'|'.join(names)})"


async def _unknown_transition(request: web.Request) -> web.Response:
    """TransitionNotFound names those that there are."""
    kind = document_type(request.match_info["type"])
    kind.transition(request.match_info["name"])
    raise web.HTTPNotFound


async def _unknown_type(request: web.Request) -> web.Response:
    try:
        document_type(request.match_info["type"])
    except DocumentInvalid as error:
        raise RequestRejected(HTTPStatus.NOT_FOUND, str(error)) from None
    raise web.HTTPNotFound


async def _read(request: web.Request, max_bytes: int) -> bytes:
    content = bytearray()
    async for part in request.content.iter_any():
        content += part
        if len(content) > max_bytes:
            raise RequestRejected(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"An attachment has at most {max_bytes} bytes here."
            )
    return bytes(content)


def _answer(document: Document, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    headers = etag_of(document)
    if status == HTTPStatus.CREATED:
        headers["Location"] = _address(document.type, document.reference)
    return json_response(document_info(document), status=status, headers=headers)


def _address(type: str, reference: str) -> str:
    return f"{API}/documents/{type}/{quote(reference, safe='')}"


def _exists(kind: DocumentType, reference: str) -> RequestRejected:
    return RequestRejected(
        HTTPStatus.CONFLICT,
        f'There is a {kind.name} "{reference}" already; change it with PUT {_address(kind.name, reference)}.',
    )


def _attachment_entry(found: Any) -> AttachmentEntry:
    return AttachmentEntry(
        name=found.name,
        media_type=found.media_type,
        size_bytes=found.size_bytes,
        revision=found.revision,
        modified=rfc3339(found.modified_ns),
    )
