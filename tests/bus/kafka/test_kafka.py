"""The Kafka bus on a real broker: the conformance suite, outages, names, sizes."""

import asyncio
import itertools
import os
import random
import re
import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.protocol.group import LeaveGroupRequest
from windvane.bus import BEGINNING, Bus, BusMessage, TopicPartition, open_bus
from windvane.bus.kafka.bus import connection_to
from windvane.bus.kafka.consumer.consumer import KafkaConsumer
from windvane.bus.kafka.producer.producer import KafkaProducer
from windvane.config import KafkaSettings
from windvane.errors import BusCorrupt, BusUnavailable, LogReplaced
from windvane.testing.bus import (
    Assignments,
    BusConformance,
    MakeBus,
    assert_halted,
    by_partition,
    poll_until,
    receive,
)

from deploy.kafka.local.broker import free_port
from tests.kafka_broker import KafkaBroker


@pytest.fixture
def prefix(kafka: KafkaBroker) -> str:
    return f"{kafka.prefix()}."


@pytest.fixture
async def make_bus(kafka: KafkaBroker, tmp_path: Path, prefix: str) -> AsyncIterator[MakeBus]:
    settings = KafkaSettings(topic_prefix=prefix, session_timeout_s=2.0)
    buses: list[Bus] = []

    def make() -> Bus:
        buses.append(open_bus(f"kafka://{kafka.bootstrap}", tmp_path, settings))
        return buses[-1]

    yield make
    for bus in buses:
        await bus.close()


class Interference:
    """What retention and an administrator do to the topics of the fixture's prefix."""

    def __init__(self, servers: str, prefix: str) -> None:
        self._servers = servers
        self._prefix = prefix

    async def trim(self, topic: str, before: int) -> None:
        async with admin(self._servers) as client:
            place = KafkaPartition(self._prefix + topic, 0)
            await client.delete_records({place: RecordsToDelete(before_offset=before)})

    async def delete(self, topic: str) -> None:
        async with admin(self._servers) as client:
            await client.delete_topics([self._prefix + topic])
            while self._prefix + topic in await client.list_topics():
                await asyncio.sleep(0.02)


@asynccontextmanager
async def admin(servers: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=servers)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
def interference(kafka: KafkaBroker, prefix: str) -> Interference:
    return Interference(kafka.bootstrap, prefix)


class TestKafka(BusConformance):
    pass


def opened(kafka: KafkaBroker, home: Path, **settings: object) -> Bus:
    given = {"topic_prefix": f"{kafka.prefix()}.", "session_timeout_s": 2.0, **settings}
    return open_bus(f"kafka://{kafka.bootstrap}", home, KafkaSettings(**given))  # type: ignore[arg-type]


async def values_of(bus: Bus, topic: str, count: int) -> list[bytes]:
    consumer = bus.consumer(f"reader-of-{topic}", Assignments())
    consumer.subscribe([topic])
    return [message.value for message in await receive(consumer, count)]


