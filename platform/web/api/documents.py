"""Search over the catalog's documents, and the dead letters: rejected input with the reason."""

import asyncio
from http import HTTPStatus
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from ...store.catalog.catalog import Catalog
from ...store.databases.dead_letter import DeadLetterSummary
from ...store.databases.excerpt import excerpt_of
from ...store.databases.interfaces import DeadLetters
from ..answers import DeadLetterDetail, DeadLetterInfo, DocumentInfo, document_info
from ..pages import PageQuery, RevisionPageQuery, json_page, json_response, next_page
from ..parameters import LARGEST_INTEGER
from ..route import API, BINARY, BYTES, Answer, json_answer, page_of, route
from ..tier_client import TierClient
from .document_schemas import NO_SUCH_STATE, State, Type, check_type_and_state

TAG = "dead letters"

EXCERPT_BYTES = 1024
"""A dead letter's JSON shows this much of its payload."""


class SearchQuery(PageQuery, frozen=True, kw_only=True):
    """Which documents."""

    q: Annotated[str, Meta(description="A part of the reference or the title, in any case.")] = ""
    type: Type = None
    state: State = None


class LetterPath(Struct, frozen=True):
    """A dead letter in the path."""

    id: Annotated[int, Meta(ge=0, le=LARGEST_INTEGER, description="The ID of the dead letter.")]


class Replayed(Struct):
    """How many events of a dead letter were stored, how many were rejected again, and why."""

    stored_events: int
    rejected_events: int
    reason: str


class SearchRoutes:
    """`GET search?q=&type=&state=`: always current, since it queries the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    @route("GET", f"{API}/search", tag="catalog", answers=[page_of(DocumentInfo)], problems=NO_SUCH_STATE)
    async def search(self, request: web.Request, query: SearchQuery) -> web.Response:
        """List the documents of the catalog whose reference or title contains `q`, in any case."""
        limit, kind = query.entries, query.type
        check_type_and_state(kind, query.state)
        found = await self._catalog.list(
            kind,
            state=query.state,
            text=query.q or None,
            limit=limit + 1,
            after=query.after or None,
        )
        page, headers = found[:limit], {}
        if len(found) > limit:
            last = page[-1]
            headers = next_page(request, after=last.reference if kind else f"{last.type}/{last.reference}")
        return await json_page(lambda: [document_info(document) for document in page], headers=headers)


class DeadLetterRoutes:
    """`GET dead-letters`, `GET|DELETE dead-letters/{id}`, `GET …/{id}/payload`, `POST …/{id}/replay`."""

    def __init__(self, dead_letters: DeadLetters, tiers: TierClient) -> None:
        self._dead_letters = dead_letters
        self._tiers = tiers

    @route("GET", f"{API}/dead-letters", tag=TAG, answers=[page_of(DeadLetterInfo)])
    async def list(self, request: web.Request, query: RevisionPageQuery) -> web.Response:
        """List the dead letters, the newest first.

        `before` is the ID of the last letter on the page before.
        """
        limit = query.entries
        before = None if query.before is None else max(query.before, 0)
        found = await asyncio.to_thread(self._dead_letters.list, limit=limit + 1, before=before)
        headers = next_page(request, before=str(found[limit - 1].id)) if len(found) > limit else {}
        return json_response([_info(letter) for letter in found[:limit]], headers=headers)

    @route(
        "GET", f"{API}/dead-letters/{{id}}", tag=TAG, answers=[json_answer(DeadLetterDetail, "The letter.")]
    )
    async def get(self, _request: web.Request, path: LetterPath) -> web.Response:
        """Get one dead letter, with the first 1,024 bytes of its payload, also decoded."""
        letter = await asyncio.to_thread(self._dead_letters.get, path.id)
        decoded = await asyncio.to_thread(
            excerpt_of, letter.payload, compression=letter.compression, format=letter.format
        )
        detail = DeadLetterDetail(
            **msgspec.structs.asdict(_info(letter)),
            detail=letter.detail,
            excerpt=letter.payload[:EXCERPT_BYTES],
            decoded=decoded,
            obstacle=letter.obstacle,
            chunk_id=letter.chunk_id,
            compression=letter.compression,
            format=letter.format,
            identity=letter.identity,
        )
        return json_response(detail)

    @route(
        "POST",
        f"{API}/dead-letters/{{id}}/replay",
        tag=TAG,
        answers=[
            Answer(HTTPStatus.NO_CONTENT, "It is durable, and no longer a dead letter."),
            json_answer(
                Replayed,
                "Some of its events are durable, and it is no longer a dead letter. The others were rejected "
                "again and are a new one.",
            ),
        ],
        problems={
            HTTPStatus.CONFLICT: "It cannot be replayed; the detail says why.",
            HTTPStatus.UNPROCESSABLE_ENTITY: "It was rejected again, and is kept.",
            HTTPStatus.TOO_MANY_REQUESTS: "Over the policy's rate; retry after Retry-After.",
            HTTPStatus.SERVICE_UNAVAILABLE: "The gateway is not running or full; retry after Retry-After.",
        },
    )
    async def replay(self, request: web.Request, path: LetterPath) -> web.StreamResponse:
        """Replay a dead letter through the policies as they are now."""
        return await self._tiers.hand_on(request, "gateway", path=f"/dead-letters/{path.id}/replay")

    @route(
        "DELETE",
        f"{API}/dead-letters/{{id}}",
        tag=TAG,
        answers=[Answer(HTTPStatus.NO_CONTENT, "It is deleted.")],
    )
    async def drop(self, _request: web.Request, path: LetterPath) -> web.Response:
        """Delete a dead letter."""
        await asyncio.to_thread(self._dead_letters.drop, path.id)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    @route(
        "GET",
        f"{API}/dead-letters/{{id}}/payload",
        tag=TAG,
        answers=[Answer(HTTPStatus.OK, "The payload.", {BYTES: BINARY})],
    )
    async def payload(self, _request: web.Request, path: LetterPath) -> web.Response:
        """Download the payload of a dead letter, as far as it is kept (at most 32 MiB)."""
        letter = await asyncio.to_thread(self._dead_letters.get, path.id)
        return web.Response(
            body=letter.payload,
            content_type=BYTES,
            headers={"Content-Disposition": f'attachment; filename="dead-letter-{letter.id}.bin"'},
        )


def _info(letter: DeadLetterSummary) -> DeadLetterInfo:
    return DeadLetterInfo(
        id=letter.id,
        code=letter.code,
        reason=letter.reason,
        tag=letter.tag,
        sender=letter.sender,
        policy=letter.policy,
        size=letter.size,
        time_ns=letter.time_ns,
        last_time_ns=letter.last_time_ns,
        times=letter.times,
        replayable=letter.obstacle is None,
    )
