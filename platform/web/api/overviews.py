"""Overviews of data arrays over HTTP: a range of any length in as many pixels as a chart has."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

import numpy as np
from aiohttp import web
from msgspec import Meta, Struct, field
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from ...records.bounds import Bound
from ...store.interface import ArrayReader, StoreEngine
from ...store.pyramid.cells import NOT_A_TIME
from ...store.pyramid.overview import MOST_PIXELS, Overview, Overview2D, overview, overview2d
from ...store.selection.time_ranges import view_range
from ..answers import Overview2DInfo, OverviewInfo
from ..pages import json_bytes, json_bytes_response
from ..parameters import BoundText, ReferencePath, bound
from ..route import API, BINARY, BYTES, JSON, REF, Answer, route
from .arrays import TAG

_Found = TypeVar("_Found", Overview, Overview2D)

DEFAULT_PIXELS = 1_000
DEFAULT_BINS = 256
_HEADERS = {
    "Windvane-Dtype": "Of `min` and `max` in the binary form, as in .npy files.",
    "Windvane-Shape": "Of `max` in the binary form, with commas: pixels, and values of a pixel if several.",
}
_PROBLEMS = {
    HTTPStatus.UNPROCESSABLE_ENTITY: "The array has no overview of this kind, or it would be too large.",
    HTTPStatus.NOT_FOUND: "There is no such array, or it has no such column.",
}


class RangeQuery(Struct, frozen=True, kw_only=True):
    """Which rows, and in how many pixels."""

    from_: Annotated[
        BoundText | None,
        Meta(
            description="The first row, from 0 on, or a time: RFC 3339 (seconds optional), or ns since 1970, "
            "from 10^17 on; then the first row whose time is that or later. By default the first row that is "
            "kept."
        ),
    ] = field(default=None, name="from")
    to: Annotated[
        BoundText | None,
        Meta(
            description="The row after the last; it may be past the end of the array. Or a time. By default "
            "the end of the array."
        ),
    ] = None
    pixels: Annotated[
        int, Meta(ge=1, description=f"How many pixels there are at most; {MOST_PIXELS:,} if it is more.")
    ] = DEFAULT_PIXELS


class OverviewQuery(RangeQuery, frozen=True, kw_only=True):
    """Which rows, which column of them, and in how many pixels."""

    column: Annotated[
        str | None,
        Meta(
            description="Only this value of a row: a name of the attribute `columns`, a field of the "
            "records, or an index along the last axis."
        ),
    ] = None


class Overview2DQuery(RangeQuery, frozen=True, kw_only=True):
    """Which rows, and in how many cells."""

    bins: Annotated[int, Meta(ge=1, description="How many cells a pixel has at most.")] = DEFAULT_BINS


class AcceptHeaders(Struct, frozen=True, kw_only=True):
    """The form of the answer."""

    accept: Annotated[
        str, Meta(description="application/octet-stream asks for the binary form; JSON is the default.")
    ] = field(default="", name="Accept")

    @property
    def is_binary(self) -> bool:
        """Whether the answer is the binary form."""
        return BYTES in self.accept


def _answer(kind: type[Struct], content: str) -> Answer:
    return Answer(
        HTTPStatus.OK,
        f"The overview. The binary form has no gaps between its parts, all little-endian: {content}.",
        {JSON: kind, BYTES: BINARY},
        _HEADERS,
    )


class OverviewRoutes:
    """`GET arrays/{ref}/overview`, `GET arrays/{ref}/overview2d`."""

    def __init__(self, store: StoreEngine) -> None:
        self._store = store

    @route(
        "GET",
        f"{API}/arrays/{REF}/overview",
        tag=TAG,
        answers=[
            _answer(
                OverviewInfo,
                "`rows` and `times_ns` as int64, pixels + 1 of each (-2^63: no time); `count` as int64, how "
                "many values that are not NaN a pixel has (0: a gap); `min` and `max` in the dtype of the "
                "array; `mean` as float64",
            )
        ],
        problems=_PROBLEMS,
    )
    async def overview(
        self, _request: web.Request, path: ReferencePath, query: OverviewQuery, headers: AcceptHeaders
    ) -> web.Response:
        """Get the minimum, maximum and mean of a range of rows in so many pixels.

        The edges of the pixels snap outward to a power of 64 rows, and are returned as `rows`; the values are
        exact for these edges.
        """
        bounds = _bounds(query)

        def read(array: ArrayReader) -> Overview:
            rows = view_range(array, *bounds)
            return overview(array, *rows, pixels=min(query.pixels, MOST_PIXELS), column=query.column)

        return await self._respond(path.ref, read, headers, overview_info, _overview_bytes)

    @route(
        "GET",
        f"{API}/arrays/{REF}/overview2d",
        tag=TAG,
        answers=[
            _answer(
                Overview2DInfo,
                "`rows` and `times_ns` as int64, pixels + 1 of each (-2^63: no time); `bins` as int64, one "
                "more than a pixel has cells; `count` as int64, how many rows a pixel has (0: a gap); `max` "
                "in the dtype of the array",
            )
        ],
        problems=_PROBLEMS,
    )
    async def overview2d(
        self, _request: web.Request, path: ReferencePath, query: Overview2DQuery, headers: AcceptHeaders
    ) -> web.Response:
        """Get the maxima of a range of spectra in so many cells of time × frequency."""
        bounds = _bounds(query)

        def read(array: ArrayReader) -> Overview2D:
            rows = view_range(array, *bounds)
            return overview2d(array, *rows, pixels=min(query.pixels, MOST_PIXELS), bins=query.bins)

        return await self._respond(path.ref, read, headers, overview2d_info, _overview2d_bytes)

    async def _respond(
        self,
        reference: str,
        read: Callable[[ArrayReader], _Found],
        headers: AcceptHeaders,
        to_json: Callable[[_Found], Struct],
        to_bytes: Callable[[_Found], list[NDArray[Any]]],
    ) -> web.Response:
        def make() -> web.Response:
            with self._store.array(reference) as array:
                found = read(array)
            if not headers.is_binary:
                return json_bytes_response(json_bytes(to_json(found)), headers={"Vary": "Accept"})
            dtype = found.max.dtype.newbyteorder("<")
            return web.Response(
                body=b"".join(_little_endian(part) for part in to_bytes(found)),
                content_type=BYTES,
                headers={
                    "Cache-Control": "no-cache",
                    "Vary": "Accept",
                    "Windvane-Dtype": str(npy_format.dtype_to_descr(dtype)),
                    "Windvane-Shape": ",".join(map(str, found.max.shape)),
                },
            )

        return await asyncio.to_thread(make)


def _bounds(query: RangeQuery) -> tuple[Bound | None, Bound | None]:
    return bound("from", query.from_), bound("to", query.to)


def overview_info(found: Overview) -> OverviewInfo:
    """An overview as JSON has it."""
    filled = found.count > 0
    return OverviewInfo(
        rows=found.rows.tolist(),
        times_ns=_times(found.times_ns),
        min=_numbers(found.min, filled),
        max=_numbers(found.max, filled),
        mean=_numbers(found.mean, filled),
    )


def overview2d_info(found: Overview2D) -> Overview2DInfo:
    """An overview of time and bins as JSON has it."""
    return Overview2DInfo(
        rows=found.rows.tolist(),
        times_ns=_times(found.times_ns),
        bins=found.bins.tolist(),
        max=_numbers(found.max, (found.count > 0)[:, np.newaxis]),
    )


def _overview_bytes(found: Overview) -> list[NDArray[Any]]:
    return [found.rows, found.times_ns, found.count, found.min, found.max, found.mean]


def _overview2d_bytes(found: Overview2D) -> list[NDArray[Any]]:
    return [found.rows, found.times_ns, found.bins, found.count, found.max]


def _little_endian(values: NDArray[Any]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<"), order="C", copy=False).tobytes()


def _times(times_ns: NDArray[np.int64]) -> list[int | None]:
    return [None if time_ns == NOT_A_TIME else time_ns for time_ns in times_ns.tolist()]


def _numbers(values: NDArray[Any], filled: NDArray[np.bool_]) -> list[Any]:
    """Values as JSON has them: null for a gap, and for a value that is not filled.

    A row of one value is that value, as in an array whose rows are single numbers.
    """
    if values[:1].size == 1:
        values, filled = values.reshape(len(values)), filled.reshape(len(values))
    numbers = values.astype(object)
    numbers[np.broadcast_to(~filled, numbers.shape)] = None
    found: list[Any] = numbers.tolist()
    for gap in np.flatnonzero(~filled.any(axis=tuple(range(1, filled.ndim)))):
        found[gap] = None
    return found
