"""Ingestion policies over HTTP. A policy that breaks its own rules is refused and the one in force stays."""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from aiohttp import web
from msgspec import Meta, Struct, field

from ...errors import DocumentNotFound, PolicyInvalid, RevisionConflict
from ...store.catalog.catalog import Catalog, Document
from ...store.catalog.policy import Policy, policy_from_mapping, policy_to_mapping
from ..json_input import read_json
from ..pages import PageQuery, json_page, json_response, next_page
from ..parameters import ReferencePath
from ..problems import RequestRefused
from ..route import API, JSON, NOT_MODIFIED, REF, Answer, json_answer, page_of, route

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


class IfNoneMatchHeader(Struct, frozen=True):
    """What the client has already."""

    if_none_match: Annotated[str | None, Meta(description="The ETag that the client has.")] = field(
        name="If-None-Match", default=None
    )


class ConditionHeaders(Struct, frozen=True):
    """Which revision a change is for."""

    if_match: Annotated[
        str | None, Meta(description="The ETag of the revision that is to be changed; * for any.")
    ] = field(name="If-Match", default=None)
    if_none_match: Annotated[
        str | None, Meta(description="* allows the change only if the resource does not exist.")
    ] = field(name="If-None-Match", default=None)


class PolicyRoutes:
    """`GET|POST policies`, `GET|PUT|DELETE policies/{ref}`.

    The ETag of a policy is its revision. With If-Match a change is made only to that revision, with
    `If-None-Match: *` only where there is none.
    """

    def __init__(self, catalog: Catalog, check_policy: Callable[[Policy], None], location: str) -> None:
        self._catalog = catalog
        self._check_policy = check_policy
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
        policy = await self._checked(await _json_object(request))
        try:
            document = await self._put(policy, if_revision=0)
        except RevisionConflict:
            raise RequestRefused(
                HTTPStatus.CONFLICT,
                f'There is a policy "{policy.reference}" already; '
                f"change it with PUT {self._address(policy.reference)}.",
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
        reference = path.ref
        body = await _json_object(request)
        if body.setdefault("reference", reference) != reference:
            raise PolicyInvalid(
                f"reference: the body says {body['reference']!r} and the address {reference!r}; "
                "leave it out of the body, or make them equal"
            )
        policy = await self._checked(body)
        expected = await self._expected_revision(reference, headers)
        try:
            document = await self._put(policy, if_revision=expected)
        except RevisionConflict as error:
            raise _precondition_failed(error) from None
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
            raise _precondition_failed(error) from None
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _checked(self, body: dict[str, Any]) -> Policy:
        policy = policy_from_mapping(body)
        # In a thread: the first check of a pipeline imports what its operations need, which takes seconds.
        await asyncio.to_thread(self._check_policy, policy)
        return policy

    async def _put(self, policy: Policy, *, if_revision: int | None) -> Document:
        body = policy_to_mapping(policy)
        return await self._catalog.put(
            POLICY, policy.reference, title=policy.title, body=body, if_revision=if_revision
        )

    async def _expected_revision(self, reference: str, headers: ConditionHeaders) -> int | None:
        if (headers.if_none_match or "").strip() == "*":
            return 0
        wanted = headers.if_match
        if wanted is None:
            return None
        if wanted.strip() == "*":
            try:
                return (await self._catalog.get(POLICY, reference)).revision
            except DocumentNotFound as error:
                raise _precondition_failed(error) from None
        revision = revision_in(wanted)
        if revision is None:
            raise RequestRefused(
                HTTPStatus.PRECONDITION_FAILED, f"If-Match: {wanted[:60]} is not an ETag that a policy had."
            )
        return revision

    def _address(self, reference: str) -> str:
        return f"{self._location}/{quote(reference, safe='')}"

    def _answer(self, document: Document, *, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
        headers = etag_of(document)
        if status == HTTPStatus.CREATED:
            headers["Location"] = self._address(document.reference)
        return json_response(document.body, status=status, headers=headers)


def etag_of(document: Document) -> dict[str, str]:
    """The ETag header of a document: its revision."""
    return {"ETag": f'"{document.revision}"'}


def revision_in(header: str | None) -> int | None:
    """The revision in an If-Match or If-None-Match header, None where there is none."""
    match = re.fullmatch(r'\s*"(\d{1,18})"\s*', header or "")
    # Revision 0 would mean that there must be no such policy.
    return int(match[1]) or None if match else None


def _precondition_failed(error: Exception) -> RequestRefused:
    return RequestRefused(HTTPStatus.PRECONDITION_FAILED, str(error))


async def _json_object(request: web.Request) -> dict[str, Any]:
    found: Any = await read_json(request, msgspec.json.decode)
    if not isinstance(found, dict):
        raise PolicyInvalid("a policy is a JSON object with a reference, tags, a format and a pipeline")
    return found
