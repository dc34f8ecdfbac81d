"""Search over the catalog's documents, and the dead letters: what was refused, and why."""

import asyncio
from http import HTTPStatus

import msgspec
from aiohttp import web

from ...store.catalog.catalog import DOCUMENT_TYPES, Catalog
from ...store.databases.dead_letters import DeadLetters, DeadLetterSummary, KeptDeadLetter
from ...store.databases.excerpt import excerpt_of
from ..answers import DeadLetterDetail, DeadLetterInfo, document_info
from ..pages import (
    LARGEST_INTEGER,
    integer_in,
    json_page,
    json_response,
    next_page,
    one_of,
    page_limit,
    whole_number,
)
from ..problems import RequestRefused
from ..tier_client import TierClient

EXCERPT_BYTES = 1024
"""A dead letter's JSON shows this much of its payload."""


class SearchRoutes:
    """`GET search?q=&type=&state=`: current at once, since it asks the catalog itself."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def search(self, request: web.Request) -> web.Response:
        """Documents whose reference or title contains `q`, in any case."""
        limit = page_limit(request)
        kind = one_of(request, "type", "", *DOCUMENT_TYPES) or None
        found = await self._catalog.list(
            kind,
            state=request.query.get("state") or None,
            text=request.query.get("q") or None,
            limit=limit + 1,
            after=request.query.get("after") or None,
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

    async def list(self, request: web.Request) -> web.Response:
        """The letters, the newest first; `before` is the id after which the page goes on."""
        limit, before = page_limit(request), whole_number(request, "before")
        if before is not None:
            before = max(before, 0)
        found = await asyncio.to_thread(self._dead_letters.list, limit=limit + 1, before=before)
        headers = next_page(request, before=str(found[limit - 1].id)) if len(found) > limit else {}
        return json_response([_info(letter) for letter in found[:limit]], headers=headers)

    async def get(self, request: web.Request) -> web.Response:
        """One letter, with the first EXCERPT_BYTES of its payload, and what they say."""
        letter = await self._letter(request)
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

    async def replay(self, request: web.Request) -> web.StreamResponse:
        """Handed on to the gateway, which sends it through the policies as they are now."""
        number = _number_of(request)
        return await self._tiers.hand_on(request, "gateway", path=f"/dead-letters/{number}/replay")

    async def drop(self, request: web.Request) -> web.Response:
        """Removes one letter, for good."""
        await asyncio.to_thread(self._dead_letters.drop, _number_of(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def payload(self, request: web.Request) -> web.Response:
        """The bytes that were refused, as far as they are kept (at most 32 MiB)."""
        letter = await self._letter(request)
        return web.Response(
            body=letter.payload,
            content_type="application/octet-stream",
            headers={"Content-Disposition": f'attachment; filename="dead-letter-{letter.id}.bin"'},
        )

    async def _letter(self, request: web.Request) -> KeptDeadLetter:
        return await asyncio.to_thread(self._dead_letters.get, _number_of(request))


def _number_of(request: web.Request) -> int:
    text = request.match_info["id"]
    number = integer_in(text) if text.isascii() and text.isdigit() else None
    if number is None or number > LARGEST_INTEGER:
        raise RequestRefused(
            HTTPStatus.NOT_FOUND, f"{text[:40]!r} is not the ID of a dead letter; the list shows them."
        )
    return number


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
