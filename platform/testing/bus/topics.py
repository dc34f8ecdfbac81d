"""What topics promise: partitions, the identity of their logs, ends."""

import asyncio

from ...bus import TopicPartition
from .fixtures import ConformanceFixtures, Interference, MakeBus


class TopicConformance(ConformanceFixtures):
    """Each promise of `Bus` about its topics."""

    async def test_topics_grow_and_never_shrink(self, make_bus: MakeBus, topic: str) -> None:
        bus, other = make_bus(), make_bus()
        assert topic not in await bus.topics()
        await bus.ensure_topic(topic, partitions=2)
        await asyncio.gather(
            bus.ensure_topic(topic, partitions=4),
            other.ensure_topic(topic, partitions=4),
            bus.ensure_topic(topic, partitions=1),
        )
        assert (await other.topics())[topic] == 4

    async def test_a_log_keeps_its_id_until_the_topic_is_recreated(
        self, make_bus: MakeBus, interference: Interference, topic: str
    ) -> None:
        bus = make_bus()
        assert await bus.log_ids([topic]) == {}
        await bus.ensure_topic(topic, partitions=1)
        await bus.ensure_topic(f"{topic}-other", partitions=1)
        ids = await bus.log_ids([topic, f"{topic}-other", "missing"])
        assert ids.keys() == {topic, f"{topic}-other"}
        assert len(set(ids.values())) == 2
        await bus.ensure_topic(topic, partitions=3)
        assert await make_bus().log_ids([topic]) == {topic: ids[topic]}
        await interference.delete(topic)
        again = make_bus()
        await again.ensure_topic(topic, partitions=1)
        (remade,) = (await again.log_ids([topic])).values()
        assert remade not in ids.values()

    async def test_ends_count_the_durable_messages_of_each_partition(
        self, make_bus: MakeBus, topic: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=3)
        producer = bus.producer()
        offsets = await asyncio.gather(*(producer.publish(topic, b"%d" % n, b"v") for n in range(50)))
        ends = await make_bus().ends([topic, "missing"])
        assert ends.keys() == {TopicPartition(topic, number) for number in range(3)}
        assert sum(ends.values()) == len(offsets)

    async def test_the_partition_of_a_key_is_known_before_it_is_published(
        self, make_bus: MakeBus, topic: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=5)
        producer = bus.producer()
        for number in range(20):
            key = b"key %d" % number
            partition = TopicPartition(topic, bus.partition_of(key, 5))
            before = (await bus.ends([topic])).get(partition, 0)
            assert await producer.publish(topic, key, b"v") == before
            assert (await bus.ends([topic]))[partition] == before + 1
