"""One chunk on its way through the gateway, and all that it holds until its end."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Any

from .chunk import IncomingChunk, charge
from .limits.off_loop import Turn
from .limits.pending_budget import PendingBudget
from .recent_chunks import RecentChunks


class Submission:
    """A chunk on its way; awaiting it returns or raises what `Gateway.submit` says.

    It owns what the chunk holds, and gives each back exactly once, whatever happens:

    - its bytes of the pending budget and its key among the recent chunks at its end, which is the first call
      of `succeed` or `fail`;
    - its turn among the chunks of its tag once it is decided (`decided`), at its end at the latest.

    Cancelling a task that awaits a submission does not take the chunk back. Callbacks run within the call
    that ends the submission, so that an ack needs no further turn of the event loop.
    """

    __slots__ = (
        "_budget",
        "_callbacks",
        "_charged_bytes",
        "_error",
        "_key",
        "_on_decided",
        "_recent",
        "chunk",
        "is_decided",
        "is_ended",
        "turn",
        "waits_for_rate",
        "window_bytes",
    )

    def __init__(
        self, chunk: IncomingChunk, budget: PendingBudget, turn: Turn, *, charged_bytes: int | None = None
    ) -> None:
        if charged_bytes is None:
            charged_bytes = charge(chunk.payload, chunk.chunk_id)
        self.chunk = chunk
        self.turn = turn
        self.is_decided = False
        """Whether the chunk is published, waits for its rate, or is rejected."""
        self.is_ended = False
        self.waits_for_rate = False
        """Its sender must wait too."""
        self.window_bytes = charged_bytes
        """What the chunk counts for in the window of its connection, which may raise it."""
        self._budget = budget
        self._charged_bytes = charged_bytes
        budget.charge(charged_bytes)
        self._error: BaseException | None = None
        self._key: bytes | None = None
        self._recent: RecentChunks[Submission] | None = None
        self._on_decided: Callable[[], None] | None = None
        self._callbacks: list[Callable[[Submission], object]] = []

    def part(self, chunk: IncomingChunk) -> "Submission":
        """A part of this chunk that is decided by itself, in the same turn; its bytes are charged already."""
        return Submission(chunk, self._budget, self.turn, charged_bytes=0)

    def charge(self, size_bytes: int) -> None:
        """Charges more memory, which was made from the chunk, until the end."""
        if not self.is_ended:
            self._charged_bytes += size_bytes
            self._budget.charge(size_bytes)

    def remember(self, key: bytes, recent: "RecentChunks[Submission]") -> None:
        """Makes the chunk known by `key`: while it is pending, and once it is durable."""
        self._key, self._recent = key, recent
        recent.add_pending(key, self)

    def decided(self) -> None:
        """Ends the turn: the next chunk of the tag may continue."""
        if not self.is_decided:
            self.is_decided = True
            self.turn.end()
            if self._on_decided is not None:
                asyncio.get_running_loop().call_soon(self._on_decided)
                self._on_decided = None

    def when_decided(self, callback: Callable[[], None]) -> None:
        """Calls `callback` in a turn of the event loop after the decision; there is one callback."""
        assert not self.is_decided
        self._on_decided = callback

    def succeed(self) -> None:
        """Ends it: the chunk is durable."""
        self._end(None)

    def fail(self, error: BaseException) -> None:
        """Ends it: the chunk was rejected, or could not be taken."""
        self._end(error)

    def end_as(self, other: "Submission | asyncio.Future[Any]") -> None:
        """Ends it as `other` has ended."""
        self._end(other.exception())

    def end_with(self, parts: Sequence["Submission"]) -> None:
        """Ends it once all parts have ended; with the first error, if there is one."""
        unended = len(parts)

        def part_ended(_: Submission) -> None:
            nonlocal unended
            unended -= 1
            if not unended:
                self._end(next((part.exception() for part in parts if part.exception() is not None), None))

        for part in parts:
            part.add_done_callback(part_ended)

    def _end(self, error: BaseException | None) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self._error = error
        self._budget.release(self._charged_bytes)
        if self._recent is not None and self._key is not None:
            self._recent.remove_pending(self._key, self, is_stored=error is None)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception as failure:  # of one connection: others may wait for the same chunk
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a callback of a submission failed", "exception": failure}
                )

    def done(self) -> bool:
        """Whether it has ended."""
        return self.is_ended

    def exception(self) -> BaseException | None:
        """Why the chunk is not durable; None if it is. Only after the end."""
        if not self.is_ended:
            raise asyncio.InvalidStateError("the submission has not ended")
        return self._error

    def add_done_callback(self, callback: "Callable[[Submission], object]") -> None:
        """Calls `callback` at the end; at once if that has come."""
        if self.is_ended:
            callback(self)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, None]:
        if not self.is_ended:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if waiter.done() else waiter.set_result(None))
            yield from waiter
        if self._error is not None:
            raise self._error
