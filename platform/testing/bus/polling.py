"""What `Consumer.poll` promises: shares of bytes, waiting, cancellation, and the lag that remains."""

import asyncio
import itertools

import pytest

from ...bus import BusMessage, TopicPartition
from ...errors import BusUnavailable
from .consuming import Assignments, by_partition, poll_until, receive
from .fixtures import ConformanceFixtures, MakeBus


class PollingConformance(ConformanceFixtures):
    """Each promise of `Consumer.poll`, `Consumer.pause` and `Consumer.lag`."""

    async def test_a_paused_partition_stops_alone_and_resumes_at_its_position(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=2)
        producer = bus.producer()
        listener = Assignments()
        consumer = bus.consumer(group, listener)
        consumer.subscribe([topic])
        await poll_until(consumer, lambda: len(listener.now) == 2)
        paused = TopicPartition(topic, 0)
        consumer.pause([paused])
        keys = [b"%d" % number for number in range(40)]
        await asyncio.gather(*(producer.publish(topic, key, b"") for key in keys))
        came: list[BusMessage] = []

        def all_of_the_other() -> bool:
            return bool(came) and {message.topic_partition.partition for message in came} == {1}

        async with asyncio.timeout(30):
            while not all_of_the_other() or await consumer.lag() != {
                paused: 40 - len(came),
                TopicPartition(topic, 1): 0,
            }:
                came += await consumer.poll(timeout_s=0.01)
        consumer.resume([paused])
        rest = await receive(consumer, 40 - len(came))
        assert [message.offset for message in rest] == list(range(len(rest)))
        assert {message.topic_partition for message in rest} == {paused}

    async def test_a_poll_gives_at_most_max_bytes_or_one_message(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=3)
        producer = bus.producer()
        sizes = [1000, 50, 3000, 20_000, 0, 999, 70_000, 10] * 6
        await asyncio.gather(
            *(producer.publish(topic, b"%d" % number, bytes(size)) for number, size in enumerate(sizes))
        )
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        seen = 0
        async with asyncio.timeout(30):
            while seen < len(sizes):
                messages = await consumer.poll(max_bytes=10_000, timeout_s=1)
                size = sum(len(message.key) + len(message.value) for message in messages)
                assert size <= 10_000 or len(messages) == 1
                seen += len(messages)
        assert seen == len(sizes)

    @pytest.mark.parametrize("max_bytes", [1, 100_000])
    async def test_a_full_partition_does_not_starve_the_others(
        self, make_bus: MakeBus, topic: str, group: str, max_bytes: int
    ) -> None:
        bus = make_bus()
        full, other = f"{topic}-full", f"{topic}-other"
        await bus.ensure_topic(full, partitions=1)
        await bus.ensure_topic(other, partitions=1)
        producer = bus.producer()
        await asyncio.gather(
            *(producer.publish(full, b"k", bytes(10_000)) for _ in range(200)),
            *(producer.publish(other, b"k", bytes(10_000)) for _ in range(5)),
        )
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([full, other])
        messages = await receive(consumer, 205, max_bytes=max_bytes)
        last = {message.topic_partition.topic: place for place, message in enumerate(messages)}
        assert last[other] < last[full]

    async def test_a_cancelled_poll_loses_nothing(self, make_bus: MakeBus, topic: str, group: str) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=2)
        producer = bus.producer()
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        messages: list[BusMessage] = []
        async with asyncio.timeout(60):
            for turn in itertools.count():
                if turn < 40:
                    for number in range(5):
                        producer.publish(topic, b"%d" % number, b"x" * 1000)
                elif len(messages) >= 200:
                    break
                poll = asyncio.ensure_future(consumer.poll(max_bytes=4000, timeout_s=1))
                for _ in range(turn % 7):
                    await asyncio.sleep(0)
                if turn % 3:
                    poll.cancel()
                try:
                    messages += await poll
                except asyncio.CancelledError:
                    continue
        for parted in by_partition(messages).values():
            assert [message.offset for message in parted] == list(range(len(parted)))
        assert len(messages) == 200

    async def test_lag_counts_what_poll_has_not_given(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        await asyncio.gather(*(producer.publish(topic, b"k", bytes(1000)) for _ in range(10)))
        consumer = bus.consumer(group, Assignments())
        assert await consumer.lag() == {}
        consumer.subscribe([topic])
        seen = len(await receive(consumer, 2, max_bytes=2500))
        partition = TopicPartition(topic, 0)
        assert await consumer.lag() == {partition: 10 - seen}
        await receive(consumer, 10 - seen)
        assert await consumer.lag() == {partition: 0}

    async def test_a_waiting_poll_gets_what_is_published(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus, other = make_bus(), make_bus()
        await bus.ensure_topic(topic, partitions=1)
        listener = Assignments()
        consumer = bus.consumer(group, listener)
        consumer.subscribe([topic])
        await poll_until(consumer, lambda: bool(listener.now))
        producer = other.producer()
        for number in range(20):
            waiting = asyncio.ensure_future(consumer.poll(timeout_s=30))
            await asyncio.sleep(0)
            await producer.publish(topic, b"k", b"%d" % number)
            assert [message.value for message in await waiting] == [b"%d" % number]

    async def test_a_waiting_poll_follows_a_new_subscription(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await bus.producer().publish(topic, b"k", b"v")
        consumer = bus.consumer(group, Assignments())
        waiting = asyncio.ensure_future(consumer.poll(timeout_s=30))
        await asyncio.sleep(0)
        consumer.subscribe([topic])
        assert [message.value for message in await waiting] == [b"v"]

    async def test_closing_a_consumer_ends_its_waiting_poll(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        consumer = bus.consumer(group, Assignments())
        consumer.subscribe([topic])
        waiting = asyncio.ensure_future(consumer.poll(timeout_s=3600))
        await asyncio.sleep(0)
        await consumer.close()
        assert await waiting == []
        with pytest.raises(BusUnavailable):
            await consumer.poll(timeout_s=0)
