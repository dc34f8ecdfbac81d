"""Ingest over HTTP: what forwarders and plain HTTP clients post.

    POST /ingest/{policy}?reference={tag}
    POST /ingest/{policy}/{tag}                                     the form of fluentd's in_http
    POST /erp5/portal_ingestion_policies/{policy}/ingest?reference={tag}      fluent-plugin-wendelin

`bodies.formats` defines the accepted bodies. 204 means that all events are durable. Every other answer is a
problem (RFC 9457) that names the thing, the cause and the next step. A permanently rejected body is in the
dead letters by then, so that a sender that gives up at 4xx (fluentd's and Fluent Bit's out_http do) loses
nothing. `http_credentials` authenticates senders.
"""

import asyncio
import math
import time
import urllib.parse
from http import HTTPStatus

import msgspec
from aiohttp import ClientError, web
from aiohttp.web_protocol import PayloadAccessError, RequestPayloadError

from ...errors import BodyTooSlow, BusUnavailable, ChunkRejected, RateExceeded
from ...records.tag_names import stream_name
from ...rejections import REJECTIONS
from ..bodies.formats import BodyFormat
from ..chunk import IncomingChunk, Outcome, PostedBody
from ..gateway import Gateway
from ..instrumentation import HandshakeFailed
from ..security.http_credentials import CHALLENGE, CredentialsWrong, identity_of, shows_or_needs_login
from ..security.settings import SecurityFile
from ..submission import Submission

RETRY_AFTER_S = 2
BODY_IDLE_S = 30.0
"""A body of which nothing comes for so long is given up."""
HEAD_BYTES = 64 * 1024
"""Of a body over the limit so much is kept, to see what it was."""

REJECTED_EVENTS = "Windvane-Rejected-Events"
"""Header of an answer 204: so many events of the body are dead letters, all others are durable."""

_FULL = "the gateway is full for now; keep what you have and send it again"
_ENCODINGS = {"": "text", "identity": "text", "gzip": "gzip", "x-gzip": "gzip"}


def add_ingest_routes(app: web.Application, gateway: Gateway, security: SecurityFile | None = None) -> None:
    """Adds the ingest routes; `security` has the users that may log in (None: no logins)."""
    endpoint = _IngestEndpoint(gateway, security)
    app.router.add_post("/ingest/{policy}", endpoint.ingest)
    app.router.add_post("/ingest/{policy}/{tag:.+}", endpoint.ingest)
    app.router.add_post("/erp5/portal_ingestion_policies/{policy}/ingest", endpoint.ingest)


