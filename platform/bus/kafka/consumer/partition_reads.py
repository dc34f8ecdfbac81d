"""Where a consumer reads each of its partitions: positions, pauses, halts, and the messages fetched ahead.

aiokafka has a position of its own for each partition, from which it fetches in the background. It follows the
position here: whenever this one changes other than by reading on, the fetch restarts there.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ....errors import PartitionHalted
from ...interface import BEGINNING, BusMessage, TopicPartition
from .fetched_messages import FetchedMessages
from .group_client import GroupClient

_log = logging.getLogger(__name__)


class PartitionReads:
    """The state of reading, by partition.

    `poll_due` is set if a poll may have something to return or to do, `fetch_due` if the fetch may have.
    """

    def __init__(self, client: GroupClient) -> None:
        self.poll_due = asyncio.Event()
        self.fetch_due = asyncio.Event()
        self.halted: dict[TopicPartition, PartitionHalted] = {}
        self.paused: set[TopicPartition] = set()
        self._client = client
        self._assignment = client.assignment
        self._messages = FetchedMessages()
        self._fetched_to: dict[TopicPartition, int] = {}  # where the next fetch begins
        self._restarts: dict[TopicPartition, int] = {}

    # Positions

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read from `offset` on; ends a halt."""
        self.halted.pop(partition, None)
        self.drop_messages(partition)
        self.start(partition, offset)

    def start(self, partition: TopicPartition, offset: int) -> None:
        """Fetch from `offset` on, or from `BEGINNING`."""
        self._fetched_to[partition] = offset
        self.restart_fetch(partition)

    def pause(self, partition: TopicPartition) -> None:
        """Return no messages of the partition until `resume`."""
        self.paused.add(partition)
        self._fetched_to[partition] = self.next_offset(partition)
        self.drop_messages(partition)
        self.restart_fetch(partition)

    def resume(self, partition: TopicPartition) -> None:
        """End a pause."""
        self.paused.discard(partition)
        self.restart_fetch(partition)

    def halt(self, partition: TopicPartition, error: PartitionHalted) -> None:
        """Read the partition no further, because of this error."""
        self.halted[partition] = error
        self.restart_fetch(partition)
        self.poll_due.set()
        _log.error("reading of %s/%d has halted: %s", partition.topic, partition.partition, error)

    def end(self, partition: TopicPartition) -> None:
        """Forget the position, the pause and the halt: the partition is revoked."""
        self.paused.discard(partition)
        self.halted.pop(partition, None)
        self._fetched_to.pop(partition, None)

    def next_offset(self, partition: TopicPartition) -> int:
        """The offset of the message that a poll returns next."""
        waiting = self._messages.first_offset(partition)
        return max(self._fetched_to.get(partition, 0), 0) if waiting is None else waiting

    def fetched_to(self, partition: TopicPartition) -> int | None:
        """Where the next fetch begins; None if reading has not started."""
        return self._fetched_to.get(partition)

    def at_beginning(self) -> list[TopicPartition]:
        """Partitions to be read from `BEGINNING` on, whose first offset is not known yet."""
        return [
            partition
            for partition, offset in self._fetched_to.items()
            if offset == BEGINNING and self._client.is_fetched(partition)
        ]

    # Fetches

    def restart_fetch(self, partition: TopicPartition) -> None:
        """Set aiokafka's position to this consumer's, or pause the fetch if it must not read."""
        self._restarts[partition] = self.restarts(partition) + 1
        client = self._client.current
        if client is None or not self._client.is_fetched(partition):
            return  # the next grant does it
        at = self._client.kafka_partition(partition)
        reads = self._assignment.owns(partition) and partition in self._fetched_to
        start = self._fetched_to[partition] if reads else 0
        if start == BEGINNING:
            self.fetch_due.set()  # the fetcher finds the first offset
        if reads and start != BEGINNING and partition not in self.paused and partition not in self.halted:
            client.resume(at)
        else:
            client.pause(at)
        client.seek(at, max(start, 0))

    def restarts(self, partition: TopicPartition) -> int:
        """How often the fetch was restarted: records fetched before the last time must not be kept."""
        return self._restarts.get(partition, 0)

    def all_restarts(self) -> Mapping[TopicPartition, int]:
        """A copy of the counts of restarts; missing ones are 0."""
        return dict(self._restarts)

    # Messages

    @property
    def waiting_bytes(self) -> int:
        """The bytes of the messages that wait for a poll."""
        return self._messages.size

    def keep(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Queue fetched records for a poll, unless the partition is not read now."""
        if partition not in self._fetched_to or partition in self.paused or partition in self.halted:
            return
        self._messages.add(
            partition,
            [BusMessage(partition, each.offset, each.key or b"", each.value or b"") for each in records],
        )
        self._fetched_to[partition] = records[-1].offset + 1

    def take(self, max_bytes: int, topics: Collection[str]) -> list[BusMessage]:
        """See `FetchedMessages.take`."""
        messages = self._messages.take(max_bytes, topics)
        if messages:
            self.fetch_due.set()
        return messages

    def drop_messages(self, partition: TopicPartition) -> None:
        """Discard the messages that wait for a poll."""
        self._messages.drop(partition)
        self.fetch_due.set()
