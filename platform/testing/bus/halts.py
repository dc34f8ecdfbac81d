"""What halts promise: a partition that cannot be read stops alone, and reports why."""

from collections.abc import Mapping, Sequence

import pytest

from ...bus import BEGINNING, Bus, TopicPartition
from ...errors import LogReplaced, RangeGone
from .consuming import Assignments, assert_halted, poll_until, receive
from .fixtures import ConformanceFixtures, Interference, MakeBus, publish_numbers


class HaltConformance(ConformanceFixtures):
    """Each promise of `Consumer.halted`."""

    async def test_a_position_that_retention_has_dropped_halts_its_partition_alone(
        self, make_bus: MakeBus, interference: Interference, topic: str, group: str
    ) -> None:
        bus = make_bus()
        other = f"{topic}-other"
        for name in (topic, other):
            await bus.ensure_topic(name, partitions=1)
            await publish_numbers(bus, name, range(5))
        await interference.trim(topic, 3)
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments({partition: 1}))
        consumer.subscribe([topic, other])
        messages = await poll_until(consumer, lambda: bool(consumer.halted))
        messages += await receive(consumer, 5 - len(messages))
        assert [message.value for message in messages] == [b"%d" % number for number in range(5)]
        assert {message.topic_partition.topic for message in messages} == {other}
        assert_halted(consumer, partition, RangeGone, offset=1, resume_at=3, missing=2)
        await publish_numbers(bus, other, range(5, 7))
        assert [message.value for message in await receive(consumer, 2)] == [b"5", b"6"]
        consumer.seek(partition, 3)
        assert consumer.halted == {}
        assert [message.value for message in await receive(consumer, 2)] == [b"3", b"4"]

    async def test_a_position_beyond_the_end_halts_its_partition(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await publish_numbers(bus, topic, range(2))
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments({partition: 5}))
        consumer.subscribe([topic])
        assert await poll_until(consumer, lambda: bool(consumer.halted)) == []
        assert isinstance(consumer.halted[partition], RangeGone)
        assert consumer.halted[partition].offset == 5
        await publish_numbers(bus, topic, range(2, 8))
        assert await consumer.poll(timeout_s=0.1) == []
        consumer.seek(partition, BEGINNING)
        assert [message.value for message in await receive(consumer, 8)] == [b"%d" % n for n in range(8)]

    @pytest.mark.parametrize("count", [2, 5, 9], ids=["shorter", "as long", "longer"])
    async def test_a_topic_recreated_while_it_is_read_halts_instead_of_reading_another_log(
        self, make_bus: MakeBus, interference: Interference, topic: str, group: str, count: int
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        before = (await bus.log_ids([topic]))[topic]
        await publish_numbers(bus, topic, range(5))
        partition = TopicPartition(topic, 0)
        listener = NoPositionsOf(bus, before, 5)
        consumer = bus.consumer(group, listener)
        consumer.subscribe([topic])
        await receive(consumer, 5)
        await interference.delete(topic)
        other = make_bus()
        await other.ensure_topic(topic, partitions=1)
        await publish_numbers(other, topic, range(100, 100 + count))
        # It may see that the topic is gone, and then the new one; or it finds a new log in its place.
        messages = await poll_until(
            consumer, lambda: bool(consumer.halted) or before not in listener.log_ids.values()
        )
        if consumer.halted:
            assert messages == []
            assert isinstance(consumer.halted[partition], LogReplaced)
            assert (await bus.log_ids([topic]))[topic] != before
            consumer.seek(partition, BEGINNING)
        messages += await receive(consumer, count - len(messages))
        assert [message.value for message in messages] == [b"%d" % n for n in range(100, 100 + count)]


class NoPositionsOf(Assignments):
    """Starts at the beginning of every log but one, of which it knows a position."""

    def __init__(self, bus: Bus, log_id: str, position: int) -> None:
        super().__init__()
        self.log_ids: dict[str, str] = {}
        self._bus = bus
        self._log_id = log_id
        self._position = position
        self._is_first = True

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        await super().assigned(partitions)
        self.log_ids = await self._bus.log_ids({partition.topic for partition in partitions})
        start = BEGINNING if self._is_first else self._position
        self._is_first = False
        return {
            partition: start if self.log_ids[partition.topic] == self._log_id else BEGINNING
            for partition in partitions
        }
