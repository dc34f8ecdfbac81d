"""Data arrays over HTTP: any slice of the rows, or of their times, as raw bytes, .npy or JSON."""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from http import HTTPStatus
from itertools import chain
from typing import Annotated, Literal
from urllib.parse import quote

from aiohttp import web
from msgspec import Meta, Struct
from numpy.lib import format as npy_format

from ...errors import ArrayNotFound, WindvaneError
from ...store.export.npy import npy_header
from ...store.interface import ArrayReader, Page, RowReader, StoreEngine
from ...store.selection.columns import ColumnReader, column_named
from ...store.selection.time_ranges import rows_between
from ..answers import ArrayInfo
from ..chunked_bodies import Piece, send_pieces
from ..instrumentation import OutputNotListed
from ..pages import PageQuery, json_bytes, json_bytes_response, json_response, next_page
from ..parameters import BoundText, Integer, ReferencePath, bound
from ..problems import RequestRejected
from ..route import API, BINARY, BYTES, JSON, REF, Answer, json_answer, page_of, route
from ..telemetry import WebTelemetry
from .listings import Listings

PIECE_BYTES = 256 * 1024
"""A slice is read and sent in pieces of about this size (at least one row): an answer never needs more."""

JSON_PIECE_BYTES = 32 * 1024
"""The same for JSON, whose text and Python objects are many times larger than the rows."""

PIECE_ROWS = 65_536
"""A piece never has more rows than this, however small they are."""

TAG = "arrays"

_ROWS = Answer(
    HTTPStatus.OK,
    "The rows.",
    {BYTES: BINARY, JSON: {"type": "array"}},
    {
        "Windvane-Dtype": "The dtype of a row, as in .npy files.",
        "Windvane-Shape": "The shape of the answer, with commas.",
        "Windvane-Rows": "Which rows they are, as start:stop:step.",
    },
)
_DROPPED = {HTTPStatus.GONE: "Retention has dropped rows of the slice; the detail names the first row kept."}


class TimesQuery(Struct, frozen=True, kw_only=True):
    """Which rows, and in which form."""

    start: Annotated[
        BoundText | None,
        Meta(
            description="The first row, as in Python's a[start:stop:step]: negative counts from the end. Or "
            "a time: RFC 3339 (seconds optional), or ns since 1970, from 10^17 on; then the first row whose "
            "time is that or later."
        ),
    ] = None
    stop: Annotated[
        BoundText | None,
        Meta(
            description="The row after the last, as in Python's slices. Or a time: then the last row is the "
            "one before the first whose time is that or later."
        ),
    ] = None
    step: Annotated[
        Integer | None,
        Meta(description="As in Python's slices; not 0.", extra_json_schema={"not": {"const": 0}}),
    ] = None
    format: Annotated[
        Literal["raw", "npy", "json"],
        Meta(
            description="raw: the bytes of the rows, in C order; npy: a NumPy file; json: nested arrays, "
            "null for NaN."
        ),
    ] = "raw"


class RowsQuery(TimesQuery, frozen=True, kw_only=True):
    """Which rows, which column of them, and in which form."""

    column: Annotated[
        str | None,
        Meta(description="Only this column: a name of the attribute `columns`, or a field of the records."),
    ] = None


def pieces(rows: range, *, rows_per_piece: int) -> Iterator[slice]:
    """Cuts `rows` into slices of at most `rows_per_piece` rows that in their order give the same rows."""
    for begin in range(0, len(rows), rows_per_piece):
        piece = rows[begin : begin + rows_per_piece]
        # A piece that counts down to row 0 ends at -1, which a slice would read as "the last one".
        yield slice(piece.start, piece.stop if piece.stop >= 0 else None, piece.step)


