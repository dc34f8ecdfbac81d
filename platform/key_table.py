"""Which keys were seen lately, in a table of fixed size: what repetitions of chunks are known by."""

KEY_BYTES = 16
SLOTS = 32
"""Keys in a bucket."""

SLOTS_A_KEY = 2.6
"""Slots for each key that is to be remembered: so that a bucket is seldom full of younger ones."""

_BUCKET_BYTES = SLOTS * KEY_BYTES
_NO_KEY = b"\0" * KEY_BYTES


class KeyTable:
    """The last `remembered` keys, or a little more.

    A key has its place in one bucket of 32 slots; in a full bucket it replaces the oldest. Keys are hashes,
    so about 12 of the last ones fall into a bucket: one key in a million is forgotten earlier.

    Memory: 42 bytes for each key that is to be remembered, from the beginning. (An object for each key grows
    by 200 to 340 bytes a chunk until the window is full, for hours if chunks are few.)
    """

    def __init__(self, remembered: int) -> None:
        self._buckets = max(1, round(remembered * SLOTS_A_KEY / SLOTS))
        # Not bytearray(size): the kernel would give its pages one by one, as growth.
        self._table = bytearray(_NO_KEY) * (self._buckets * SLOTS)
        self._next_slots = bytearray(self._buckets)

    def __contains__(self, key: bytes) -> bool:
        return self._find(key, self._bucket(key)) >= 0

    def add(self, key: bytes) -> None:
        """Take a key of `KEY_BYTES` bytes that are evenly distributed; once more has no effect."""
        bucket = self._bucket(key)
        if self._find(key, bucket) >= 0:
            return
        slot = self._next_slots[bucket]
        self._next_slots[bucket] = (slot + 1) % SLOTS
        at = bucket * _BUCKET_BYTES + slot * KEY_BYTES
        self._table[at : at + KEY_BYTES] = key

    def discard(self, key: bytes) -> None:
        """Forget the key, if it is known."""
        if (at := self._find(key, self._bucket(key))) >= 0:
            self._table[at : at + KEY_BYTES] = _NO_KEY

    def _find(self, key: bytes, bucket: int) -> int:
        first = bucket * _BUCKET_BYTES
        end = first + _BUCKET_BYTES
        at = self._table.find(key, first, end)
        while at >= 0 and (at - first) % KEY_BYTES:  # across two keys
            at = self._table.find(key, at + 1, end)
        return at

    def _bucket(self, key: bytes) -> int:
        return int.from_bytes(key[:4], "little") % self._buckets
