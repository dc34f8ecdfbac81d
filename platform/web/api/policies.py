"""Ingestion policies over HTTP. An invalid policy is rejected, and the one in force stays."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import msgspec
from aiohttp import web

from ...errors import PolicyInvalid, RevisionConflict
from ...store.catalog.catalog import Catalog, Document
from ...store.catalog.documents import Documents
from ...store.catalog.policy import Policy, policy_from_mapping
from ..json_input import read_json
from ..pages import PageQuery, json_page, json_response, next_page
from ..parameters import ReferencePath
from ..problems import RequestRejected
from ..route import API, JSON, NOT_MODIFIED, REF, Answer, json_answer, page_of, route
from .conditions import (
    ConditionHeaders,
    IfNoneMatchHeader,
    etag_of,
    expected_revision,
    precondition_failed,
    revision_in,
)

POLICY = "policy"
TAG = "policies"

_ETAG = {"ETag": "The revision."}
_POLICY = json_answer(Policy, "The policy as it is now.", headers=_ETAG)
_CREATED = json_answer(
    Policy,
    "The policy as it is now.",
    status=HTTPStatus.CREATED,
    headers={**_ETAG, "Location": "Its address."},
)
_OTHER_REVISION = {HTTPStatus.PRECONDITION_FAILED: "It does not have the revision that If-Match names."}


class PolicyRoutes:
    """`GET|POST policies`, `GET|PUT|DELETE policies/{ref}`.

    The ETag of a policy is its revision. With If-Match a change is made only to that revision, with
    `If-None-Match: *` only if there is none.
    """

    def __init__(self, catalog: Catalog, check_policy: Callable[[Policy], None], location: str) -> None:
        self._catalog = catalog
        self._documents = Documents(
            catalog, checks={POLICY: lambda body: check_policy(policy_from_mapping(body))}
        )
        self._location = location

    @route("GET", f"{API}/policies", tag=TAG, answers=[page_of(Policy)])
    async def list(self, request: web.Request, query: PageQuery) -> web.Response:
        """List the ingestion policies, in the order of their references."""
        limit = query.entries
        found = await self._catalog.list(POLICY, limit=limit + 1, after=query.after or None)
        headers = next_page(request, after=found[limit - 1].reference) if len(found) > limit else {}
        return await json_page(lambda: [document.body for document in found[:limit]], headers=headers)

    @route(
        "POST",
        f"{API}/policies",
        tag=TAG,
        body={JSON: Policy},
        answers=[_CREATED],
        problems={HTTPStatus.CONFLICT: "There is a policy with this reference."},
    )
    async def create(self, request: web.Request) -> web.Response:
        """Create a policy."""
        body = await _json_object(request)
        reference = policy_from_mapping(body).reference
        try:
            document = await self._documents.create(POLICY, reference, body=body)
        except RevisionConflict:
            raise RequestRejected(
                HTTPStatus.CONFLICT,
                f'There is a policy "{reference}" already; change it with PUT {self._address(reference)}.',
            ) from None
        return self._answer(document, status=HTTPStatus.CREATED)

    @route("GET", f"{API}/policies/{REF}", tag=TAG, answers=[_POLICY, NOT_MODIFIED])
    async def get(
        self, _request: web.Request, path: ReferencePath, headers: IfNoneMatchHeader
    ) -> web.Response:
        """Get one policy."""
        document = await self._catalog.get(POLICY, path.ref)
        if revision_in(headers.if_none_match) == document.revision:
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=etag_of(document))
        return self._answer(document)

    @route(
        "PUT",
        f"{API}/policies/{REF}",
        tag=TAG,
        body={JSON: {"$ref": "#/components/schemas/PolicySettings"}},
        answers=[_POLICY, _CREATED],
        problems=_OTHER_REVISION,
    )
    async def replace(
        self, request: web.Request, path: ReferencePath, headers: ConditionHeaders
    ) -> web.Response:
        """Create or replace a policy.

        The body need not have the reference, which the path has.
        """
        body = await _json_object(request)
        expected = await self._expected_revision(path.ref, headers)
        try:
            document = await self._documents.put(POLICY, path.ref, body=body, if_revision=expected)
        except RevisionConflict as error:
            raise precondition_failed(error) from None
        status = HTTPStatus.CREATED if document.created_ns == document.modified_ns else HTTPStatus.OK
        return self._answer(document, status=status)

    @route(
        "DELETE",
        f"{API}/policies/{REF}",
        tag=TAG,
        answers=[Answer(HTTPStatus.NO_CONTENT, "It is deleted.")],
        problems=_OTHER_REVISION,
    )
    async def delete(
        self, _request: web.Request, path: ReferencePath, headers: ConditionHeaders
    ) -> web.Response:
        """Delete a policy: chunks that it admitted are rejected from then on."""
        expected = await self._expected_revision(path.ref, headers)
        try:
            await self._catalog.delete(POLICY, path.ref, if_revision=expected)
        except RevisionConflict as error:
            raise precondition_failed(error) from None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _expected_revision(self, reference: str, headers: ConditionHeaders) -> int | None:
        return await expected_revision(headers, lambda: self._catalog.get(POLICY, reference))

    def _address(self, reference: str) -> str:
        return f"{self._location}/{quote(reference, safe='')}"

    def _answer(self, document: Document, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        headers = etag_of(document)
        if status == HTTPStatus.CREATED:
            headers["Location"] = self._address(document.reference)
        return json_response(document.body, status=status, headers=headers)


async def _json_object(request: web.Request) -> dict[str, Any]:
    found: Any = await read_json(request, msgspec.json.decode)
    if not isinstance(found, dict):
        raise PolicyInvalid("a policy is a JSON object with a reference, tags, a format and a pipeline")
    return found
