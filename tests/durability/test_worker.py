"""The worker after a power cut: streams and arrays are those of an undisturbed run, whatever was lost."""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.config import Settings
from windvane.errors import WindvaneError
from windvane.processors.worker.progress.former_buses import former_buses
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.files.store import Store

from tests.durability.file_tree import Step
from tests.durability.power_cut import Cut, PowerCut
from tests.durability.proof import IS_PROOF, no_real_syncs, sample
from tests.durability.recording_disk import RecordingDisk
from tests.processors.worker.test_worker import PCM, SPECTRUM, Home
from tests.store.files.resumed import resumed

pytestmark = pytest.mark.slow

PIPELINE = [PCM, {**SPECTRUM, "publish": True}, {"operation": "features", "window": 100, "bands": 2}]
OUTPUTS = ("samples", "spectrum", "features")
CHUNKS = 6
"""The chunks before a power cut; one more follows it."""
AT_ONCE = 8
COMMITTED_WORD = 56
"""The position of the length in the head of a file."""


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    """Not on the recorded disk: it is always durable."""
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield catalog
    await catalog.close()


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


@asynccontextmanager
async def home_at(path: Path, catalog: Catalog, *, pipeline: list[Any] = PIPELINE) -> AsyncIterator[Home]:
    bus = open_bus("embedded:?segment_bytes=4096", path)
    home = Home(path, bus, bus.producer(), catalog)
    home.store = Store(path / "store", segment_bytes=4096)
    if not await catalog.list("policy", limit=1):
        await home.policy("p", tags=["t", "u"], format="raw", pipeline=pipeline)
    await bus.ensure_topic("p", partitions=1)
    try:
        yield home
    finally:
        await bus.close()
        home.store.close()
        home.letters.close()


def samples_of(number: int) -> bytes:
    return np.random.default_rng(number).integers(-999, 999, 300 + 40 * number).astype("<i2").tobytes()


async def send(home: Home, number: int, disk: RecordingDisk | None = None) -> None:
    await home.publish("p", samples_of(number), chunk_id=b"%d" % number)
    if disk is not None:
        disk.mark(str(number), "ack")


async def until_size(home: Home, size: int, *, stream: str = "t") -> None:
    """Waits until the data stream has so many bytes."""
    async with asyncio.timeout(120):
        while True:
            try:
                if home.store.stream(stream).size >= size:
                    return
            except WindvaneError:
                pass  # there is no stream yet
            await asyncio.sleep(0.005)


def size_of(chunks: int) -> int:
    return sum(len(samples_of(number)) for number in range(chunks))


async def life(disk: RecordingDisk, catalog: Catalog) -> None:
    """Chunks arrive; the worker processes them, and makes a checkpoint after every second one."""
    async with home_at(disk.root, catalog) as home, home.working():
        for number in range(CHUNKS):
            await send(home, number, disk)
            await until_size(home, size_of(number + 1))
            if number % 2:
                disk.mark("work done")
                await home.worker.checkpoint()
                disk.mark("checkpoint made")


Contents = dict[str, tuple[bytes, bytes]]


def contents_of(store: Store) -> Contents:
    """Returns all stored data of the stream: its bytes and arrivals, the rows and times of its arrays."""
    with store.stream("t") as stream:
        found = {"t": (stream.read(0, stream.size), stream.arrivals[:].tobytes())}
    for output in OUTPUTS:
        with store.array(f"t:{output}") as array:
            found[output] = (array[:].tobytes(), array.times_ns[:].tobytes())
    return found


async def undisturbed(path: Path, catalog: Catalog) -> Contents:
    path.mkdir()
    async with home_at(path, catalog) as home:
        async with home.working():
            for number in range(CHUNKS + 1):
                await send(home, number)
            await until_size(home, size_of(CHUNKS + 1))
        return contents_of(home.store)


def position(steps: Sequence[Step], mark: str) -> int:
    """Returns the step of the first such mark."""
    return next(i for i, step in enumerate(steps) if step.kind in ("mark", "ack") and step.path == mark)


