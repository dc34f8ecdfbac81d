"""A bus in memory whose partitions change owners all the time, with and without revocation.

The logs are lists; the rules are those of `Consumer` and `AssignmentListener`: one call of a listener at a
time, no message of a partition before `assigned` has returned for it nor after `revoked` was called. It often
does what a cluster may do in addition:

- `hand_over`: asks the owner to give a partition back, then gives it to another consumer;
- `bereave`: gives it to another consumer while the owner still has it, and notifies the owner later;
- `give_too_late`: gives it to the other one only after the owner has it again.
"""

import asyncio
import random
import zlib
from collections.abc import Collection, Mapping

from windvane.bus.interface import (
    DEFAULT_POLL_BYTES,
    AssignmentListener,
    Buffer,
    Bus,
    BusMessage,
    Consumer,
    Durability,
    Producer,
    TopicPartition,
)
from windvane.errors import BusUnavailable, PartitionHalted

_MOST_AT_ONCE = 3


class _Producer(Producer):
    max_message_bytes = 1 << 20

    def __init__(self, logs: "Logs") -> None:
        self._logs = logs

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        partition = self._logs.partition_of(topic, key)
        log = self._logs.messages.setdefault(partition, [])
        log.append(BusMessage(partition, len(log), key, b"".join(value)))
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(len(log) - 1)
        return done

    @property
    def pending_bytes(self) -> int:
        return 0

    async def close(self) -> None:
        pass


class TurbulentConsumer(Consumer):
    """Gives a few messages at a time of each partition that it was assigned."""

    def __init__(self, logs: "Logs", listener: AssignmentListener) -> None:
        self._logs = logs
        self._listener = listener
        self._calling = asyncio.Lock()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self.closed = False

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        return {}

    @property
    def assigned(self) -> set[TopicPartition]:
        return set(self._positions)

    async def give(self, partition: TopicPartition) -> None:
        async with self._calling:
            if not self.closed:
                starts = await self._listener.assigned([partition])
                self._paused.discard(partition)
                self._positions[partition] = max(starts.get(partition) or 0, 0)

    async def take_away(self, partition: TopicPartition) -> None:
        async with self._calling:
            if self._positions.pop(partition, None) is not None:
                await self._listener.revoked([partition])

    def subscribe(self, topics: Collection[str]) -> None:
        pass

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        while True:
            messages: list[BusMessage] = []
            for partition, position in self._positions.items():
                if partition not in self._paused:
                    log = self._logs.messages.get(partition, [])
                    some = log[position : position + random.randint(1, _MOST_AT_ONCE)]
                    self._positions[partition] += len(some)
                    messages += some
            if messages or asyncio.get_running_loop().time() >= deadline_s:
                return messages
            await asyncio.sleep(0.001)

    def _check(self, partitions: Collection[TopicPartition]) -> None:
        if not self._positions.keys() >= set(partitions):
            raise BusUnavailable("not assigned to this consumer (any more)")

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        self._check([topic_partition])
        self._positions[topic_partition] = max(offset, 0)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._check(partitions)
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        self._paused.difference_update(partitions)

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        await asyncio.sleep(0)

    async def lag(self) -> dict[TopicPartition, int]:
        return {p: len(self._logs.messages.get(p, [])) - at for p, at in self._positions.items()}

    async def close(self) -> None:
        async with self._calling:
            self.closed = True
            gone, self._positions = sorted(self._positions), {}
            if gone:
                await self._listener.revoked(gone)


class Logs:
    """What all buses of a test share: the messages, and who has which partition."""

    def __init__(self) -> None:
        self.topics: dict[str, int] = {}
        self.messages: dict[TopicPartition, list[BusMessage]] = {}
        self.consumers: list[TurbulentConsumer] = []

    def partition_of(self, topic: str, key: bytes) -> TopicPartition:
        """Returns the current partition of a message with the key."""
        return TopicPartition(topic, zlib.crc32(key) % self.topics[topic])

    def partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, n) for topic, count in self.topics.items() for n in range(count)]

    def _owners(self, partition: TopicPartition) -> list[TurbulentConsumer]:
        return [each for each in self.consumers if partition in each.assigned]

    async def hand_over(self, partition: TopicPartition, to: TurbulentConsumer) -> None:
        for owner in self._owners(partition):
            await owner.take_away(partition)
        await to.give(partition)

    async def bereave(self, partition: TopicPartition, to: TurbulentConsumer, *, told_after_s: float) -> None:
        before = [owner for owner in self._owners(partition) if owner is not to]
        if not self._owners(partition) or before:
            await to.give(partition)
        await asyncio.sleep(told_after_s)
        for owner in before:
            await owner.take_away(partition)

    async def give_too_late(self, partition: TopicPartition, to: TurbulentConsumer) -> None:
        if to not in self._owners(partition):
            await to.give(partition)
            await to.take_away(partition)


class TurbulentBus(Bus):
    """One process's view of the logs."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._consumers: list[TurbulentConsumer] = []

    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        self._logs.topics[topic] = max(partitions, self._logs.topics.get(topic, 0))

    async def topics(self) -> dict[str, int]:
        return dict(self._logs.topics)

    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        return {topic: f"turbulent:{topic}" for topic in topics if topic in self._logs.topics}

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        return {
            at: len(self._logs.messages.get(at, [])) for at in self._logs.partitions() if at.topic in topics
        }

    def partition_of(self, key: bytes, partitions: int) -> int:
        return zlib.crc32(key) % partitions

    async def prepare(self, *, groups: Collection[str]) -> None:
        pass

    def producer(self) -> Producer:
        return _Producer(self._logs)

    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        consumer = TurbulentConsumer(self._logs, listener)
        self._consumers.append(consumer)
        self._logs.consumers.append(consumer)
        return consumer

    async def close(self) -> None:
        for consumer in self._consumers:
            await consumer.close()