class TestNames:
    async def test_topics_lists_only_those_of_this_installation(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        first, second = opened(kafka, tmp_path), opened(kafka, tmp_path)
        await first.ensure_topic("pydata", partitions=2)
        await second.ensure_topic("voice", partitions=1)
        assert await first.topics() == {"pydata": 2}
        assert await second.topics() == {"voice": 1}
        await first.close()
        await second.close()

    async def test_a_new_topic_accepts_the_largest_message_with_any_content(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        for compression in ("none", "lz4", "zstd"):
            bus = opened(kafka, tmp_path, max_message_bytes=2 << 20, compression=compression)
            await bus.ensure_topic("t", partitions=1)
            largest = random.Random(7).randbytes((2 << 20) - 1)
            producer = bus.producer()
            await asyncio.gather(*(producer.publish("t", b"k", value) for value in (largest, b"next", b"")))
            assert await values_of(bus, "t", 3) == [largest, b"next", b""]
            await bus.close()

    async def test_an_external_topic_with_a_lower_limit_rejects_large_messages_and_accepts_others(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        prefix = f"{kafka.prefix()}."
        small = opened(kafka, tmp_path, max_message_bytes=65_536, topic_prefix=prefix)
        await small.ensure_topic("t", partitions=1)
        bus = opened(kafka, tmp_path, topic_prefix=prefix)
        producer = bus.producer()
        # Together they are a batch that is too large; of the single messages only the second is.
        values = [b"a" * 60_000, b"b" * 200_000, b"c" * 60_000]
        futures = [producer.publish("t", b"k", value) for value in values]
        with pytest.raises(BusUnavailable, match=r"max\.message\.bytes"):
            await futures[1]
        await asyncio.gather(futures[0], futures[2])
        assert await values_of(bus, "t", 2) == [values[0], values[2]]
        await small.close()
        await bus.close()

    async def test_a_key_maps_to_the_partition_of_kafkas_own_clients(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=5)
        producer = bus.producer()
        keys = [b"turbine.t%02d" % number for number in range(30)]
        await asyncio.gather(*(producer.publish("t", key, b"v") for key in keys))
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["t"])
        partitioner = DefaultPartitioner()
        for message in await receive(consumer, 30):
            expected = partitioner(message.key, list(range(5)), list(range(5)))
            assert message.topic_partition.partition == expected
        await bus.close()


class TestOutages:
    async def test_messages_published_during_an_outage_are_delivered_once_and_in_order(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=2)
        producer = bus.producer()
        listener = Assignments()
        consumer = bus.consumer("g", listener)
        consumer.subscribe(["t"])
        await poll_until(consumer, lambda: len(listener.now) == 2)
        numbers = itertools.count()
        futures: list[asyncio.Future[int]] = []

        async def publish_on(stop: asyncio.Event) -> None:
            while not stop.is_set():
                number = next(numbers)
                futures.append(producer.publish("t", b"%d" % (number % 5), b"%d" % number))
                await asyncio.sleep(0.001)

        stop = asyncio.Event()
        publishing = asyncio.ensure_future(publish_on(stop))
        while sum(future.done() for future in futures) < 200:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(kafka.kill)
        done = sum(future.done() for future in futures)
        while len(futures) < done + 500:
            await asyncio.sleep(0.01)
        assert producer.pending_bytes > 0
        await asyncio.to_thread(kafka.start)
        stop.set()
        await publishing
        await asyncio.gather(*futures)
        assert producer.pending_bytes == 0

        messages: list[BusMessage] = []
        async with asyncio.timeout(60):
            while len(messages) < len(futures):
                with suppress(BusUnavailable):
                    messages += await consumer.poll(timeout_s=0.5)
        assert sorted(int(message.value) for message in messages) == list(range(len(futures)))
        for parted in by_partition(messages).values():
            values = [int(message.value) for message in parted]
            assert values == sorted(values)
        assert listener.now == {TopicPartition("t", 0), TopicPartition("t", 1)}
        await bus.close()

    async def test_a_long_outage_fails_waiting_messages_and_later_ones_are_delivered(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path, delivery_timeout_s=1.5, request_timeout_s=2.0)
        await bus.ensure_topic("t", partitions=1)
        producer = bus.producer()
        await producer.publish("t", b"k", b"before")
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["t"])
        await receive(consumer, 1)
        kafka.kill()
        try:
            futures = [producer.publish("t", b"k", b"lost") for _ in range(20)]
            done = await asyncio.gather(*futures, return_exceptions=True)
            assert all(isinstance(each, BusUnavailable) for each in done)
            assert producer.pending_bytes == 0
            with pytest.raises(BusUnavailable, match="no server listens on this port"):
                await poll_until(consumer, lambda: False)
            with pytest.raises(BusUnavailable, match="no server listens on this port"):
                await opened(kafka, tmp_path).prepare(groups=[])
        finally:
            kafka.start()
        came: list[bytes] = []
        async with asyncio.timeout(100):
            while True:
                with suppress(BusUnavailable):  # a busy broker takes longer to return
                    await producer.publish("t", b"k", b"after")
                    break
            while b"after" not in came:
                with suppress(BusUnavailable):
                    came += [message.value for message in await consumer.poll(timeout_s=0.5)]
        assert set(came) <= {b"lost", b"after"}
        await bus.close()

    async def test_a_fenced_producer_continues_with_a_new_id(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=1)
        producer = bus.producer()
        assert isinstance(producer, KafkaProducer)
        await asyncio.gather(*(producer.publish("t", b"k", b"%d" % number) for number in range(3)))
        # As if the broker had lost the state of this producer: the next number is not the expected one.
        assert producer._links.current is not None
        transactions = producer._links.current.producer._txn_manager
        transactions.increment_sequence_number(KafkaPartition(bus._connection.to_kafka("t"), 0), 5)  # type: ignore[attr-defined]
        await asyncio.gather(*(producer.publish("t", b"k", b"%d" % number) for number in range(3, 6)))
        assert await values_of(bus, "t", 6) == [b"%d" % number for number in range(6)]
        await bus.close()

    async def test_the_error_names_a_deleted_topic_which_accepts_messages_once_it_is_recreated(
        self, kafka: KafkaBroker, tmp_path: Path, prefix: str, interference: Interference
    ) -> None:
        bus = opened(kafka, tmp_path, topic_prefix=prefix, delivery_timeout_s=4.0, request_timeout_s=2.0)
        await bus.ensure_topic("t", partitions=1)
        producer = bus.producer()
        await producer.publish("t", b"k", b"before")
        await interference.delete("t")
        # Does not wait for the deletion: the brokers drop the topic at different times.
        errors: list[int | BaseException] = []
        for _ in range(3):
            errors += await asyncio.gather(producer.publish("t", b"k", b"nowhere"), return_exceptions=True)
        assert isinstance(errors[-1], BusUnavailable)
        assert re.search(r"no topic .*windvane topics apply", str(errors[-1]))
        await bus.ensure_topic("t", partitions=2)
        await producer.publish("t", b"k", b"after")
        assert b"after" in await values_of(bus, "t", 1)
        await bus.close()

    async def test_the_reason_of_a_pending_request_is_read_from_the_cluster(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=1)
        connection = connection_to(f"kafka://{kafka.bootstrap}", tmp_path, bus._connection.settings)  # type: ignore[attr-defined]
        assert await connection._look_at("t") is None
        assert "a request timed out" in str(await connection.explain_silence(["t"]))
        assert "windvane topics apply" in str(await connection.explain_silence(["t", "missing"]))
        await bus.close()

    async def test_closing_does_not_wait_for_an_unavailable_broker(
        self, kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("windvane.bus.kafka.producer.producer.CLOSE_S", 0.5)
        bus = open_bus(f"kafka://127.0.0.1:{free_port()}", tmp_path)
        producer = bus.producer()
        published = producer.publish("t", b"k", b"v")
        await bus.close()
        with pytest.raises(BusUnavailable, match="no server listens on this port"):
            await published


class TestReading:
    @pytest.mark.parametrize("count", [2, 9], ids=["shorter", "longer"])
    async def test_a_topic_recreated_before_the_group_notices_is_halted(
        self, kafka: KafkaBroker, tmp_path: Path, prefix: str, count: int
    ) -> None:
        bus = opened(kafka, tmp_path, topic_prefix=prefix, session_timeout_s=20.0)
        await bus.ensure_topic("t", partitions=1)
        producer = bus.producer()
        for number in range(5):
            await producer.publish("t", b"k", b"%d" % number)
        partition = TopicPartition("t", 0)
        listener = Assignments()
        consumer = bus.consumer("g", listener)
        consumer.subscribe(["t"])
        await receive(consumer, 5)
        before = await bus.log_ids(["t"])

        async def recreate() -> None:
            await Interference(kafka.bootstrap, prefix).delete("t")
            other = opened(kafka, tmp_path, topic_prefix=prefix)
            await other.ensure_topic("t", partitions=1)
            await asyncio.gather(
                *(other.producer().publish("t", b"k", b"new %d" % number) for number in range(count))
            )
            await other.close()

        # In a thread, while this loop is blocked: its consumer cannot see that the topic was missing.
        making = threading.Thread(target=lambda: asyncio.run(recreate()))
        making.start()
        making.join(timeout=60)
        messages = await poll_until(consumer, lambda: bool(consumer.halted))
        assert messages == []
        assert listener.now == {partition}
        assert_halted(consumer, partition, LogReplaced, offset=5, resume_at=0, missing=None)
        assert await bus.log_ids(["t"]) != before
        consumer.seek(partition, BEGINNING)
        new = await receive(consumer, count)
        assert sorted(message.value for message in new) == [b"new %d" % number for number in range(count)]
        await bus.close()

    async def test_messages_fetched_before_a_seek_are_not_returned_after_it(
        self, kafka: KafkaBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=1)
        producer = bus.producer()
        for number in range(10):
            await producer.publish("t", b"k", b"%d" % number)
        consumer = bus.consumer("g", Assignments({TopicPartition("t", 0): 5}))
        assert isinstance(consumer, KafkaConsumer)
        check_logs = consumer._logs.check
        sought: list[int] = []

        async def seek_meanwhile(topics: Collection[str]) -> set[str]:
            same = await check_logs(topics)
            if isinstance(topics, set) and not sought:  # called by a fetch, not while idle
                consumer.seek(TopicPartition("t", 0), 2)
                sought.append(2)
            return same

        monkeypatch.setattr(consumer._logs, "check", seek_meanwhile)
        consumer.subscribe(["t"])
        assert [message.offset for message in await receive(consumer, 8)] == list(range(2, 10))
        assert sought
        await bus.close()

    async def test_a_consumer_that_the_group_removed_is_notified_and_starts_over(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=1)
        calls: list[str] = []

        class Told(Assignments):
            async def assigned(
                self, partitions: Sequence[TopicPartition]
            ) -> Mapping[TopicPartition, int | None]:
                calls.append("assigned")
                return await super().assigned(partitions)

            async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
                calls.append("revoked")
                await super().revoked(partitions)

        listener = Told()
        consumer = bus.consumer("g", listener)
        consumer.subscribe(["t"])
        await poll_until(consumer, lambda: bool(listener.now))
        assert isinstance(consumer, KafkaConsumer)
        assert consumer._client.current is not None
        # Another client leaves the group in its name, as if its session had expired.
        coordinator = consumer._client.current._coordinator
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))
        await poll_until(consumer, lambda: len(calls) == 3)
        assert calls == ["assigned", "revoked", "assigned"]
        await bus.producer().publish("t", b"k", b"v")
        assert [message.value for message in await receive(consumer, 1)] == [b"v"]
        await bus.close()

    async def test_partitions_that_do_not_move_are_read_during_the_handover_of_another(
        self, kafka: KafkaBroker, tmp_path: Path
    ) -> None:
        bus = opened(kafka, tmp_path)
        await bus.ensure_topic("t", partitions=4)
        first_listener, second_listener = Assignments(), Assignments()
        first, second = bus.consumer("g", first_listener), bus.consumer("g", second_listener)
        first.subscribe(["t"])
        await poll_until(first, lambda: len(first_listener.now) == 4)
        producer = bus.producer()
        await asyncio.gather(*(producer.publish("t", b"%d" % number, b"") for number in range(40)))
        kept = await receive(first, 40)
        second.subscribe(["t"])
        again: list[BusMessage] = []
        async with asyncio.timeout(30):
            while len(second_listener.now) < 2 or len(first_listener.now) > 2:
                again += await first.poll(timeout_s=0.01)
                again += await second.poll(timeout_s=0.01)
                assert not first_listener.now & second_listener.now
        while moved := await second.poll(timeout_s=1):
            again += moved
        # Nothing was committed: a new holder starts at the first message, a previous one continues.
        moved_partitions = {message.topic_partition for message in again}
        assert moved_partitions <= second_listener.now
        assert len(again) == sum(message.topic_partition in second_listener.now for message in kept)
        await bus.close()