def positions(steps: Sequence[Step], kind: str, within: str) -> list[int]:
    return [i for i, step in enumerate(steps) if step.kind == kind and step.path.startswith(within)]


async def test_results_and_appends_are_durable_before_the_checkpoint(
    disk: RecordingDisk, catalog: Catalog
) -> None:
    # The disk is slow with results, so that a checkpoint that does not wait for them comes first.
    disk.waits = lambda path: time.sleep(0.2) if _is_results_log(path) else None
    with disk.recording():
        await life(disk, catalog)
    done, made = (position(disk.steps, mark) for mark in ("work done", "checkpoint made"))
    commits = [i for i in positions(disk.steps, "commit", "checkpoints.sqlite") if done < i < made]
    assert commits
    # Rows that are published: the store must have every row that a consumer has read.
    rows = {step.path for step in disk.steps if step.kind == "create" and _is_results_log(step.path)}
    assert rows
    for commit in commits:
        last_append = max(i for i in positions(disk.steps, "write", "store/") if i < commit)
        kinds = [step.kind for step in disk.steps[last_append:commit]]
        assert "syncfs" in kinds, "the checkpoint names bytes that a power cut takes"
        # The bus may be on another file system than the store: syncfs of the store does not cover it.
        for path in rows:
            last_write = max(i for i in positions(disk.steps, "write", path) if i < commit)
            synced = {step.path for step in disk.steps[last_write:commit] if step.kind == "fdatasync"}
            assert path in synced, "the checkpoint covers results that a power cut takes"


def _is_results_log(path: str) -> bool:
    return path.startswith("bus/") and not path.startswith("bus/p/") and path.endswith(".log")


async def test_all_that_a_checkpoint_names_is_there_though_everything_unsynced_is_lost(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog
) -> None:
    with disk.recording():
        await life(disk, catalog)
        async with home_at(disk.root, catalog) as home:
            whole = contents_of(home.store)
    checked = 0
    for at in positions(disk.steps, "commit", "checkpoints.sqlite"):
        home_path = tmp_path / f"after-{at}"
        PowerCut(disk.steps).tree(at + 1, lambda i, p: False).write_to(home_path)
        with (
            closing(SqlCheckpointDatabase(home_path / "checkpoints.sqlite")) as checkpoints,
            Store(home_path / "store") as store,
        ):
            committed = checkpoints.stream("t")
            for reference, length in (committed.outputs if committed else {}).items():
                if ":" in reference:
                    with store.array(reference) as array:
                        kept, name = array[: length.length].tobytes(), reference.partition(":")[2]
                        assert len(array) >= length.length
                else:
                    with store.stream(reference) as stream:
                        kept, name = stream.read(0, length.length), reference
                        assert stream.chunks >= length.chunks
                assert kept == whole[name][0][: len(kept)]
                checked += 1
    assert checked >= 3 * len(whole)


async def test_a_position_is_committed_to_the_bus_only_after_its_checkpoint(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog
) -> None:
    with disk.recording():
        await life(disk, catalog)
    cut = PowerCut(disk.steps)
    highest = 0
    for at, step in enumerate(disk.steps):
        if step.kind == "rename" and step.target.endswith("/positions.json"):
            cut.tree(at + 1, lambda i, p: True).write_to(tmp_path / str(at))
            told = (
                msgspec.json.decode((tmp_path / str(at) / step.target).read_bytes()).get("p", {}).get("0", 0)
            )
            with closing(SqlCheckpointDatabase(tmp_path / str(at) / "checkpoints.sqlite")) as checkpoints:
                assert told <= checkpoints.positions().get(("p", 0), 0)
            highest = max(highest, told)
    assert highest == CHUNKS


