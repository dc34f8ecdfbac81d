"""Any order of operations, against a simple model: lists of rows and of chunks."""

from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from ...store.databases.checkpoint_records import OutputLength
from ...store.interface import EVENT, ArrayWriter, StoreEngine, StreamWriter
from .fixtures import DATABASE_ID, OpenStore, StoreFixtures, array_writer, new_name, stream_writer

_MOST = 3000
_settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


class _History(RuleBasedStateMachine):
    """One output: what was committed survives a restart, what was not is appended again."""

    def __init__(self) -> None:
        super().__init__()
        self.store = self.open_store()
        self.name = new_name()
        self.committed: OutputLength | None = None
        self.committed_entries = 0
        self.start_entries = 0
        self.entries: list[Any] = []

    writer: Any

    def open_store(self) -> StoreEngine:
        """The store, as another process opens it."""
        raise NotImplementedError

    def open_writer(self) -> Any:
        """The writer, not resumed yet."""
        raise NotImplementedError

    def cut_to(self, entries: int) -> None:
        """Cut the writer back to so many rows or chunks."""
        raise NotImplementedError

    @rule()
    def commit(self) -> None:
        self.store.sync()
        self.committed, self.committed_entries = self.writer.found, len(self.entries)
        self.writer.mark_committed(self.committed)

    @rule()
    def restart(self) -> None:
        """The process ends: writers are closed by the system, and nothing is synced."""
        self.writer.close()
        self.store.close()
        self.store = self.open_store()
        self.writer = self.open_writer().resume(self.committed, database_id=DATABASE_ID)
        del self.entries[self.committed_entries :]

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """A cut below the checkpoint is followed by another one, as the worker does it."""
        kept = data.draw(st.just(0) | st.integers(self.start_entries, len(self.entries)))
        self.cut_to(kept)
        del self.entries[kept:]
        if kept < self.committed_entries:
            self.commit()
        self.start_entries = min(self.start_entries, kept)

    def teardown(self) -> None:
        self.writer.close()
        self.store.close()


class ArrayHistory(_History):
    """Entries are rows of three numbers with a time."""

    writer: ArrayWriter

    def __init__(self) -> None:
        super().__init__()
        self.writer = self.open_writer().resume(None, database_id=DATABASE_ID)
        self.number = 0

    def open_writer(self) -> ArrayWriter:
        return array_writer(self.store, f"{self.name}:rows", dtype="<i4")

    def cut_to(self, entries: int) -> None:
        self.writer.cut(entries)

    @rule(count=st.integers(0, 40) | st.integers(0, _MOST))
    def append(self, count: int) -> None:
        numbers = np.arange(self.number, self.number + count)
        self.number += count
        rows = np.stack([numbers, -numbers, numbers % 7], axis=1).astype("<i4").reshape(count, 3)
        assert self.writer.append(rows, numbers) == len(self.entries)
        self.entries += numbers.tolist()

    @precondition(lambda self: self.committed_entries)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        row = data.draw(st.integers(0, self.committed_entries))
        self.writer.drop_before(row)
        with self.store.array(f"{self.name}:rows") as array:
            assert self.start_entries <= array.start <= max(row, self.start_entries)
            self.start_entries = array.start

    @invariant()
    def readers_see_the_rows(self) -> None:
        with self.store.array(f"{self.name}:rows") as array:
            assert len(array) == self.writer.length == len(self.entries)
            assert array.start == self.start_entries
            expected = np.array(self.entries[array.start :], np.int64)
            np.testing.assert_array_equal(array.times_ns[:], expected)
            np.testing.assert_array_equal(array[:][:, 1], -expected)
            middle = (array.start + len(array)) // 2
            np.testing.assert_array_equal(array[middle:, 0], expected[middle - array.start :])


class StreamHistory(_History):
    """Entries are chunks: their bytes, and the times of their events."""

    writer: StreamWriter

    def __init__(self) -> None:
        super().__init__()
        self.writer = self.open_writer().resume(None, database_id=DATABASE_ID)

    def open_writer(self) -> StreamWriter:
        return stream_writer(self.store, self.name)

    def size(self, chunks: int) -> int:
        """Of the first chunks, in bytes."""
        return sum(len(data) for data, _ in self.entries[:chunks])

    def cut_to(self, entries: int) -> None:
        self.writer.cut(self.size(entries), entries)

    @rule(
        size=st.integers(0, 30) | st.integers(0, 3 * _MOST),
        events=st.integers(1, 9),
        fill=st.integers(0, 255),
    )
    def append(self, size: int, events: int, fill: int) -> None:
        before = self.size(len(self.entries))
        events = min(events, size)  # each has a byte
        data = bytes([fill]) * size
        times_ns = np.arange(events) + 1 + 100 * len(self.entries)
        ends = before + (np.arange(1, events + 1) * size) // max(events, 1)
        offset = self.writer.append(
            data, arrived_ns=fill, chunk_id=None, events=events, event_times=(ends, times_ns)
        )
        assert offset == before
        self.entries.append((data, times_ns))

    @precondition(lambda self: self.committed_entries)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        chunks = data.draw(st.integers(0, self.committed_entries))
        self.writer.drop_before(self.size(chunks))
        with self.store.stream(self.name) as stream:
            assert stream.start <= max(self.size(chunks), self.size(self.start_entries))
            # Cuts end after the first chunk that is kept as a whole.
            whole = [n for n in range(len(self.entries) + 1) if self.size(n) >= stream.start]
            self.start_entries = max(whole[0], stream.arrivals.start)

    @invariant()
    def readers_see_the_chunks(self) -> None:
        content = b"".join(data for data, _ in self.entries)
        with self.store.stream(self.name) as stream:
            for each in (stream, self.writer):
                assert (each.size, each.chunks) == (len(content), len(self.entries))
                assert each.events == sum(len(times_ns) for _, times_ns in self.entries)
            assert stream.read(stream.start, len(content) + 1) == content[stream.start :]
            assert len(stream.arrivals) == len(self.entries)
            arrivals = stream.arrivals[:]
            kept = range(stream.arrivals.start, len(self.entries))
            assert arrivals["offset"].tolist() == [self.size(n) for n in kept]
            assert arrivals["size"].tolist() == [len(self.entries[n][0]) for n in kept]
            self.events_have_their_times(stream.event_times(stream.start, len(content)), stream.start)

    def events_have_their_times(self, found: NDArray[np.void], start: int) -> None:
        assert found.dtype == EVENT
        expected = [
            (before + (number + 1) * len(data) // len(times_ns), time_ns)
            for before, (data, times_ns) in zip(
                (self.size(n) for n in range(len(self.entries))), self.entries, strict=True
            )
            for number, time_ns in enumerate(times_ns.tolist())
        ]
        assert found.tolist() == [each for each in expected if each[0] > start]


class HistoryConformance(StoreFixtures):
    """Readers see what the model has, after any operations."""

    def test_any_history_of_an_array(self, open_store: OpenStore) -> None:
        class History(ArrayHistory):
            def open_store(self) -> StoreEngine:
                return open_store()

        run_state_machine_as_test(History, settings=_settings)

    def test_any_history_of_a_stream(self, open_store: OpenStore) -> None:
        class History(StreamHistory):
            def open_store(self) -> StoreEngine:
                return open_store()

        run_state_machine_as_test(History, settings=_settings)
