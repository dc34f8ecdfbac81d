"""Data streams over HTTP: what they are, and their bytes by range (RFC 9110, section 14)."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct, field

from ...errors import StreamNotFound, WindvaneError
from ...store.databases.database import Place
from ...store.databases.stream_order import OrderFigures
from ...store.databases.stream_order_rows import committed_figures
from ...store.interface import Page, StoreEngine, StreamReader
from ...store.selection.time_ranges import byte_range
from ..answers import Behind, StreamAlarm, StreamInfo, rfc3339
from ..chunked_bodies import Piece, send_pieces
from ..instrumentation import OutputNotListed
from ..open_alarms import OpenAlarms
from ..pages import PageQuery, json_bytes, json_bytes_response, json_response, next_page
from ..parameters import BoundText, ReferencePath, bound
from ..problems import RequestRejected
from ..ranges import ByteRange, NotSatisfiable, etag_listed, growing_etag, may_continue, parse_range
from ..route import API, BINARY, BYTES, NOT_MODIFIED, REF, Answer, json_answer, page_of, route
from ..telemetry import WebTelemetry
from ..worker_delays import Delays, WorkerDelays
from .listings import Listings

PIECE_BYTES = 256 * 1024
"""Bytes are read and sent in pieces of this size."""

MAX_WORDS = 16
"""Of a search; further ones do not count."""

MATCHING_HEADER = "Windvane-Matching"
"""How many streams there are on all pages together."""

SELECTED_HEADER = "Windvane-Bytes"

TAG = "streams"

_ETAG = {"ETag": "Which stream it is, and how long it was.", "Accept-Ranges": "bytes"}


class StreamListQuery(PageQuery, frozen=True, kw_only=True):
    """A page of streams."""

    q: Annotated[str, Meta(description="Words that a reference must contain, in any case.")] = ""


class BytesQuery(Struct, frozen=True, kw_only=True):
    """Which bytes of a stream, by offset or by time of arrival."""

    start: Annotated[
        BoundText | None,
        Meta(
            description="The first byte; negative counts from the end. Or a time: RFC 3339 (seconds "
            "optional), or ns since 1970, from 10^17 on; then the first chunk that arrived then or later."
        ),
    ] = None
    stop: Annotated[
        BoundText | None,
        Meta(
            description="The byte after the last. Or a time: then the last chunk is the one before the first "
            "that arrived then or later."
        ),
    ] = None


class RangeHeaders(Struct, frozen=True):
    """Which bytes of a stream."""

    range: Annotated[str | None, Meta(description="Byte ranges, one or several (RFC 9110, section 14).")] = (
        field(name="Range", default=None)
    )
    if_range: Annotated[
        str | None, Meta(description="With an ETag that this stream has, or had, the Range is valid.")
    ] = field(name="If-Range", default=None)
    if_none_match: Annotated[str | None, Meta(description="ETags that the client has.")] = field(
        name="If-None-Match", default=None
    )


class StreamRoutes:
    """`GET streams`, `GET streams/{ref}`, `GET streams/{ref}/data`."""

    def __init__(
        self,
        store: StoreEngine,
        telemetry: WebTelemetry,
        listings: Listings,
        delays: WorkerDelays,
        alarms: OpenAlarms,
        *,
        checkpoints: Place | None,
    ) -> None:
        """`checkpoints` has the figures of the order of streams; the worker writes it."""
        self._store = store
        self._checkpoints = checkpoints
        self._telemetry = telemetry
        self._listings = listings
        self._delays = delays
        self._alarms = alarms

    @route(
        "GET",
        f"{API}/streams",
        tag=TAG,
        answers=[page_of(StreamInfo, headers={MATCHING_HEADER: "How many streams all pages have."})],
    )
    async def list(self, request: web.Request, query: StreamListQuery) -> web.Response:
        """List the data streams, in the order of their references."""
        words = query.q.split()[:MAX_WORDS]
        delays, _ = await asyncio.gather(self._delays.current(), self._alarms.refresh())

        def page() -> tuple[bytes, Page]:
            found = self._listings.names.streams(after=query.after, limit=query.entries, words=words)
            return json_bytes(self._describe_all(found.references, delays)), found

        body, found = await self._listings.run(page)
        headers = {MATCHING_HEADER: str(found.matching)}
        if found.more:
            headers |= next_page(request, after=found.references[-1])
        return json_bytes_response(body, headers=headers)

    @route("GET", f"{API}/streams/{REF}", tag=TAG, answers=[json_answer(StreamInfo, "The stream.")])
    async def get(self, _request: web.Request, path: ReferencePath) -> web.Response:
        """Get one data stream."""
        delays, _ = await asyncio.gather(self._delays.current(), self._alarms.refresh())
        return json_response(await asyncio.to_thread(self._describe_one, path.ref, delays))

    @route(
        "GET",
        f"{API}/streams/{REF}/data",
        tag=TAG,
        answers=[
            Answer(
                HTTPStatus.OK,
                "All bytes, or those from start to stop.",
                {BYTES: BINARY},
                {**_ETAG, SELECTED_HEADER: "Which bytes start and stop select, as first:end."},
            ),
            Answer(
                HTTPStatus.PARTIAL_CONTENT,
                "The ranges asked for.",
                {BYTES: BINARY, "multipart/byteranges": BINARY},
                {**_ETAG, "Content-Range": "Which bytes, if it is one range."},
            ),
            NOT_MODIFIED,
        ],
        problems={
            HTTPStatus.GONE: "Retention has dropped the beginning; the member `start` is the first byte.",
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The stream has no byte of the ranges.",
        },
    )
    async def data(
        self, request: web.Request, path: ReferencePath, query: BytesQuery, headers: RangeHeaders
    ) -> web.StreamResponse:
        """Get the bytes of a data stream: all, one range, or several.

        What arrives meanwhile is not part of the answer. With start or stop, the headers Range, If-Range and
        If-None-Match are ignored.
        """
        stream = await asyncio.to_thread(self._store.stream, path.ref)
        if query.start is not None or query.stop is not None:
            return await self._selected(request, stream, query)
        length, start = stream.size, stream.start
        etag = growing_etag(stream.uid, length)
        given = {"ETag": etag, "Accept-Ranges": "bytes"}
        if etag_listed(headers.if_none_match, etag):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=given)
        wanted = None
        if request.method == "GET" and may_continue(headers.if_range, etag):
            try:
                wanted = parse_range(headers.range, start=start, length=length)
            except NotSatisfiable as error:
                raise RequestRejected(
                    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
                    f"{stream.reference}: {error}.",
                    headers={**given, "Content-Range": f"bytes */{length}"},
                    members={"start": start, "size": length},
                ) from None
        if wanted is None:
            return await self._whole(request, stream, ByteRange(start, length), given)
        if len(wanted) > 1:
            return await self._several(request, stream, wanted, given, length)
        given |= {"Content-Type": BYTES, "Content-Range": wanted[0].content_range(length)}
        return await send_pieces(
            request,
            _pieces(stream, wanted[0]),
            telemetry=self._telemetry,
            size_bytes=wanted[0].size,
            status=HTTPStatus.PARTIAL_CONTENT,
            headers=given,
        )

    async def _selected(
        self, request: web.Request, stream: StreamReader, query: BytesQuery
    ) -> web.StreamResponse:
        bounds = bound("start", query.start), bound("stop", query.stop)
        offsets = await asyncio.to_thread(byte_range, stream, *bounds)
        return await send_pieces(
            request,
            _pieces(stream, ByteRange(offsets.start, offsets.stop)),
            telemetry=self._telemetry,
            size_bytes=len(offsets),
            headers={
                "Content-Type": BYTES,
                "Accept-Ranges": "none",
                SELECTED_HEADER: f"{offsets.start}:{offsets.stop}",
            },
        )

    async def _whole(
        self, request: web.Request, stream: StreamReader, kept: ByteRange, headers: dict[str, str]
    ) -> web.StreamResponse:
        if kept.start > 0 and request.method != "HEAD":
            raise RequestRejected(
                HTTPStatus.GONE,
                f"{stream.reference} is no longer whole: retention dropped all before byte {kept.start}. "
                f"Ask for what is left with 'Range: bytes={kept.start}-'.",
                headers=headers,
                members={"start": kept.start, "size": kept.stop},
            )
        return await send_pieces(
            request,
            _pieces(stream, kept),
            telemetry=self._telemetry,
            size_bytes=kept.stop,
            headers={**headers, "Content-Type": BYTES},
        )

    async def _several(
        self,
        request: web.Request,
        stream: StreamReader,
        wanted: Sequence[ByteRange],
        headers: dict[str, str],
        length: int,
    ) -> web.StreamResponse:
        boundary = secrets.token_hex(16)
        parts: list[tuple[bytes, ByteRange]] = []
        for part in wanted:
            lines = (
                f"\r\n--{boundary}",
                f"Content-Type: {BYTES}",
                f"Content-Range: {part.content_range(length)}",
            )
            parts.append(("\r\n".join((*lines, "", "")).encode(), part))
        tail = f"\r\n--{boundary}--\r\n".encode()

        def pieces() -> Iterator[Piece]:
            for head, part in parts:
                yield partial(bytes, head)
                yield from _pieces(stream, part)
            yield partial(bytes, tail)

        return await send_pieces(
            request,
            pieces(),
            telemetry=self._telemetry,
            size_bytes=sum(len(head) + part.size for head, part in parts) + len(tail),
            status=HTTPStatus.PARTIAL_CONTENT,
            headers={**headers, "Content-Type": f"multipart/byteranges; boundary={boundary}"},
        )

    def _describe_all(self, references: Sequence[str], delays: Delays) -> Sequence[StreamInfo]:
        found = []
        orders = self._orders(references)
        for reference in references:
            try:
                found.append(self._describe(reference, delays, orders))
            except StreamNotFound:  # dropped since the list was made
                continue
            except (WindvaneError, OSError, ValueError, KeyError) as error:
                self._telemetry.emit(OutputNotListed(reference, str(error)))
                found.append(_damaged(reference, str(error), self._alarms.of(reference)))
        return found

    def _orders(self, references: Sequence[str]) -> Mapping[str, OrderFigures] | None:
        return None if self._checkpoints is None else committed_figures(self._checkpoints, references)

    def _describe_one(self, reference: str, delays: Delays) -> StreamInfo:
        return self._describe(reference, delays, self._orders([reference]))

    def _describe(
        self, reference: str, delays: Delays, orders: Mapping[str, OrderFigures] | None
    ) -> StreamInfo:
        stream = self._listings.streams.get(reference)
        checkpoint_age_s, lag_chunks, behind = delays.of(reference)
        first_ns, last_ns = stream.first_arrival_ns, stream.last_arrival_ns
        return StreamInfo(
            reference=reference,
            start=stream.start,
            size=stream.size,
            chunks=stream.chunks,
            events=stream.events,
            first_arrival=None if first_ns is None else rfc3339(first_ns),
            last_arrival=None if last_ns is None else rfc3339(last_ns),
            tag=stream.attrs.get("tag", reference),
            policy=stream.attrs.get("policy"),
            arrays=self._store.arrays(reference),
            checkpoint_age_s=checkpoint_age_s,
            lag_chunks=lag_chunks,
            behind=behind,
            failing=delays.failing(reference),
            alarm=self._alarms.of(reference),
            **_order(None if orders is None else orders.get(reference, OrderFigures(reference))),
        )


def _order(figures: OrderFigures | None) -> dict[str, Any]:
    if figures is None:
        return {}
    return {
        "held_chunks": figures.held_chunks,
        "late_events": figures.late_events,
        "early_events": figures.early_events,
        "inversions": figures.inversions,
        "order_warning": figures.warning,
    }


def _damaged(reference: str, reason: str, alarm: StreamAlarm | None) -> StreamInfo:
    """A stream that cannot be opened: one of them must not hide the others."""
    return StreamInfo(
        reference=reference,
        start=0,
        size=0,
        chunks=0,
        events=0,
        first_arrival=None,
        last_arrival=None,
        tag=reference,
        policy=None,
        arrays=[],
        checkpoint_age_s=None,
        lag_chunks=None,
        behind=Behind(step="", reason=f"it cannot be read: {reason}"),
        failing=[],
        alarm=alarm,
    )


def _pieces(stream: StreamReader, part: ByteRange) -> Iterator[Piece]:
    for offset in range(part.start, part.stop, PIECE_BYTES):
        yield partial(stream.read, offset, min(PIECE_BYTES, part.stop - offset))