async def test_an_output_is_marked_as_committed_only_behind_its_checkpoint(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog
) -> None:
    with disk.recording():
        await life(disk, catalog)
    power_cut, highest = PowerCut(disk.steps), 0
    path = "store/t/stream/bytes/head"
    for at, step in enumerate(disk.steps):
        if step.path == path and step.offset <= COMMITTED_WORD < step.offset + len(step.data):
            home = tmp_path / str(at)
            power_cut.tree(at + 1, lambda i, p: True).write_to(home)
            marked = int.from_bytes((home / path).read_bytes()[COMMITTED_WORD:][:8], "little")
            if marked:
                with closing(SqlCheckpointDatabase(home / "checkpoints.sqlite")) as checkpoints:
                    committed = checkpoints.stream("t")
                    assert committed is not None
                    assert marked <= committed.outputs["t"].length
            highest = max(highest, marked)
    assert highest >= size_of(CHUNKS - 1)


def test_a_bus_that_a_home_was_used_with_is_remembered_after_every_power_cut(
    tmp_path: Path, disk: RecordingDisk
) -> None:
    buses = ["embedded:", "kafka://first", "kafka://second"]
    with disk.recording():
        for bus in buses:
            former_buses(Settings(home=disk.root, bus=bus))
            disk.mark(f"used {bus}")
    power_cut = PowerCut(disk.steps)
    for stop in range(len(disk.steps) + 1):
        used = [step.path.removeprefix("used ") for step in disk.steps[:stop] if step.kind == "mark"]
        for number, cut in enumerate(power_cut.cuts(stop, seed=0)):
            home = tmp_path / f"after-{stop}-{number}"
            cut.tree.write_to(home)
            known = [each["url"] for each in former_buses(Settings(home=home, bus="kafka://next"))]
            assert known[: len(used)] == used, cut.how
            assert known == buses[: len(known)], cut.how


async def test_a_failed_step_s_dead_letter_is_durable_before_the_checkpoint(
    disk: RecordingDisk, catalog: Catalog
) -> None:
    with disk.recording():
        broken = [{"operation": "wav", "name": "broken"}]
        async with home_at(disk.root, catalog, pipeline=broken) as home, home.working():
            await send(home, 0)
            await until_size(home, size_of(1))
            await home.until_stored(1)
            disk.mark("work done")
            await home.worker.checkpoint()
    letters = positions(disk.steps, "commit", "dead-letters.sqlite")
    letter = next(i for i in letters if _has_letter(disk, i))
    done = position(disk.steps, "work done")
    commit = next(i for i in positions(disk.steps, "commit", "checkpoints.sqlite") if i > done)
    assert letter < commit
    assert disk.steps[letter].succeeded


def _has_letter(disk: RecordingDisk, at: int) -> bool:
    return b"step-failed" in disk.steps[at].data


async def check(cut: Cut, steps: Sequence[Step], path: Path, catalog: Catalog, expected: Contents) -> None:
    """Restarts on the remaining files; resends chunks that were not acked, as a forwarder does."""
    cut.tree.write_to(path)
    acked = {step.path for step in steps[: cut.stop] if step.kind == "ack"}
    async with home_at(path, catalog) as home:
        async with home.working():
            for number in range(CHUNKS + 1):
                if str(number) not in acked:
                    await send(home, number)
            await until_size(home, size_of(CHUNKS + 1))
        found = contents_of(home.store)
        for name, (content, times) in expected.items():
            assert found[name][0] == content, f"{name} differs"
            assert found[name][1] == times, f"the times of {name} differ"


async def check_all(
    steps: Sequence[Step], tmp_path: Path, catalog: Catalog, expected: Contents, *, least: int, begin: int = 0
) -> int:
    """Several at once, since a worker is mostly waiting."""
    power_cut = PowerCut(steps)
    seen: set[int] = set()
    at_once = asyncio.Semaphore(AT_ONCE)

    async def check_one(cut: Cut, home: Path) -> None:
        try:
            await check(cut, steps, home, catalog, expected)
        except BaseException as error:
            before = "\n".join(f"{i} {step}" for i, step in enumerate(steps[: cut.stop]))
            error.add_note(f"after {cut.stop} steps, {cut.how}; the steps:\n{before}")
            raise
        finally:
            at_once.release()
        shutil.rmtree(home)

    with no_real_syncs():
        async with asyncio.TaskGroup() as checks:
            for stop in sample(range(begin, len(steps) + 1), seed=1, least=least):
                promises = sum(step.kind == "ack" for step in steps[:stop])
                cuts = list(power_cut.cuts(stop, seed=1, single_losses=3))
                for number, cut in enumerate(cuts if IS_PROOF else sample(cuts, seed=stop, least=3)):
                    state = hash((promises, tuple(sorted(cut.tree.snapshot().items()))))
                    if state not in seen:
                        seen.add(state)
                        await at_once.acquire()
                        checks.create_task(check_one(cut, tmp_path / f"after-{stop}-{number}"))
    return len(seen)


