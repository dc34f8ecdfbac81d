"""What of the chunks that were acked was rejected, for their sender to ask: by the IDs that it gave them.

    POST /rejections    {"chunks": ["ID", …]}  →  {"ID": {"code": "schema", "events": 3}, …}

An ack says that the gateway has taken a chunk over, not that all its events are valid: those that are not are
dead letters by then. `events` is null if the whole chunk was rejected.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec
from aiohttp import web

from .chunk import IncomingChunk, RejectedEvents

REMEMBERED_REJECTIONS = 16_384
"""So many of the last chunks with rejected events are known; the oldest are forgotten. At most 6 MiB."""
MAX_ID_BYTES = 64
"""A chunk with a longer ID is not remembered."""
MAX_ASKED = 10_000


class Rejection(msgspec.Struct, frozen=True):
    """What was rejected of one chunk: some of its events, or, if `events` is None, all."""

    code: str
    events: int | None


class _Question(msgspec.Struct):
    chunks: list[str]


class Rejections:
    """The last chunks of which something was rejected."""

    def __init__(self) -> None:
        self._by_id: OrderedDict[bytes, Rejection] = OrderedDict()

    def note(self, chunk: IncomingChunk, code: str, *, events: int | None = None) -> None:
        """Remember that events of `chunk`, or all of it, were rejected; a later try of it replaces this."""
        if not chunk.chunk_id or len(chunk.chunk_id) > MAX_ID_BYTES or chunk.is_replay:
            return
        self._by_id[chunk.chunk_id] = Rejection(code, events)
        self._by_id.move_to_end(chunk.chunk_id)
        if len(self._by_id) > REMEMBERED_REJECTIONS:
            self._by_id.popitem(last=False)

    def note_part(self, chunk: IncomingChunk, rejected: Sequence[RejectedEvents]) -> None:
        """The chunk enters without the events of `rejected`, of which there may be none."""
        if rejected:
            codes = dict.fromkeys(each.code for each in rejected)
            self.note(chunk, ", ".join(codes), events=sum(each.events for each in rejected))
        elif chunk.chunk_id:
            self._by_id.pop(chunk.chunk_id, None)

    def of(self, chunk_ids: list[str]) -> dict[str, Rejection]:
        """What was rejected, by ID, without chunks that entered whole or that are forgotten."""
        found = {each: self._by_id.get(each.encode("utf-8", "surrogatepass")) for each in chunk_ids}
        return {each: rejection for each, rejection in found.items() if rejection is not None}


def add_rejection_routes(app: web.Application, rejections: Rejections) -> None:
    """Adds the address; for the socket that only this installation can open."""

    async def post(request: web.Request) -> web.Response:
        try:
            asked = msgspec.json.decode(await request.read(), type=_Question).chunks
        except msgspec.DecodeError as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        found = rejections.of(asked[:MAX_ASKED])
        return web.Response(body=msgspec.json.encode(found), content_type="application/json")

    app.router.add_post("/rejections", post)
