"""Threads of their own for long lists, so that neither the event loop nor other answers wait for them."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web

from ...store.interface import StoreEngine, StreamReader
from ..instrumentation import OutputsListed
from ..telemetry import WebTelemetry

THREADS = 2
"""Lists that are made at the same time; others wait for their turn."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


MAX_OPEN_STREAMS = 512
"""Streams that stay open between two looks at a page: about five mappings each, no descriptor."""


class OpenStreams:
    """The streams that were listed last, still open, since a page is requested again every two seconds.

    One that was replaced, or whose attributes may have changed, is opened again. Any thread may call.
    """

    def __init__(self, store: StoreEngine, telemetry: WebTelemetry) -> None:
        self._store = store
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._open: OrderedDict[str, StreamReader] = OrderedDict()

    def get(self, reference: str) -> StreamReader:
        """The stream, for reading. Raises StreamNotFound, StoreFailed."""
        with self._lock:
            stream = self._open.pop(reference, None)
        if stream is None or stream.outdated:
            self._telemetry.emit(OutputsListed(1))
            stream = self._store.stream(reference)
        with self._lock:
            self._open[reference] = stream
            if len(self._open) > MAX_OPEN_STREAMS:
                self._open.popitem(last=False)
        return stream


class Listings:
    """The names in the store, and the threads in which pages of them are described."""

    def __init__(self, store: StoreEngine, telemetry: WebTelemetry) -> None:
        self.names = store.listing()
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
