"""The embedded bus: the conformance suite, other processes, crashes, full disks."""

import asyncio
import os
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from windvane.bus import Bus, BusMessage, Consumer, TopicPartition, open_bus
from windvane.bus.embedded.notification import Doorbell, Listener
from windvane.bus.embedded.record_format import frame
from windvane.bus.embedded.segment_log import segment_bases, segment_path
from windvane.errors import BusCorrupt, BusLocked, BusUnavailable, ConfigInvalid
from windvane.testing.bus import (
    Assignments,
    BusConformance,
    MakeBus,
    assert_halted,
    by_partition,
    poll_until,
    receive,
)

from tests.bus import bus_process
from tests.bus.embedded.test_segment_log import disk_room, failing_fdatasync, read
from tests.processes import END_S

KILLS = 8
SMALL = "embedded:?segment_bytes=4096&retention_bytes=8192"


@pytest.fixture
async def make_bus(tmp_path: Path) -> AsyncIterator[MakeBus]:
    buses: list[Bus] = []

    def make() -> Bus:
        buses.append(open_bus("embedded:", tmp_path))
        return buses[-1]

    yield make
    for bus in buses:
        await bus.close()


class Interference:
    """What retention and an operator do to the files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def trim(self, topic: str, before: int) -> None:
        directory = self._path / topic / "0"
        messages = read(directory)[before:]
        writer_end = read(directory)[-1].offset + 1
        segment_path(directory, 0).unlink()
        records = frame([(message.key, [message.value]) for message in messages], before)
        segment_path(directory, before).write_bytes(b"".join(map(bytes, records)))
        assert before + len(messages) == writer_end

    async def delete(self, topic: str) -> None:
        shutil.rmtree(self._path / topic)


@pytest.fixture
def interference(tmp_path: Path) -> Interference:
    return Interference(tmp_path / "bus")


@asynccontextmanager
async def opened(home: Path, url: str = "embedded:") -> AsyncIterator[Bus]:
    bus = open_bus(url, home)
    try:
        yield bus
    finally:
        await bus.close()


@asynccontextmanager
async def process(*arguments: str | Path | int) -> AsyncIterator[Process]:
    command = [sys.executable, bus_process.__file__, *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    started = await asyncio.create_subprocess_exec(*command, stdout=PIPE, env=environment, limit=1 << 26)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await asyncio.wait_for(started.wait(), END_S)


async def line_of(started: Process) -> bytes:
    assert started.stdout is not None
    async with asyncio.timeout(30):
        return (await started.stdout.readline()).removesuffix(b"\n")


async def read_to_the_end(consumer: Consumer) -> list[BusMessage]:
    """All messages, up to the fifth that says end."""
    messages: list[BusMessage] = []
    ends = 0
    async with asyncio.timeout(120):
        while ends < 5:
            polled = await consumer.poll(timeout_s=120)
            ends += sum(message.value == b"end" for message in polled)
            messages += polled
    return messages


class TestEmbedded(BusConformance):
    pass


@pytest.mark.system
class TestOtherProcesses:
    async def test_a_second_process_reads_live(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bus, process("read", tmp_path, "live") as reader:
            assert await line_of(reader) == b"ready"
            # The reader has started before the topic exists.
            await bus.ensure_topic("live", partitions=1)
            producer = bus.producer()
            for number in range(50):
                value = b"value %d" % number
                await producer.publish("live", b"k", value)
                assert await line_of(reader) == b"0 %d %s" % (number, value)

    async def test_one_bus_writes_to_a_topic_at_a_time(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as second:
            async with opened(tmp_path) as first:
                await first.ensure_topic("topic", partitions=1)
                await first.producer().publish("topic", b"k", b"first")
                producer = second.producer()
                with pytest.raises(BusLocked):
                    await producer.publish("topic", b"k", b"refused")
                assert producer.pending_bytes == 0
            await producer.publish("topic", b"k", b"second")
            consumer = second.consumer("group", Assignments())
            consumer.subscribe(["topic"])
            assert [message.value for message in await receive(consumer, 2)] == [b"first", b"second"]

    async def test_a_consumer_is_on_standby_until_the_active_process_of_the_group_ends(
        self, tmp_path: Path
    ) -> None:
        async with opened(tmp_path) as bus:
            await bus.ensure_topic("live", partitions=1)
            await bus.producer().publish("live", b"k", b"v")
            listener = Assignments()
            consumer = bus.consumer("process", listener)
            consumer.subscribe(["live"])
            async with process("read", tmp_path, "live") as reader:
                assert await line_of(reader) == b"ready"
                assert await line_of(reader) == b"0 0 v"
                assert await consumer.poll(timeout_s=0.2) == []
                assert listener.now == set()
                reader.kill()
                # It had committed nothing, so its successor begins at the same position.
                assert [message.value for message in await receive(consumer, 1)] == [b"v"]

    async def test_a_killed_writer_loses_and_duplicates_no_acknowledged_message(self, tmp_path: Path) -> None:
        """A process is killed again and again in the middle of appending, while another one reads."""
        chance = random.Random(7)
        acknowledged: dict[int, int] = {}
        first_number = 0
        async with opened(tmp_path) as bus:
            await bus.ensure_topic(bus_process.TOPIC, partitions=2)
            consumer = bus.consumer("live", Assignments())
            consumer.subscribe([bus_process.TOPIC])
            reading_live = asyncio.ensure_future(read_to_the_end(consumer))
            for _ in range(KILLS):
                async with process("publish", tmp_path, first_number) as writer:
                    assert writer.stdout is not None
                    lines = [await line_of(writer) for _ in range(chance.randrange(1, 300))]
                    await asyncio.sleep(chance.random() * 0.01)
                    writer.send_signal(signal.SIGKILL)
                    lines += (await writer.stdout.read()).splitlines()
                for line in lines:
                    number, offset = map(int, line.split())
                    acknowledged[number] = offset
                first_number = max(acknowledged) + bus_process.IN_FLIGHT + 1

            # Reopening for writing truncates the partial write of the last kill.
            producer = bus.producer()
            for key in range(5):
                await producer.publish(bus_process.TOPIC, bus_process.key_of(key), b"end")
            again = bus.consumer("again", Assignments())
            again.subscribe([bus_process.TOPIC])
            messages = await read_to_the_end(again)
            live = await reading_live

        found: dict[int, int] = {}
        for partition, parted in by_partition(messages).items():
            assert [message.offset for message in parted] == list(range(len(parted)))
            assert by_partition(live)[partition] == parted
            numbers = []
            for message in parted:
                if message.value == b"end":
                    continue
                number = int(message.value.split(b" ", 1)[0])
                assert message.value == bus_process.value_of(number)
                assert message.key == bus_process.key_of(number)
                numbers.append(number)
                found[number] = message.offset
            assert numbers == sorted(set(numbers))
        assert len(acknowledged) > 10 * KILLS
        assert {number: found.get(number) for number in acknowledged} == acknowledged


class TestDiskTrouble:
    async def test_a_full_disk_fails_only_the_published_messages(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bus:
            await bus.ensure_topic("topic", partitions=1)
            producer = bus.producer()
            await producer.publish("topic", b"k", b"before")
            with disk_room(10_000):
                futures = [producer.publish("topic", b"k", bytes(20_000)) for _ in range(5)]
                outcomes = await asyncio.gather(*futures, return_exceptions=True)
                assert [type(outcome) for outcome in outcomes] == [BusUnavailable] * 5
                assert producer.pending_bytes == 0
                await producer.publish("topic", b"k", b"there is room for this")
            await producer.publish("topic", b"k", b"after")
            consumer = bus.consumer("group", Assignments())
            consumer.subscribe(["topic"])
            values = [message.value for message in await receive(consumer, 3)]
            assert values == [b"before", b"there is room for this", b"after"]

    async def test_after_a_failed_fdatasync_the_next_message_reopens_the_log(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bus:
            await bus.ensure_topic("topic", partitions=1)
            producer = bus.producer()
            await producer.publish("topic", b"k", b"before")
            with failing_fdatasync(segment_path(tmp_path / "bus/topic/0", 0)):
                with pytest.raises(BusUnavailable, match="fdatasync"):
                    await producer.publish("topic", b"k", b"not acknowledged")
                # Inside the block, since reopening closes the descriptor that was swapped.
                await producer.publish("topic", b"k", b"after")
            consumer = bus.consumer("group", Assignments())
            consumer.subscribe(["topic"])
            assert [message.value for message in await receive(consumer, 2)] == [b"before", b"after"]

    async def test_damage_rejects_published_messages_and_names_the_position(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bus:
            await bus.ensure_topic("topic", partitions=1)
            await bus.producer().publish("topic", b"k", b"value")
        path = segment_path(tmp_path / "bus/topic/0", 0)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        async with opened(tmp_path) as bus:
            with pytest.raises(BusUnavailable, match=f"{path.name} is damaged at byte 0"):
                await bus.producer().publish("topic", b"k", b"value")

    async def test_damage_in_one_partition_leaves_the_others_readable(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as bus:
            producer = bus.producer()
            for topic in ("damaged", "sound"):
                await bus.ensure_topic(topic, partitions=1)
                for number in range(50):
                    await producer.publish(topic, b"k", b"%d" % number)
            path = segment_path(tmp_path / "bus/damaged/0", 0)
            with path.open("r+b") as file:
                file.seek(10 * (20 + len(b"k") + len(b"0")))
                file.write(b"damage")
            consumer = bus.consumer("group", Assignments())
            consumer.subscribe(["damaged", "sound"])
            messages = await receive(consumer, 60, max_bytes=500)
            parted = by_partition(messages)
            assert len(parted[TopicPartition("sound", 0)]) == 50
            damaged = TopicPartition("damaged", 0)
            assert len(parted[damaged]) == 10
            assert await poll_until(consumer, lambda: bool(consumer.halted)) == []
            assert str(path) in str(consumer.halted[damaged])
            assert_halted(consumer, damaged, BusCorrupt, offset=10, resume_at=11, missing=1)
            consumer.seek(damaged, 11)
            assert [message.offset for message in await receive(consumer, 39)] == list(range(11, 50))


class TestRetention:
    async def publish(self, bus: Bus, count: int) -> None:
        producer = bus.producer()
        for _ in range(count):
            await producer.publish("topic", b"k", bytes(1000))
        await producer.close()

    async def test_retention_drops_nothing_that_a_known_group_has_not_read(self, tmp_path: Path) -> None:
        directory = tmp_path / "bus/topic/0"
        async with opened(tmp_path, SMALL) as bus:
            await bus.ensure_topic("topic", partitions=1)
            listener = Assignments()
            consumer = bus.consumer("slow", listener)
            consumer.subscribe(["topic"])
            await poll_until(consumer, lambda: bool(listener.now))
            await self.publish(bus, 40)
            assert segment_bases(directory)[0] == 0
            await receive(consumer, 40)
            await consumer.commit({TopicPartition("topic", 0): 20})
            await self.publish(bus, 10)
            assert 12 < segment_bases(directory)[0] <= 20

            await consumer.close()
            shutil.rmtree(tmp_path / "bus/@groups/slow")
            await self.publish(bus, 10)
            assert segment_bases(directory)[0] > 40

    async def test_positions_release_messages_only_for_the_database_of_a_live_reader(
        self, tmp_path: Path
    ) -> None:
        directory = tmp_path / "bus/topic/0"
        async with opened(tmp_path, SMALL) as bus:
            await bus.ensure_topic("topic", partitions=1)
            await self.publish(bus, 20)

            async def reader_of(database: str) -> Consumer:
                listener = Assignments()
                consumer = bus.consumer("workers", listener, positions_of=database)
                consumer.subscribe(["topic"])
                await poll_until(consumer, lambda: bool(listener.now))
                return consumer

            kept = segment_bases(directory)[0]
            reader = await reader_of("first")
            await reader.commit({TopicPartition("topic", 0): 20})
            await reader.close()
            await self.publish(bus, 20)
            assert segment_bases(directory)[0] == kept, "dropped for a reader that may have lost its database"
            reader = await reader_of("second")
            await self.publish(bus, 20)
            assert segment_bases(directory)[0] == kept, "dropped by the positions of another database"
            await reader.commit({TopicPartition("topic", 0): 40})
            await self.publish(bus, 10)
            assert segment_bases(directory)[0] > 30
            await reader.close()

    async def test_without_a_group_the_disk_is_bounded(self, tmp_path: Path) -> None:
        directory = tmp_path / "bus/topic/0"
        async with opened(tmp_path, SMALL) as bus:
            await bus.ensure_topic("topic", partitions=1)
            await self.publish(bus, 60)
        sizes = [segment_path(directory, base).stat().st_size for base in segment_bases(directory)]
        assert sum(sizes) <= 8192 + 2 * (4096 + 1100)

    async def test_a_new_group_begins_with_the_oldest_kept_message(self, tmp_path: Path) -> None:
        async with opened(tmp_path, SMALL) as bus:
            await bus.ensure_topic("topic", partitions=1)
            await self.publish(bus, 60)
            first = segment_bases(tmp_path / "bus/topic/0")[0]
            assert first > 0
            consumer = bus.consumer("late", Assignments())
            consumer.subscribe(["topic"])
            messages = await receive(consumer, 60 - first)
            assert messages[0].offset == first

    async def test_damaged_positions_keep_all_messages_and_the_next_reader_sets_them_aside(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        positions = tmp_path / "bus/@groups/group/positions.json"
        async with opened(tmp_path, SMALL) as bus:
            await bus.ensure_topic("topic", partitions=1)
            positions.parent.mkdir(parents=True)
            positions.write_text('{"topic"')
            await self.publish(bus, 60)
            assert segment_bases(tmp_path / "bus/topic/0")[0] == 0
            consumer = bus.consumer("group", Assignments())
            consumer.subscribe(["topic"])
            await receive(consumer, 60)
            (kept,) = positions.parent.glob("positions.json.damaged-*")
            assert kept.read_text() == '{"topic"'
            assert f"it was moved to {kept}" in caplog.text


class TestWaiting:
    async def test_a_listener_wakes_at_every_ring(self, tmp_path: Path) -> None:
        doorbell = Doorbell(tmp_path / "@doorbell")
        listener = Listener(doorbell)
        for _ in range(20):
            rung = doorbell.rung
            waiting = asyncio.ensure_future(listener.wait(rung, 60))
            await asyncio.sleep(0)
            doorbell.ring()
            await waiting
            assert doorbell.rung != rung
        listener.close()
        doorbell.close()

    async def test_a_listener_without_inotify_wakes_too(self, tmp_path: Path) -> None:
        doorbell = Doorbell(tmp_path / "@doorbell")
        listener = Listener(doorbell)
        listener.close()
        rung = doorbell.rung
        asyncio.get_running_loop().call_later(0.02, doorbell.ring)
        async with asyncio.timeout(30):
            while doorbell.rung == rung:
                await listener.wait(rung, 60)
        doorbell.close()


class TestOpening:
    @pytest.mark.parametrize(
        "url",
        [
            "embedded",
            "embedded:elsewhere",
            "embedded://host",
            "embedded:?segment_bytes=many",
            "embedded:?segment_bytes=1",
            "embedded:?retention=1",
            "discard:?segment_bytes=4096",
            "smoke:",
            "",
        ],
    )
    def test_an_invalid_bus_url_is_rejected(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(ConfigInvalid):
            open_bus(url, tmp_path)

    @pytest.mark.parametrize("topic", ["", ".", "..", "a/b", "@groups", "a b", "x" * 241])
    async def test_invalid_topic_names_are_rejected(self, tmp_path: Path, topic: str) -> None:
        async with opened(tmp_path) as bus:
            with pytest.raises(ConfigInvalid, match="topic"):
                await bus.ensure_topic(topic, partitions=1)
            assert await bus.topics() == {}

    async def test_an_unusable_home_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "bus").touch()
        with pytest.raises(BusUnavailable, match="bus"):
            open_bus("embedded:", tmp_path)


class FromTheBeginning:
    """Reads each assigned partition from its first message."""

    async def assigned(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int | None]:
        return dict.fromkeys(partitions, 0)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass


async def _read_all(bus: Bus, group: str, topic: str) -> list[bytes]:
    consumer = bus.consumer(group, FromTheBeginning())
    consumer.subscribe([topic])
    found: list[bytes] = []
    while messages := await consumer.poll(timeout_s=0.3):
        found += [message.value for message in messages]
    await consumer.close()
    return found


async def test_a_group_that_never_ran_loses_nothing_to_retention(tmp_path: Path) -> None:
    bus = open_bus(SMALL, tmp_path)
    await bus.prepare(groups=["workers"])
    await bus.ensure_topic("t", partitions=1)
    producer = bus.producer()
    for number in range(100):
        await producer.publish("t", b"k", b"%03d" % number + b"x" * 500)
    assert [value[:3] for value in await _read_all(bus, "workers", "t")] == [b"%03d" % n for n in range(100)]
    await bus.close()


async def test_prepare_makes_messages_readable_that_were_durable_at_a_power_cut(tmp_path: Path) -> None:
    bus = open_bus("embedded:", tmp_path)
    await bus.ensure_topic("t", partitions=1)
    for number in range(10):
        await bus.producer().publish("t", b"k", b"%d" % number)
    await bus.close()
    # The kernel writes the page with the durable end back at any time.
    with (tmp_path / "bus" / "t" / "0" / "committed").open("r+b") as committed:
        committed.seek(8)
        committed.write((4).to_bytes(8, "little"))
    bus = open_bus("embedded:", tmp_path)
    await bus.prepare(groups=[])
    assert await _read_all(bus, "g", "t") == [b"%d" % number for number in range(10)]
    await bus.close()
