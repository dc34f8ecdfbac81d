"""Chunks that wait until they are within their policy's rate."""

from collections import Counter
from collections.abc import Callable

from .rate_limit import RateLimit


class RateQueue:
    """The queues of all rates together. Memory: `limit_bytes` of chunks, over all policies."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._waiting_bytes = 0
        self._waiting_by_rate: Counter[RateLimit] = Counter()
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether no chunk waits any more, since the gateway stops."""
        return self._is_open

    def has_room(self, size_bytes: int) -> bool:
        """Whether a chunk that counts for `size_bytes` may wait too."""
        return self._waiting_bytes + size_bytes <= self._limit_bytes

    def put(
        self, rate: RateLimit, *, events: int, payload_bytes: int, size_bytes: int, go: Callable[[], None]
    ) -> None:
        """Calls `go` when the rate allows the chunk, which counts for `size_bytes` while it waits."""
        self._waiting_by_rate[rate] += 1
        self._waiting_bytes += size_bytes

        def leave() -> None:
            self._waiting_by_rate[rate] -= 1
            if not self._waiting_by_rate[rate]:
                del self._waiting_by_rate[rate]
            self._waiting_bytes -= size_bytes
            go()

        rate.put_in_line(events=events, size=payload_bytes, go=leave)

    def open(self) -> None:
        """Lets all chunks go at once, and from now on every chunk."""
        self._is_open = True
        for rate in list(self._waiting_by_rate):
            rate.open()