class _NotTaken(Exception):
    """A request that is answered before it is a chunk."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _IngestEndpoint:
    """Memory: the bodies that are read and decided hold `settings.pending_bytes` together at most.

    Over that, and over the gateway's own budget, the answer is 503.
    """

    def __init__(self, gateway: Gateway, security: SecurityFile | None) -> None:
        self._gateway = gateway
        self._security = security
        self._held_bytes = 0

    async def ingest(self, request: web.Request) -> web.Response:
        """Takes one body in."""
        data = bytearray()
        try:
            chunk = self._announced(request, data)
            size_bytes = await self._read(request, data)
            # If the request is cancelled, the submission continues.
            if size_bytes is None:
                await self._gateway.submit(chunk)
            else:
                await self._reject_too_large(chunk, size_bytes)
        except CredentialsWrong as error:
            self._gateway.telemetry.emit(
                HandshakeFailed(
                    sender=_sender_of(request), cause=error.cause, detail=error.detail, name=error.name
                )
            )
            answer = problem(HTTPStatus.UNAUTHORIZED, str(error))
            answer.headers["WWW-Authenticate"] = CHALLENGE
            return answer
        except _NotTaken as error:
            return problem(error.status, str(error))
        except (ChunkRejected, BusUnavailable) as error:
            return problem_of(error)
        finally:
            self._held_bytes -= len(data)
        answer = web.Response(status=HTTPStatus.NO_CONTENT)
        if chunk.outcome is not None and chunk.outcome.rejected_events:
            answer.headers[REJECTED_EVENTS] = str(chunk.outcome.rejected_events)
        return answer

    def _announced(self, request: web.Request, data: bytearray) -> IncomingChunk:
        """The chunk that a request says it holds; its body is read into `data` after this."""
        security = None if self._security is None else self._security.current
        sender = _sender_of(request)
        is_known = self._security is None or self._security.is_known
        if not is_known and shows_or_needs_login(request.headers):
            raise BusUnavailable(
                "credentials cannot be checked, since this gateway's forward-security.toml cannot be used; "
                "keep what you have and send it again when its operator has corrected that file"
            )
        identity = identity_of(request.headers, security, sender=sender)
        tag = _tag_of(request)
        if not tag:
            raise _NotTaken(
                HTTPStatus.BAD_REQUEST,
                "the request names no tag: add ?reference=TAG, or post to /ingest/POLICY/TAG",
            )
        return IncomingChunk(
            sender=sender,
            tag=tag,
            payload=b"",
            policy=request.match_info["policy"],
            chunk_id=_chunk_id_of(request),
            identity=identity,
            over_rate="refuse",
            outcome=Outcome(),
            body=PostedBody(
                data,
                compression=_compression_of(request),
                format=BodyFormat(
                    request.content_type.lower(),
                    time_key=request.query.get("time_key", ""),
                    time=request.query.get("time", ""),
                ),
                arrived_ns=time.time_ns(),
            ),
        )

    async def _read(self, request: web.Request, data: bytearray) -> int | None:
        """Reads the body into `data`; returns its size in bytes, as far as known, if it exceeds the limit.

        Raises if the body breaks off, takes too long, or does not fit into the memory budget.
        """
        settings = self._gateway.settings
        limit_bytes, declared_bytes = settings.max_message_bytes, request.content_length or 0
        # Of a body whose declared size is too large, only the part that is kept is read.
        enough_bytes = limit_bytes if declared_bytes <= limit_bytes else min(HEAD_BYTES, limit_bytes)
        now_s = asyncio.get_running_loop().time
        began_s = now_s()
        while True:
            if self._gateway.budget.is_full or self._held_bytes > settings.pending_bytes:
                raise BusUnavailable(_FULL)
            # As long as a message of that size may take on the forward port: it holds what others want.
            end_s = began_s + settings.message_timeout_s + len(data) / settings.message_bytes_per_s
            try:
                async with asyncio.timeout(min(BODY_IDLE_S, end_s - now_s())):
                    piece = await request.content.readany()
            except BodyTooSlow as error:
                raise _NotTaken(HTTPStatus.REQUEST_TIMEOUT, str(error)) from None
            except TimeoutError:
                raise _NotTaken(
                    HTTPStatus.REQUEST_TIMEOUT,
                    f"{len(data)} bytes of the body came in {now_s() - began_s:.3g} s, which is too slow; "
                    "send it again",
                ) from None
            except (ClientError, OSError, PayloadAccessError, RequestPayloadError) as error:
                raise _NotTaken(
                    HTTPStatus.BAD_REQUEST, f"the body broke off: {error}; send it again"
                ) from error
            if not piece:
                return None
            data += piece
            self._held_bytes += len(piece)
            if len(data) > enough_bytes:
                return max(declared_bytes, len(data))

    def _reject_too_large(self, chunk: IncomingChunk, size_bytes: int) -> Submission:
        assert chunk.body is not None
        head = msgspec.structs.replace(
            chunk.body, data=bytes(chunk.body.data[:HEAD_BYTES]), size_bytes=size_bytes
        )
        rejection = ChunkRejected(
            "too-large",
            f"the body is over the limit of {self._gateway.settings.max_message_bytes} bytes; send smaller "
            "chunks, or raise gateway.max_message_bytes",
        )
        return self._gateway.reject(msgspec.structs.replace(chunk, body=head), rejection)


def _sender_of(request: web.Request) -> str:
    return request.headers.get("X-Forwarded-For", "") or request.remote or "local"


def _tag_of(request: web.Request) -> str:
    """The tag from the path (like in_http, with slashes for dots), the query, or the header of Fluent Bit.

    Bytes that are not UTF-8 become lone surrogates, and the tag is rejected.
    """
    tag = _path_tag(request) or _query_tag(request) or request.headers.get("Fluent-Tag", "")
    try:
        return stream_name(tag.encode())
    except UnicodeEncodeError:
        return tag


def _path_tag(request: web.Request) -> str:
    if "tag" not in request.match_info:
        return ""
    # `match_info` leaves a byte that is not UTF-8 percent-encoded, which may equal another tag's text.
    encoded = request.rel_url.raw_path.split("/", 3)[3]
    return urllib.parse.unquote(encoded, errors="surrogateescape").strip("/").replace("/", ".")


def _query_tag(request: web.Request) -> str:
    # `query` has the same replacement character for all bytes that are not UTF-8.
    found = request.query.get("reference", "")
    if "\ufffd" not in found:
        return found
    fields = urllib.parse.parse_qsl(request.rel_url.raw_query_string, errors="surrogateescape")
    return next(value for name, value in fields if name == "reference")


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
    """An error response (RFC 9457); `code` is the stable name of the reason."""
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


def problem_of(error: ChunkRejected | BusUnavailable) -> web.Response:
    """The answer to what the future of `Gateway.submit` raises."""
    if isinstance(error, ChunkRejected):
        status = REJECTIONS[error.code].http_status or HTTPStatus.UNPROCESSABLE_ENTITY
        return problem(status, str(error), code=error.code)
    if isinstance(error, RateExceeded):
        return problem(HTTPStatus.TOO_MANY_REQUESTS, str(error), retry_after_s=error.retry_after_s)
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), retry_after_s=RETRY_AFTER_S)
