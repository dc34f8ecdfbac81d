"""The buffer of messages that were fetched ahead of a poll, by partition."""

from collections import deque
from collections.abc import Collection, Iterable

from ...interface import BusMessage, TopicPartition


class FetchedMessages:
    """Queues of messages, from which each partition gets an equal share of a poll's bytes.

    Memory: the messages; `size` is the bytes of their keys and values.
    """

    def __init__(self) -> None:
        self.size = 0
        self._queues: dict[TopicPartition, deque[BusMessage]] = {}
        self._turn = 0

    def add(self, partition: TopicPartition, messages: Iterable[BusMessage]) -> None:
        """Append messages to the queue of their partition."""
        queue = self._queues.setdefault(partition, deque())
        for message in messages:
            queue.append(message)
            self.size += _size(message)

    def drop(self, partition: TopicPartition) -> None:
        """Discard all messages of a partition."""
        for message in self._queues.pop(partition, ()):
            self.size -= _size(message)

    def first_offset(self, partition: TopicPartition) -> int | None:
        """The offset of the partition's next message; None if its queue is empty."""
        queue = self._queues.get(partition)
        return queue[0].offset if queue else None

    def take(self, max_bytes: int, topics: Collection[str]) -> list[BusMessage]:
        """Take from each partition of `topics` in turn an equal share of what its predecessors have left.

        Returns at most `max_bytes`, or one larger message.
        """
        ready = [at for at, queue in self._queues.items() if queue and at.topic in topics]
        if not ready:
            return []
        self._turn += 1
        first = self._turn % len(ready)
        messages: list[BusMessage] = []
        remaining = max_bytes
        for place, partition in enumerate(ready[first:] + ready[:first]):
            share = remaining // (len(ready) - place)
            queue = self._queues[partition]
            taken = 0
            while queue:
                size = _size(queue[0])
                # Its first message may use the shares of later partitions.
                if messages and taken + size > (share if taken else remaining):
                    break
                taken += size
                messages.append(queue.popleft())
            remaining -= taken
            self.size -= taken
            if remaining <= 0:
                break
        return messages


def _size(message: BusMessage) -> int:
    return len(message.key) + len(message.value)
