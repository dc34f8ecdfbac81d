"""`memory:NAME` is a bus in the memory of one process: for tests, and as an example of an engine.

All buses of one home and name have the same messages, until the process ends. One event loop uses them.
"""

import asyncio
import uuid
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from windvane.bus import (
    BEGINNING,
    DEFAULT_POLL_BYTES,
    AssignmentListener,
    Buffer,
    Bus,
    BusAddress,
    BusEngine,
    BusMessage,
    Consumer,
    Durability,
    Producer,
    TopicPartition,
)
from windvane.errors import BusUnavailable, LogReplaced, MessagesGone, PartitionHalted


@dataclass
class Log:
    """The messages of a partition from offset `first` on, each a key and a value."""

    first: int = 0
    messages: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The offset after the last message."""
        return self.first + len(self.messages)


@dataclass
class Topic:
    """A topic: another ID each time that it is created, and a log for each partition."""

    log_id: str = field(default_factory=lambda: f"memory:{uuid.uuid4().hex}")
    logs: list[Log] = field(default_factory=list)


@dataclass
class Cluster:
    """What all buses of one address share: topics, the positions of groups, and their consumers."""

    topics: dict[str, Topic] = field(default_factory=dict)
    positions: dict[tuple[str, str, int], tuple[str | None, int]] = field(default_factory=dict)
    """By group, log ID and partition: the database that they belong to, and the offset."""
    readers: dict[str, "MemoryConsumer"] = field(default_factory=dict)
    """The consumer of each group that reads; others of the group wait."""
    consumers: set["MemoryConsumer"] = field(default_factory=set)

    def notify(self) -> None:
        """Let waiting polls look again."""
        for consumer in self.consumers:
            consumer.changed.set()


class MemoryEngine(BusEngine):
    """Opens `memory:NAME`."""

    takes_many_gateways = False
    clusters: ClassVar[dict[tuple[Path, str], Cluster]] = {}

    def open_bus(self, address: BusAddress) -> Bus:
        """One more bus on the same messages."""
        address.options()
        return MemoryBus(self.clusters.setdefault((address.home, address.place), Cluster()))


class MemoryProducer(Producer):
    """Appends at once; the future resolves in the next turn of the event loop."""

    max_message_bytes = 16 * 1024 * 1024

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._pending_bytes = 0
        self._pending: set[asyncio.Future[int]] = set()
        self._is_closed = False

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        """See `Producer.publish`."""
        joined = b"".join(value)
        size = len(key) + len(joined)
        if size > self.max_message_bytes:
            raise ValueError(f"a message of {size} bytes must be split: at most {self.max_message_bytes}")
        future = self._loop.create_future()
        if self._is_closed:
            future.set_exception(BusUnavailable("the producer is closed; open another bus"))
        elif topic not in self._cluster.topics:
            future.set_exception(BusUnavailable(f"the topic {topic!r} does not exist; create it first"))
        else:
            logs = self._cluster.topics[topic].logs
            log = logs[zlib.crc32(key) % len(logs)]
            log.messages.append((key, joined))
            self._pending_bytes += size
            self._pending.add(future)
            self._loop.call_soon(self._resolve, future, log.end - 1, size)
            self._cluster.notify()
        return future

    def _resolve(self, future: asyncio.Future[int], offset: int, size: int) -> None:
        self._pending_bytes -= size
        self._pending.discard(future)
        if not future.done():
            future.set_result(offset)

    @property
    def pending_bytes(self) -> int:
        """See `Producer.pending_bytes`."""
        return self._pending_bytes

    async def close(self) -> None:
        """See `Producer.close`."""
        self._is_closed = True
        if self._pending:
            await asyncio.wait(self._pending)


class MemoryConsumer(Consumer):
    """Reads all partitions of its topics, if it is the consumer of its group that reads."""

    def __init__(
        self, cluster: Cluster, group: str, listener: AssignmentListener, database: str | None
    ) -> None:
        self.changed = asyncio.Event()
        self._cluster = cluster
        self._group = group
        self._listener = listener
        self._database = database
        self._topics: frozenset[str] = frozenset()
        self._log_ids: dict[TopicPartition, str] = {}  # of the assigned partitions
        self._next: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._halted: dict[TopicPartition, PartitionHalted] = {}
        self._polling = asyncio.Lock()
        self._is_closed = False
        self._turn = 0
        cluster.consumers.add(self)

    @property
    def halted(self) -> Mapping[TopicPartition, PartitionHalted]:
        """See `Consumer.halted`."""
        return dict(self._halted)

    def subscribe(self, topics: Collection[str]) -> None:
        """See `Consumer.subscribe`."""
        self._topics = frozenset(topics)
        self.changed.set()

    async def poll(self, *, max_bytes: int = DEFAULT_POLL_BYTES, timeout_s: float) -> list[BusMessage]:
        """See `Consumer.poll`. Nothing is awaited once messages are taken, so that none is lost."""
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        async with self._polling:
            if self._is_closed:
                raise BusUnavailable("the consumer is closed; open another one")
            while not self._is_closed:
                self.changed.clear()
                halted_before = len(self._halted)
                await self._assign()
                self._halt_what_is_gone()
                messages = list(self._take(max_bytes))
                if messages or len(self._halted) > halted_before:
                    return messages
                try:
                    async with asyncio.timeout_at(deadline_s):
                        await self.changed.wait()
                except TimeoutError:
                    return []
            return []

    def seek(self, topic_partition: TopicPartition, offset: int) -> None:
        """See `Consumer.seek`."""
        self._require_assigned([topic_partition])
        self._halted.pop(topic_partition, None)
        self._next[topic_partition] = self._log(topic_partition).first if offset == BEGINNING else offset
        self.changed.set()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.pause`."""
        self._require_assigned(partitions)
        self._paused.update(partitions)

    def resume(self, partitions: Collection[TopicPartition]) -> None:
        """See `Consumer.resume`."""
        self._paused.difference_update(partitions)
        self.changed.set()

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """See `Consumer.commit`."""
        self._require_assigned(positions)
        for partition, offset in positions.items():
            key = self._group, self._log_ids[partition], partition.partition
            self._cluster.positions[key] = self._database, offset

    async def lag(self) -> dict[TopicPartition, int]:
        """See `Consumer.lag`."""
        return {partition: max(0, self._log(partition).end - at) for partition, at in self._next.items()}

    async def close(self) -> None:
        """See `Consumer.close`."""
        self._is_closed = True
        self.changed.set()
        async with self._polling:
            await self._revoke(set(self._next))
            self._cluster.consumers.discard(self)
            if self._cluster.readers.get(self._group) is self:
                del self._cluster.readers[self._group]
            self._cluster.notify()

    async def _assign(self) -> None:
        """Bring the assignment in line with the subscription and the topics that exist."""
        if self._cluster.readers.setdefault(self._group, self) is not self:
            return
        exist = {
            TopicPartition(name, number): topic.log_id
            for name, topic in self._cluster.topics.items()
            if name in self._topics
            for number in range(len(topic.logs))
        }
        await self._revoke(self._next.keys() - exist.keys())
        if new := sorted(exist.keys() - self._next.keys()):
            starts = await self._listener.assigned(new)
            for partition in new:
                self._log_ids[partition] = exist[partition]
                start = starts.get(partition)
                self._next[partition] = self._committed(partition) if start is None else start
                if self._next[partition] == BEGINNING:
                    self._next[partition] = self._log(partition).first

    async def _revoke(self, partitions: Collection[TopicPartition]) -> None:
        if not partitions:
            return
        await self._listener.revoked(sorted(partitions))
        self._paused.difference_update(partitions)
        for partition in partitions:
            for by_partition in (self._next, self._log_ids, self._halted):
                by_partition.pop(partition, None)

    def _committed(self, partition: TopicPartition) -> int:
        key = self._group, self._log_ids[partition], partition.partition
        database, offset = self._cluster.positions.get(key, (self._database, BEGINNING))
        return offset if database == self._database else BEGINNING

    def _halt_what_is_gone(self) -> None:
        for partition, offset in self._next.items():
            if partition in self._halted:
                continue
            log, log_id = self._log(partition), self._cluster.topics[partition.topic].log_id
            error: type[PartitionHalted]
            if log_id != self._log_ids[partition]:
                error, cause, missing = LogReplaced, "the topic was deleted and created again", None
                self._log_ids[partition] = log_id
            elif offset < log.first:
                error, cause, missing = MessagesGone, "retention has dropped messages", log.first - offset
            elif offset > log.end:
                error, cause, missing = MessagesGone, f"the log ends at {log.end}", None
            else:
                continue
            self._halted[partition] = error(
                f"{partition.topic}/{partition.partition} cannot be read at {offset}: {cause}",
                topic=partition.topic,
                partition=partition.partition,
                offset=offset,
                resume_at=log.first,
                missing=missing,
            )

    def _take(self, max_bytes: int) -> Iterator[BusMessage]:
        """A message of each partition in turn, as long as all of them together have at most `max_bytes`."""
        ready = [each for each in self._next if each not in self._halted and each not in self._paused]
        self._turn += 1
        first = self._turn % len(ready) if ready else 0
        ready = ready[first:] + ready[:first]
        given_bytes = 0
        while ready:
            remaining = []
            for partition in ready:
                log, offset = self._log(partition), self._next[partition]
                if offset == log.end:
                    continue
                key, value = log.messages[offset - log.first]
                size = len(key) + len(value)
                if given_bytes and given_bytes + size > max_bytes:
                    continue
                given_bytes += max(size, 1)
                self._next[partition] = offset + 1
                remaining.append(partition)
                yield BusMessage(partition, offset, key, value)
                if given_bytes > max_bytes:
                    return
            ready = remaining

    def _log(self, partition: TopicPartition) -> Log:
        topic = self._cluster.topics.get(partition.topic)
        return topic.logs[partition.partition] if topic else Log()

    def _require_assigned(self, partitions: Collection[TopicPartition]) -> None:
        for partition in partitions:
            if partition not in self._next:
                raise BusUnavailable(
                    f"{partition.topic}/{partition.partition} is not assigned to this consumer"
                )


