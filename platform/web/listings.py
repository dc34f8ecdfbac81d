"""Threads of their own for long lists, so that neither the event loop nor other answers wait for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiohttp import web

from ..store.listing import StoreListing
from ..store.store import Store
from .telemetry import WebTelemetry

THREADS = 2
"""Lists that are made at the same time; others wait for their turn."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Listings:
    """The names in the store, and the threads in which pages of them are described."""

    def __init__(self, store: Store, telemetry: WebTelemetry) -> None:
        self.names = StoreListing(store.root)
        self._telemetry = telemetry
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="listing")

    async def run(
        self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """`work(*arguments)` in one of the threads."""
        future = self._threads.submit(work, *arguments, **named)
        return await asyncio.wrap_future(future)

    def opened(self, count: int) -> None:
        """So many streams or arrays were opened to describe a page."""
        self._telemetry.listed(opened=count)

    async def closing(self, _app: web.Application) -> AsyncIterator[None]:
        """A cleanup context of the application."""
        yield
        self._threads.shutdown(wait=False, cancel_futures=True)
