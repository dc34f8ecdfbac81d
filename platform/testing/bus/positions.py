"""What positions promise: where a consumer starts, by its listener, its group or a seek."""

import asyncio

import pytest

from ...bus import BEGINNING, TopicPartition
from ...errors import BusUnavailable
from .consuming import Assignments, receive
from .fixtures import ConformanceFixtures, Interference, MakeBus, publish_numbers


class PositionConformance(ConformanceFixtures):
    """Each promise of `Consumer.seek`, `Consumer.commit` and `AssignmentListener.assigned`."""

    async def test_groups_have_their_own_positions(self, make_bus: MakeBus, topic: str, group: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        for number in range(5):
            await producer.publish(topic, b"k", b"%d" % number)
        partition = TopicPartition(topic, 0)
        first = bus.consumer(group, Assignments())
        first.subscribe([topic])
        await receive(first, 5)
        await first.commit({partition: 3})
        await first.close()

        second = make_bus().consumer(group, Assignments())
        second.subscribe([topic])
        assert [message.offset for message in await receive(second, 2)] == [3, 4]
        third = make_bus().consumer(f"{group}-other", Assignments())
        third.subscribe([topic])
        assert [message.offset for message in await receive(third, 5)] == [0, 1, 2, 3, 4]

    async def test_the_listener_says_where_to_start(self, make_bus: MakeBus, topic: str, group: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        for number in range(5):
            await producer.publish(topic, b"k", b"%d" % number)
        partition = TopicPartition(topic, 0)
        for start in (0, 2, 4):
            listener = Assignments({partition: start})
            consumer = bus.consumer(group, listener)
            consumer.subscribe([topic])
            messages = await receive(consumer, 5 - start)
            assert messages[0].offset == start
            assert listener.now == {partition}
            await consumer.commit({partition: 5})
            await consumer.close()

    async def test_seek_goes_back_and_on(self, make_bus: MakeBus, topic: str, group: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        await asyncio.gather(*(producer.publish(topic, b"k", b"%d" % number) for number in range(10)))
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        with pytest.raises(BusUnavailable):
            consumer.seek(partition, 0)
        await receive(consumer, 10)
        consumer.seek(partition, 7)
        assert [message.offset for message in await receive(consumer, 3)] == [7, 8, 9]
        consumer.seek(partition, 1)
        consumer.seek(partition, 9)
        assert [message.offset for message in await receive(consumer, 1)] == [9]

    async def test_seek_holds_after_a_cancelled_poll(self, make_bus: MakeBus, topic: str, group: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        await asyncio.gather(*(producer.publish(topic, b"k", bytes(1000)) for number in range(10)))
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        await receive(consumer, 10)
        for turns in range(20):
            consumer.seek(TopicPartition(topic, 0), 2)
            poll = asyncio.ensure_future(consumer.poll(timeout_s=1))
            for _ in range(turns):
                await asyncio.sleep(0)
            poll.cancel()
            await asyncio.wait([poll])
            consumer.seek(TopicPartition(topic, 0), 5)
            assert [message.offset for message in await receive(consumer, 5)] == [5, 6, 7, 8, 9]

    async def test_beginning_is_the_first_message_that_is_kept(
        self, make_bus: MakeBus, interference: Interference, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await publish_numbers(bus, topic, range(5))
        await interference.trim(topic, 3)
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments({partition: BEGINNING}))
        consumer.subscribe([topic])
        assert [message.offset for message in await receive(consumer, 2)] == [3, 4]
        consumer.seek(partition, 4)
        await receive(consumer, 1)
        consumer.seek(partition, BEGINNING)
        assert [message.offset for message in await receive(consumer, 2)] == [3, 4]
        assert consumer.halted == {}

    async def test_positions_of_another_database_do_not_count(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await publish_numbers(bus, topic, range(4))
        for database, first in (("a", 0), ("a", 3), ("b", 0), ("b", 3), ("a", 0)):
            consumer = bus.consumer(group, Assignments(), positions_of=database)
            consumer.subscribe([topic])
            assert (await receive(consumer, 4 - first))[0].offset == first
            await consumer.commit({TopicPartition(topic, 0): 3})
            await consumer.close()
