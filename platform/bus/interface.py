"""What every bus engine offers: topics, a producer, consumers in groups.

A bus is a set of topics; a topic has partitions; a partition is a log of messages numbered by offset. The
engines (`embedded/`, `kafka/`, `discard.py`) differ in where they store the log, not in what they guarantee.
This file states the guarantees; `platform/testing/bus/` checks them for each engine.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from ..errors import PartitionHalted, WindvaneError

Buffer: TypeAlias = bytes | bytearray | memoryview
"""A piece of a message's value: contiguous bytes."""

Durability: TypeAlias = Literal["fsync", "written"]
"""What a publish waits for: the message survives a power cut, or it survives the end of the process."""

WORKER_GROUP = "windvane-worker"
"""The consumer group of the workers."""

DEFAULT_POLL_BYTES = 4 * 1024 * 1024

BEGINNING = -1
"""As an offset to start at: the first message that the log still has."""

MAKE_TOPICS = "`windvane topics apply` creates the topics of all policies"
"""The next step for the user if a topic is missing."""


class TopicPartition(NamedTuple):
    """One log: a partition of a topic, partitions counted from 0."""

    topic: str
    partition: int


class BusMessage(msgspec.Struct, frozen=True, gc=False):
    """One message as it is read: its position, and the key and value as published, byte for byte."""

    topic_partition: TopicPartition
    offset: int
    key: bytes
    value: bytes


class AssignmentListener(Protocol):
    """Receives the assignments and revocations of a consumer's partitions.

    Engines may call it at any await of an open consumer, with one call at a time. They return no message of a
    partition before `assigned` has returned for it, nor after `revoked` was called. After a poll that failed
    or was cancelled, they may call `assigned` again for the same partitions. It must not poll or close the
    consumer.
    """

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Take responsibility for the partitions, and return the offset to start reading each one at.

        `BEGINNING` means the first message that the log still has. None, or a partition missing from the
        result, means the group's committed position, or the beginning of the log if it has none.
        """

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish work on the partitions: on return another consumer of the group may read them.

        The consumer's `commit` still works for them until this returns.
        """


