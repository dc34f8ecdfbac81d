"""What a store promises about arrays that others replace: they stay, as `~1`, …, until they are dropped."""

import numpy as np
import pytest

from ...errors import ArrayNotFound, StoreLocked
from ...store.interface import REBUILT, StoreEngine
from .fixtures import DATABASE_ID, StoreFixtures, array_writer, resumed, rows_from, times_from


def store_rows(store: StoreEngine, reference: str, first: int, *, rate_hz: float = 10.0) -> bytes:
    """Append two rows; returns the array's uid."""
    with resumed(array_writer(store, reference, rate_hz=rate_hz)) as writer:
        writer.append(rows_from(first, 2), times_from(first, 2))
        return writer.uid


def rebuild(store: StoreEngine, reference: str, first: int) -> bytes:
    """Make `reference~rebuilt`, and put it in place; returns its uid."""
    uid = store_rows(store, reference + REBUILT, first)
    store.put_rebuilt_in_place(reference, uid)
    return uid


class ReplacementConformance(StoreFixtures):
    """Each promise about `~1` and `~rebuilt`."""

    @pytest.fixture
    def array(self, name: str) -> str:
        return f"{name}:rows"

    @pytest.mark.parametrize("change", ["attrs", "dtype", "row_shape"])
    def test_an_array_that_differs_is_set_aside(self, store: StoreEngine, array: str, change: str) -> None:
        uid = store_rows(store, array, 0)
        before = store.array(array)
        rows = before[:]
        writer = {
            "attrs": lambda: array_writer(store, array, rate_hz=20.0),
            "dtype": lambda: array_writer(store, array, dtype="<f8"),
            "row_shape": lambda: array_writer(store, array, row_shape=(3, 1)),
        }[change]()
        with writer:
            writer.resume(writer.found, database_id=DATABASE_ID)
            assert writer.uid != uid
            assert (writer.length, len(store.array(array))) == (0, 0)
        assert before.replaced
        np.testing.assert_array_equal(rows, rows_from(0, 2))
        aside = store.array(f"{array}~1")
        assert (aside.uid, store.array_uid(f"{array}~1")) == (uid, uid)
        np.testing.assert_array_equal(aside[:], rows_from(0, 2))
        (found,) = store.replaced().items()
        assert (found[0], found[1].name, found[1].by) == (f"{array}~1", "rows", "layout")
        assert found[1].replaced_ns > 0

    def test_start_over_keeps_the_rows_aside(self, store: StoreEngine, array: str) -> None:
        uid = store_rows(store, array, 0)
        with resumed(array_writer(store, array)) as writer:
            writer.start_over(database_id=DATABASE_ID)
            assert (writer.length, writer.uid != uid) == (0, True)
            assert writer.append(rows_from(7, 1), times_from(7, 1)) == 0
        np.testing.assert_array_equal(store.array(f"{array}~1")[:], rows_from(0, 2))
        np.testing.assert_array_equal(store.array(array)[:], rows_from(7, 1))

    def test_start_over_sets_no_empty_array_aside(self, store: StoreEngine, array: str) -> None:
        with resumed(array_writer(store, array)) as writer:
            writer.start_over(database_id=DATABASE_ID)
        assert store.replaced() == {}

    def test_a_checkpoint_may_know_an_array_that_was_set_aside(self, store: StoreEngine, array: str) -> None:
        with resumed(array_writer(store, array)) as writer:
            writer.append(rows_from(0, 2), times_from(0, 2))
            committed = writer.found
            writer.start_over(database_id=DATABASE_ID)
        with array_writer(store, array) as writer:
            assert writer.resume(committed, database_id=DATABASE_ID).length == 0

    def test_a_rebuilt_array_takes_the_reference(self, store: StoreEngine, array: str) -> None:
        old = store_rows(store, array, 0)
        new = store_rows(store, array + REBUILT, 5)
        before = store.array(array)
        assert store.is_rebuilt(array, new)
        assert not store.is_rebuilt(array, old)
        store.put_rebuilt_in_place(array, old)  # another one: nothing happens
        assert store.array_uid(array) == old
        store.put_rebuilt_in_place(array, new)
        assert (store.array_uid(array), store.array_uid(f"{array}~1")) == (new, old)
        assert before.replaced
        np.testing.assert_array_equal(store.array(array)[:], rows_from(5, 2))
        store.put_rebuilt_in_place(array, new)  # it has its place already
        (found,) = store.replaced(array.partition(":")[0]).values()
        assert found.by == "reprocess"
        assert store.replaced("unknown") == {}

    def test_the_latest_replaced_array_of_each_cause_stays(self, store: StoreEngine, array: str) -> None:
        store_rows(store, array, 0)
        rebuild(store, array, 1)  # ~1 by reprocess
        with array_writer(store, array, rate_hz=20.0) as writer:  # ~2 by layout
            writer.resume(writer.found, database_id=DATABASE_ID)
            writer.append(rows_from(2, 1), times_from(2, 1))
        assert store.drop_superseded(array) == []
        rebuild(store, array, 3)  # ~3 by reprocess
        store_rows(store, f"{array}x", 0)
        assert store.drop_superseded(array) == [f"{array}~1"]
        assert sorted(store.replaced()) == [f"{array}~2", f"{array}~3"]
        np.testing.assert_array_equal(store.array(array)[:], rows_from(3, 2))

    def test_a_dropped_array_is_gone(self, store: StoreEngine, array: str) -> None:
        store_rows(store, array, 0)
        reader = store.array(array)
        store.drop_array(array)
        assert reader.replaced
        assert store.arrays() == []
        for again in (store.array, store.drop_array):
            with pytest.raises(ArrayNotFound):
                again(array)
        assert store.array_bytes(array) == 0

    def test_an_array_that_is_written_is_not_dropped(self, store: StoreEngine, array: str) -> None:
        with resumed(array_writer(store, array)) as writer:
            with pytest.raises(StoreLocked):
                store.drop_array(array)
            writer.append(rows_from(0, 1), times_from(0, 1))
        assert len(store.array(array)) == 1
