"""What indexing promises: the same as NumPy gives for an array of the same rows."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from ...errors import RangeGone
from ...store.interface import StoreEngine
from .fixtures import StoreFixtures, array_writer, few_inputs, new_name, resumed, rows_from, times_from

_ROWS = 11


def stored(store: StoreEngine, rows: NDArray[Any]) -> str:
    """A new array of these rows."""
    reference = f"{new_name()}:rows"
    with resumed(array_writer(store, reference, dtype=rows.dtype, row_shape=rows.shape[1:])) as writer:
        writer.append(rows, times_from(0, len(rows)))
    return reference


class IndexingConformance(StoreFixtures):
    """Each promise of `RowReader`."""

    @few_inputs
    @given(data=st.data())
    def test_a_basic_index_gives_what_numpy_gives(self, store: StoreEngine, data: st.DataObject) -> None:
        rows = data.draw(npst.array_shapes(min_dims=1, max_dims=3, max_side=6))
        expected = np.arange(np.prod(rows), dtype="<i4").reshape(rows)
        with store.array(stored(store, expected)) as array:
            for _ in range(4):
                key = data.draw(npst.basic_indices(expected.shape, allow_newaxis=True, allow_ellipsis=True))
                found = array[key]
                np.testing.assert_array_equal(found, expected[key], strict=True)

    @pytest.mark.parametrize(
        "key",
        [
            [2, 0, 5],
            np.arange(_ROWS) % 3 == 0,
            np.array([[1, 2], [3, -1]]),
            np.array([], np.intp),
            (slice(1, 4), [0, 2]),
        ],
        ids=["numbers", "mask", "table", "none", "columns"],
    )
    def test_other_indexes_give_copies(self, store: StoreEngine, key: Any) -> None:
        expected = rows_from(0, _ROWS)
        with store.array(stored(store, expected)) as array:
            np.testing.assert_array_equal(array[key], expected[key], strict=True)

    def test_a_row_that_was_never_appended_raises(self, store: StoreEngine) -> None:
        with store.array(stored(store, rows_from(0, 3))) as array:
            for number in (3, -4, 10**12):
                with pytest.raises(IndexError):
                    array[number]
                with pytest.raises(IndexError):
                    array.times_ns[number]

    def test_rows_cannot_be_written(self, store: StoreEngine) -> None:
        with store.array(stored(store, rows_from(0, 3))) as array:
            for found in (array[:], array[1:2], array[...], array.times_ns[:]):
                assert isinstance(found, np.ndarray)
                assert not found.flags.writeable

    def test_views_share_the_memory_of_a_mappable_engine(self, store: StoreEngine) -> None:
        if not store.mappable:
            pytest.skip("the engine gives copies")
        with store.array(stored(store, rows_from(0, 5))) as array:
            assert np.shares_memory(array[0:3], array[1:4])

    def test_rows_stay_valid_after_close(self, store: StoreEngine) -> None:
        array = store.array(stored(store, rows_from(0, 5)))
        found = array[1:]
        array.close()
        array.close()
        np.testing.assert_array_equal(found, rows_from(1, 4))

    def test_it_is_an_array_for_numpy(self, store: StoreEngine) -> None:
        expected = rows_from(0, 5)
        with store.array(stored(store, expected)) as array:
            assert (array.shape, array.ndim, array.row_bytes) == ((5, 3), 2, 12)
            np.testing.assert_array_equal(np.asarray(array), expected, strict=True)
            np.testing.assert_array_equal(list(array), list(expected))
            assert np.asarray(array.times_ns).tolist() == times_from(0, 5).tolist()

    def test_dropped_rows_are_gone_and_the_others_keep_their_numbers(self, store: StoreEngine) -> None:
        """As far as the engine drops any: what is kept begins at `start`."""
        expected = rows_from(0, 20_000)
        reference = stored(store, expected)
        with resumed(array_writer(store, reference)) as writer, store.array(reference) as array:
            before = array.kept_bytes
            assert before >= expected.nbytes
            stop = array.segment_stop(0)
            assert stop > 0
            writer.drop_before(min(stop, 15_000) - 1)
            assert array.start < min(stop, 15_000)  # times may have segments of their own
            writer.drop_before(15_000)
            start = array.start
            assert (start >= stop, array.kept_bytes < before) == (stop <= 15_000, start > 0)
            assert 0 <= start <= 15_000
            assert (len(array), array.shape) == (20_000, (20_000, 3))
            np.testing.assert_array_equal(array[:], expected[start:])
            np.testing.assert_array_equal(array[...], expected[start:])
            np.testing.assert_array_equal(array[::-1], expected[start:][::-1])
            np.testing.assert_array_equal(array[start], expected[start])
            assert array.times_ns[start:].tolist() == times_from(start, 20_000 - start).tolist()
            if start:
                for key in (start - 1, slice(start - 1, None), slice(0, 5), -20_000):
                    with pytest.raises(RangeGone):
                        array[key]
                with pytest.raises(IndexError):
                    array[[start]]
            assert writer.append(rows_from(20_000, 1), times_from(20_000, 1)) == 20_000
            np.testing.assert_array_equal(array[-2:], rows_from(19_999, 2))
