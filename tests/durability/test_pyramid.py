"""The pyramid after a power cut: what readers see of it is exact, and it continues."""

from pathlib import Path

import numpy as np
import pytest
from windvane.store.files.store import Store
from windvane.store.pyramid.overview import overview

from tests.durability.power_cut import Cut
from tests.durability.recording_disk import RecordingDisk
from tests.durability.test_store import after_every_cut, durable_end
from tests.store.files.resumed import DATABASE_ID, resumed
from tests.store.pyramid.brute_force import assert_equals_brute_force

pytestmark = pytest.mark.slow

SEGMENT_BYTES = 65_536
STEPS = (700, 4_300, 4_400, 9_000)
ROWS = np.random.default_rng(3).integers(-999, 999, STEPS[-1], "<i2")


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


def grow(store: Store, disk: RecordingDisk) -> None:
    """As the worker: rows, a sync, a commit; then cells of these rows, which the next sync makes durable."""
    complete: tuple[int, ...] = ()
    with resumed(store.array_writer("t:samples", dtype=ROWS.dtype, row_shape=(), attrs={})) as writer:
        for stop in STEPS:
            first = writer.length
            writer.append(ROWS[first:stop], np.arange(first, stop, dtype=np.int64) * 10)
            store.sync()
            disk.mark(f"durable {writer.reference} {writer.uid.hex()} {stop} 0")
            writer.mark_committed(writer.found)
            with store.array("t:samples") as array:
                pyramid = store.pyramid_writer(array, committed_rows=stop, complete=complete)
                assert pyramid is not None
                with pyramid:
                    pyramid.mark_durable(complete)
                    pyramid.extend(stop)
                    complete = tuple(pyramid.lengths)
                    disk.mark(f"covered {pyramid.covered_rows}")


def test_after_every_power_cut_a_pyramid_is_exact_or_shorter_and_continues(
    tmp_path: Path, disk: RecordingDisk
) -> None:
    with disk.recording(), Store(disk.root / "store", segment_bytes=SEGMENT_BYTES) as store:
        grow(store, disk)
    longest = 0

    def check(cut: Cut, home: Path) -> None:
        nonlocal longest
        committed = durable_end(disk.steps[: cut.stop], "t:samples")
        if committed is None:
            return
        rows = ROWS[: committed.length]
        with Store(home / "store", segment_bytes=SEGMENT_BYTES) as store:
            # Before the worker resumes: rows that were not synced may be missing, durable cells never.
            with store.array("t:samples") as array:
                for level in array.levels():
                    assert level.stop_row <= committed.length
                    cells = level.cells(0, level.stop_row)["min"]
                    groups = rows[: level.stop_row].reshape(-1, level.rows_per_cell)
                    assert np.array_equal(cells, groups.min(axis=1))
                    longest = max(longest, level.stop_row)
            writer = store.array_writer("t:samples", dtype=ROWS.dtype, row_shape=(), attrs={})
            with writer.resume(committed, database_id=DATABASE_ID), store.array("t:samples") as array:
                assert_equals_brute_force(overview(array, 0, committed.length, pixels=20), rows)
                writer.append(ROWS[committed.length :], np.arange(committed.length, len(ROWS)) * 10)
                store.sync()
                pyramid = store.pyramid_writer(array, committed_rows=len(ROWS))
                assert pyramid is not None
                with pyramid:
                    pyramid.extend(len(ROWS))
                    pyramid.mark_durable(pyramid.lengths)
                assert [level.stop_row for level in array.levels()] == [8_960, 8_192]
                assert_equals_brute_force(overview(array, 0, len(ROWS), pixels=20), ROWS)

    checked = after_every_cut(disk.steps, tmp_path, check, least=40)
    assert longest >= 4_096
    print(
        f"{checked} states after a power cut in {len(disk.steps)} steps: all cells that were read were exact"
    )
