"""How much memory the chunks that are not durable yet may take, over all connections."""

import asyncio
from collections.abc import Callable

from .receive_budget import ReceiveBudget


class PendingBudget:
    """Bytes of pending chunks. Readers of chunks stop while it `is_full`, and subscribe to freed room.

    At most half of `limit_bytes` is for messages that are being received (`receiving`). They never take the
    other half: pending chunks become durable by themselves, so the budget does not stay full.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.pending_bytes = 0
        self.receiving = ReceiveBudget(limit_bytes // 2)
        self._room_waiters: set[Callable[[], None]] = set()

    @property
    def used_bytes(self) -> int:
        """Bytes of pending chunks and of messages that are being received."""
        return self.pending_bytes + self.receiving.used_bytes

    @property
    def is_full(self) -> bool:
        """Whether more is pending than the gateway may hold."""
        receiving = self.receiving
        return self.pending_bytes >= self.limit_bytes - min(receiving.used_bytes, receiving.limit_bytes)

    def charge(self, size_bytes: int) -> None:
        """Counts bytes of a pending chunk; `release` gives them back."""
        self.pending_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Gives back bytes that were charged; wakes those who wait for room."""
        self.pending_bytes -= size_bytes
        if self._room_waiters and self.pending_bytes < 3 * self.limit_bytes // 4:
            waiters, self._room_waiters = self._room_waiters, set()
            loop = asyncio.get_running_loop()
            for callback in waiters:
                # Not at once: who releases is often in the middle of reading a connection of its own.
                loop.call_soon(callback)

    def when_room(self, callback: Callable[[], None]) -> None:
        """Calls `callback` once, when a quarter of the budget is free again."""
        self._room_waiters.add(callback)
