"""Retention and a power cut: nothing is unlinked that the files still name, and the rest is as it was."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from windvane.processors.worker.retention import sweep
from windvane.store.catalog.catalog import Catalog
from windvane.store.files.store import Store

from tests.durability.power_cut import Cut, PowerCut
from tests.durability.proof import no_real_syncs, sample
from tests.durability.recording_disk import RecordingDisk
from tests.durability.test_worker import (
    AT_ONCE,
    OUTPUTS,
    PIPELINE,
    Contents,
    contents_of,
    home_at,
    until_size,
)
from tests.processors.worker.test_worker import Home

pytestmark = pytest.mark.slow

CHUNKS = 8
SAMPLES = 1500
# Chunks arrive in 1970, and their events are of 2026: all that a commit covers has expired.
RETENTION = {"stream_hours": 0.001, "array_hours": 0.001}


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


async def send(home: Home, number: int) -> None:
    samples = np.random.default_rng(number).integers(-999, 999, SAMPLES).astype("<i2")
    await home.publish("p", samples.tobytes(), chunk_id=b"%d" % number)


def size_of(chunks: int) -> int:
    return 2 * SAMPLES * chunks


async def undisturbed(path: Path, catalog: Catalog) -> Contents:
    path.mkdir()
    async with home_at(path, catalog) as home:
        await home.policy("p", tags=["t"], format="raw", pipeline=PIPELINE)
        async with home.working():
            for number in range(CHUNKS + 1):
                await send(home, number)
            await until_size(home, size_of(CHUNKS + 1))
        return contents_of(home.store)


async def life(disk: RecordingDisk, catalog: Catalog) -> None:
    """Chunks arrive, a checkpoint is made after every second one, and then retention drops what it can."""
    async with home_at(disk.root, catalog) as home:
        await home.policy("p", tags=["t"], format="raw", pipeline=PIPELINE, retention=RETENTION)
        async with home.working():
            for number in range(CHUNKS):
                await send(home, number)
                disk.mark(str(number), "ack")
                await until_size(home, size_of(number + 1))
                if number % 2:
                    await home.worker.checkpoint()
                    disk.mark("retention")
                    retention = home.worker._retention
                    retention._due = [(0.0, reference) for _, reference in retention._due]
                    await asyncio.to_thread(retention.run_pass)


def kept_of(store: Store, whole: Contents) -> dict[str, int]:
    """Checks all that is kept against the undisturbed run; returns where each output begins."""
    starts = {}
    with store.stream("t") as stream:
        starts["t"] = stream.start
        assert stream.read(stream.start, stream.size) == whole["t"][0][stream.start : stream.size]
    for output in OUTPUTS:
        with store.array(f"t:{output}") as array:
            start, stop = array.start, len(array)
            starts[output] = start
            rows, times = (array[start:stop].tobytes(), array.times_ns[start:stop].tobytes())
            row_bytes = array.row_bytes
        assert rows == whole[output][0][start * row_bytes : stop * row_bytes], output
        assert times == whole[output][1][8 * start : 8 * stop], output
    return starts


async def test_retention_drops_what_commits_cover_and_unlinks_it_last(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PASS_S", 20.0)
    monkeypatch.setattr(sweep, "DROP_TIMEOUT_S", 20.0)  # the recording disk is slow
    whole = await undisturbed(tmp_path / "undisturbed", catalog)
    with disk.recording():
        await life(disk, catalog)
    with Store(disk.root / "store", segment_bytes=4096) as store:
        starts = kept_of(store, whole)
    assert starts["t"] > 0
    assert starts["samples"] > 0
    steps = disk.steps
    unlinked = [i for i, step in enumerate(steps) if step.kind == "unlink" and step.path.startswith("store/")]
    assert len(unlinked) >= 8
    # Whatever was not synced is lost after each of them: what the files name is there.
    for at in unlinked:
        home = tmp_path / f"unlinked-{at}"
        PowerCut(steps).tree(at + 1, lambda i, p: False).write_to(home)
        with Store(home / "store", segment_bytes=4096) as store:
            kept_of(store, whole)
        shutil.rmtree(home)


async def test_after_every_power_cut_the_kept_part_is_that_of_an_undisturbed_run(
    tmp_path: Path, disk: RecordingDisk, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "PASS_S", 20.0)
    monkeypatch.setattr(sweep, "DROP_TIMEOUT_S", 20.0)  # the recording disk is slow
    whole = await undisturbed(tmp_path / "undisturbed", catalog)
    with disk.recording():
        await life(disk, catalog)
    steps = disk.steps
    first = next(i for i, step in enumerate(steps) if step.path == "retention")
    power_cut = PowerCut(steps)
    at_once = asyncio.Semaphore(AT_ONCE)

    async def check(cut: Cut, path: Path) -> None:
        cut.tree.write_to(path)
        acked = {step.path for step in steps[: cut.stop] if step.kind == "ack"}
        try:
            async with home_at(path, catalog) as home:
                async with home.working():
                    for number in range(CHUNKS + 1):
                        if str(number) not in acked:
                            await send(home, number)
                    await until_size(home, size_of(CHUNKS + 1))
                kept_of(home.store, whole)
                with home.store.stream("t") as stream:
                    assert stream.chunks == CHUNKS + 1
                for output in OUTPUTS:
                    with home.store.array(f"t:{output}") as array:
                        assert 8 * len(array) == len(whole[output][1])
        except BaseException as error:
            error.add_note(f"after {cut.stop} steps, {cut.how}")
            raise
        finally:
            at_once.release()
        shutil.rmtree(path)

    with no_real_syncs():
        async with asyncio.TaskGroup() as checks:
            for stop in sample(range(first, len(steps) + 1), seed=1, least=12):
                cuts = list(power_cut.cuts(stop, seed=1, single_losses=3))
                for number, cut in enumerate(sample(cuts, seed=stop, least=3)):
                    await at_once.acquire()
                    checks.create_task(check(cut, tmp_path / f"after-{stop}-{number}"))
