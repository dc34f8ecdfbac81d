"""Retention in a worker: what expires is dropped, whole segments at a time, and nothing that is needed."""

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.bus.interface import TopicPartition
from windvane.bus.messages.chunks import ChunkMessage, encode_chunk
from windvane.errors import RangeGone, RowsWouldBeLost
from windvane.processors.worker import worker
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.processors.worker.retention import sweep as sweeping
from windvane.processors.worker.retention.sweep import RetentionSweep
from windvane.records.bounds import Instant
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import Policy, policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.files.store import Store
from windvane.store.pyramid.dropped_rows import first_row_since
from windvane.store.pyramid.overview import overview
from windvane.store.selection.time_ranges import view_range

from tests.processors.worker.test_worker import PCM, Home

SEGMENT_BYTES = 4096
HOUR_NS = 3_600_000_000_000
START_NS = 1_790_000_000_000_000_000
FEATURES = {"operation": "features", "window": 512, "bands": 2}
SAMPLES = 512
"""Of a chunk, which is sent each hour: segments of the stream and of the array have four of them."""


class Clock:
    """The time of the worker, moved by the test."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass looks at all streams, however busy the machine is."""
    monkeypatch.setattr(sweeping, "PASS_S", 20.0)
    monkeypatch.setattr(sweeping, "DROP_TIMEOUT_S", 20.0)
    monkeypatch.setattr(worker, "PASS_INTERVAL_S", 1e9)  # `retain` runs them


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def home(tmp_path: Path, clock: Clock) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    home = Home(tmp_path, bus, bus.producer(), catalog)
    home.store = Store(tmp_path / "store", segment_bytes=SEGMENT_BYTES)
    home.clock_ns = clock
    yield home
    await catalog.close()
    await bus.close()


def samples_of(hour: int) -> bytes:
    return np.random.default_rng(hour).integers(-999, 999, SAMPLES).astype("<i2").tobytes()


async def send(home: Home, *, hour: int, tag: str = "t", topic: str = "p", ahead_hours: float = 0) -> None:
    """Publishes a chunk that arrives in this hour; `ahead_hours`: the sender's clock is wrong."""
    arrived_ns = START_NS + hour * HOUR_NS
    seconds, ns = divmod(arrived_ns + int(ahead_hours * HOUR_NS), 1_000_000_000)
    event = msgpack.packb([msgpack.ExtType(0, struct.pack(">II", seconds, ns)), samples_of(hour)])
    chunk = ChunkMessage(
        tag=tag, sender="s", chunk_id=b"%d" % hour, received_ns=arrived_ns, events=1, payload=event
    )
    await home.producer.publish(topic, tag.encode(), *encode_chunk(chunk))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


def sweep_of(home: Home) -> RetentionSweep:
    return home.worker._retention


async def retain(home: Home) -> None:
    """Commits, and lets retention look at all streams."""
    await home.worker.checkpoint()
    sweep = sweep_of(home)
    for _ in range(3):
        sweep._due = [(0.0, reference) for _, reference in sweep._due]
        await asyncio.to_thread(sweep.run_pass)


def starts(home: Home, tag: str = "t") -> tuple[int, int]:
    """The first byte that is kept of the stream, and the first row of its array, in hours."""
    with home.store.stream(tag) as stream, home.store.array(f"{tag}:samples") as array:
        return stream.start // (2 * SAMPLES), array.start // SAMPLES


async def recorded(home: Home, *, hours: int, pipeline: Sequence[Any] = (PCM,), **policy: Any) -> None:
    """Chunks of so many hours under a policy, all stored and committed."""
    await home.policy("p", tags=["t", "u"], format="raw", pipeline=pipeline, partitions=1, **policy)
    for hour in range(hours):
        await send(home, hour=hour)
    async with home.working():
        await home.until_stored(hours)


async def test_what_is_older_than_its_hours_is_dropped_and_the_rest_is_unchanged(
    home: Home, clock: Clock
) -> None:
    await recorded(home, hours=24, retention={"stream_hours": 6, "array_hours": 12})
    clock.now_ns += 24 * HOUR_NS
    async with home.working():
        await send(home, hour=24)
        await home.until_stored(1)
        await retain(home)
        assert starts(home) == (16, 12)
    with home.store.stream("t") as stream, home.store.array("t:samples") as array:
        kept = b"".join(samples_of(hour) for hour in range(16, 25))
        assert stream.read(stream.start, stream.size) == kept
        expected = np.frombuffer(b"".join(samples_of(hour) for hour in range(12, 25)), "<i2")
        assert np.array_equal(array[array.start :][:, 0], expected)
        with pytest.raises(RangeGone):
            array[array.start - 1]


async def test_a_policy_without_retention_keeps_all(home: Home, clock: Clock) -> None:
    await recorded(home, hours=9)
    clock.now_ns += 10_000 * HOUR_NS
    async with home.working():
        await send(home, hour=9)
        await home.until_stored(1)
        await retain(home)
        assert starts(home) == (0, 0)


