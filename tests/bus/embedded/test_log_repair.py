"""Damaged logs of the embedded bus: detection, repair, and continued service of the other messages."""

import asyncio
import os
import shutil
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from windvane.bus import BEGINNING, Bus, Consumer, TopicPartition, open_bus
from windvane.bus.embedded.log_repair import partitions_of, repair_log, verify_log
from windvane.bus.embedded.log_scan import scan_segment
from windvane.bus.embedded.record_format import frame
from windvane.bus.embedded.segment_log import COMMITTED, LogWriter, segment_bases, segment_path
from windvane.errors import BusCorrupt, BusLocked, BusUnavailable, MessagesDamaged
from windvane.testing.bus import Assignments, poll_until, receive

from tests.bus.embedded.test_segment_log import messages_of, new_log, write

COUNT = 60
SMALL = "embedded:?segment_bytes=4096&retention_bytes=1000000"
PARTITION = TopicPartition("damaged", 0)
SOUND = TopicPartition("sound", 0)


def value_of(number: int) -> bytes:
    return b"%03d " % number + bytes([number]) * 500


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Bus]:
    bus = open_bus(SMALL, home)
    try:
        yield bus
    finally:
        await bus.close()


async def filled(home: Path) -> Path:
    """A bus with `COUNT` acknowledged messages in each of two topics; the log of `PARTITION`."""
    async with opened(home) as bus:
        for topic in ("damaged", "sound"):
            await bus.ensure_topic(topic, partitions=1)
            await publish(bus, topic, range(COUNT))
    return home / "bus/damaged/0"


async def publish(bus: Bus, topic: str, numbers: range) -> None:
    producer = bus.producer()
    for number in numbers:
        assert await producer.publish(topic, b"k", value_of(number)) == number
    await producer.close()


async def read_past_holes(consumer: Consumer, partition: TopicPartition, end: int) -> list[int]:
    """Offsets of all readable messages up to `end`, skipping each hole as a user would."""
    offsets: list[int] = []
    at = 0
    async with asyncio.timeout(60):
        while at < end:
            for message in await consumer.poll(timeout_s=0.1):
                if message.topic_partition == partition:
                    assert message.offset >= at
                    assert message.value == value_of(message.offset)
                    offsets.append(message.offset)
                    at = message.offset + 1
            if (error := consumer.halted.get(partition)) is not None:
                assert isinstance(error, MessagesDamaged)
                assert error.offset == at
                assert error.resume_at is not None
                assert error.missing == error.resume_at - at
                at = error.resume_at
                consumer.seek(partition, at)
    return offsets


Damaging = Callable[[Path], set[int]]


def flip_in_body(log: Path) -> set[int]:
    """Flips one bit of a message in a full segment."""
    segment = segment_path(log, segment_bases(log)[2])
    data = bytearray(segment.read_bytes())
    data[600] ^= 0x04
    segment.write_bytes(data)
    return {segment_bases(log)[2] + 1}


def flip_in_length(log: Path) -> set[int]:
    """Damages the length of a message, which hides the start of the next one."""
    segment = segment_path(log, segment_bases(log)[2])
    data = bytearray(segment.read_bytes())
    (length,) = struct.unpack_from("<I", data, 0)
    struct.pack_into("<I", data, 0, length + 100)
    segment.write_bytes(data)
    return {segment_bases(log)[2]}


def truncate(log: Path) -> set[int]:
    first, stop = segment_bases(log)[2:4]
    os.truncate(segment_path(log, first), 700)
    return set(range(first + 1, stop))


def delete(log: Path) -> set[int]:
    first, stop = segment_bases(log)[2:4]
    segment_path(log, first).unlink()
    return set(range(first, stop))


def fill_with_zeros(log: Path) -> set[int]:
    """Writes a page of zeros into the middle of a segment."""
    first = segment_bases(log)[2]
    with segment_path(log, first).open("r+b") as file:
        file.seek(1000)
        file.write(bytes(1000))
    return {first + 1, first + 2, first + 3}


def flip_in_newest(log: Path) -> set[int]:
    last = segment_bases(log)[-1]
    with segment_path(log, last).open("r+b") as file:
        file.seek(10)
        file.write(b"\xff")
    return {last}


def truncate_newest(log: Path) -> set[int]:
    last = segment_bases(log)[-1]
    os.truncate(segment_path(log, last), 100)
    return set(range(last, COUNT))


def delete_newest(log: Path) -> set[int]:
    last = segment_bases(log)[-1]
    segment_path(log, last).unlink()
    return set(range(last, COUNT))


def overwrite_committed(log: Path) -> set[int]:
    """Damages only the page with the durable end: no message is damaged."""
    (log / COMMITTED).write_bytes(b"x" * 4096)
    return set()


