"""The chunks that were taken in recently, by key: what a repetition is known by."""

from typing import Generic, TypeVar

from ..key_table import KeyTable

REMEMBERED_CHUNKS = 100_000

P = TypeVar("P")


class RecentChunks(Generic[P]):
    """The pending chunks, and the keys of the last 100,000 that became durable.

    A chunk that failed is forgotten: its retry is new. `P` is what stands for a pending chunk.

    Memory: that of `KeyTable`, 4 MiB, and about 300 bytes for each pending chunk; the gateway's budget bounds
    their number.
    """

    def __init__(self) -> None:
        self._pending: dict[bytes, P] = {}
        self._stored = KeyTable(REMEMBERED_CHUNKS)

    def pending(self, key: bytes) -> P | None:
        """The pending chunk of that key."""
        return self._pending.get(key)

    def is_stored(self, key: bytes) -> bool:
        """Whether a chunk of that key became durable."""
        return key in self._stored

    def add_pending(self, key: bytes, chunk: P) -> None:
        """A chunk of that key is on its way to the bus; `remove_pending` must follow."""
        self._pending[key] = chunk

    def remove_pending(self, key: bytes, chunk: P, *, is_stored: bool) -> None:
        """The chunk has ended; `is_stored` says whether it is durable."""
        if self._pending.get(key) is chunk:
            del self._pending[key]
        if is_stored:
            self._stored.add(key)

    def clear(self) -> None:
        """Forgets all of them."""
        self._pending.clear()
        self._stored = KeyTable(REMEMBERED_CHUNKS)
