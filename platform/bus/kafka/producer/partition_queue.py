"""The queue of one partition, and the batches that are taken from it."""

import asyncio
from collections import deque

import msgspec

from ...interface import Buffer
from .record_batches import RecordBatch


class PublishedMessage(msgspec.Struct, frozen=True, gc=False):
    """A message that is neither durable nor failed; `future` gets its offset."""

    key: bytes
    value: tuple[Buffer, ...]
    size: int
    future: asyncio.Future[int]
    at_s: float


class MessageBatch:
    """Messages of one partition that are sent together."""

    def __init__(self, compression: str) -> None:
        self.records = RecordBatch(compression)
        self.messages: list[PublishedMessage] = []
        self.size = 0

    def add(self, message: PublishedMessage) -> None:
        """Append a message."""
        self.records.add(message.key, message.value)
        self.messages.append(message)
        self.size += message.size


class PartitionQueue:
    """Messages of one partition, in the order in which they are published."""

    def __init__(self, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self.messages: deque[PublishedMessage] = deque()
        self.is_sending = False
        self._max_batch_messages: int | None = None

    def next_batch(self, max_bytes: int, compression: str) -> MessageBatch:
        """Take as many messages as fit into `max_bytes`, and at least one."""
        batch = MessageBatch(compression)
        queue = self.messages
        while queue and (
            not batch.messages
            or (batch.size + queue[0].size <= max_bytes and len(batch.messages) != self._max_batch_messages)
        ):
            batch.add(queue.popleft())
        return batch

    def restore(self, batch: MessageBatch) -> None:
        """Return the messages of a batch to the front: the broker has not written it."""
        self.messages.extendleft(reversed(batch.messages))

    def send_singly(self) -> None:
        """Take one message a batch from now on: the topic has rejected a larger batch."""
        self._max_batch_messages = 1