async def test_a_stream_that_receives_nothing_is_dropped_from_without_being_opened(
    home: Home, clock: Clock
) -> None:
    await recorded(home, hours=10, retention={"stream_hours": 6, "array_hours": 6})
    clock.now_ns += 12 * HOUR_NS
    async with home.working():
        await until(lambda: sweep_of(home)._owned.get(TopicPartition("p", 0)) is not None)
        await retain(home)
        assert starts(home) == (4, 4)
        assert not [stream for stream in home.worker._streams if stream.pipeline is not None]
        assert home.telemetry.retention_dropped_bytes_total == 4 * SAMPLES * (2 + 2 + 8)
    await send(home, hour=10)
    async with home.working():
        await home.until_stored(1)
    with home.store.array("t:samples") as array:
        expected = np.frombuffer(b"".join(samples_of(hour) for hour in range(4, 11)), "<i2")
        assert np.array_equal(array[array.start :][:, 0], expected)


async def test_only_what_a_commit_covers_is_dropped(home: Home, clock: Clock) -> None:
    await recorded(home, hours=4, retention={"stream_hours": 1, "array_hours": 1})
    clock.now_ns += 1000 * HOUR_NS
    async with home.working(dies=True):
        for hour in range(4, 12):
            await send(home, hour=hour)
        await home.until_stored(8)
        sweep = sweep_of(home)
        await asyncio.to_thread(sweep.run_pass)
        assert starts(home) == (0, 0)  # since it was opened, there was no commit
        await retain(home)
        assert starts(home) == (12, 12)
        for hour in range(12, 20):
            await send(home, hour=hour)
        await home.until_stored(16)
        for _ in range(3):
            sweep._due = [(0.0, reference) for _, reference in sweep._due]
            await asyncio.to_thread(sweep.run_pass)
        assert starts(home) == (12, 12)
    async with home.working():  # it is cut back to the commit, and resumes
        await home.until_stored(8)
    with home.store.stream("t") as stream:
        assert stream.read(12 * 1024, stream.size) == b"".join(map(samples_of, range(12, 20)))
        assert stream.chunks == 20


async def test_the_array_of_a_former_step_is_dropped_from_too(home: Home, clock: Clock) -> None:
    await recorded(home, hours=8)
    await home.policy(
        "p", tags=["t"], format="raw", pipeline=[{**PCM, "name": "other"}], retention={"array_hours": 2}
    )
    clock.now_ns += 9 * HOUR_NS
    async with home.working():
        await send(home, hour=8)
        await home.until_stored(1)
        await retain(home)
        assert starts(home) == (0, 4)


async def test_rows_ahead_of_the_clock_keep_nothing_else_and_are_not_dropped_for_it(
    home: Home, clock: Clock
) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM], retention={"array_hours": 2})
    for hour in range(12):
        await send(home, hour=hour, ahead_hours=1e5 if hour in (1, 3, 8, 9, 10, 11) else 0)
    async with home.working():
        await home.until_stored(12)
        clock.now_ns += 3 * HOUR_NS
        await retain(home)
        assert starts(home) == (0, 0)
        clock.now_ns += 1000 * HOUR_NS
        await retain(home)
        # Hours 1 and 3 went with those around them; the last four have no other times.
        assert starts(home) == (0, 8)
        clock.now_ns += int(1e5 * HOUR_NS)
        await retain(home)
        assert starts(home) == (0, 12)
    await send(home, hour=12)
    async with home.working():  # an array of which no row is left
        await home.until_stored(1)
    with home.store.array("t:samples") as array:
        assert (array.start, len(array)) == (12 * SAMPLES, 13 * SAMPLES)


async def test_bytes_drop_the_oldest_of_all_streams_of_the_policy(home: Home, clock: Clock) -> None:
    await home.policy("p", tags=["t", "u"], format="raw", pipeline=[PCM], retention={"bytes": 2**20})
    for hour in range(120):
        await send(home, hour=hour, tag="t")
    for hour in range(200, 320):
        await send(home, hour=hour, tag="u")
    clock.now_ns += 320 * HOUR_NS
    async with home.working():
        await home.until_stored(240)
        await retain(home)
        stream_start, row_start = starts(home, "t")
        assert 0 < stream_start < 120
        assert row_start in (stream_start, stream_start - 4)
        assert starts(home, "u") == (0, 0)
        kept = sum(
            output.kept_bytes
            for tag in "tu"
            for output in (home.store.stream(tag), home.store.array(f"{tag}:samples"))
        )
        assert 2**20 - 4 * SEGMENT_BYTES < kept <= 2**20


async def test_a_worker_leaves_the_streams_of_other_workers_to_them(home: Home, clock: Clock) -> None:
    retention = {"stream_hours": 200, "bytes": 2**20}
    await home.policy("p", tags=["t", "u"], format="raw", pipeline=[PCM], partitions=1, retention=retention)
    for hour in range(120):
        await send(home, hour=hour, tag="t")
    for hour in range(200, 320):
        await send(home, hour=hour, tag="u")
    async with home.working():
        await home.until_stored(240)
    clock.now_ns += 320 * HOUR_NS
    async with home.working():
        await until(lambda: TopicPartition("p", 0) in home.worker._owned)
        home.worker._owned.drop([TopicPartition("p", 0)])
        await retain(home)
        assert starts(home, "t") == starts(home, "u") == (0, 0)


