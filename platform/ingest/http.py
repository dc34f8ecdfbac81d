"""Ingest over HTTP: what forwarders and plain HTTP clients post.

    POST /ingest/{policy}?reference={tag}
    POST /ingest/{policy}/{tag}                                     the form of fluentd's in_http
    POST /erp5/portal_ingestion_policies/{policy}/ingest?reference={tag}      fluent-plugin-wendelin

`http_formats` says which bodies are understood. 204 says that all of it is durable. Everything else is a
problem (RFC 9457) that names the thing, the cause and the next step; what was refused for good is in the dead
letters by then, so that a sender that gives up at 4xx (fluentd's and Fluent Bit's out_http do) loses nothing.
"""

import asyncio
import math
import time
from http import HTTPStatus

import msgspec
from aiohttp import ClientError, web
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from ..errors import BusUnavailable, ChunkRefused, RateExceeded
from .gateway import NO_POLICY, SENDER_NOT_ALLOWED, Gateway, IncomingChunk, PostedBody
from .http_formats import BodyFormat, events_of
from .payload import decompress

RETRY_AFTER_S = 2
BODY_IDLE_S = 30.0
"""A body of which nothing comes for so long is given up."""
HEAD_BYTES = 64 * 1024
"""Of a body over the limit so much is kept, to see what it was."""
_AT_ONCE_BYTES = 16 * 1024
"""A body up to this size is turned into events where it was read; a larger one in a thread."""

