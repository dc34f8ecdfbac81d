"""What publishing promises: order, futures, sizes, and the end of a producer."""

import asyncio

import pytest

from ...bus import Buffer, BusMessage, TopicPartition
from ...errors import BusUnavailable
from .consuming import Assignments, by_partition, receive
from .fixtures import ConformanceFixtures, MakeBus


class PublishingConformance(ConformanceFixtures):
    """Each promise of `Producer`."""

    async def test_a_message_comes_back_byte_for_byte(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        value = bytes(range(256))
        offset = await bus.producer().publish(topic, b"key \x00\xff", value)
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        (message,) = await receive(consumer, 1)
        assert message == BusMessage(TopicPartition(topic, 0), offset, b"key \x00\xff", value)

    @pytest.mark.parametrize(
        "pieces",
        [
            (),
            (b"",),
            (b"a", b"", bytearray(b"bc"), memoryview(b"xdefx")[1:4]),
            (b"h" * 60, memoryview(bytearray(range(256)) * 256)),
            (b"x" * 16_383,),
            (b"x" * 16_384, b"y"),
            (b"", b"x" * 400_000, b"", memoryview(b"y" * 400_000), bytearray(b"z" * 100_000)),
            tuple(bytes([number % 256]) * 100 for number in range(3000)),
        ],
        ids=lambda pieces: f"{len(pieces)} pieces of {sum(map(len, pieces))} bytes",
    )
    async def test_a_value_given_in_pieces_is_their_concatenation(
        self, make_bus: MakeBus, topic: str, group: str, pieces: tuple[Buffer, ...]
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        published = [producer.publish(topic, b"k", *pieces), producer.publish(topic, b"k", b"the next")]
        await asyncio.gather(*published)
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        first, second = await receive(consumer, 2)
        assert first.value == b"".join(pieces)
        assert second.value == b"the next"

    async def test_a_key_stays_in_its_partition_and_order_is_that_of_publishing(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=3)
        producer = bus.producer()
        futures = {}
        for number in range(300):
            futures[number] = producer.publish(topic, b"key %d" % (number % 10), b"%d" % number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await asyncio.gather(*futures.values())
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        messages = await receive(consumer, 300)
        partitions = {message.key: message.topic_partition for message in messages}
        assert len(set(partitions.values())) > 1
        for partition, parted in by_partition(messages).items():
            numbers = [int(message.value) for message in parted]
            assert numbers == sorted(numbers)
            assert [message.offset for message in parted] == list(range(len(parted)))
            assert all(partitions[message.key] == partition for message in parted)
        assert all(futures[int(message.value)].result() == message.offset for message in messages)

    async def test_pending_bytes_are_exact(self, make_bus: MakeBus, topic: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=2)
        producer = bus.producer()
        assert producer.pending_bytes == 0
        first = producer.publish(topic, b"key", b"12345", bytearray(b"678"))
        second = producer.publish(topic, b"other key", b"")
        third = producer.publish(topic, b"", b"x" * 100_000)
        assert producer.pending_bytes == 11 + 9 + 100_000
        second.cancel()
        assert producer.pending_bytes == 11 + 9 + 100_000
        await asyncio.gather(first, third)
        await producer.close()
        assert producer.pending_bytes == 0

    async def test_a_cancelled_future_does_not_take_the_message_back(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        producer.publish(topic, b"k", b"cancelled").cancel()
        await producer.publish(topic, b"k", b"after it")
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        assert [message.value for message in await receive(consumer, 2)] == [b"cancelled", b"after it"]

    async def test_closing_a_producer_waits_for_what_was_published(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=2)
        producer = bus.producer()
        futures = [producer.publish(topic, b"%d" % number, b"x" * 1000) for number in range(200)]
        await asyncio.gather(producer.close(), producer.close())
        assert all(future.done() for future in futures)
        with pytest.raises(BusUnavailable):
            await producer.publish(topic, b"k", b"too late")
        await bus.close()
        consumer = make_bus().consumer(group, Assignments())
        consumer.subscribe([topic])
        await receive(consumer, 200)

    async def test_a_topic_that_does_not_exist_takes_no_messages(self, make_bus: MakeBus, topic: str) -> None:
        bus = make_bus()
        producer = bus.producer()
        with pytest.raises(BusUnavailable, match=topic):
            await producer.publish(topic, b"k", b"v")
        assert producer.pending_bytes == 0
        await bus.ensure_topic(topic, partitions=1)
        await producer.publish(topic, b"k", b"v")

    async def test_a_message_over_the_limit_is_the_callers_mistake(
        self, make_bus: MakeBus, topic: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        half = bytes(producer.max_message_bytes // 2)
        with pytest.raises(ValueError, match="split"):
            producer.publish(topic, b"key", half, half)
