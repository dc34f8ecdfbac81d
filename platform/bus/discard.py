"""The engine that stores nothing: it reports each message as durable at once, and no consumer gets one.

For benchmarks of the stages ahead of the bus.
"""

import asyncio
import uuid
import zlib
from collections.abc import Collection, Mapping

from ..errors import BusUnavailable, PartitionHalted
from .interface import (
    DEFAULT_POLL_BYTES,
    MAKE_TOPICS,
    AssignmentListener,
    Buffer,
    Bus,
    BusMessage,
    Consumer,
    Durability,
    Producer,
    TopicPartition,
)


class DiscardProducer(Producer):
    """Counts messages, and resolves at once."""

    max_message_bytes = 256 * 1024 * 1024

    def __init__(self, next_offsets: dict[str, list[int]]) -> None:
        self._next_offsets = next_offsets
        self._loop = asyncio.get_running_loop()
        self._closed = False

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`."""
        future = self._loop.create_future()
        offsets = self._next_offsets.get(topic)
        if offsets is None or self._closed:
            future.set_exception(
                BusUnavailable(
                    "the producer is closed"
                    if self._closed
                    else f"there is no topic {topic!r} on the bus; {MAKE_TOPICS}"
                )
            )
            return future
        partition = zlib.crc32(key) % len(offsets)
        future.set_result(offsets[partition])
        offsets[partition] += 1
        return future

    @property
    def pending_bytes(self) -> int:
        """Always 0."""
        return 0

    async def close(self) -> None:
        """See `Producer.close`."""
        self._closed = True


class DiscardConsumer(Consumer):
    """Waits until the timeout and returns nothing; no partition is ever assigned to it."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """Always empty."""
        return {}

    def subscribe(self, topics: Collection[str]) -> None:
        """See `Consumer.subscribe`."""

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """Nothing, at the timeout."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._closed.wait()
        except TimeoutError:
            pass
        return []

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """Always `BusUnavailable`."""
        raise BusUnavailable("a bus that discards has nothing to read")

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """`BusUnavailable` for any partition."""
        if partitions:
            raise BusUnavailable("a bus that discards has nothing to read")

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """Nothing was paused."""

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """`BusUnavailable` for any position."""
        if positions:
            raise BusUnavailable("a bus that discards has nothing to read")

    async def lag(self) -> dict[TopicPartition, int]:
        """Always empty."""
        return {}

    async def close(self) -> None:
        """See `Consumer.close`."""
        self._closed.set()


class DiscardBus(Bus):
    """Holds the number of messages of each partition, in memory."""

    def __init__(self) -> None:
        self._next_offsets: dict[str, list[int]] = {}
        self._uid = uuid.uuid4().hex
        self._consumers: list[DiscardConsumer] = []

    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """See `Bus.ensure_topic`."""
        offsets = self._next_offsets.setdefault(topic, [])
        offsets += [0] * (partitions - len(offsets))

    async def topics(self) -> dict[str, int]:
        """See `Bus.topics`."""
        return {topic: len(offsets) for topic, offsets in sorted(self._next_offsets.items())}

    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """See `Bus.log_ids`; another one each time that the bus is opened."""
        return {topic: f"discard:{self._uid}:{topic}" for topic in topics if topic in self._next_offsets}

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """See `Bus.ends`: how many messages each partition was given."""
        return {
            TopicPartition(topic, partition): end
            for topic in topics
            for partition, end in enumerate(self._next_offsets.get(topic, ()))
        }

    def partition_of(self, key: bytes, partitions: int) -> int:
        """See `Bus.partition_of`."""
        return zlib.crc32(key) % partitions

    async def prepare(self, *, groups: Collection[str]) -> None:
        """There is nothing to recover, and nothing to keep."""

    def producer(self) -> Producer:
        """See `Bus.producer`."""
        return DiscardProducer(self._next_offsets)

    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """See `Bus.consumer`."""
        consumer = DiscardConsumer()
        self._consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        """See `Bus.close`."""
        for consumer in self._consumers:
            await consumer.close()
