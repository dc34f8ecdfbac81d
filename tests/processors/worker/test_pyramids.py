"""The pyramids that a worker keeps behind its checkpoints."""

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.bus import open_bus
from windvane.errors import StoreFailed
from windvane.processors.worker import pyramids as pyramids_module
from windvane.processors.worker.pyramids import Pyramids
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.store import Store
from windvane.store.pyramid.overview import overview

from tests.processes import started
from tests.processors.worker.test_worker import PCM, Home
from tests.store.files.resumed import resumed
from tests.store.pyramid.brute_force import assert_equals_brute_force
from tests.waiting import until

ROWS = np.random.default_rng(8).integers(-999, 999, 60_000).astype("<i2")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def array_in(store: Store, rows: NDArray[np.int16], reference: str = "t:samples") -> DataArrayWriter:
    writer = resumed(store.array_writer(reference, dtype=rows.dtype, row_shape=rows.shape[1:], attrs={}))
    writer.append(rows, np.arange(len(rows), dtype=np.int64) * 10)
    return writer


def covered(store: Store, reference: str = "t:samples") -> list[int]:
    with store.array(reference) as array:
        return [level.stop_row for level in array.levels()]


class Failures(list[tuple[str, Exception]]):
    def __call__(self, reference: str, error: Exception) -> None:
        self.append((reference, error))