class ArrayRoutes:
    """`GET arrays`, `GET arrays/{ref}`, `GET arrays/{ref}/data`, `GET arrays/{ref}/times`."""

    def __init__(self, store: StoreEngine, telemetry: WebTelemetry, listings: Listings) -> None:
        self._store = store
        self._telemetry = telemetry
        self._listings = listings

    @route("GET", f"{API}/arrays", tag=TAG, answers=[page_of(ArrayInfo)])
    async def list(self, request: web.Request, query: PageQuery) -> web.Response:
        """List the data arrays, in the order of their references."""

        def page() -> tuple[bytes, Page]:
            found = self._listings.names.arrays(after=query.after, limit=query.entries)
            return json_bytes(self._describe_all(found.references)), found

        body, found = await self._listings.run(page)
        headers = next_page(request, after=found.references[-1]) if found.more else {}
        return json_bytes_response(body, headers=headers)

    @route("GET", f"{API}/arrays/{REF}", tag=TAG, answers=[json_answer(ArrayInfo, "The array.")])
    async def get(self, _request: web.Request, path: ReferencePath) -> web.Response:
        """Get one data array."""
        return json_response(await asyncio.to_thread(self._describe, path.ref))

    @route("GET", f"{API}/arrays/{REF}/data", tag=TAG, answers=[_ROWS], problems=_DROPPED)
    async def data(self, request: web.Request, path: ReferencePath, query: RowsQuery) -> web.StreamResponse:
        """Get a slice of the rows, or of one column of them."""
        array = await asyncio.to_thread(self._store.array, path.ref)
        if query.column is None:
            return await self._send(request, query, array, array)
        column = ColumnReader(array, column_named(array, query.column))
        return await self._send(request, query, array, column)

    @route("GET", f"{API}/arrays/{REF}/times", tag=TAG, answers=[_ROWS], problems=_DROPPED)
    async def times(self, request: web.Request, path: ReferencePath, query: TimesQuery) -> web.StreamResponse:
        """Get the event times of a slice of the rows: int64, ns since the epoch, UTC."""
        array = await asyncio.to_thread(self._store.array, path.ref)
        return await self._send(request, query, array, array.times_ns)

    async def _send(
        self, request: web.Request, query: TimesQuery, array: ArrayReader, source: RowReader
    ) -> web.StreamResponse:
        if query.step == 0:
            raise RequestRejected(HTTPStatus.BAD_REQUEST, "step=0 is not valid; it may be negative.")
        bounds = bound("start", query.start), bound("stop", query.stop)
        rows = await asyncio.to_thread(rows_between, array, *bounds, query.step)
        row_bytes = source.row_bytes
        shape = (len(rows), *source.row_shape)
        headers = {
            "Windvane-Dtype": json_bytes(npy_format.dtype_to_descr(source.dtype)).decode().strip('"'),
            "Windvane-Shape": ",".join(map(str, shape)),
            "Windvane-Rows": f"{rows.start}:{rows.stop}:{rows.step}",
        }
        size_bytes: int | None = row_bytes * len(rows)
        if query.format == "json":
            headers["Content-Type"], size_bytes = JSON, None
            parts = _json_pieces(source, rows, rows_per_piece=_rows_in(JSON_PIECE_BYTES, row_bytes))
        else:
            headers["Content-Type"] = BYTES
            parts = _raw_pieces(source, rows, rows_per_piece=_rows_in(PIECE_BYTES, row_bytes))
        if query.format == "npy":
            header = npy_header(source.dtype, shape)
            size_bytes = len(header) + row_bytes * len(rows)
            parts = chain((partial(bytes, header),), parts)
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{_file_name(request)}"
        return await send_pieces(
            request, parts, telemetry=self._telemetry, size_bytes=size_bytes, headers=headers
        )

    def _describe_all(self, references: Sequence[str]) -> Sequence[ArrayInfo]:
        found = []
        for reference in references:
            try:
                found.append(self._describe(reference))
            except ArrayNotFound:  # set aside since the list was made
                continue
            except (WindvaneError, OSError, ValueError, KeyError) as error:  # it must not hide the others
                self._telemetry.emit(OutputNotListed(reference, str(error)))
        self._listings.opened(len(references))
        return found

    def _describe(self, reference: str) -> ArrayInfo:
        array = self._store.array(reference)
        return ArrayInfo(
            reference=reference,
            stream=reference.partition(":")[0],
            uid=array.uid.hex(),
            dtype=npy_format.dtype_to_descr(array.dtype),
            shape=list(array.shape),
            start=array.start,
            attrs=dict(array.attrs),
            zarr=None if (path := array.zarr_path) is None else str(path.absolute()),
        )


def _rows_in(size_bytes: int, row_bytes: int) -> int:
    return min(PIECE_ROWS, max(1, size_bytes // max(1, row_bytes)))


def _raw_pieces(source: RowReader, rows: range, *, rows_per_piece: int) -> Iterator[Piece]:
    for piece in pieces(rows, rows_per_piece=rows_per_piece):
        yield partial(_raw, source, piece)


def _raw(source: RowReader, piece: slice) -> bytes:
    return bytes(source[piece].tobytes())


def _json_pieces(source: RowReader, rows: range, *, rows_per_piece: int) -> Iterator[Piece]:
    opening = b"["
    for piece in pieces(rows, rows_per_piece=rows_per_piece):
        yield partial(_json, source, piece, opening)
        opening = b","
    yield partial(bytes, b"]" if opening == b"," else b"[]")


def _json(source: RowReader, piece: slice, opening: bytes) -> bytes:
    return opening + json_bytes(source[piece].tolist())[1:-1]


def _file_name(request: web.Request) -> str:
    kind = "" if request.path.endswith("/data") else ".times"
    return quote(f"{request.match_info['ref']}{kind}.npy", safe="")