class MemoryBus(Bus):
    """A bus on a cluster in memory."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._opened: list[MemoryProducer | MemoryConsumer] = []

    async def ensure_topic(self, topic: str, *, partitions: int) -> None:
        """See `Bus.ensure_topic`."""
        logs = self._cluster.topics.setdefault(topic, Topic()).logs
        logs += [Log() for _ in range(partitions - len(logs))]
        self._cluster.notify()

    async def topics(self) -> dict[str, int]:
        """See `Bus.topics`."""
        return {name: len(topic.logs) for name, topic in self._cluster.topics.items()}

    async def log_ids(self, topics: Collection[str]) -> dict[str, str]:
        """See `Bus.log_ids`."""
        return {name: self._cluster.topics[name].log_id for name in topics if name in self._cluster.topics}

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, int]:
        """See `Bus.ends`."""
        found = {name: self._cluster.topics[name].logs for name in topics if name in self._cluster.topics}
        return {
            TopicPartition(name, number): log.end
            for name, logs in found.items()
            for number, log in enumerate(logs)
        }

    def partition_of(self, key: bytes, partitions: int) -> int:
        """See `Bus.partition_of`: zlib.crc32(key) modulo `partitions`."""
        return zlib.crc32(key) % partitions

    async def prepare(self, *, groups: Collection[str]) -> None:
        """There is nothing to recover, and no retention."""

    def producer(self) -> Producer:
        """See `Bus.producer`."""
        self._opened.append(producer := MemoryProducer(self._cluster))
        return producer

    def consumer(
        self, group: str, listener: AssignmentListener, *, positions_of: str | None = None
    ) -> Consumer:
        """See `Bus.consumer`."""
        self._opened.append(consumer := MemoryConsumer(self._cluster, group, listener, positions_of))
        return consumer

    async def close(self) -> None:
        """See `Bus.close`."""
        opened: Sequence[MemoryProducer | MemoryConsumer] = self._opened
        for each in opened:
            await each.close()