_STATUS = {
    NO_POLICY: HTTPStatus.NOT_FOUND,
    SENDER_NOT_ALLOWED: HTTPStatus.FORBIDDEN,
    "tag-not-allowed": HTTPStatus.FORBIDDEN,
    "too-large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too-many-events": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "bad-tag": HTTPStatus.BAD_REQUEST,
    "unsupported-type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "unsupported-compression": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
_FULL = "the gateway is full for now; keep what you have and send it again"
_ENCODINGS = {"": "text", "identity": "text", "gzip": "gzip", "x-gzip": "gzip"}


def add_ingest_routes(app: web.Application, gateway: Gateway) -> None:
    """Adds the addresses of the ingest."""
    door = _HttpDoor(gateway, BodyIntake(gateway))
    app.router.add_post("/ingest/{policy}", door.ingest)
    app.router.add_post("/ingest/{policy}/{tag:.+}", door.ingest)
    app.router.add_post("/erp5/portal_ingestion_policies/{policy}/ingest", door.ingest)


class Posted(msgspec.Struct, frozen=True):
    """A body and what is said of it; `arrived_ns` is the time of events without one of their own."""

    sender: str
    tag: str
    policy: str | None
    data: bytes | bytearray
    compression: str
    format: BodyFormat
    arrived_ns: int
    chunk_id: bytes | None = None
    identity: str | None = None
    is_replay: bool = False


class BodyIntake:
    """Makes chunks of bodies and gives them to the gateway.

    Memory: one large body at a time is turned into events, in a thread: at most `max_decompressed_bytes` of
    it unpacked, as many bytes of events, and what `http_formats` says. What waits for that was read already,
    and is bounded by who read it.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._one_at_a_time = asyncio.Lock()

    async def take(self, posted: Posted) -> None:
        """Ends once all of it is durable. Raises ChunkRefused or BusUnavailable, as `Gateway.submit` does.

        What was given to the gateway goes its way even where this is cancelled.
        """
        if posted.compression == "text" and len(posted.data) <= _AT_ONCE_BYTES:
            decision = self._submit(posted, self._convert(posted))
        else:
            async with self._one_at_a_time:
                if self._gateway.over_budget:
                    raise BusUnavailable(_FULL)
                decision = self._submit(posted, await asyncio.to_thread(self._convert, posted))
        await asyncio.shield(decision)

    def _convert(self, posted: Posted) -> bytes | bytearray | memoryview | ChunkRefused:
        max_bytes = self._gateway.settings.max_decompressed_bytes
        data: bytes | bytearray | memoryview = memoryview(posted.data)
        try:
            if posted.compression != "text":
                data = decompress(data, posted.compression, max_bytes=max_bytes)
            return events_of(data, posted.format, arrived_ns=posted.arrived_ns, max_bytes=max_bytes)
        except ChunkRefused as refusal:
            return refusal

    def _submit(
        self, posted: Posted, payload: bytes | bytearray | memoryview | ChunkRefused
    ) -> asyncio.Future[None]:
        chunk = IncomingChunk(
            sender=posted.sender,
            tag=posted.tag,
            payload=b"",
            chunk_id=posted.chunk_id,
            policy=posted.policy,
            identity=posted.identity,
            body=PostedBody(posted.data, posted.compression, str(posted.format)),
            over_rate="refuse",
            is_replay=posted.is_replay,
        )
        if isinstance(payload, ChunkRefused):
            return self._gateway.refuse(chunk, payload)
        return self._gateway.submit(msgspec.structs.replace(chunk, payload=memoryview(payload)))


class _NotTaken(Exception):
    """A request that is answered before it is a chunk."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _HttpDoor:
    """Memory: the bodies that are read and decided hold `settings.pending_bytes` together at most.

    Over that, and over the gateway's own budget, the answer is 503.
    """

    def __init__(self, gateway: Gateway, intake: BodyIntake) -> None:
        self._gateway = gateway
        self._intake = intake
        self._held_bytes = 0

    async def ingest(self, request: web.Request) -> web.Response:
        """Takes one body in."""
        body = bytearray()
        posted = Posted(
            sender=request.headers.get("X-Forwarded-For", "") or request.remote or "local",
            tag=_tag_of(request),
            policy=request.match_info["policy"],
            data=body,
            compression=_compression_of(request),
            format=BodyFormat(
                request.content_type.lower(),
                time_key=request.query.get("time_key", ""),
                time=request.query.get("time", ""),
            ),
            arrived_ns=time.time_ns(),
            chunk_id=_chunk_id_of(request),
        )
        try:
            if not posted.tag:
                raise _NotTaken(
                    HTTPStatus.BAD_REQUEST,
                    "the request names no tag: add ?reference=TAG, or post to /ingest/POLICY/TAG",
                )
            await self._read(request, body, posted)
            await self._intake.take(posted)
        except _NotTaken as error:
            return problem(error.status, str(error))
        except (ChunkRefused, BusUnavailable) as error:
            return problem_of(error)
        finally:
            self._held_bytes -= len(body)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _read(self, request: web.Request, body: bytearray, posted: Posted) -> None:
        """Reads the request into `body`; raises where it is too large, breaks off, or there is no room."""
        settings = self._gateway.settings
        limit_bytes, declared_bytes = settings.max_message_bytes, request.content_length or 0
        # Of a body that says it is too large no more is read than is kept.
        enough_bytes = limit_bytes if declared_bytes <= limit_bytes else min(HEAD_BYTES, limit_bytes)
        while True:
            if self._gateway.over_budget or self._held_bytes > settings.pending_bytes:
                raise BusUnavailable(_FULL)
            try:
                async with asyncio.timeout(BODY_IDLE_S):
                    piece = await request.content.readany()
            except TimeoutError:
                raise _NotTaken(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"nothing of the body came for {BODY_IDLE_S:g} s; send it again",
                ) from None
            except (ClientError, OSError, PayloadAccessError, RequestPayloadError) as error:
                raise _NotTaken(
                    HTTPStatus.BAD_REQUEST, f"the body broke off: {error}; send it again"
                ) from error
            if not piece:
                return
            body += piece
            self._held_bytes += len(piece)
            if len(body) > enough_bytes:
                await self._refuse_too_large(posted, max(declared_bytes, len(body)))

    async def _refuse_too_large(self, posted: Posted, size_bytes: int) -> None:
        limit_bytes = self._gateway.settings.max_message_bytes
        head = PostedBody(
            bytes(posted.data[:HEAD_BYTES]), posted.compression, str(posted.format), size_bytes=size_bytes
        )
        chunk = IncomingChunk(
            sender=posted.sender, tag=posted.tag, payload=b"", policy=posted.policy, body=head
        )
        refusal = ChunkRefused(
            "too-large",
            f"the body is over the limit of {limit_bytes} bytes; send smaller chunks, or raise "
            "gateway.max_message_bytes",
        )
        await asyncio.shield(self._gateway.refuse(chunk, refusal))


def _tag_of(request: web.Request) -> str:
    """From the path, in which in_http takes slashes for dots, the query, or the header of Fluent Bit."""
    path = request.match_info.get("tag", "").strip("/").replace("/", ".")
    return path or request.query.get("reference", "") or request.headers.get("Fluent-Tag", "")


def _compression_of(request: web.Request) -> str:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    return _ENCODINGS.get(encoding, encoding)


def _chunk_id_of(request: web.Request) -> bytes | None:
    """What makes a retransmission known, where the client says something of the kind."""
    key = request.headers.get("Idempotency-Key", "")
    return key.encode("utf-8", "surrogateescape") or None


def problem(
    status: HTTPStatus, detail: str, *, code: str | None = None, retry_after_s: float | None = None
) -> web.Response:
    """An answer that is no success (RFC 9457); `code` is the stable name of the reason."""
    kind = "about:blank" if code is None else f"urn:windvane:problem:{code}"
    body: dict[str, object] = {"type": kind, "title": status.phrase, "status": int(status), "detail": detail}
    if code is not None:
        body["code"] = code
    response = web.json_response(body, status=status, content_type="application/problem+json", dumps=_dumps)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return response


def _dumps(value: object) -> str:
    return msgspec.json.encode(value).decode()


def problem_of(error: ChunkRefused | BusUnavailable) -> web.Response:
    """The answer to what `BodyIntake.take` and `Gateway.submit` raise."""
    if isinstance(error, ChunkRefused):
        status = _STATUS.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
        return problem(status, str(error), code=error.code)
    if isinstance(error, RateExceeded):
        return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), retry_after_s=error.retry_after_s)
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=RETRY_AFTER_S)
