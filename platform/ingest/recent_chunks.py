"""The chunks that were taken in lately: what a repetition is known by."""

import asyncio

REMEMBERED_CHUNKS = 100_000
KEY_BYTES = 16
_BUCKETS = 8192
_SLOTS = 32
_BUCKET_BYTES = _SLOTS * KEY_BYTES
_NO_KEY = b"\0" * KEY_BYTES


class StoredKeys:
    """The keys of the last 100,000 chunks that became durable, in a table of fixed size.

    A key has its place in one of 8,192 buckets of 32 slots; in a full bucket it replaces the oldest. Keys are
    hashes, so of the last 100,000 about 12 fall into a bucket: one key in a million is forgotten earlier.

    Memory: 4 MiB, from the beginning. (A future or an object for each key made the gateway grow by 340 bytes
    a chunk until it had 100,000, for hours where chunks are few.)
    """

    def __init__(self) -> None:
        # Not bytearray(size): the kernel would give its pages one by one, as growth.
        self._table = bytearray(_NO_KEY) * (_BUCKETS * _SLOTS)
        self._next_slots = bytearray(_BUCKETS)

    def __contains__(self, key: bytes) -> bool:
        first = self._bucket(key) * _BUCKET_BYTES
        end = first + _BUCKET_BYTES
        at = self._table.find(key, first, end)
        while at >= 0 and (at - first) % KEY_BYTES:  # across two keys
            at = self._table.find(key, at + 1, end)
        return at >= 0

    def add(self, key: bytes) -> None:
        """Takes a key of `KEY_BYTES` bytes that are evenly distributed; once more has no effect."""
        if key in self:
            return
        bucket = self._bucket(key)
        slot = self._next_slots[bucket]
        self._next_slots[bucket] = (slot + 1) % _SLOTS
        at = bucket * _BUCKET_BYTES + slot * KEY_BYTES
        self._table[at : at + KEY_BYTES] = key

    def _bucket(self, key: bytes) -> int:
        return int.from_bytes(key[:4], "little") % _BUCKETS


class RecentChunks:
    """The futures of chunks on their way to the bus, and the keys of the last 100,000 that became durable.

    Memory: that of `StoredKeys`, and about 300 bytes for a chunk on its way, as many as the gateway's budget
    allows.
    """

    def __init__(self) -> None:
        self._on_their_way: dict[bytes, asyncio.Future[None]] = {}
        self._stored = StoredKeys()

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
        self._stored = StoredKeys()


def _has_failed(done: asyncio.Future[None]) -> bool:
    return done.cancelled() or done.exception() is not None