def changed_policy(**retention: float) -> Policy:
    pipeline = [PCM, {**FEATURES, "window": 32}]
    return policy_from_mapping(
        {"reference": "p", "tags": ["t"], "format": "raw", "pipeline": pipeline, "retention": retention}
    )


async def reprocessed(home: Home, policy: Policy, *, force: bool = False) -> Reprocessing:
    with (
        closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints,
        Reprocessing(home.store, "t", policy, checkpoints, clock_ns=home.clock_ns) as again,
    ):
        again.run()
        again.put_in_place(lambda: None, force=force)
        return again


async def test_reprocessing_does_not_shorten_an_array_that_has_rows_from_before_the_archive(
    home: Home, clock: Clock
) -> None:
    retention = {"stream_hours": 4, "array_hours": 14}
    await recorded(home, hours=16, pipeline=[PCM, FEATURES], retention=retention)
    clock.now_ns += 16 * HOUR_NS
    async with home.working():
        await send(home, hour=16)
        await home.until_stored(1)
        await retain(home)
        assert starts(home) == (12, 0)
    before = home.store.array("t:samples")[:].tobytes()
    with pytest.raises(RowsWouldBeLost) as raised:
        await reprocessed(home, changed_policy(**retention))
    assert "5,120 of 8,704 rows of t:samples (from before the archive begins)" in str(raised.value)
    # 16 times as many rows of the rest do not make up for it.
    assert "10 of 17 rows of t:features (from before the archive begins)" in str(raised.value)
    assert "retention has dropped the bytes of t before byte 12288" in str(raised.value)
    assert home.store.array("t:samples")[:].tobytes() == before
    assert home.store.array("t:samples~rebuilt")[:].tobytes() == before[12 * 2 * SAMPLES :]

    again = await reprocessed(home, changed_policy(**retention), force=True)
    assert again.set_aside == ["t:features~1", "t:samples~1"]
    assert again.archive_begins_ns == START_NS + 12 * HOUR_NS
    assert home.store.array("t:samples~1")[:].tobytes() == before


async def test_reprocessing_may_lack_rows_that_are_not_kept_any_more(home: Home, clock: Clock) -> None:
    await recorded(home, hours=16, retention={"stream_hours": 6})
    clock.now_ns += 16 * HOUR_NS
    async with home.working():
        await send(home, hour=16)
        await home.until_stored(1)
        await retain(home)
        assert starts(home) == (8, 0)
    before = home.store.array("t:samples")[:].tobytes()
    again = await reprocessed(home, changed_policy(stream_hours=6, array_hours=6))
    assert again.set_aside == ["t:samples~1"]
    assert home.store.array("t:samples")[:].tobytes() == before[8 * 2 * SAMPLES :]


async def test_an_overview_goes_back_further_than_the_rows_if_the_policy_keeps_it(
    home: Home, clock: Clock
) -> None:
    retention = {"array_hours": 10, "pyramid_hours": 100}
    await recorded(home, hours=0, retention=retention)
    clock.now_ns += 40 * HOUR_NS
    async with home.working():
        for hour in range(40):
            await send(home, hour=hour)
        await home.until_stored(40)
        await home.worker.checkpoint()
        await until(lambda: home.worker.pyramids.covered_rows("t:samples") == 40 * SAMPLES)
        await retain(home)
        assert starts(home) == (0, 0)  # no reader can use the cells yet
        for hour in range(40, 50):
            await send(home, hour=hour)
        await home.until_stored(50)
        await home.worker.checkpoint()
        await until(lambda: home.worker.pyramids.covered_rows("t:samples") == 50 * SAMPLES)
        await retain(home)
        assert starts(home) == (0, 28)
    whole = np.frombuffer(b"".join(map(samples_of, range(50))), "<i2")
    with home.store.array("t:samples") as array:
        assert view_range(array, None, None) == (0, 50 * SAMPLES)
        found = overview(array, 0, 50 * SAMPLES, pixels=40)
        for pixel, (first, stop) in enumerate(pairwise(found.rows.tolist())):
            values = whole[first:stop]
            assert (found.min[pixel], found.max[pixel]) == (values.min(), values.max())
            assert found.count[pixel] == stop - first
        # Of rows that were dropped the time of every 4,096th, which is every eighth hour, is known.
        times = Instant(START_NS + 12 * HOUR_NS), Instant(START_NS + 20 * HOUR_NS)
        assert view_range(array, *times) == (8 * SAMPLES, 24 * SAMPLES)
        assert view_range(array, None, Instant(START_NS + 30 * HOUR_NS)) == (0, 30 * SAMPLES)
        assert first_row_since(array, START_NS + 17 * HOUR_NS) == 16 * SAMPLES
        assert first_row_since(array, START_NS + 49 * HOUR_NS) == array.start
