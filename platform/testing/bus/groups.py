"""What consumer groups promise: one owner of each partition, at any time."""

import asyncio

import pytest

from ...bus import TopicPartition
from ...errors import BusUnavailable
from .consuming import Assignments, by_partition, poll_until, receive
from .fixtures import ConformanceFixtures, MakeBus


class GroupConformance(ConformanceFixtures):
    """Each promise about assignments and revocations."""

    async def test_a_new_subscription_revokes_and_assigns(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        topics = [f"{topic}-{name}" for name in "abc"]
        producer = bus.producer()
        for name in topics:
            await bus.ensure_topic(name, partitions=2)
            await producer.publish(name, b"k", name.encode())
        listener = Assignments()
        consumer = bus.consumer(group, listener)
        consumer.subscribe(topics[:2])
        assert {message.value.decode() for message in await receive(consumer, 2)} == set(topics[:2])
        assert listener.now == {TopicPartition(name, place) for name in topics[:2] for place in range(2)}

        consumer.subscribe(topics[1:])
        (message,) = await receive(consumer, 1)
        assert message.value.decode() == topics[2]
        assert listener.now == {TopicPartition(name, place) for name in topics[1:] for place in range(2)}
        await producer.publish(topics[0], b"k", b"not subscribed")
        await producer.publish(topics[1], b"k", b"subscribed")
        assert [message.value for message in await receive(consumer, 1)] == [b"subscribed"]

    async def test_topics_and_partitions_made_later_are_assigned(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus, other = make_bus(), make_bus()
        listener = Assignments()
        consumer = bus.consumer(group, listener)
        consumer.subscribe([topic])
        assert await consumer.poll(timeout_s=0.01) == []
        producer = other.producer()
        for partitions in (1, 3):
            await other.ensure_topic(topic, partitions=partitions)
            await poll_until(consumer, lambda count=partitions: len(listener.now) == count)  # type: ignore[misc]
            futures = [producer.publish(topic, b"%d" % number, b"v") for number in range(20)]
            await asyncio.gather(*futures)
            parted = by_partition(await receive(consumer, 20))
            assert len(parted) == partitions

    async def test_two_consumers_of_a_group_never_share_a_partition(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=2)
        both = {TopicPartition(topic, 0), TopicPartition(topic, 1)}
        producer = bus.producer()
        first_listener, second_listener = Assignments(), Assignments()
        first = make_bus().consumer(group, first_listener)
        second = make_bus().consumer(group, second_listener)
        first.subscribe([topic])
        second.subscribe([topic])
        async with asyncio.timeout(30):
            while first_listener.now | second_listener.now != both:
                await asyncio.gather(first.poll(timeout_s=0.01), second.poll(timeout_s=0.01))
                assert not first_listener.now & second_listener.now
            for number in range(5):
                await producer.publish(topic, b"%d" % number, b"%d" % number)
                await asyncio.gather(first.poll(timeout_s=0.01), second.poll(timeout_s=0.01))
                assert not first_listener.now & second_listener.now
        await first.close()
        assert first_listener.now == set()
        await poll_until(second, lambda: second_listener.now == both)

    async def test_what_is_committed_while_being_revoked_holds_for_the_next_owner(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        producer = bus.producer()
        for number in range(4):
            await producer.publish(topic, b"k", b"%d" % number)
        listener = Assignments()
        consumer = bus.consumer(group, listener)
        listener.consumer = consumer
        listener.commit_when_revoked = {TopicPartition(topic, 0): 3}
        consumer.subscribe([topic])
        await receive(consumer, 4)
        await consumer.close()
        assert listener.now == set()
        successor = make_bus().consumer(group, Assignments())
        successor.subscribe([topic])
        assert [message.offset for message in await receive(successor, 1)] == [3]

    async def test_only_the_owner_of_a_partition_commits_it(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        consumer = bus.consumer(group, Assignments())
        with pytest.raises(BusUnavailable, match=topic):
            await consumer.commit({TopicPartition(topic, 0): 1})
        await consumer.commit({})
