"""The first rows of an array, against NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.store.files.store import Store
from windvane.store.selection.first_rows import FirstRowsOfArray

from tests.store.files.resumed import resumed

bounds = st.none() | st.integers(-9, 9)


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Any:
    store = Store(tmp_path_factory.mktemp("home") / "store")
    writer = resumed(store.array_writer("s:a", dtype=np.dtype("<i4"), row_shape=(2,), attrs={"x": 1}))
    writer.append(np.arange(14, dtype="<i4").reshape(7, 2), np.arange(7) * 10)
    return store.array("s:a")


@settings(deadline=None)
@given(length=st.integers(0, 7), start=bounds, stop=bounds, step=st.none() | st.integers(-4, 4).filter(bool))
def test_a_slice_is_that_of_an_array_of_so_many_rows(
    array: Any, length: int, start: int | None, stop: int | None, step: int | None
) -> None:
    first, expected = FirstRowsOfArray(array, length), np.arange(14).reshape(7, 2)[:length]
    key = slice(start, stop, step)
    assert first[key].tolist() == expected[key].tolist()
    assert first[key, 1].tolist() == expected[key, 1].tolist()
    assert first.times_ns[key].tolist() == (np.arange(7) * 10)[:length][key].tolist()
    assert first.shape == expected.shape


@pytest.mark.parametrize("key", [0, -1, 4, -5, (2, 1), ..., None, [0, 3], (slice(None), 0), ()])
def test_another_index_is_that_of_an_array_of_so_many_rows(array: Any, key: Any) -> None:
    first, expected = FirstRowsOfArray(array, 5), np.arange(14).reshape(7, 2)[:5]
    assert np.array_equal(first[key], expected[key])
    assert np.asarray(first).tolist() == expected.tolist()


@pytest.mark.parametrize("key", [5, -6, [5], [0, 6]])
def test_rows_behind_them_are_not_there(array: Any, key: Any) -> None:
    with pytest.raises(IndexError):
        FirstRowsOfArray(array, 5)[key]
