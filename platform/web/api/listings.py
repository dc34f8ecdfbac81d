"""Threads of their own for long lists, so that neither the event loop nor other answers wait for them."""

import asyncio
import os
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from aiohttp import web

from ...store.files.data_stream import DataStream
from ...store.files.listing import StoreListing
from ...store.files.store import Store
from ..instrumentation import OutputsListed
from ..telemetry import WebTelemetry

THREADS = 2
"""Lists that are made at the same time; others wait for their turn."""

_SETTLED_NS = 2_000_000_000
"""A file may change again within the tick of the clock that its time of change shows."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


MAX_OPEN_STREAMS = 512
"""Streams that stay open between two looks at a page: about five mappings each, no descriptor."""


class OpenStreams:
    """The streams that were listed last, still open, since a page is requested again every two seconds.

    One that was replaced, or whose attributes have changed, is opened again: that costs two stat(2). Any
    thread may call.
    """

    def __init__(self, store: Store, telemetry: WebTelemetry) -> None:
        self._store = store
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._open: OrderedDict[str, tuple[tuple[int, int], DataStream]] = OrderedDict()

    def get(self, reference: str) -> DataStream:
        """The stream, for reading. Raises StreamNotFound, StoreFailed."""
        with self._lock:
            known = self._open.pop(reference, None)
        if known is not None:
            kept_mark, stream = known
            if kept_mark == _mark(stream.directory) and not stream.replaced:
                return self._keep(reference, kept_mark, stream)
        self._telemetry.emit(OutputsListed(1))
        stream = self._store.stream(reference)
        mark = _mark(stream.directory)
        # Attributes that changed between the two would be missed: a recently written stream is not kept.
        if mark is None or time.time_ns() - mark[0] < _SETTLED_NS:
            return stream
        return self._keep(reference, mark, stream)

    def _keep(self, reference: str, mark: tuple[int, int], stream: DataStream) -> DataStream:
        with self._lock:
            self._open[reference] = mark, stream
            if len(self._open) > MAX_OPEN_STREAMS:
                self._open.popitem(last=False)
        return stream


def _mark(directory: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(directory / "meta.json")
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


class Listings:
    """The names in the store, and the threads in which pages of them are described."""

    def __init__(self, store: Store, telemetry: WebTelemetry) -> None:
        self.names = StoreListing(store.root)
        self.streams = OpenStreams(store, telemetry)
        self._telemetry = telemetry
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="listing")

    async def run(
        self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """`work(*arguments)` in one of the threads."""
        future = self._threads.submit(work, *arguments, **named)
        return await asyncio.wrap_future(future)

    def opened(self, count: int) -> None:
        """So many arrays were opened to describe a page."""
        self._telemetry.emit(OutputsListed(count))

    async def closing(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application."""
        yield
        self._threads.shutdown(wait=False, cancel_futures=True)
