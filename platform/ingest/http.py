"""Ingest over HTTP: what fluent-plugin-wendelin sends, unchanged.

    POST /ingest/{policy}?reference={tag}
    POST /erp5/portal_ingestion_policies/{policy}/ingest?reference={tag}

The body is a payload (concatenated msgpack `[time, record]`), or, from older plugins, the form field
`data_chunk` or the payload in base64. 204 says that it is durable; anything but 2xx is sent again by the
plugin.
"""

import asyncio
import base64
import binascii
from urllib.parse import parse_qs

from aiohttp import web

from ..errors import BusUnavailable, ChunkRefused
from .gateway import NO_POLICY, Gateway, IncomingChunk

RETRY_AFTER_S = 2
_STATUS = {NO_POLICY: 404, "tag-not-allowed": 403, "too-large": 413, "bad-tag": 400}
_FORM = "application/x-www-form-urlencoded"
_BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=\r\n"


def add_ingest_routes(app: web.Application, gateway: Gateway) -> None:
    """Adds the two addresses of the ingest."""
    door = _HttpDoor(gateway)
    app.router.add_post("/ingest/{policy}", door.ingest)
    app.router.add_post("/erp5/portal_ingestion_policies/{policy}/ingest", door.ingest)


class _HttpDoor:
    """Memory: one body of at most `gateway.max_message_bytes` a request; over the gateway's budget, 503."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def ingest(self, request: web.Request) -> web.Response:
        tag = request.query.get("reference", "")
        if not tag:
            return _problem(400, "the query parameter `reference` is missing: add ?reference=<tag>")
        if self._gateway.over_budget:
            return _unavailable("the gateway is full; send again")
        limit = self._gateway.settings.max_message_bytes
        body = bytearray()
        async for piece in request.content.iter_any():
            body += piece
            if len(body) > limit:
                return _problem(413, f"the body is over the limit of {limit} bytes; send smaller chunks")
        payload: bytes | memoryview = memoryview(body)
        try:
            # curl and others call any body a form unless told otherwise; an event says what it is.
            if request.content_type == _FORM and not body.startswith(b"\x92"):
                payload = _form_field(bytes(body))
            elif _is_base64(body):
                payload = _decode_base64(bytes(body))
        except ChunkRefused as refusal:
            return _problem(422, str(refusal))
        sender = request.headers.get("X-Forwarded-For", "") or request.remote or "local"
        decision = self._gateway.submit(
            IncomingChunk(sender=sender, tag=tag, payload=payload, policy=request.match_info["policy"])
        )
        try:
            # The chunk goes its way even where the client does not wait for the answer.
            await asyncio.shield(decision)
        except ChunkRefused as refusal:
            return _problem(_STATUS.get(refusal.code, 422), str(refusal), code=refusal.code)
        except BusUnavailable as error:
            return _unavailable(str(error))
        return web.Response(status=204)


def _form_field(body: bytes) -> bytes:
    try:
        # Latin-1 is bytes as text: percent-decoding must not assume UTF-8.
        form = parse_qs(body.decode("latin-1"), strict_parsing=True, encoding="latin-1", max_num_fields=16)
    except ValueError as error:
        raise ChunkRefused(
            "malformed", "the form cannot be read; send events as Content-Type: application/octet-stream"
        ) from error
    values = [value.encode("latin-1") for value in form.get("data_chunk", [])]
    if len(values) != 1:
        raise ChunkRefused("malformed", "the form has no field `data_chunk`, or several; check the sender")
    return _decode_base64(values[0]) if _is_base64(values[0]) else values[0]


def _is_base64(body: bytes | bytearray) -> bool:
    """An event begins with the array of two, 0x92: no letter of base64. So the two cannot be mistaken."""
    return bool(body) and not body[:1024].translate(None, _BASE64_ALPHABET)


def _decode_base64(body: bytes) -> bytes:
    try:
        return base64.b64decode(body.translate(None, b"\r\n"), validate=True)
    except binascii.Error as error:
        raise ChunkRefused("malformed", f"the body is no base64 ({error}); check the sender") from error


def _problem(status: int, detail: str, *, code: str | None = None) -> web.Response:
    body: dict[str, object] = {"type": "about:blank", "status": status, "detail": detail}
    if code is not None:
        body["code"] = code
    return web.json_response(body, status=status, content_type="application/problem+json")


def _unavailable(detail: str) -> web.Response:
    response = _problem(503, detail)
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
