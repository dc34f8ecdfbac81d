"""Chunks that wait until they are within their policy's rate."""

import asyncio
from collections.abc import Callable

from .rate_limit import RateLimit


class HeldChunks:
    """Who waits for which rate. Memory: `limit_bytes` of chunks, over all policies."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._rates: dict[asyncio.Future[None], RateLimit] = {}
        self._is_open = False

    def __contains__(self, future: asyncio.Future[None]) -> bool:
        return future in self._rates

    @property
    def is_open(self) -> bool:
        """Nobody waits any more: the gateway stops."""
        return self._is_open

    def has_room(self, size: int) -> bool:
        """Whether a chunk that counts for `size` bytes may wait too."""
        return self._held_bytes + size <= self._limit_bytes

    def hold(
        self,
        future: asyncio.Future[None],
        rate: RateLimit,
        *,
        events: int,
        payload_bytes: int,
        size: int,
        go: Callable[[], None],
    ) -> None:
        """Calls `go` when it is the chunk's turn; `future` is that of the chunk, which counts for `size`."""
        self._rates[future] = rate
        self._held_bytes += size

        def leave() -> None:
            del self._rates[future]
            self._held_bytes -= size
            go()

        rate.put_in_line(events=events, size=payload_bytes, go=leave)

    def open(self) -> None:
        """Lets all go at once, and from now on everybody."""
        self._is_open = True
        for rate in set(self._rates.values()):
            rate.open()
