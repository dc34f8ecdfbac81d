"""Arrays of format 1 become arrays of format 2 with the same rows, whatever interrupts that."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from windvane.errors import StoreFailed, StoreLocked
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.store import Store
from windvane.store.repair import array_upgrade
from windvane.store.repair.array_upgrade import ArrayUpgrade

from tests.store.files.format_1 import make_array_of_format_1
from tests.store.files.resumed import DATABASE_ID

ATTRS = {"kind": "samples", "unit": "g"}
START_NS = 1_700_000_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as store:
        yield store


def rows_of(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).random((count, 4), np.float32)


def times_of(count: int) -> NDArray[np.int64]:
    return START_NS + np.arange(count) * 10_000_000


def made(store: Store, count: int) -> OutputLength:
    return make_array_of_format_1(store, "t:x", rows_of(count), times_of(count), attrs=ATTRS)


def upgrade_of(store: Store) -> ArrayUpgrade:
    return ArrayUpgrade(store.array_directory("t:x"), "t:x", zarr_root=store.root)


def resumed_at(store: Store, length: OutputLength) -> DataArrayWriter:
    writer = store.array_writer("t:x", dtype=np.dtype("<f4"), row_shape=(4,), attrs=ATTRS)
    return writer.resume(length, database_id=DATABASE_ID)


def assert_holds(store: Store, rows: NDArray[Any], *, format: int) -> None:
    with store.array("t:x") as array:
        assert array.format == format
        assert np.array_equal(array[:], rows)
        assert np.array_equal(array.times_ns[:], times_of(len(rows)))
        assert dict(array.attrs) == ATTRS


def test_an_array_of_format_1_is_read_and_continued_in_it(store: Store) -> None:
    length = made(store, 3000)
    assert_holds(store, rows_of(3000), format=1)
    with resumed_at(store, length) as writer:
        writer.append(rows_of(5), times_of(3005)[3000:])
    assert_holds(store, np.concatenate([rows_of(3000), rows_of(5)]), format=1)


def test_the_upgraded_array_has_the_same_rows_and_uid_and_continues(store: Store) -> None:
    length = made(store, 90_000)
    conversion = upgrade_of(store)
    assert conversion.is_needed
    conversion.copy()
    assert store.arrays() == ["t:x"]
    conversion.exchange()
    assert not conversion.is_needed
    assert_holds(store, rows_of(90_000), format=2)
    assert [path.name for path in (store.root / "t" / "arrays").iterdir()] == ["x"]
    with resumed_at(store, length) as writer, store.array("t:x") as array:
        assert writer.uid == length.uid
        writer.append(rows_of(5), times_of(90_005)[90_000:])
        assert np.array_equal(array[-5:], rows_of(5))
        assert array.seal(zarr_root=store.root) == 90_000
        assert np.array_equal(zarr.open_array(str(array.zarr_path), mode="r")[:], rows_of(90_000))


def test_rows_appended_while_it_is_copied_are_there(store: Store) -> None:
    length = made(store, 5000)
    conversion = upgrade_of(store)
    with resumed_at(store, length) as writer:
        conversion.copy()
        writer.append(rows_of(700), times_of(5700)[5000:])
        with pytest.raises(StoreLocked):
            conversion.exchange()
    conversion.exchange()
    assert_holds(store, np.concatenate([rows_of(5000), rows_of(700)]), format=2)
    # Nothing had committed the last rows, so the worker makes them again.
    resumed_at(store, length).close()
    assert_holds(store, rows_of(5000), format=2)


def test_an_interrupted_copy_is_continued(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store, 20_000)
    monkeypatch.setattr(array_upgrade, "COPY_BYTES", 16_000)
    monkeypatch.setattr(array_upgrade, "SYNC_BYTES", 64_000)
    copied: list[int] = []

    def stop_on_the_way(done_bytes: int) -> None:
        copied.append(done_bytes)
        if len(copied) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        upgrade_of(store).copy(stop_on_the_way)
    again: list[int] = []
    upgrade_of(store).copy(again.append)
    assert again[0] == 128_000 + 16_000  # what was durable is not copied again
    upgrade_of(store).exchange()
    assert_holds(store, rows_of(20_000), format=2)


def test_the_copy_of_another_array_is_not_continued(store: Store) -> None:
    made(store, 2000)
    upgrade_of(store).copy()
    directory = store.array_directory("t:x")
    shutil.rmtree(directory)
    make_array_of_format_1(store, "t:x", rows_of(50), times_of(50), attrs=ATTRS)
    upgrade_of(store).copy()
    upgrade_of(store).exchange()
    assert_holds(store, rows_of(50), format=2)


def test_what_a_killed_exchange_left_is_removed(store: Store) -> None:
    made(store, 2000)
    conversion = upgrade_of(store)
    conversion.copy()
    former = store.array_directory("t:x")
    copy = former.with_name(".upgrade-x")
    shutil.copytree(former, former.with_name("kept"))
    conversion.exchange()
    former.with_name("kept").rename(copy)  # as if it had been killed before it was removed
    assert not upgrade_of(store).is_needed
    upgrade_of(store).remove_former()
    assert not copy.exists()
    assert_holds(store, rows_of(2000), format=2)


def test_an_array_without_its_beginning_stays_as_it_is(store: Store) -> None:
    length = made(store, 3000)
    with resumed_at(store, length) as writer:
        writer.drop_before(1024)
    with pytest.raises(StoreFailed, match="stays in format 1"):
        upgrade_of(store).copy()
    with store.array("t:x") as array:
        assert (array.format, array.start) == (1, 1024)