def batches_in(kafka: KafkaBroker, topic: str) -> tuple[Path, list[int]]:
    """The newest file of partition 0 of a topic, and the start of each of its record batches."""
    path = sorted(kafka.data.glob(f"**/{topic}-0/*.log"))[-1]
    data, starts, at = path.read_bytes(), [], 0
    while at + 12 <= len(data) and (length := int.from_bytes(data[at + 8 : at + 12], "big")):
        starts.append(at)
        at += 12 + length
    return path, starts


class TestDamage:
    @pytest.mark.parametrize("compression", ["none", "zstd"])
    @pytest.mark.parametrize("damaged", [[4], [4, 5, 6], [9], [0]])
    async def test_a_damaged_batch_halts_only_its_partition_and_names_where_to_resume(
        self, kafka: KafkaBroker, tmp_path: Path, damaged: list[int], compression: str
    ) -> None:
        bus = opened(kafka, tmp_path, compression=compression)
        producer = bus.producer()
        for topic in ("t", "other"):
            await bus.ensure_topic(topic, partitions=1)
            for number in range(10):  # each a batch of three messages, but the last
                futures = [producer.publish(topic, b"k", b"%d-%d" % (number, place)) for place in range(3)]
                await asyncio.gather(*futures)
        path, starts = batches_in(kafka, bus._connection.to_kafka("t"))  # type: ignore[attr-defined]
        assert len(starts) == 10
        with path.open("r+b") as file:
            for number in damaged:
                file.seek(starts[number] + 70)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 0x10]))
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["t", "other"])
        partition = TopicPartition("t", 0)
        messages = await poll_until(consumer, lambda: bool(consumer.halted))
        first = 3 * damaged[0]
        assert_halted(
            consumer,
            partition,
            BusCorrupt,
            offset=first,
            resume_at=first + 3 * len(damaged),
            missing=3 * len(damaged),
        )
        async with asyncio.timeout(30):
            while len(messages) < 30 + first:
                messages += await consumer.poll(timeout_s=1)
        parted = by_partition(messages)
        assert [message.offset for message in parted[partition]] == list(range(first))
        assert len(parted[TopicPartition("other", 0)]) == 30
        await asyncio.gather(*(producer.publish(topic, b"k", b"v") for topic in ("t", "other")))
        assert [message.topic_partition.topic for message in await receive(consumer, 1)] == ["other"]
        resume_at = consumer.halted[partition].resume_at
        assert resume_at is not None
        consumer.seek(partition, resume_at)
        rest = await receive(consumer, 31 - resume_at)
        assert [message.offset for message in rest] == list(range(resume_at, 31))
        print(f"{first + len(rest)} of 31 acknowledged messages read, {3 * len(damaged)} damaged")
        await bus.close()
