"""Whether a connection is read: its window, the gateway's memory, and what else it must wait for."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from ..limits.pending_budget import PendingBudget

# Why a connection is not read; it is read again when no reason is left.
WINDOW, MEMORY, WRITES, ENDING, WORK, TURN = 1, 2, 4, 8, 16, 32
"""The window or the gateway's budget is full; no room for the rest of a message; the forwarder does not read
its acks; it is being closed; a large chunk is being decided; other connections have their turn."""

TEMPORARY = WINDOW | MEMORY | WORK | TURN
"""Reasons after which the bytes that were received are taken in."""


class IncompleteMessage(Protocol):
    """The reader of a connection, as far as its memory is concerned."""

    def settle(self) -> int:
        """Bytes of memory that the incomplete message holds or needs next."""

    def compact(self) -> None:
        """Gives back memory that is not needed."""


class FlowControl:
    """Pauses and resumes the transport of one connection.

    A connection is paused while `window_bytes` of it, or more than the gateway's budget in all, are pending,
    and while the budget has no room for the rest of a large message. It resumes at half of the window.
    `take_in` is called before reading resumes: bytes that were received wait in the reader.
    """

    def __init__(self, budget: PendingBudget, *, window_bytes: int, take_in: Callable[[], None]) -> None:
        self.reasons = 0
        self.in_flight_chunks = 0
        self.transport: asyncio.Transport | None = None
        self.incomplete_bytes = 0
        """Bytes of an incomplete message that the gateway's budget knows of."""
        self._budget = budget
        self._window_bytes = window_bytes
        self._in_flight_bytes = 0
        self._wanted_bytes = 0
        self._take_in = take_in

    @property
    def window_bytes(self) -> int:
        """Bytes of the connection that may be pending."""
        return self._window_bytes

    def add(self, size_bytes: int) -> None:
        """A chunk of the connection is pending."""
        self.in_flight_chunks += 1
        self._in_flight_bytes += size_bytes

    def grow(self, more_bytes: int) -> None:
        """A pending chunk counts for more than before."""
        self._in_flight_bytes += more_bytes
        self.pause_if_full()

    def remove(self, size_bytes: int) -> None:
        """A chunk is not pending any more."""
        self.in_flight_chunks -= 1
        self._in_flight_bytes -= size_bytes

    def resume_window(self) -> None:
        """Resumes reading if half of the window is free."""
        if self.reasons & WINDOW and self._in_flight_bytes < self._window_bytes // 2:
            self._resume_if_room()

    def pause_if_full(self) -> None:
        """Pauses if the window or the budget is full."""
        budget = self._budget
        if (self._in_flight_bytes >= self._window_bytes or budget.is_full) and not self.reasons & WINDOW:
            self.pause(WINDOW)
            if budget.is_full:
                budget.when_room(self._resume_if_room)

    def _resume_if_room(self) -> None:
        if not self.reasons & WINDOW or self.reasons & ENDING:
            return
        if self._budget.is_full:
            self._budget.when_room(self._resume_if_room)
        elif self._in_flight_bytes < self._window_bytes:
            self.resume(WINDOW)

    def ask_for_room(self, reader: IncompleteMessage, incomplete_bytes: int) -> None:
        """Tells the budget what the incomplete message needs; pauses until there is room for it."""
        receiving = self._budget.receiving
        if not receiving.ask(self, incomplete_bytes):
            reader.compact()
            incomplete_bytes = reader.settle()
            if not receiving.ask(self, incomplete_bytes):
                self._wanted_bytes = incomplete_bytes
                self.pause(MEMORY)
                return
        self.incomplete_bytes = incomplete_bytes

    def admitted(self) -> None:
        """There is room for the rest of the message."""
        self.incomplete_bytes = self._wanted_bytes
        self.resume(MEMORY)

    @property
    def blocks_others(self) -> bool:
        """Whether the incomplete message holds memory that other connections wait for."""
        return bool(self.incomplete_bytes) and self._budget.receiving.is_short

    def yield_turn(self) -> None:
        """Yields to other connections; resumes in the next turn of the event loop."""
        self.pause(TURN)
        asyncio.get_running_loop().call_soon(self.resume, TURN)

    def pause(self, reason: int) -> None:
        """Stops reading for `reason`."""
        if not self.reasons and self.transport is not None:
            self.transport.pause_reading()
        self.reasons |= reason

    def resume(self, reason: int) -> None:
        """Resumes reading if no other reason is left."""
        if self.reasons & reason:
            self.reasons &= ~reason
            if not self.reasons:
                self._take_in()
            if not self.reasons and self.transport is not None:
                self.transport.resume_reading()

    def close(self) -> None:
        """The connection has ended."""
        self.transport = None
        self._budget.receiving.forget(self)
        # A method of the connection would keep it, and its buffer, until Python looks for cycles.
        self._take_in = _nothing


def _nothing() -> None:
    pass
