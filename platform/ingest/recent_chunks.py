"""The chunks that were taken in lately: what a repetition is known by."""

import asyncio

from ..key_table import KeyTable

REMEMBERED_CHUNKS = 100_000


class RecentChunks:
    """The futures of chunks on their way to the bus, and the keys of the last 100,000 that became durable.

    Memory: that of `KeyTable`, 4 MiB, and about 300 bytes for a chunk on its way, as many as the gateway's
    budget allows.
    """

    def __init__(self) -> None:
        self._on_their_way: dict[bytes, asyncio.Future[None]] = {}
        self._stored = KeyTable(REMEMBERED_CHUNKS)

    def find(self, key: bytes) -> asyncio.Future[None] | None:
        """What becomes, or became, of the chunk of that key; None: it is new, or has failed."""
        future = self._on_their_way.get(key)
        if future is not None:
            # Done, but its callback has not run: whether it has failed is known already.
            return None if future.done() and _has_failed(future) else future
        if key not in self._stored:
            return None
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    def remember(self, key: bytes, future: asyncio.Future[None]) -> None:
        """A chunk of that key is on its way to the bus; `future` ends as it does."""

        def ended(done: asyncio.Future[None]) -> None:
            if self._on_their_way.get(key) is done:
                del self._on_their_way[key]
            if not _has_failed(done):
                self._stored.add(key)

        self._on_their_way[key] = future
        future.add_done_callback(ended)

    def clear(self) -> None:
        """Forgets all of them."""
        self._on_their_way.clear()
        self._stored = KeyTable(REMEMBERED_CHUNKS)


def _has_failed(done: asyncio.Future[None]) -> bool:
    return done.cancelled() or done.exception() is not None
