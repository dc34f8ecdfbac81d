"""What every bus engine must do: `BusConformance`.

A test module subclasses it, or imports it under a name that begins with Test, and gives two fixtures:

    @pytest.fixture
    async def make_bus(tmp_path: Path) -> AsyncIterator[MakeBus]:
        buses: list[Bus] = []

        def make() -> Bus:
            buses.append(open_bus("memory:", tmp_path))
            return buses[-1]

        yield make
        for bus in buses:
            await bus.close()

    @pytest.fixture
    def interference() -> Interference: ...

The fixtures are asynchronous: set `asyncio_mode = "auto"` of pytest-asyncio, or use its own decorator.
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import pytest

from ..bus import BEGINNING, Buffer, Bus, BusMessage, Consumer, TopicPartition
from ..errors import BusUnavailable, LogReplaced, PartitionHalted, RangeGone

MakeBus = Callable[[], Bus]
_numbers = itertools.count()


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


class Interference(Protocol):
    """What retention and operators do to topics, by the means of the engine.

    An engine without retention lets `trim` call `pytest.skip`.
    """

    async def trim(self, topic: str, before: int) -> None:
        """Retention drops the messages of partition 0 before the offset."""

    async def delete(self, topic: str) -> None:
        """Delete the topic, with all its messages."""


class BusConformance:
    """The promises of `windvane.bus.interface`, each by a test of its own.

    The fixture `make_bus` gives a function that opens one more bus on the same messages; the fixture closes
    all of them. `interference` changes the same messages as retention and operators do.
    """

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def topic(self) -> str:
        return f"topic-{next(_numbers)}"

    @pytest.fixture
    def group(self) -> str:
        return f"group-{next(_numbers)}"

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

    async def test_only_the_owner_of_a_partition_commits_it(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        consumer = bus.consumer(group, Assignments())
        with pytest.raises(BusUnavailable, match=topic):
            await consumer.commit({TopicPartition(topic, 0): 1})
        await consumer.commit({})

    async def publish_numbers(self, bus: Bus, topic: str, numbers: range) -> None:
        producer = bus.producer()
        for number in numbers:
            await producer.publish(topic, b"k", b"%d" % number)
        await producer.close()

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

    async def test_beginning_is_the_first_message_that_is_kept(
        self, make_bus: MakeBus, interference: Interference, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await self.publish_numbers(bus, topic, range(5))
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

    async def test_a_position_that_retention_has_dropped_halts_its_partition_alone(
        self, make_bus: MakeBus, interference: Interference, topic: str, group: str
    ) -> None:
        bus = make_bus()
        other = f"{topic}-other"
        for name in (topic, other):
            await bus.ensure_topic(name, partitions=1)
            await self.publish_numbers(bus, name, range(5))
        await interference.trim(topic, 3)
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments({partition: 1}))
        consumer.subscribe([topic, other])
        messages = await poll_until(consumer, lambda: bool(consumer.halted))
        messages += await receive(consumer, 5 - len(messages))
        assert [message.value for message in messages] == [b"%d" % number for number in range(5)]
        assert {message.topic_partition.topic for message in messages} == {other}
        assert_halted(consumer, partition, RangeGone, offset=1, resume_at=3, missing=2)
        await self.publish_numbers(bus, other, range(5, 7))
        assert [message.value for message in await receive(consumer, 2)] == [b"5", b"6"]
        consumer.seek(partition, 3)
        assert consumer.halted == {}
        assert [message.value for message in await receive(consumer, 2)] == [b"3", b"4"]

    async def test_a_position_beyond_the_end_halts_its_partition(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await self.publish_numbers(bus, topic, range(2))
        partition = TopicPartition(topic, 0)
        consumer = bus.consumer(group, Assignments({partition: 5}))
        consumer.subscribe([topic])
        assert await poll_until(consumer, lambda: bool(consumer.halted)) == []
        assert isinstance(consumer.halted[partition], RangeGone)
        assert consumer.halted[partition].offset == 5
        await self.publish_numbers(bus, topic, range(2, 8))
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
        await self.publish_numbers(bus, topic, range(5))
        partition = TopicPartition(topic, 0)
        listener = NoPositionsOf(bus, before, 5)
        consumer = bus.consumer(group, listener)
        consumer.subscribe([topic])
        await receive(consumer, 5)
        await interference.delete(topic)
        other = make_bus()
        await other.ensure_topic(topic, partitions=1)
        await self.publish_numbers(other, topic, range(100, 100 + count))
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

    async def test_positions_of_another_database_do_not_count(
        self, make_bus: MakeBus, topic: str, group: str
    ) -> None:
        bus = make_bus()
        await bus.ensure_topic(topic, partitions=1)
        await self.publish_numbers(bus, topic, range(4))
        for database, first in (("a", 0), ("a", 3), ("b", 0), ("b", 3), ("a", 0)):
            consumer = bus.consumer(group, Assignments(), positions_of=database)
            consumer.subscribe([topic])
            assert (await receive(consumer, 4 - first))[0].offset == first
            await consumer.commit({TopicPartition(topic, 0): 3})
            await consumer.close()


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
