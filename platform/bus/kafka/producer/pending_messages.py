"""The messages that a producer holds: how many bytes, until when, and their results."""

import asyncio
from collections.abc import Iterable

from ....errors import BusUnavailable, WindvaneError
from .partition_queue import MessageBatch, PublishedMessage


class PendingMessages:
    """Counts the messages that are neither durable nor failed, and resolves their futures."""

    def __init__(self, *, delivery_timeout_s: float) -> None:
        self.bytes = 0
        self._count = 0
        self._delivery_timeout_s = delivery_timeout_s
        self._latest_deadline_s = float("inf")
        self._loop = asyncio.get_running_loop()
        self._drained: asyncio.Future[None] | None = None

    def add(self, message: PublishedMessage) -> None:
        """Count a message until it is delivered or has failed."""
        self.bytes += message.size
        self._count += 1

    def limit_deadlines(self, deadline_s: float) -> None:
        """No message waits longer than until this time of the loop's clock."""
        self._latest_deadline_s = deadline_s

    def remaining_s(self, message: PublishedMessage) -> float:
        """The time until the message's deadline; 0 or negative after it."""
        deadline_s = min(message.at_s + self._delivery_timeout_s, self._latest_deadline_s)
        return deadline_s - self._loop.time()

    def deliver(self, batch: MessageBatch, first_offset: int) -> None:
        """All messages of the batch are durable; -1 if their offsets are not known."""
        for place, message in enumerate(batch.messages):
            if not message.future.done():
                message.future.set_result(first_offset + place if first_offset >= 0 else -1)
        self._remove(len(batch.messages), batch.size)

    def fail(self, messages: Iterable[PublishedMessage], error: WindvaneError) -> None:
        """The messages will not be delivered, because of this error."""
        for message in messages:
            if not message.future.done():
                message.future.set_exception(BusUnavailable(str(error)))
            self._remove(1, message.size)

    async def drain(self) -> None:
        """Wait until no message is pending."""
        while self._count:
            if self._drained is None or self._drained.done():
                self._drained = self._loop.create_future()
            await asyncio.shield(self._drained)

    def _remove(self, count: int, size: int) -> None:
        self.bytes -= size
        self._count -= count
        if not self._count and self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