async def test_every_power_cut_leaves_the_streams_and_arrays_of_an_undisturbed_run(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog
) -> None:
    with disk.recording():
        await life(disk, catalog)
    expected = await undisturbed(tmp_path / "undisturbed", catalog)
    checked = await check_all(disk.steps, tmp_path, catalog, expected, least=16)
    print(f"{checked} states after a power cut in {len(disk.steps)} steps: all equal to an undisturbed run")


@pytest.mark.parametrize("seed", range(3) if IS_PROOF else range(1))
async def test_a_power_cut_while_a_killed_worker_is_made_up_for_leaves_the_same(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog, seed: int
) -> None:
    """The first process is killed anywhere, and the power fails while the second one recovers."""
    with disk.recording():
        await life(disk, catalog)
    killed_at = random.Random(seed).randrange(len(disk.steps) // 3, len(disk.steps))
    PowerCut(disk.steps).tree(killed_at, lambda i, p: True).write_to(tmp_path / "second")
    second = RecordingDisk(tmp_path / "second", before=disk.steps[:killed_at])
    acked = {step.path for step in second.steps if step.kind == "ack"}
    with second.recording():
        async with home_at(second.root, catalog) as home, home.working():
            for number in range(CHUNKS):
                if str(number) not in acked:
                    await send(home, number, second)
            await until_size(home, size_of(CHUNKS))
            await home.worker.checkpoint()
    expected = await undisturbed(tmp_path / "undisturbed", catalog)
    checked = await check_all(second.steps, tmp_path, catalog, expected, least=8, begin=killed_at)
    print(f"{checked} states after a SIGKILL and a power cut: all equal to an undisturbed run")


async def test_a_checkpoint_of_another_archive_is_not_applied_to_this_one(
    tmp_path: Path, catalog: Catalog
) -> None:
    """The stream was removed and replaced by another one, whose bytes are not those that were committed."""
    path = tmp_path / "home"
    path.mkdir()
    async with home_at(path, catalog) as home:
        async with home.working():
            await send(home, 0)
            await until_size(home, size_of(1))
        committed = size_of(1)
        shutil.rmtree(path / "store" / "t" / "stream")
        foreign = b"\xee" * (committed + 100)
        with resumed(home.store.stream_writer("t", attrs={"tag": "t"})) as stream:
            stream.append(foreign[:committed], arrived_ns=1, chunk_id=None, events=1)
            stream.append(foreign[committed:], arrived_ns=1, chunk_id=None, events=1)
        async with home.working():
            await send(home, 1)
            await home.publish("p", b"another stream's", tag="u")  # which continues in any case
            await until_size(home, 1, stream="u")
            await home.worker.checkpoint()
        with home.store.stream("t") as stream:
            found = stream.read(0, stream.size)
    # It is unchanged, or starts over; it is never truncated to the length of the other one and continued.
    assert found in (foreign, samples_of(1), samples_of(0) + samples_of(1))


def test_a_checkpoint_is_one_durable_step(disk: RecordingDisk) -> None:
    with disk.recording():
        checkpoints = SqlCheckpointDatabase(disk.root / "checkpoints.sqlite")
        checkpoints.commit(positions={("p", 0): 7}, streams={}, chunk_keys={}, window=9)
        checkpoints.close()
    assert [(step.kind, step.succeeded) for step in disk.steps] == [("commit", True)] * 2