SEALED = [flip_in_body, flip_in_length, truncate, delete, fill_with_zeros]
NEWEST = [flip_in_newest, truncate_newest, delete_newest]


@pytest.mark.parametrize("damage", SEALED, ids=lambda damage: damage.__name__)
async def test_a_damaged_full_segment_loses_only_its_damaged_messages(
    tmp_path: Path, damage: Damaging
) -> None:
    log = await filled(tmp_path)
    lost = damage(log)
    async with opened(tmp_path) as bus:
        await bus.prepare(groups=["g"])
        await publish(bus, "damaged", range(COUNT, COUNT + 5))
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["damaged", "sound"])
        offsets = await read_past_holes(consumer, PARTITION, COUNT + 5)
    assert set(range(COUNT + 5)) - set(offsets) == lost
    print(f"{len(offsets)} of {COUNT + 5} acknowledged messages read, {len(lost)} damaged")


@pytest.mark.parametrize(
    "damage", [*SEALED, *NEWEST, overwrite_committed], ids=lambda damage: damage.__name__
)
async def test_repair_keeps_every_whole_message_and_every_damaged_byte(
    tmp_path: Path, damage: Damaging
) -> None:
    log = await filled(tmp_path)
    lost = damage(log)
    before = {path.read_bytes() for path in log.glob("*.log")}
    found = verify_log(tmp_path / "bus", PARTITION)
    assert found.damages
    assert {n for each in found.damages for n in range(each.first, each.stop)} == lost
    assert repair_log(tmp_path / "bus", PARTITION).damages == found.damages
    again = verify_log(tmp_path / "bus", PARTITION)
    assert again.damages == []
    assert again.messages == COUNT - len(lost)
    assert {n for each in again.gaps for n in range(each.first, each.stop)} == lost
    kept = {path.read_bytes() for path in [*log.glob("*.log"), *log.glob("damaged/*.log.*")]}
    assert kept >= before
    async with opened(tmp_path) as bus:
        await bus.prepare(groups=["g"])
        assert bus.damaged_partitions == {}
        await publish(bus, "damaged", range(COUNT, COUNT + 5))
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["damaged"])
        assert set(range(COUNT + 5)) - set(await read_past_holes(consumer, PARTITION, COUNT + 5)) == lost


@pytest.mark.parametrize("damage", [*NEWEST, overwrite_committed], ids=lambda damage: damage.__name__)
async def test_a_damaged_newest_segment_stops_only_its_partition_until_it_is_repaired(
    tmp_path: Path, damage: Damaging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.bus.embedded.group_commit.OPEN_AGAIN_S", 0.0)
    log = await filled(tmp_path)
    lost = damage(log)
    names = sorted(path.name for path in log.iterdir())
    async with opened(tmp_path) as bus:
        await bus.prepare(groups=["g"])
        assert bus.damaged_partitions.keys() == {PARTITION}
        producer = bus.producer()
        with pytest.raises(BusUnavailable, match=r"windvane verify --repair"):
            await producer.publish("damaged", b"k", b"not taken")
        await publish(bus, "sound", range(COUNT, COUNT + 5))
        assert sorted(path.name for path in log.iterdir()) == names
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["damaged", "sound"])
        messages = await poll_until(consumer, lambda: PARTITION in consumer.halted)
        while sum(message.topic_partition == SOUND for message in messages) < COUNT + 5:
            messages += await consumer.poll(timeout_s=1)
        # The gateway still runs.
        repair_log(tmp_path / "bus", PARTITION)
        await publish(bus, "damaged", range(COUNT, COUNT + 5))
        assert bus.damaged_partitions == {}
        consumer.seek(PARTITION, BEGINNING)
        offsets = await read_past_holes(consumer, PARTITION, COUNT + 5)
        assert set(range(COUNT + 5)) - set(offsets) == lost


async def test_the_newest_segment_is_not_repaired_while_a_gateway_writes_to_it(tmp_path: Path) -> None:
    log = await filled(tmp_path)
    async with opened(tmp_path) as bus:
        await bus.prepare(groups=[])
        flip_in_newest(log)
        with pytest.raises(BusLocked, match="Stop the gateway"):
            repair_log(tmp_path / "bus", PARTITION)
    assert len(repair_log(tmp_path / "bus", PARTITION).set_aside) == 1


def test_repair_does_not_change_an_undamaged_log(tmp_path: Path) -> None:
    log = asyncio.run(filled(tmp_path))
    before = {path: path.read_bytes() for path in log.iterdir()}
    for partition in partitions_of(tmp_path / "bus"):
        assert verify_log(tmp_path / "bus", partition)[1:] == (COUNT, [], [], [])
        assert repair_log(tmp_path / "bus", partition).set_aside == []
    assert {path: path.read_bytes() for path in log.iterdir()} == before


