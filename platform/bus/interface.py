"""What every bus engine offers: topics, a producer, consumers in groups.

A bus is a set of topics; a topic has partitions; a partition is a log of messages numbered by offset. The
engines (`bus.py`, `bus.py`, `discard.py`) differ in where the log lies, not in what they promise. The
promises are written here and checked by `platform/testing/bus.py`, which every engine passes.
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
"""What a publish waits for: that no power cut takes the message, or that no end of the process does."""

WORKER_GROUP = "windvane-worker"
"""The consumer group of the workers."""

DEFAULT_POLL_BYTES = 4 * 1024 * 1024

BEGINNING = -1
"""As an offset to start at: the first message that the log still has."""


MAKE_TOPICS = "`windvane topics apply` makes the topics of all policies"
"""What to do about a topic that is missing."""


class TopicPartition(NamedTuple):
    """One log: a partition of a topic, partitions counted from 0."""

    topic: str
    partition: int


class BusMessage(msgspec.Struct, frozen=True, gc=False):
    """One message as it is read: where it stands, and what was published, byte for byte."""

    topic_partition: TopicPartition
    offset: int
    key: bytes
    value: bytes


class AssignmentListener(Protocol):
    """Told which partitions a consumer is responsible for.

    Engines may call it at any await of the consumer while the consumer is open, never twice at a time, and
    give no message of a partition before `assigned` has returned for it nor after `revoked` was called. After
    a poll that failed or was cancelled, `assigned` may come again for the same partitions. It must not poll
    or close the consumer.
    """

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Take responsibility, and say at which offset to start reading each partition.

        `BEGINNING` means the first message that the log still has. None, or a partition that is missing from
        the answer, means the group's committed position, or the beginning of the log where it has none.
        """

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Finish with the partitions: on return another consumer of the group may take them up.

        The consumer's `commit` still works for them until this returns.
        """


class Producer(ABC):
    """Publishes messages. Belongs to one event loop and must be used from its thread."""

    max_message_bytes: int
    """What key and value of one message may have together; larger chunks must be split before."""

    @abstractmethod
    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """Hand over one message and return at once; the future resolves with its offset once it is durable.

        The value may come in pieces: it is their concatenation, and need not be joined. The pieces must not
        change until the future is done. Messages with the same key go to the same partition (as long as the
        topic's partition count stays), and within a partition messages that succeed stand in the order in
        which they were published. Cancelling the future does not take the message back.

        With `durability="written"` the future resolves as soon as the message is with the operating system,
        where the engine can do that; it is made durable, and given to consumers, soon after.

        The future fails with `BusUnavailable` when the message could not be made durable (it may then still
        turn up in the log, at most once for each publish); publishing again is allowed at once. `ValueError`
        is raised for a message over `max_message_bytes`.
        """

    @property
    @abstractmethod
    def pending_bytes(self) -> int:
        """Bytes of keys and values that were published and are neither durable nor failed yet: exact."""

    @abstractmethod
    async def close(self) -> None:
        """Wait until all that was published is durable or has failed, then take no more."""


class Consumer(ABC):
    """Reads messages for a consumer group. Belongs to one event loop; one `poll` at a time.

    A partition is assigned to at most one consumer of a group at a time, over all processes.
    """

    @property
    @abstractmethod
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """Assigned partitions that cannot be read on, each with the reason; all others are read on.

        A message is damaged (`MessagesDamaged`, a `BusCorrupt`), the position lies outside the log
        (`MessagesGone`, a `RangeGone`), the log is another one than at the assignment (`LogReplaced`), or the
        disk cannot read it (`PartitionUnreadable`, which ends by itself if the disk gets well).
        The position stays, and what comes before it was given. `seek` ends the halt; a partition that is
        assigned again starts without one.
        """

    @abstractmethod
    def subscribe(self, topics: Collection[str]) -> None:
        """Read these topics from now on, instead of those before; may be called again at any time.

        A topic that does not exist yet is taken up once it does. Takes effect, with the calls of the
        listener, during the polls that follow.
        """

    @abstractmethod
    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """Wait up to `timeout_s` for messages and return those that are there, none at the timeout.

        Only durable messages are given, those of a partition in offset order without a gap. They have at most
        `max_bytes` together, except that one message larger than that comes alone. The bytes are shared out
        evenly among the partitions that have messages. A cancelled poll loses nothing: what it had read comes
        with the next one.

        Partitions in `halted` are passed over; a poll during which one is halted returns early. Raises
        `BusUnavailable` when the bus cannot give messages now.
        """

    @abstractmethod
    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`, or at `BEGINNING`, with the next poll; ends a halt.

        `BusUnavailable` where the partition is not assigned here.
        """

    @abstractmethod
    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Give no messages of these partitions, until `resume` or until they are assigned anew.

        They stay assigned. A poll that is under way may still give messages of them. `BusUnavailable` where
        one is not assigned here.
        """

    @abstractmethod
    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Give their messages again, after those that were given before the pause.

        Those that are not paused, or not assigned here any more, are passed over.
        """

    @abstractmethod
    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Keep the group's positions: for each partition the offset of the next message to read.

        Used where the group's next consumer is told no other start, for lag seen from outside, and for
        retention. `BusUnavailable` where a partition is not assigned here.
        """

    @abstractmethod
    async def lag(self) -> dict[TopicPartition, int]:
        """Messages that are durable and that `poll` has not given yet, for each assigned partition."""

    @abstractmethod
    async def close(self) -> None:
        """Give the partitions back (calls `revoked`) and stop; a poll that waits returns empty."""


class Bus(ABC):
    """A bus, opened: see `windvane.bus.open_bus`."""

    @property
    def out_of_order(self) -> Mapping[TopicPartition, WindvaneError]:
        """Partitions that take no messages from here until they are repaired; all others do."""
        return {}

    @abstractmethod
    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """Make the topic where there is none, add partitions where it has fewer; never removes anything."""

    @abstractmethod
    async def topics(self) -> dict[str, int]:
        """The topics that exist, each with its number of partitions."""

    @abstractmethod
    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """The identity of each topic's log, for those that exist: `ENGINE:…`.

        It is made with the topic. A topic that was deleted and made again has another one; more partitions
        do not change it. Offsets are comparable only within one log.
        """

    @abstractmethod
    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """For each partition of these topics, the offset after its last durable message.

        Topics that do not exist, and partitions whose end cannot be read now, are missing from the answer.
        """

    @abstractmethod
    def partition_of(self, key: bytes, partitions: int) -> int:
        """The partition of messages with this key in a topic with so many partitions; it never changes.

        The embedded log takes zlib.crc32(key) modulo `partitions`, Kafka what its own clients take:
        murmur2(key) & 0x7fffffff modulo `partitions`.
        """

    @abstractmethod
    async def prepare(self, *, groups: Collection[str]) -> None:
        """Once, by a process that is going to publish and before it does.

        What a writer that crashed left behind is recovered, so that it can be read before the next message
        comes; and retention keeps what `groups` have not read, though none of their consumers has run yet.
        Engines that see to both by themselves do nothing.
        """

    @abstractmethod
    def producer(self) -> Producer:
        """A producer, for the running event loop."""

    @abstractmethod
    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """A consumer of the group, for the running event loop, subscribed to nothing yet.

        `positions_of` identifies the database whose positions it commits. Positions that the group committed
        for another database count as none: no start is taken from them, and retention drops nothing for them.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close every producer and consumer made here, then let go of files, locks and connections."""
