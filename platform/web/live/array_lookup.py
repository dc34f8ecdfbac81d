"""Finds the arrays that live subscriptions name: shared looks, in a thread, bounded by the second.

However many connections wait for an array, it is looked for once a round. Most looks end at the names of
directories (`Listing`); an array is opened when its directory is there.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import islice

from ...errors import ArrayNotFound, WindvaneError
from ...store.interface import ArrayReader, StoreEngine
from ..instrumentation import LiveArrayNotOpened, LiveLookupFailed
from ..telemetry import WebTelemetry

logger = logging.getLogger(__name__)

LOOKS_A_BATCH = 256
"""Arrays that one call of the thread looks for; the other waiting ones follow."""

MAX_LOOKS_A_ROUND = 10_000
"""Missing arrays that are looked for in one round; with more it takes several rounds."""


class WatchedArray:
    """An array that subscriptions name. `array` is None until it exists."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.array: ArrayReader | None = None


class ArrayFinder:
    """Looks for arrays: at once when a client subscribes, then once a round until they exist.

    `watched` gives what is watched now; `found` is called in the event loop when `WatchedArray.array` has
    changed.
    """

    def __init__(
        self,
        store: StoreEngine,
        telemetry: WebTelemetry,
        *,
        round_s: float,
        watched: Callable[[], Iterable[WatchedArray]],
        found: Callable[[WatchedArray], None],
    ) -> None:
        self._store = store
        self._telemetry = telemetry
        self._listing = store.listing()
        self._round_s = round_s
        self._watched = watched
        self._found = found
        self._asked: dict[WatchedArray, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()
        self._begin = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks while the context is open."""
        with ThreadPoolExecutor(1, thread_name_prefix="live-finder") as thread:
            looking = asyncio.create_task(self._run(thread))
            try:
                yield
            finally:
                looking.cancel()
                with suppress(asyncio.CancelledError):
                    await looking
                for future in self._asked.values():
                    future.cancel()

    async def look(self, watched: WatchedArray) -> None:
        """Returns when `watched` has been looked for once since the call. Cancelled, others still wait."""
        future = self._asked.get(watched)
        if future is None:
            future = self._asked[watched] = asyncio.get_running_loop().create_future()
            self._wake.set()
        await asyncio.shield(future)

    async def _run(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        round_at_s = loop.time() + self._round_s
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(round_at_s):
                    await self._wake.wait()
            await self._serve_asked(thread)
            if loop.time() >= round_at_s:
                as_of_s = time.monotonic()
                for part in self._round():
                    await self._look_at(part, thread, as_of_s)
                    await self._serve_asked(thread)
                round_at_s = loop.time() + self._round_s

    async def _serve_asked(self, thread: ThreadPoolExecutor) -> None:
        """The next batch of those that have just subscribed."""
        batch = list(islice(self._asked, LOOKS_A_BATCH))
        asked = [self._asked.pop(each) for each in batch]
        if not self._asked:
            self._wake.clear()
        try:
            await self._look_at(batch, thread, time.monotonic())
        finally:
            for future in asked:
                if not future.done():
                    future.set_result(None)

    def _round(self) -> Iterable[list[WatchedArray]]:
        """What this round looks at, in batches; the next round begins where this one ends."""
        watched = list(self._watched())
        if not watched:
            return
        self._begin %= len(watched)
        due = (watched[self._begin :] + watched[: self._begin])[:MAX_LOOKS_A_ROUND]
        for start in range(0, len(due), LOOKS_A_BATCH):
            batch = due[start : start + LOOKS_A_BATCH]
            self._begin += len(batch)
            yield batch

    async def _look_at(
        self, batch: Sequence[WatchedArray], thread: ThreadPoolExecutor, as_of_s: float
    ) -> None:
        if not batch:
            return
        seen = [(each, each.array) for each in batch]
        try:
            opened = await asyncio.get_running_loop().run_in_executor(thread, self._open_all, seen, as_of_s)
        except Exception as error:  # an error of one array must not end the whole feed
            self._telemetry.emit(LiveLookupFailed(repr(error)))
            return
        for watched, array in opened:
            if watched.array is None or watched.array.uid != array.uid:
                watched.array = array
                self._found(watched)

    def _open_all(
        self, batch: Sequence[tuple[WatchedArray, ArrayReader | None]], as_of_s: float
    ) -> list[tuple[WatchedArray, ArrayReader]]:
        """In the thread: the arrays that are there, of those that are missing or were replaced."""
        found: list[tuple[WatchedArray, ArrayReader]] = []
        opened = 0
        before = self._listing.directories_read_total
        for watched, array in batch:
            try:
                if array is not None and not array.replaced:
                    continue
                if not self._listing.may_have_array(watched.reference, as_of_s=as_of_s):
                    continue
                opened += 1
                found.append((watched, self._store.array(watched.reference)))
            except ArrayNotFound:
                continue
            except (WindvaneError, OSError, ValueError) as error:
                self._telemetry.emit(LiveArrayNotOpened(watched.reference, str(error)))
        self._telemetry.looked(
            looks=len(batch),
            opened=opened,
            directories=self._listing.directories_read_total - before,
        )
        return found
