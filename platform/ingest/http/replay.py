"""Replays dead letters through the current policies, on the same path as chunks from a listener.

    POST /dead-letters/{id}/replay      204: it is durable, and no longer a dead letter
                                        200: a part of it is durable, the rest is a new letter:
                                             {"stored_events": …, "rejected_events": …, "reason": …}

A letter keeps its sender, tag and chunk ID: a chunk that its sender has resent in the meantime, and that was
stored, is not stored a second time. A letter without an ID gets one, so that it is stored once however often
it is replayed, even if the gateway crashes between storing it and dropping the letter.
"""

import asyncio
import re
from contextlib import suppress
from http import HTTPStatus

import msgspec
from aiohttp import web

from ...errors import BusUnavailable, ChunkRejected, DeadLetterNotFound, StoreFailed
from ...records.events import ID_ONLY_PREFIX
from ...rejections import REJECTIONS
from ...store.databases.dead_letter import KeptDeadLetter
from ...store.databases.interfaces import DeadLetters
from ..bodies.formats import BodyFormat
from ..chunk import IncomingChunk, Outcome, PostedBody
from ..gateway import Gateway
from ..policy_book import PolicyBook
from .routes import problem, problem_of

NOT_REPLAYABLE = "not-replayable"
_LARGEST_NUMBER = 2**63 - 1


def add_replay_routes(
    app: web.Application, gateway: Gateway, policies: PolicyBook, dead_letters: DeadLetters
) -> None:
    """Adds the address of the replay; for the socket that only this installation can open."""
    replay = _Replay(gateway, policies, dead_letters)
    app.router.add_post("/dead-letters/{id}/replay", replay.post)


class _Replay:
    """Memory: one letter at a time, at most 32 MiB and what the gateway makes of it."""

    def __init__(self, gateway: Gateway, policies: PolicyBook, dead_letters: DeadLetters) -> None:
        self._gateway = gateway
        self._policies = policies
        self._dead_letters = dead_letters
        self._one_at_a_time = asyncio.Lock()

    async def post(self, request: web.Request) -> web.Response:
        """204 or 200 once it is durable and dropped; else the letter stays, and the problem says why."""
        number = request.match_info["id"].lstrip("0") or "0"
        # Python raises ValueError for an integer of more than 4,300 digits.
        if not re.fullmatch("[0-9]{1,19}", number) or int(number) > _LARGEST_NUMBER:
            return problem(HTTPStatus.NOT_FOUND, f"{number[:40]!r} is not the ID of a dead letter")
        async with self._one_at_a_time:
            try:
                letter = await asyncio.to_thread(self._dead_letters.get, int(number))
                if letter.obstacle is not None:
                    detail = f"dead letter {letter.id} ({letter.code}) cannot be replayed: {letter.obstacle}"
                    return problem(HTTPStatus.CONFLICT, detail, code=NOT_REPLAYABLE)
                outcome = await self._send(letter)
                with suppress(DeadLetterNotFound):
                    await asyncio.to_thread(self._dead_letters.drop, letter.id)
            except DeadLetterNotFound as error:
                return problem(HTTPStatus.NOT_FOUND, str(error))
            except ChunkRejected as rejection:
                # 422 for each cause: 404 would mean that the letter does not exist.
                detail = f"dead letter {number} was rejected again and is kept: {rejection}"
                return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, code=rejection.code)
            except BusUnavailable as error:
                return problem_of(error)
            except StoreFailed as error:
                return problem(HTTPStatus.INTERNAL_SERVER_ERROR, str(error))
        if outcome.rejected_events:
            # The rest is a dead letter of its own by now.
            return web.Response(body=msgspec.json.encode(outcome), content_type="application/json")
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _send(self, letter: KeptDeadLetter) -> Outcome:
        kind = REJECTIONS.get(letter.code)
        # Under its own ID a chunk that was published would pass for a repetition, and not be stored.
        is_seen = kind is not None and kind.was_published
        own_id = f"dead-letter-{letter.id}-{letter.time_ns}".encode()
        chunk_id = ID_ONLY_PREFIX + own_id if is_seen else letter.chunk_id or own_id
        # What came by the forward protocol goes where its tag goes now; over HTTP a policy was named.
        policy = await self._policy_of(letter) if letter.format or is_seen else None
        body = None
        if letter.format:
            format = BodyFormat.parse(letter.format)
            body = PostedBody(letter.payload, letter.compression, format, arrived_ns=letter.time_ns)
        chunk = IncomingChunk(
            sender=letter.sender,
            tag=letter.tag,
            payload=letter.payload if body is None else b"",
            chunk_id=chunk_id,
            compression=letter.compression if body is None else "text",
            signal=letter.signal,
            policy=policy,
            identity=letter.identity,
            over_rate="refuse",
            body=body,
            is_replay=True,
            outcome=Outcome(),
        )
        await self._gateway.submit(chunk)
        assert chunk.outcome is not None
        return chunk.outcome

    async def _policy_of(self, letter: KeptDeadLetter) -> str | None:
        """The policy that the letter names, if it still exists; None: the tag decides."""
        if letter.policy is not None and self._policies.get(letter.policy) is None:
            await self._policies.refresh()
            if self._policies.get(letter.policy) is None:
                return None
        return letter.policy
