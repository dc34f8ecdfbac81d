"""The embedded log after a power cut: acked messages are stored once, at their offsets."""

import asyncio
import errno
import os
import random
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from windvane.bus import open_bus
from windvane.bus.embedded import group_commit
from windvane.bus.embedded.segment_log import LogWriter, create_log
from windvane.bus.interface import Bus, Durability, Producer, TopicPartition
from windvane.directories import sync_directory
from windvane.errors import BusUnavailable
from windvane.testing.bus import Assignments

from tests.durability.file_tree import Kind, Step
from tests.durability.power_cut import Cut, PowerCut
from tests.durability.proof import IS_PROOF, SEEDS, no_real_syncs, sample
from tests.durability.recording_disk import RecordingDisk

pytestmark = pytest.mark.slow

TOPIC = "t"
GROUP = "readers"
P0 = TopicPartition(TOPIC, 0)


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


@pytest.fixture
def no_later_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that are only written are not synced automatically while a test runs."""
    monkeypatch.setattr(group_commit, "SYNC_DELAY_S", 3600)


@asynccontextmanager
async def opened(home: Path, options: str = "") -> AsyncIterator[Bus]:
    bus = open_bus(f"embedded:{options}", home)
    try:
        yield bus
    finally:
        await bus.close()


async def publish(disk: RecordingDisk, producer: Producer, *values: bytes, **how: Durability) -> None:
    """All at once; each ack is recorded."""
    await asyncio.gather(*(publish_one(disk, producer, value, **how) for value in values))


async def publish_one(
    disk: RecordingDisk, producer: Producer, value: bytes, durability: Durability = "fsync"
) -> None:
    published = producer.publish(TOPIC, value[:1], value, durability=durability)

    def acked(done: asyncio.Future[int]) -> None:
        if done.exception() is None:
            disk.mark(f"{durability} {value!r}", "ack")

    published.add_done_callback(acked)
    await published


def since(disk: RecordingDisk, mark: str) -> list[Step]:
    at = max(i for i, step in enumerate(disk.steps) if step.path == mark)
    return [step for step in disk.steps[at + 1 :] if "@doorbell" not in step.path]


def kinds(steps: Sequence[Step]) -> list[Kind]:
    return [step.kind for step in steps]


async def begun(disk: RecordingDisk, bus: Bus) -> Producer:
    """A producer whose log has a message already, behind the mark "begun"."""
    await bus.ensure_topic(TOPIC, partitions=1)
    producer = bus.producer()
    await producer.publish(TOPIC, b"k", b"opens the log")
    disk.mark("begun")
    return producer


async def test_a_message_is_written_then_synced_then_seen_by_readers_then_acked(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            await publish(disk, await begun(disk, bus), b"one")
    assert kinds(since(disk, "begun")) == ["write", "fdatasync", "store", "ack"]


async def test_a_group_shares_one_sync_which_comes_before_all_its_acks(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            await publish(disk, await begun(disk, bus), b"one", b"two", b"three")
    assert kinds(since(disk, "begun")) == ["write", "fdatasync", "store", "ack", "ack", "ack"]


@pytest.mark.usefixtures("no_later_sync")
async def test_a_group_of_mixed_durabilities_is_synced_before_its_acks(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            producer = await begun(disk, bus)
            async with asyncio.TaskGroup() as together:
                together.create_task(publish_one(disk, producer, b"one", "written"))
                together.create_task(publish_one(disk, producer, b"two", "fsync"))
                together.create_task(publish_one(disk, producer, b"three", "written"))
    assert kinds(since(disk, "begun")) == ["write", "fdatasync", "store", "ack", "ack", "ack"]


@pytest.mark.usefixtures("no_later_sync")
async def test_what_is_only_written_is_acked_before_readers_see_it(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            await publish(disk, await begun(disk, bus), b"one", durability="written")
        # Closing the bus makes it durable.
    assert kinds(since(disk, "begun")) == ["write", "ack", "fdatasync", "store"]


async def test_a_segment_begins_when_the_one_before_is_durable_and_its_name_is_synced_first(
    disk: RecordingDisk,
) -> None:
    with disk.recording():
        async with opened(disk.root, "?segment_bytes=4096") as bus:
            producer = await begun(disk, bus)
            await publish(disk, producer, b"x" * 5000, durability="written")
            disk.mark("full")
            await publish(disk, producer, b"y" * 5000)
    assert kinds(since(disk, "full")) == [
        "fdatasync",  # of the full one, which was only written
        "store",
        "create",
        "sync directory",
        "write",
        "fdatasync",
        "store",
        "ack",
    ]


async def test_a_new_topic_is_durable_down_from_the_bus_before_it_is_used(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            await bus.ensure_topic(TOPIC, partitions=1)
            disk.mark("made")
            await publish(disk, bus.producer(), b"one")
    made = next(i for i, step in enumerate(disk.steps) if step.path == "made")
    left = PowerCut(disk.steps).tree(made, lambda i, p: False).snapshot()
    assert f"bus/{TOPIC}/0/committed" in left
    assert len(left[f"bus/{TOPIC}/0/committed"] or b"") == 4096


async def test_retention_drops_only_what_every_group_has_durably_read(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root, "?segment_bytes=4096&retention_bytes=4096") as bus:
            await bus.ensure_topic(TOPIC, partitions=1)
            await bus.prepare(groups=[GROUP])
            producer, consumer = bus.producer(), bus.consumer(GROUP, Assignments())
            consumer.subscribe([TOPIC])
            for number in range(12):
                await publish(disk, producer, bytes([65 + number]) * 3000)
                await consumer.poll(timeout_s=30)
                await consumer.commit({P0: max(0, number - 4)})  # it reads on and is slow to finish
    dropped = [i for i, step in enumerate(disk.steps) if step.kind == "unlink" and step.path.endswith(".log")]
    assert dropped
    cut = PowerCut(disk.steps)
    for at in dropped:
        left = cut.tree(at + 1, lambda i, p: False).snapshot()
        position = _position(left)
        following = sorted(
            int(Path(step.path).stem)
            for step in disk.steps[:at]
            if step.kind == "create" and step.path.endswith(".log")
        )
        first_kept = next(base for base in following if base > int(Path(disk.steps[at].path).stem))
        assert first_kept <= position, "a group would get RangeGone"


def _position(left: dict[str, bytes | None]) -> int:
    positions = msgspec.json.decode(left[f"bus/@groups/{GROUP}/positions.json"] or b"")
    return int(positions[TOPIC]["0"])


# Power cuts at every step.


@dataclass
class Expected:
    """The promises that were made before a power cut."""

    acked: dict[bytes, None] = field(default_factory=dict)
    given: dict[int, bytes] = field(default_factory=dict)
    published: list[bytes] = field(default_factory=list)


def expected(steps: Sequence[Step]) -> Expected:
    found = Expected()
    for step in steps:
        if step.kind == "ack" and step.path.startswith("fsync "):
            found.acked[step.path.encode()] = None
        elif step.kind == "mark" and step.path.startswith("given "):
            _, offset, value = step.path.split(" ", 2)
            found.given[int(offset)] = value.encode()
    return found


async def busy_life(disk: RecordingDisk, home: Path, *, seed: int, failures: int = 0) -> None:
    """Publishes singles and groups of both durabilities, and reads; some fdatasyncs of the log fail."""
    chance = random.Random(seed)
    failing = iter([False, True] * failures)
    disk.fails = lambda kind, path: (
        errno.EIO if kind == "fdatasync" and path.endswith(".log") and next(failing, False) else None
    )
    async with opened(home, "?segment_bytes=4096&retention_bytes=16384") as bus:
        await bus.ensure_topic(TOPIC, partitions=1)
        await bus.prepare(groups=[GROUP])
        producer, consumer = bus.producer(), bus.consumer(GROUP, Assignments())
        consumer.subscribe([TOPIC])
        for number in range(9):
            group = [
                b"%d.%d.%d " % (seed, number, i) + bytes([65 + i]) * chance.choice([10, 400, 3000])
                for i in range(chance.randint(1, 3))
            ]
            results = await asyncio.gather(
                *(
                    publish_one(disk, producer, value, chance.choice(["fsync", "fsync", "written"]))
                    for value in group
                ),
                return_exceptions=True,
            )
            assert all(isinstance(each, BusUnavailable | None) for each in results)
            if number % 2:
                for message in await consumer.poll(timeout_s=0.2):
                    disk.mark(f"given {message.offset} {message.value!r}")
                    if number % 4 == 3:
                        await consumer.commit({P0: message.offset + 1})


async def check(cut: Cut, steps: Sequence[Step], home: Path) -> None:
    """Opens the log, and checks the promises."""
    said = expected(steps[: cut.stop])
    cut.tree.write_to(home)
    async with opened(home, "?segment_bytes=4096&retention_bytes=16384") as bus:
        await bus.ensure_topic(TOPIC, partitions=1)
        await bus.prepare(groups=[GROUP])
        producer, consumer = bus.producer(), bus.consumer("checks", Assignments())
        last = b"published after the power cut"
        await producer.publish(TOPIC, b"k", last)
        consumer.subscribe([TOPIC])
        found: dict[int, bytes] = {}
        async with asyncio.timeout(60):
            while not found or found[max(found)] != last:
                for message in await consumer.poll(timeout_s=10):
                    found[message.offset] = message.value
    first = min(found)
    assert sorted(found) == list(range(first, first + len(found))), "there is a hole"
    assert len(set(found.values())) == len(found), "a message is there twice"
    for offset, value in said.given.items():
        assert offset < first or repr(found.get(offset)).encode() == value, "a reader knows another message"
    read_before = {value for offset, value in said.given.items() if offset < first}
    there = {f"fsync {value!r}".encode() for value in found.values()} | {b"fsync " + v for v in read_before}
    assert set(said.acked) <= there, "an acked message is lost"


async def check_all(steps: Sequence[Step], tmp_path: Path, *, seed: int, begin: int = 0) -> int:
    power_cut = PowerCut(steps)
    seen: set[int] = set()
    checked = 0
    for stop in sample(range(begin, len(steps) + 1), seed=seed, least=14):
        cuts = power_cut.cuts(stop, seed=seed, single_losses=None if IS_PROOF else 6)
        for number, cut in enumerate(cuts):
            promised = sum(step.kind in ("ack", "mark") for step in steps[:stop])
            state = hash((promised, tuple(sorted(cut.tree.snapshot().items()))))
            if state in seen:
                continue
            seen.add(state)
            home = tmp_path / f"after-{stop}-{number}"
            try:
                with no_real_syncs():
                    await check(cut, steps, home)
            except BaseException as error:
                before = "\n".join(f"{i} {step}" for i, step in enumerate(steps[:stop]))
                error.add_note(f"after {cut.stop} steps, {cut.how}; the steps:\n{before}")
                raise
            shutil.rmtree(home)
            checked += 1
    return checked


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("failures", [0, 3], ids=["healthy disk", "fdatasync fails"])
async def test_every_power_cut_leaves_what_was_acked_and_what_was_read(
    tmp_path: Path, disk: RecordingDisk, seed: int, failures: int
) -> None:
    with disk.recording():
        await busy_life(disk, disk.root, seed=seed, failures=failures)
    checked = await check_all(disk.steps, tmp_path, seed=seed)
    print(f"{checked} states after a power cut in {len(disk.steps)} steps: nothing acked was lost")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.usefixtures("no_later_sync")
async def test_a_power_cut_after_a_killed_process_takes_nothing_that_was_read_since(
    tmp_path: Path, disk: RecordingDisk, seed: int
) -> None:
    """Killed with messages that were only written: the next process finds them, and makes them durable."""
    with disk.recording():
        async with opened(disk.root) as bus:
            producer = await begun(disk, bus)
            await publish(disk, producer, b"one", b"two", durability="written")
            disk.mark("killed")
    killed_at = max(i for i, step in enumerate(disk.steps) if step.path == "killed") + 1
    PowerCut(disk.steps).tree(killed_at, lambda i, p: True).write_to(tmp_path / "second")
    second = RecordingDisk(tmp_path / "second", before=disk.steps[:killed_at])
    with second.recording():
        async with opened(second.root) as bus:
            await bus.prepare(groups=[GROUP])
            consumer = bus.consumer(GROUP, Assignments())
            consumer.subscribe([TOPIC])
            given = 0
            async with asyncio.timeout(60):
                while given < 3:
                    for message in await consumer.poll(timeout_s=10):
                        second.mark(f"given {message.offset} {message.value!r}")
                        given += 1
    checked = await check_all(second.steps, tmp_path, seed=seed, begin=killed_at)
    print(f"{checked} states after a power cut: nothing that was read is lost")


async def test_a_power_cut_takes_nothing_acked_whenever_the_process_before_was_killed(
    tmp_path: Path, disk: RecordingDisk
) -> None:
    """Killed at any step of its start; the next process creates the missing files, and acks."""
    with disk.recording():
        async with opened(disk.root) as bus:
            await bus.ensure_topic(TOPIC, partitions=1)
            await bus.prepare(groups=[GROUP])
            await publish(disk, bus.producer(), b"first")
    checked = 0
    for killed_at in range(len(disk.steps) + 1):
        home = tmp_path / f"killed-{killed_at}"
        PowerCut(disk.steps).tree(killed_at, lambda i, p: True).write_to(home)
        second = RecordingDisk(home, before=disk.steps[:killed_at])
        with second.recording():
            async with opened(home) as bus:
                await bus.ensure_topic(TOPIC, partitions=1)
                await publish(second, bus.producer(), b"second")
        acked = max(i for i, step in enumerate(second.steps) if step.kind == "ack")
        checked += await check_all(second.steps[: acked + 1], home, seed=0, begin=acked + 1)
    print(f"{checked} states after a SIGKILL, a new start and a power cut: every acked message was there")


def test_what_a_failed_fdatasync_left_is_written_again_before_it_is_seen(disk: RecordingDisk) -> None:
    create_log(disk.root / "log")
    disk = RecordingDisk(disk.root)
    with disk.recording():
        log = LogWriter(disk.root / "log")
        log.write([(b"k", [b"promised"])])
        disk.fails = lambda kind, path: errno.EIO if kind == "fdatasync" else None
        with pytest.raises(BusUnavailable, match="fdatasync"):
            log.sync()
        disk.fails = lambda kind, path: None
        log.close()
        LogWriter(disk.root / "log").close()
    seen = max(i for i, step in enumerate(disk.steps) if step.kind == "store") + 1
    for cut in PowerCut(disk.steps).cuts(seen, seed=0):
        left = cut.tree.snapshot()
        assert b"promised" in (left["log/00000000000000000000.log"] or b""), cut.how


def test_a_new_log_is_whole_or_not_there(disk: RecordingDisk) -> None:
    with disk.recording():
        (disk.root / "t").mkdir()
        sync_directory(disk.root)
        create_log(disk.root / "t" / "0")
        disk.mark("made")
    for stop in range(len(disk.steps) + 1):
        for cut in PowerCut(disk.steps).cuts(stop, seed=0):
            left = cut.tree.snapshot()
            if "t/0" in left:
                assert (left.get("t/0/committed") or b"")[:8] == b"WVWORDS1", cut.how
                assert len(left["t/0/committed"] or b"") == 4096, cut.how
            assert stop < len(disk.steps) or "t/0" in left, cut.how


async def test_positions_of_a_group_are_never_torn_and_never_gone(disk: RecordingDisk) -> None:
    with disk.recording():
        async with opened(disk.root) as bus:
            producer = await begun(disk, bus)
            consumer = bus.consumer(GROUP, Assignments())
            consumer.subscribe([TOPIC])
            await consumer.poll(timeout_s=30)
            await consumer.commit({P0: 1})
            disk.mark("committed 1")
            await publish(disk, producer, b"two")
            await consumer.commit({P0: 2})
            disk.mark("committed 2")
    cut = PowerCut(disk.steps)
    first = max(i for i, step in enumerate(disk.steps) if step.path == "committed 1") + 1
    second = max(i for i, step in enumerate(disk.steps) if step.path == "committed 2") + 1
    for stop in range(first, second + 1):
        for each in cut.cuts(stop, seed=0):
            assert _position(each.tree.snapshot()) in (1, 2), each.how
    assert {_position(each.tree.snapshot()) for each in cut.cuts(second, seed=0)} == {2}


def test_a_message_is_synced_in_a_file_that_is_still_open_after_its_segment_was_begun(
    disk: RecordingDisk,
) -> None:
    """Each sync is of the file that the messages before it were written to."""
    create_log(disk.root / "log")
    disk = RecordingDisk(disk.root)
    with disk.recording():
        log = LogWriter(disk.root / "log", segment_bytes=4096)
        for number in range(4):
            log.append([(b"k", [bytes([number]) * 3000])])
        log.close()
    written = ""
    for step in disk.steps:
        if step.kind == "write":
            written = step.path
        elif step.kind == "fdatasync" and written:
            assert step.path == written
    assert len(list((disk.root / "log").glob("*.log"))) == 2
    assert os.listdir(disk.root / "log")
