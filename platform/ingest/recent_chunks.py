"""The chunks that were taken in lately: what a repetition is known by."""

import asyncio
from collections import OrderedDict

REMEMBERED_CHUNKS = 100_000


class RecentChunks:
    """The futures of the last 100,000 chunks that have a key.

    Memory: about 300 bytes a chunk.
    """

    def __init__(self) -> None:
        self._futures: OrderedDict[bytes, asyncio.Future[None]] = OrderedDict()

    def find(self, key: bytes) -> asyncio.Future[None] | None:
        """What becomes, or became, of the chunk of that key; None: it is new, or has failed."""
        future = self._futures.get(key)
        if future is not None and future.done() and future.exception() is not None:
            return None
        return future

    def remember(self, key: bytes, future: asyncio.Future[None]) -> None:
        """A chunk of that key is on its way to the bus; `future` ends as it does."""
        self._futures[key] = future
        if len(self._futures) > REMEMBERED_CHUNKS:
            self._futures.popitem(last=False)

    def clear(self) -> None:
        """Forgets all of them."""
        self._futures.clear()
