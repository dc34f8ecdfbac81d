"""What readers see while a writer appends in another thread: whole rows and whole chunks, never fewer."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ...errors import RangeGone
from ...store.interface import StoreEngine
from .fixtures import OpenStore, StoreFixtures, append_chunk, array_writer, resumed, stream_writer

_ROUNDS = 300
_ROWS = 64
WAIT_S = 60.0


@contextmanager
def reading(*looks: Callable[[], None]) -> Iterator[None]:
    """Calls each of `looks` in a thread of its own until the block ends, and once after that."""
    is_over = threading.Event()

    def repeat(look: Callable[[], None]) -> None:
        while not is_over.is_set():
            look()
        look()

    with ThreadPoolExecutor(len(looks)) as threads:
        running = [threads.submit(repeat, look) for look in looks]
        try:
            yield
        finally:
            is_over.set()
        for each in running:
            each.result(WAIT_S)


class GrowthConformance(StoreFixtures):
    """Readers of the same process and of another one, during writes."""

    def test_an_array_grows_by_whole_rows_with_their_times(
        self, store: StoreEngine, open_store: OpenStore, name: str
    ) -> None:
        def look(array_store: StoreEngine) -> Callable[[], None]:
            array = array_store.array(f"{name}:rows")
            seen = 0

            def check() -> None:
                nonlocal seen
                length = len(array)
                assert length >= seen
                seen = length
                rows, times_ns = array[:length], array.times_ns[:length]
                assert len(rows) == len(times_ns) == length
                np.testing.assert_array_equal(rows[:, 0], times_ns)
                np.testing.assert_array_equal(rows[:, 1], times_ns)
                assert array[length:].shape[1:] == (2,)

            return check

        with (
            resumed(array_writer(store, f"{name}:rows", dtype="<i8", row_shape=(2,))) as writer,
            open_store() as other,
            reading(look(store), look(other)),
        ):
            for _ in range(_ROUNDS):
                times_ns = np.arange(writer.length, writer.length + _ROWS)
                writer.append(np.stack([times_ns, times_ns], axis=1), times_ns)

    def test_a_stream_grows_by_whole_chunks(
        self, store: StoreEngine, open_store: OpenStore, name: str
    ) -> None:
        def look(stream_store: StoreEngine) -> Callable[[], None]:
            stream = stream_store.stream(name)
            seen = 0

            def check() -> None:
                nonlocal seen
                chunks = stream.chunks
                assert chunks >= seen
                seen = chunks
                arrivals = stream.arrivals[:chunks]
                assert len(arrivals) == chunks
                if chunks:
                    last = arrivals[-1]
                    assert stream.size >= int(last["offset"] + last["size"])
                    assert stream.read(int(last["offset"]), int(last["size"])) == b"%d" % chunks * 20

            return check

        with (
            resumed(stream_writer(store, name)) as writer,
            open_store() as other,
            reading(look(store), look(other)),
        ):
            for number in range(1, _ROUNDS + 1):
                append_chunk(writer, b"%d" % number * 20)

    def test_an_open_slice_is_valid_while_rows_are_dropped(self, store: StoreEngine, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows", dtype="<i8", row_shape=())) as writer:
            array = store.array(f"{name}:rows")

            def look() -> None:
                rows = array[:]
                if len(rows):
                    np.testing.assert_array_equal(rows, np.arange(rows[0], rows[0] + len(rows)))
                    try:
                        assert int(array[int(rows[0])]) == rows[0]
                    except RangeGone:
                        assert array.start > rows[0]

            with reading(look, look):
                for _ in range(_ROUNDS):
                    numbers = np.arange(writer.length, writer.length + _ROWS)
                    writer.append(numbers, numbers)
                    writer.drop_before(writer.length - 3 * _ROWS)
                    if writer.length % 7 == 0:
                        writer.cut(writer.length - _ROWS)

    def test_what_was_read_does_not_grow(self, store: StoreEngine, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows", dtype="<i8", row_shape=())) as writer:
            array = store.array(f"{name}:rows")
            writer.append(np.arange(5), np.arange(5))
            before = array[:]
            writer.append(np.arange(5, 9), np.arange(5, 9))
            assert before.tolist() == [0, 1, 2, 3, 4]
            assert array[:].tolist() == list(range(9))

    def test_many_writers_of_different_outputs_work_at_once(self, store: StoreEngine, name: str) -> None:
        def write(number: int) -> None:
            writer = array_writer(store, f"{name}:rows{number}", dtype="<i8", row_shape=())
            with resumed(writer), resumed(stream_writer(store, f"{name}.{number}")) as stream:
                for _ in range(20):
                    rows = np.arange(writer.length, writer.length + 10)
                    writer.append(rows, rows)
                    append_chunk(stream, b"x" * number)
                    store.sync()

        with ThreadPoolExecutor(4) as threads:
            for each in [threads.submit(write, number) for number in range(8)]:
                each.result(WAIT_S)
        for number in range(8):
            assert store.array(f"{name}:rows{number}")[:].tolist() == list(range(200))
            assert store.stream(f"{name}.{number}").read(0, 999) == b"x" * 20 * number
