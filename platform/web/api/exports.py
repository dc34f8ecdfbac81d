"""Exports over HTTP: rows of a data array as a file of another program."""

import asyncio
from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import quote

from aiohttp import web
from msgspec import Meta, Struct

from ...store.export.formats import FORMATS
from ...store.export.pieces import export_pieces
from ...store.export.rows_to_export import RowsToExport
from ...store.interface import StoreEngine
from ...store.selection.time_ranges import rows_between
from ..chunked_bodies import send_pieces
from ..parameters import BoundText, ReferencePath, bound
from ..route import API, BINARY, REF, Answer, route
from ..telemetry import WebTelemetry
from .arrays import TAG

_MEDIA_TYPES = {made.media_type.partition(";")[0]: BINARY for made in FORMATS.values()}


class ExportQuery(Struct, frozen=True, kw_only=True):
    """Which rows and columns, and in which format."""

    format: Annotated[
        Literal["npy", "csv", "parquet", "arrow", "zarr", "wav", "mdf"],
        Meta(
            description="arrow: an Arrow IPC file; zarr: a Zarr v3 group in a zip file; wav: of samples; "
            "mdf: MDF4. npy and wav have no times."
        ),
    ] = "csv"
    start: Annotated[BoundText | None, Meta(description="The first row or a time, as of `data`.")] = None
    stop: Annotated[
        BoundText | None, Meta(description="The row after the last, or a time, as of `data`.")
    ] = None
    column: Annotated[
        tuple[str, ...], Meta(description="Only these columns; repeat the parameter for several.")
    ] = ()


class ExportRoutes:
    """`GET arrays/{ref}/export`."""

    def __init__(self, store: StoreEngine, telemetry: WebTelemetry) -> None:
        self._store = store
        self._telemetry = telemetry

    @route(
        "GET",
        f"{API}/arrays/{REF}/export",
        tag=TAG,
        answers=[
            Answer(
                HTTPStatus.OK,
                "The file; if it is cut off, the connection ends without the last chunk.",
                _MEDIA_TYPES,
                {
                    "Content-Disposition": "A name for the file.",
                    "Windvane-Rows": "Which rows, as start:stop.",
                },
            )
        ],
        problems={
            HTTPStatus.GONE: "Retention has dropped rows of the range; the detail names the first row kept.",
            HTTPStatus.UNPROCESSABLE_ENTITY: "The format cannot hold these rows.",
            HTTPStatus.NOT_IMPLEMENTED: "The server lacks the package for this format.",
        },
    )
    async def export(
        self, request: web.Request, path: ReferencePath, query: ExportQuery
    ) -> web.StreamResponse:
        """Export rows of an array to a file.

        `windvane export` writes the same bytes. Appended rows are not part of the answer.
        """
        made = FORMATS[query.format]
        array = await asyncio.to_thread(self._store.array, path.ref)
        bounds = bound("start", query.start), bound("stop", query.stop)
        rows = await asyncio.to_thread(rows_between, array, *bounds)
        file_name = quote(f"{path.ref}{made.suffix}", safe="")
        return await send_pieces(
            request,
            export_pieces(RowsToExport(array, rows, query.column), made),
            telemetry=self._telemetry,
            size_bytes=None,
            headers={
                "Content-Type": made.media_type,
                "Content-Disposition": f"attachment; filename*=UTF-8''{file_name}",
                "Windvane-Rows": f"{rows.start}:{rows.stop}",
            },
        )
