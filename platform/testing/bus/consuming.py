"""What tests of a bus consume with: a listener, and polls that end."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...bus import BusMessage, Consumer, TopicPartition
from ...errors import PartitionHalted


class Assignments:
    """A listener that records which partitions are assigned, and answers with the starts it was given."""

    def __init__(self, starts: Mapping[TopicPartition, int | None] | None = None) -> None:
        self.starts = starts or {}
        self.now: set[TopicPartition] = set()
        self.consumer: Consumer | None = None
        self.commit_when_revoked: dict[TopicPartition, int] = {}

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        assert not self.now & set(partitions)
        self.now |= set(partitions)
        return self.starts

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        if self.consumer is not None:
            await self.consumer.commit(self.commit_when_revoked)
        assert self.now >= set(partitions)
        self.now -= set(partitions)


async def receive(consumer: Consumer, count: int, *, max_bytes: int = 1 << 22) -> list[BusMessage]:
    """Poll until `count` messages have come; TimeoutError after 30 s."""
    messages: list[BusMessage] = []
    async with asyncio.timeout(30):
        while len(messages) < count:
            messages += await consumer.poll(max_bytes=max_bytes, timeout_s=1)
    assert len(messages) == count
    return messages


async def poll_until(consumer: Consumer, condition: Callable[[], bool]) -> list[BusMessage]:
    """Poll until `condition` holds, and give the messages that came until then; TimeoutError after 30 s."""
    messages: list[BusMessage] = []
    async with asyncio.timeout(30):
        while not condition():
            messages += await consumer.poll(timeout_s=0.01)
    return messages


def by_partition(messages: Iterable[BusMessage]) -> dict[TopicPartition, list[BusMessage]]:
    """The messages of each partition, in the order in which they came."""
    parted: dict[TopicPartition, list[BusMessage]] = defaultdict(list)
    for message in messages:
        parted[message.topic_partition].append(message)
    return parted


def assert_halted(
    consumer: Consumer,
    partition: TopicPartition,
    kind: type[Exception],
    *,
    offset: int,
    resume_at: int | None,
    missing: int | None,
) -> None:
    """Asserts that this partition alone is halted, and the error that says why."""
    assert consumer.halted.keys() == {partition}
    error = consumer.halted[partition]
    assert isinstance(error, kind)
    assert isinstance(error, PartitionHalted)
    assert (error.topic, error.partition) == partition
    assert (error.offset, error.resume_at, error.missing) == (offset, resume_at, missing)
