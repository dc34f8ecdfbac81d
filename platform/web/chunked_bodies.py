"""Large answers, sent piece by piece: memory stays bounded however large they are."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from itertools import chain
from typing import TypeAlias

from aiohttp import web

from .instrumentation import BytesSent
from .telemetry import WebTelemetry

Piece: TypeAlias = Callable[[], bytes]
"""Reads the next bytes of an answer; called in a thread, since they may have to come from the disk."""


async def send_pieces(
    request: web.Request,
    pieces: Iterable[Piece],
    *,
    telemetry: WebTelemetry,
    size_bytes: int | None,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """Answers with `pieces`, one after the other, each read when the client has taken the one before.

    Never holds more than one piece and the transport's buffer (64 KiB). What fails in the first piece can
    still become a problem; what fails later cuts the connection. `size_bytes` None: sent chunked.
    """
    response = web.StreamResponse(status=status, headers={"Cache-Control": "no-cache", **headers})
    response.content_length = size_bytes
    waiting: Iterator[Piece] = iter(pieces if request.method != "HEAD" else ())
    first = next(waiting, None)
    data = await asyncio.to_thread(first) if first is not None else b""
    await response.prepare(request)
    for piece in chain(waiting, (None,)):
        if data:
            await response.write(data)
            telemetry.emit(BytesSent(len(data)))
        if piece is not None:
            data = await asyncio.to_thread(piece)
    await response.write_eof()
    return response