class Producer(ABC):
    """Publishes messages. Belongs to one event loop and must be used from its thread."""

    max_message_bytes: int
    """Limit on the bytes of key and value of one message together; callers split larger chunks."""

    @abstractmethod
    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """Queue one message and return at once; the future resolves with its offset once it is durable.

        The value is the concatenation of its pieces, which must not change until the future is done. Messages
        with the same key go to the same partition (while the topic's partition count is constant). Within a
        partition, messages that succeed keep the order in which they were published. Cancelling the future
        does not withdraw the message.

        With `durability="written"` the future resolves as soon as the operating system has the message, if
        the engine supports that; soon afterwards the message is durable and consumers can read it.

        The future fails with `BusUnavailable` if the message could not be made durable (the log may still
        contain it, at most once for each publish); the caller may publish again at once. Raises `ValueError`
        for a message over `max_message_bytes`.
        """

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Exact count of the bytes of keys and values of messages that are neither durable nor failed yet."""

    @abstractmethod
    async def close(self) -> None:
        """Wait until every published message is durable or has failed, then accept no more."""


class Consumer(ABC):
    """Reads messages for a consumer group. Belongs to one event loop; one `poll` at a time.

    A partition is assigned to at most one consumer of a group at a time, over all processes.
    """

    @property
    @abstractmethod
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """Assigned partitions whose reading has halted, each with the reason; all others are still read.

        A message is damaged (`MessagesDamaged`, a `BusCorrupt`), the position is outside the log
        (`MessagesGone`, a `RangeGone`), the log is not the one of the assignment (`LogReplaced`), or the
        disk cannot read it (`PartitionUnreadable`, which ends by itself once the disk works again).
        The position does not change, and all messages before it have been returned. `seek` ends the halt; so
        does a new assignment of the partition.
        """

    @abstractmethod
    def subscribe(self, topics: Collection[str]) -> None:
        """Replace the subscription by these topics; may be called again at any time.

        The consumer reads a topic that does not exist yet as soon as it does. The subscription takes effect,
        with the calls of the listener, during the polls that follow.
        """

    @abstractmethod
    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """Wait up to `timeout_s` for messages and return those available, none at the timeout.

        Returns only durable messages, those of a partition in offset order without a gap. They have at most
        `max_bytes` together; a message larger than that is returned alone. The partitions that have messages
        get equal shares of the bytes. A cancelled poll loses nothing: the next one returns what it had read.

        Skips partitions in `halted`; a poll during which one is halted returns early. Raises `BusUnavailable`
        if the bus cannot deliver messages now.
        """

    @abstractmethod
    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """Continue at `offset`, or at `BEGINNING`, with the next poll; ends a halt.

        Raises `BusUnavailable` if the partition is not assigned to this consumer.
        """

    @abstractmethod
    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Return no messages of these partitions until `resume`, or until they are assigned again.

        They remain assigned. A poll in progress may still return messages of them. Raises `BusUnavailable`
        if one is not assigned to this consumer.
        """

    @abstractmethod
    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Return their messages again, from the position at the pause on.

        Skips partitions that are not paused, or no longer assigned to this consumer.
        """

    @abstractmethod
    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Store the group's positions: for each partition the offset of the next message to read.

        They determine where the group's next consumer starts if its listener gives no other offset, the lag
        that other tools report, and retention. Raises `BusUnavailable` if a partition is not assigned to this
        consumer.
        """

    @abstractmethod
    async def lag(self) -> dict[TopicPartition, int]:
        """Count of durable messages that `poll` has not returned yet, for each assigned partition."""

    @abstractmethod
    async def close(self) -> None:
        """Release the partitions (calls `revoked`) and stop; a waiting poll returns an empty list."""


class Bus(ABC):
    """A bus, opened: see `windvane.bus.open_bus`."""

    @property
    def damaged_partitions(self) -> Mapping[TopicPartition, WindvaneError]:
        """Partitions that reject messages of this process until they are repaired; all others accept them."""
        return {}

    @abstractmethod
    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """Create the topic if it does not exist, add partitions if it has fewer; never removes anything."""

    @abstractmethod
    async def topics(self) -> dict[str, int]:
        """The topics that exist, each with its number of partitions."""

    @abstractmethod
    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """The identity of each topic's log, for those that exist: `ENGINE:…`.

        It is created with the topic. A topic that was deleted and recreated has another one; additional
        partitions do not change it. Offsets are comparable only within one log.
        """

    @abstractmethod
    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """For each partition of these topics, the offset after its last durable message.

        Topics that do not exist, and partitions whose end cannot be read now, are missing from the result.
        """

    @abstractmethod
    def partition_of(self, key: bytes, partitions: int) -> int:
        """The partition of messages with this key in a topic of `partitions` partitions; it never changes.

        The embedded log uses zlib.crc32(key) modulo `partitions`. Kafka uses the formula of its own clients:
        murmur2(key) & 0x7fffffff modulo `partitions`.
        """

    @abstractmethod
    async def prepare(self, *, groups: Collection[str]) -> None:
        """Prepare for publishing; a process calls it once, before its first message.

        Recovers the messages of a writer that crashed, so that consumers can read them before the next
        message is published. From then on retention keeps what `groups` have not read, even if none of their
        consumers has run yet. Engines that need neither do nothing.
        """

    @abstractmethod
    def producer(self) -> Producer:
        """A producer, for the running event loop."""

    @abstractmethod
    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """A consumer of the group, for the running event loop, without a subscription yet.

        `positions_of` identifies the database whose positions it commits. Positions that the group committed
        for another database are ignored: no consumer starts at them, and retention drops nothing for them.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every producer and consumer of this bus, then release files, locks and connections."""
