"""What the writer of an array promises."""

from typing import Any

import numpy as np
import pytest

from ...errors import StoreLocked, StreamDamaged
from ...store.interface import StoreEngine
from .fixtures import FLOAT, OpenStore, StoreFixtures, array_writer, resumed, rows_from, times_from

_RECORD = np.dtype([("level", "<f8"), ("at", "<M8[ns]"), ("name", "S4"), ("pair", "<i2", (2,))])


class ArrayConformance(StoreFixtures):
    """Each promise of `ArrayWriter` but those about resuming."""

    def test_readers_see_rows_and_times_at_once(
        self, store: StoreEngine, open_store: OpenStore, name: str
    ) -> None:
        with resumed(array_writer(store, f"{name}:rows")) as writer, open_store() as other:
            with other.array(f"{name}:rows") as array:
                assert (len(array), array.start, writer.length) == (0, 0, 0)
                assert writer.append(rows_from(0, 2), times_from(0, 2)) == 0
                assert writer.append(rows_from(2, 0), times_from(2, 0)) == 2
                assert writer.append(rows_from(2, 3), times_from(2, 3)) == 2
                assert (len(array), writer.length) == (5, 5)
                np.testing.assert_array_equal(array[:], rows_from(0, 5))
                assert array.times_ns[:].tolist() == times_from(0, 5).tolist()
                assert array.uid == writer.uid == other.array_uid(f"{name}:rows")
                assert array.attrs == writer.attrs == {"rate_hz": 10.0}
            assert other.array_bytes(f"{name}:rows") > 0

    def test_what_was_appended_may_change_afterwards(self, store: StoreEngine, name: str) -> None:
        rows, times_ns = rows_from(0, 4), times_from(0, 4)
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            writer.append(rows, times_ns)
            rows[:], times_ns[:] = 0, 0
            with store.array(f"{name}:rows") as array:
                np.testing.assert_array_equal(array[:], rows_from(0, 4))
                assert array.times_ns[:].tolist() == times_from(0, 4).tolist()

    def test_rows_that_are_not_contiguous_are_stored_as_they_are(self, store: StoreEngine, name: str) -> None:
        rows = np.arange(60, dtype=FLOAT).reshape(6, 10)[::-2, 1:7:2]
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            writer.append(rows, times_from(0, 6)[::2])
            np.testing.assert_array_equal(store.array(f"{name}:rows")[:], rows, strict=True)

    @pytest.mark.parametrize(
        ("dtype", "row_shape"),
        [("<i2", ()), (">f8", (2, 3)), ("|b1", (5,)), ("<c16", ()), ("<M8[ns]", ()), (_RECORD, ())],
        ids=str,
    )
    def test_rows_of_any_dtype_come_back(
        self, store: StoreEngine, name: str, dtype: Any, row_shape: tuple[int, ...]
    ) -> None:
        dtype = np.dtype(dtype)
        size = 7 * int(np.prod(row_shape, dtype=int)) * dtype.itemsize
        if dtype == np.bool_:
            rows = np.arange(35).reshape(7, 5) % 2 == 0
        else:
            rows = np.frombuffer(bytes(n % 100 for n in range(size)), dtype).reshape(7, *row_shape)
        with resumed(array_writer(store, f"{name}:rows", dtype=dtype, row_shape=row_shape)) as writer:
            writer.append(rows, times_from(0, 7))
            with store.array(f"{name}:rows") as array:
                assert (array.dtype, array.row_shape) == (dtype, row_shape)
                assert array[:].tobytes() == rows.tobytes()
                assert array[3:5].shape == (2, *row_shape)

    def test_rows_that_do_not_fit_raise_and_change_nothing(self, store: StoreEngine, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            for rows, times_ns in (
                (rows_from(0, 2).astype("<f8"), times_from(0, 2)),
                (rows_from(0, 2)[:, :2], times_from(0, 2)),
                (rows_from(0, 2), times_from(0, 1)),
                (rows_from(0, 2), times_from(0, 2).astype("<i4")),
                (np.array(1.0, FLOAT), times_from(0, 1)),
            ):
                with pytest.raises(ValueError, match=name):
                    writer.append(rows, times_ns)
            assert writer.length == len(store.array(f"{name}:rows")) == 0

    @pytest.mark.parametrize(
        ("dtype", "row_shape"),
        [("O", ()), ("S0", ()), (np.dtype(("<f4", (2,))), ()), ("<f4", (0,)), ("<f4", (3, -1))],
        ids=str,
    )
    def test_rows_that_cannot_be_stored_raise(
        self, store: StoreEngine, name: str, dtype: Any, row_shape: tuple[int, ...]
    ) -> None:
        with pytest.raises(ValueError, match=r"rows|row_shape"):
            store.array_writer(f"{name}:rows", dtype=np.dtype(dtype), row_shape=row_shape, attrs={})
        assert store.arrays() == []

    @pytest.mark.parametrize("value", [float("nan"), object(), b"bytes"], ids=["nan", "object", "bytes"])
    def test_attributes_must_be_json(self, store: StoreEngine, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=r"(?i)json"):
            store.array_writer(f"{name}:rows", dtype=FLOAT, row_shape=(), attrs={"value": value})
        with pytest.raises(ValueError, match=r"(?i)json"):
            store.stream_writer(name, attrs={"value": value})

    def test_attributes_come_back_as_json_has_them(self, store: StoreEngine, name: str) -> None:
        attrs = {"columns": ("a", "ü"), "nested": {"unit": None}, "rate_hz": 2.5}
        plain = {"columns": ["a", "ü"], "nested": {"unit": None}, "rate_hz": 2.5}
        writer = store.array_writer(f"{name}:rows", dtype=FLOAT, row_shape=(), attrs=attrs)
        with resumed(writer):
            assert dict(writer.attrs) == plain
            assert dict(store.array(f"{name}:rows").attrs) == plain

    def test_an_array_has_one_writer(self, store: StoreEngine, open_store: OpenStore, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows")), open_store() as other:
            for place in (store, other):
                with pytest.raises(StoreLocked):
                    array_writer(place, f"{name}:rows")
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            writer.append(rows_from(0, 1), times_from(0, 1))

    def test_a_writer_works_between_resume_and_close(self, store: StoreEngine, name: str) -> None:
        writer = array_writer(store, f"{name}:rows")
        with pytest.raises(ValueError, match=r"resume"):
            writer.append(rows_from(0, 1), times_from(0, 1))
        resumed(writer).close()
        writer.close()
        for change in (
            lambda: writer.append(rows_from(0, 1), times_from(0, 1)),
            lambda: writer.cut(0),
            lambda: writer.drop_before(0),
            writer.flush,
        ):
            with pytest.raises(ValueError, match=r"closed"):
                change()
        writer.mark_committed(writer.found)

    def test_a_cut_takes_rows_and_times(self, store: StoreEngine, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows")) as writer, store.array(f"{name}:rows") as array:
            writer.append(rows_from(0, 10), times_from(0, 10))
            writer.cut(4)
            assert (len(array), len(array.times_ns), writer.length) == (4, 4, 4)
            assert writer.append(rows_from(20, 2), times_from(20, 2)) == 4
            np.testing.assert_array_equal(array[3:], np.concatenate([rows_from(3, 1), rows_from(20, 2)]))
            with pytest.raises(StreamDamaged):
                writer.cut(7)
            with pytest.raises(ValueError, match="cut"):
                writer.cut(-1)
            writer.cut(0)
            assert (len(array), array[:].shape) == (0, (0, 3))