async def test_cells_are_read_after_a_sync_that_began_when_they_were_complete(store: Store) -> None:
    failures = Failures()
    pyramids = Pyramids(store, failures).start()
    with array_in(store, ROWS) as writer:
        store.sync()
        pyramids.committed([{"t": OutputLength(bytes(16), 9, 1), "t:samples": writer.found}], began_s=0.0)
        await until(lambda: pyramids.covered_rows("t:samples") == 60_000 // 64 * 64)
        assert covered(store) == [0, 0]
        writer.append(ROWS, np.arange(len(ROWS), dtype=np.int64) * 10)
        began_s = time.monotonic()
        store.sync()
        pyramids.committed([{"t:samples": writer.found}], began_s=began_s)
        await until(lambda: covered(store) == [60_000 // 64 * 64, 60_000 // 4096 * 4096])
    pyramids.close()
    assert failures == []


async def test_cells_of_an_array_that_stays_idle_are_synced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramids_module, "SYNC_AFTER_S", 0.05)
    monkeypatch.setattr(pyramids_module, "AT_ONCE_BYTES", 9_000)
    pyramids = Pyramids(store, Failures()).start()
    with array_in(store, ROWS) as writer:
        pyramids.committed([{"t:samples": writer.found}], began_s=time.monotonic())
        # In steps of 4,500 rows, as far as that is worthwhile.
        await until(lambda: covered(store)[:1] >= [60_000 - 4_096 - 64])
        assert len(covered(store)) == 2
    pyramids.close()


async def test_an_array_with_few_rows_has_no_files_for_a_pyramid(store: Store) -> None:
    pyramids = Pyramids(store, Failures()).start()
    with array_in(store, ROWS[:4_000]) as few, array_in(store, ROWS, "t:more") as more:
        before = sorted(few.directory.rglob("*"))
        pyramids.committed([{"t:samples": few.found, "t:more": more.found}], began_s=0.0)
        await until(lambda: pyramids.covered_rows("t:more"))
        assert sorted(few.directory.rglob("*")) == before
    pyramids.close()


async def test_an_array_whose_pyramid_cannot_be_written_affects_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_writer = store.pyramid_writer

    def failing(array, **options):  # type: ignore[no-untyped-def]
        if array.reference == "t:samples":
            raise StoreFailed("no space left")
        return open_writer(array, **options)

    monkeypatch.setattr(store, "pyramid_writer", failing)
    failures = Failures()
    pyramids = Pyramids(store, failures).start()
    with array_in(store, ROWS) as one, array_in(store, ROWS, "t:more") as more:
        pyramids.committed([{"t:samples": one.found, "t:more": more.found}], began_s=0.0)
        await until(lambda: pyramids.covered_rows("t:more"))
        assert [reference for reference, _ in failures] == ["t:samples"]
        monkeypatch.undo()
        pyramids.committed([{"t:samples": one.found}], began_s=0.0)
        await until(lambda: pyramids.covered_rows("t:samples"))
    pyramids.close()


async def test_a_replaced_array_has_a_pyramid_of_its_own(store: Store) -> None:
    pyramids = Pyramids(store, Failures()).start()
    with array_in(store, ROWS) as writer:
        pyramids.committed([{"t:samples": writer.found}], began_s=0.0)
        await until(lambda: pyramids.covered_rows("t:samples"))
    wide = ROWS[:30_000].reshape(-1, 3)
    with array_in(store, wide) as writer:
        pyramids.committed([{"t:samples": writer.found}], began_s=time.monotonic())
        await until(lambda: pyramids.covered_rows("t:samples") == 10_000 // 64 * 64)
        writer.append(wide, np.arange(10_000, 20_000) * 10)
        pyramids.committed([{"t:samples": writer.found}], began_s=time.monotonic())
        await until(lambda: covered(store) == [10_000 // 64 * 64, 8_192])
        with store.array("t:samples") as array:
            assert_equals_brute_force(overview(array, 0, 20_000, pixels=20), np.asarray(array))
    pyramids.close()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def test_a_worker_extends_pyramids_behind_its_checkpoints_and_after_a_restart(home: Home) -> None:
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM])
    stored = 0
    for run in range(2):
        async with home.working():
            for part in range(3):
                await home.publish("p", ROWS[part * 20_000 : (part + 1) * 20_000].tobytes())
                await home.until_stored(part + 1)
                await home.worker.checkpoint()
                stored += 20_000
                whole = partial(home.worker.pyramids.covered_rows, "t:samples")
                await until(lambda whole=whole, rows=stored: whole() == rows // 64 * 64)  # type: ignore[misc]
        assert covered(home.store)[0] >= stored - 40_000
        with home.store.array("t:samples") as array:
            expected = np.tile(ROWS, run + 1)
            assert np.array_equal(array[:, 0], expected)
            found = overview(array, 0, len(array), pixels=40)
            for pixel, (first, stop) in enumerate(pairwise(found.rows)):
                assert found.max[pixel, 0] == expected[first:stop].max()


KILLED = """
import sys
from pathlib import Path
import numpy as np
from windvane.store.files.store import Store

with Store(Path(sys.argv[1])) as store:
    with store.array("t:samples") as array:
        complete = ()
        for stop in range(64, len(array) + 1, 64):
            with store.pyramid_writer(array, committed_rows=stop, complete=complete) as pyramid:
                pyramid.mark_durable(complete)
                pyramid.extend(stop)
                complete = pyramid.lengths
            print(stop, flush=True)
"""


@pytest.mark.system
@pytest.mark.parametrize("after_lines", [1, 70, 200])
def test_a_killed_writer_leaves_cells_that_are_exact_and_the_next_one_continues(
    store: Store, after_lines: int
) -> None:
    with array_in(store, ROWS):
        store.sync()
    command = [sys.executable, "-c", KILLED, str(store.root)]
    with started(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(after_lines):
            process.stdout.readline()
        process.kill()
    reached = covered(store)
    assert 0 <= reached[0] < len(ROWS)
    with store.array("t:samples") as array:
        assert_equals_brute_force(overview(array, 0, len(array), pixels=40), ROWS)
        pyramid = store.pyramid_writer(array, committed_rows=len(ROWS))
        assert pyramid is not None
        with pyramid:
            assert pyramid.covered_rows == reached[0]
            pyramid.extend(len(ROWS))
            pyramid.mark_durable(pyramid.lengths)
        assert covered(store) == [60_000 // 64 * 64, 60_000 // 4096 * 4096]
        assert_equals_brute_force(overview(array, 0, len(array), pixels=40), ROWS)
