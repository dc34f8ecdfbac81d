"""Where rows came from, and which lengths of a stream and its arrays belong together."""

import asyncio
from http import HTTPStatus
from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from ...errors import RangeGone, StoreFailed
from ...store.databases.committed import committed_checkpoint
from ...store.databases.database import Place
from ...store.interface import StoreEngine
from ...store.row_origin import RowOrigin
from ...store.snapshot import SnapshotLengths, snapshot_lengths
from ..pages import json_response
from ..parameters import ReferencePath
from ..problems import RequestRejected
from ..route import API, REF, json_answer, route
from ..row_origins import RowOrigins


class RowPath(Struct, frozen=True):
    """The path of one row of an array."""

    ref: Annotated[str, Meta(description="The reference of the array.")]
    row: Annotated[int, Meta(description="The number of the row, from 0.", ge=0)]


class ProvenanceRoutes:
    """`GET arrays/{ref}/rows/{row}/origin`, `GET streams/{ref}/snapshot`."""

    def __init__(self, store: StoreEngine, origins: RowOrigins | None, *, checkpoints: Place | None) -> None:
        """`origins` and `checkpoints` are None if the checkpoints cannot be read here."""
        self._store = store
        self._origins = origins
        self._checkpoints = checkpoints

    @route(
        "GET",
        f"{API}/arrays/{REF}/rows/{{row}}/origin",
        tag="arrays",
        answers=[json_answer(RowOrigin, "The origin of the row.")],
        problems={
            HTTPStatus.NOT_FOUND: "There is no such array, or no such row.",
            HTTPStatus.CONFLICT: "The row is in no checkpoint yet, or cannot be computed again.",
            HTTPStatus.GONE: "Retention has dropped the row.",
            HTTPStatus.SERVICE_UNAVAILABLE: "The stream is too long to be replayed within a minute.",
        },
    )
    async def origin(self, _request: web.Request, path: RowPath) -> web.Response:
        """Get the bytes that a row came from.

        As `windvane explain`: the chunks with their IDs, senders and times of arrival, the revision of the
        policy, and the operations with their versions. The stream is replayed from its beginning to the row.
        """
        await asyncio.to_thread(self._require_row, path)
        if self._origins is None:
            raise RequestRejected(HTTPStatus.SERVICE_UNAVAILABLE, "The checkpoints cannot be read here.")
        return json_response(await self._origins.find(path.ref, path.row))

    @route(
        "GET",
        f"{API}/streams/{REF}/snapshot",
        tag="streams",
        answers=[json_answer(SnapshotLengths, "The lengths.")],
        problems={HTTPStatus.SERVICE_UNAVAILABLE: "The checkpoints cannot be read."},
    )
    async def snapshot(self, _request: web.Request, path: ReferencePath) -> web.Response:
        """Get the lengths of a stream and its arrays at its last checkpoint.

        They belong together: the rows below these lengths were computed from the bytes below the stream's.
        """
        return json_response(await asyncio.to_thread(self._lengths, path.ref))

    def _require_row(self, path: RowPath) -> None:
        with self._store.array(path.ref) as array:
            if path.row >= len(array):
                raise RequestRejected(
                    HTTPStatus.NOT_FOUND, f"{path.ref} has no row {path.row}: it has {len(array)} rows."
                )
            if path.row < array.start:
                raise RangeGone(f"Row {path.row} was dropped; the first that is kept is row {array.start}.")

    def _lengths(self, reference: str) -> SnapshotLengths:
        self._store.stream(reference).close()
        try:
            if self._checkpoints is None:
                raise StoreFailed("they are not configured")
            committed = committed_checkpoint(self._checkpoints, reference)
        except StoreFailed as error:
            raise RequestRejected(
                HTTPStatus.SERVICE_UNAVAILABLE, f"The checkpoints cannot be read: {error}"
            ) from error
        return snapshot_lengths(reference, committed)