def test_bytes_that_look_like_a_record_inside_a_message_are_not_parsed_as_one() -> None:
    """A sender's message contains whole records with the next offsets; later its header is damaged."""
    with new_log() as directory:
        fake = b"".join(map(bytes, frame(messages_of([(b"k", b"forged %d" % n) for n in range(4)]), 2)))
        write(directory, [(b"k", b"0"), (b"k", b"x" * 10 + fake), *((b"k", b"%d" % n) for n in range(2, 9))])
        path = segment_path(directory, 0)
        data = bytearray(path.read_bytes())
        data[22] = 0xFF  # the length of message 1
        data[23] = 0xFF
        path.write_bytes(data)
        scan = scan_segment(path, 0, 9)
        assert [(run.first, run.stop) for run in scan.runs] == [(0, 1), (2, 9)]
        assert b"forged" not in data[scan.runs[1].start_byte : scan.runs[1].stop_byte]


async def test_a_partial_write_is_kept_if_whole_messages_follow_it(
    tmp_path: Path,
) -> None:
    log = await filled(tmp_path)
    newest = segment_path(log, segment_bases(log)[-1])
    durable = newest.read_bytes()
    torn = bytearray(b"".join(map(bytes, frame(messages_of([(b"k", b"a" * 50), (b"k", b"b" * 50)]), COUNT))))
    torn[40] ^= 1
    newest.write_bytes(durable + torn)
    async with opened(tmp_path) as bus:
        await publish(bus, "damaged", range(COUNT, COUNT + 2))
    (kept,) = (log / "damaged").iterdir()
    assert kept.read_bytes() == torn


async def test_a_topic_deleted_under_its_writer_acknowledges_nothing_that_is_lost(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with opened(tmp_path) as bus, opened(tmp_path) as other:
        producer = bus.producer()
        await producer.publish("damaged", b"k", value_of(COUNT))
        shutil.rmtree(tmp_path / "bus/damaged")
        await other.ensure_topic("damaged", partitions=1)
        await publish(bus, "damaged", range(3))
        consumer = bus.consumer("g", Assignments())
        consumer.subscribe(["damaged"])
        assert [message.value for message in await receive(consumer, 3)] == [value_of(n) for n in range(3)]


def test_messages_written_while_the_files_are_deleted_are_not_acknowledged() -> None:
    with new_log() as directory:
        writer = LogWriter(directory)
        writer.append(messages_of([(b"k", b"before")]))
        shutil.rmtree(directory)
        with pytest.raises(BusUnavailable, match="was deleted during a write"):
            writer.append(messages_of([(b"k", b"into nothing")]))
        assert not writer.usable
        writer.close()


@pytest.mark.parametrize("damage", ["delete", "overwrite"])
async def test_a_lost_topic_identity_is_recreated_from_its_copy(tmp_path: Path, damage: str) -> None:
    await filled(tmp_path)
    uid = tmp_path / "bus/damaged/uid"
    async with opened(tmp_path) as bus:
        before = await bus.log_ids(["damaged"])
        if damage == "delete":
            uid.unlink()
        else:
            uid.write_bytes(b"\0" * 32)
        assert await bus.log_ids(["damaged"]) == before


async def test_a_topic_of_an_earlier_version_gets_a_permanent_identity(tmp_path: Path) -> None:
    log = await filled(tmp_path)
    (log.parent / "uid").unlink()
    page = bytearray((log / COMMITTED).read_bytes())
    page[16:32] = bytes(16)
    (log / COMMITTED).write_bytes(page)
    async with opened(tmp_path) as bus:
        made = await bus.log_ids(["damaged"])
        (log.parent / "uid").unlink()
        assert await bus.log_ids(["damaged"]) == made
        assert await bus.ends(["damaged"]) == {PARTITION: COUNT}


async def test_a_damaged_doorbell_is_recreated(tmp_path: Path) -> None:
    await filled(tmp_path)
    (tmp_path / "bus/@doorbell").write_bytes(b"?")
    async with opened(tmp_path) as bus:
        await publish(bus, "sound", range(COUNT, COUNT + 1))


def test_segments_follow_each_other_in_the_test(tmp_path: Path) -> None:
    bases = segment_bases(asyncio.run(filled(tmp_path)))
    assert len(bases) > 5
    assert all(stop - first >= 5 for first, stop in pairwise(bases))
    with pytest.raises(BusCorrupt):
        raise MessagesDamaged("m", topic="t", partition=0, offset=0, resume_at=None, missing=None)
