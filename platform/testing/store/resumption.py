"""What `resume` promises: nothing that a checkpoint may cover is cut off or lost unnoticed."""

import numpy as np
import pytest

from ...errors import CheckpointMissing, StreamDamaged
from ...store.databases.checkpoint_records import OutputLength
from ...store.interface import ArrayWriter, StoreEngine, StreamWriter
from .fixtures import (
    DATABASE_ID,
    OpenStore,
    StoreFixtures,
    append_chunk,
    array_writer,
    resumed,
    rows_from,
    stream_writer,
    times_from,
)

OTHER_DATABASE = bytes(range(16, 32))


def begin(store: StoreEngine, reference: str) -> StreamWriter | ArrayWriter:
    """A writer of either kind, not resumed yet."""
    return array_writer(store, reference) if ":" in reference else stream_writer(store, reference)


def grow(writer: StreamWriter | ArrayWriter, count: int) -> OutputLength:
    """Append `count` rows, or chunks of 10 bytes; returns the length after them."""
    if isinstance(writer, ArrayWriter):
        writer.append(rows_from(writer.length, count), times_from(writer.length, count))
    else:
        for _ in range(count):
            append_chunk(writer, b"%09d\n" % writer.chunks)
    return writer.found


def content(store: StoreEngine, reference: str) -> bytes:
    """All that readers see."""
    if ":" in reference:
        with store.array(reference) as array:
            return bytes(array[:].tobytes() + array.times_ns[:].tobytes())
    with store.stream(reference) as stream:
        return stream.read(0, stream.size) + bytes(stream.arrivals[:].tobytes())


class ResumptionConformance(StoreFixtures):
    """Each promise of `resume` and `mark_committed`, for streams and for arrays."""

    @pytest.fixture(params=["t", "t:rows"], ids=["stream", "array"])
    def reference(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_what_follows_the_checkpoint_is_cut_off(
        self, store: StoreEngine, open_store: OpenStore, reference: str
    ) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            committed = grow(writer, 5)
            store.sync()
            writer.mark_committed(committed)
            kept = content(store, reference)
            grow(writer, 3)
        with open_store() as after, begin(after, reference) as writer:
            assert committed.length <= writer.found.length
            writer.resume(committed, database_id=DATABASE_ID)
            assert writer.found == committed
            assert content(after, reference) == kept
            grow(writer, 1)
            assert writer.uid == committed.uid

    def test_an_output_that_was_never_committed_starts_over(
        self, store: StoreEngine, open_store: OpenStore, reference: str
    ) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            grow(writer, 5)
        with open_store() as after, begin(after, reference) as writer:
            writer.resume(None, database_id=DATABASE_ID)
            assert (writer.found.length, writer.found.chunks) == (0, 0)

    @pytest.mark.parametrize("database_id", [DATABASE_ID, OTHER_DATABASE], ids=["its own", "another"])
    def test_without_the_checkpoint_of_committed_data_nothing_is_cut(
        self, store: StoreEngine, reference: str, database_id: bytes
    ) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            committed = grow(writer, 5)
            store.sync()
            if database_id == DATABASE_ID:  # another database cannot know whether it was committed
                writer.mark_committed(committed)
            before = content(store, reference)
        with begin(store, reference) as writer:
            for missing in (None, OutputLength(b"another output..", 5, 5)):
                with pytest.raises(CheckpointMissing, match=reference):
                    writer.resume(missing, database_id=database_id)
        assert content(store, reference) == before
        with begin(store, reference) as writer:
            assert writer.resume(committed, database_id=database_id).found == committed

    def test_an_older_checkpoint_is_rejected(self, store: StoreEngine, reference: str) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            older = grow(writer, 2)
            newer = grow(writer, 3)
            store.sync()
            writer.mark_committed(newer)
        with begin(store, reference) as writer:
            with pytest.raises(CheckpointMissing, match="older"):
                writer.resume(older, database_id=DATABASE_ID)
            assert writer.resume(newer, database_id=DATABASE_ID).found == newer

    def test_lost_data_is_noticed(self, store: StoreEngine, reference: str) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            found = grow(writer, 2)
        more = OutputLength(found.uid, found.length * 2, found.chunks * 2)
        with begin(store, reference) as writer, pytest.raises(StreamDamaged):
            writer.resume(more, database_id=DATABASE_ID)
        assert len(content(store, reference)) > 0

    def test_an_output_that_was_removed_is_noticed(self, store: StoreEngine, reference: str) -> None:
        committed = OutputLength(b"removed output..", 20, 2)
        with begin(store, reference) as writer, pytest.raises(StreamDamaged, match=reference):
            writer.resume(committed, database_id=DATABASE_ID)

    def test_a_mark_of_another_output_is_ignored(self, store: StoreEngine, reference: str) -> None:
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            found = grow(writer, 2)
            writer.mark_committed(OutputLength(b"another output..", found.length, found.chunks))
        with begin(store, reference).resume(None, database_id=DATABASE_ID) as writer:
            assert writer.found.length == 0

    def test_an_array_continues_after_a_checkpoint_of_no_rows(self, store: StoreEngine, name: str) -> None:
        with resumed(array_writer(store, f"{name}:rows")) as writer:
            uid = writer.uid
        with array_writer(store, f"{name}:rows") as writer:
            writer.resume(OutputLength(uid, 0), database_id=DATABASE_ID)
            assert writer.append(rows_from(0, 2), times_from(0, 2)) == 0
            assert writer.uid == uid

    def test_flush_and_sync_may_be_called_at_any_time(self, store: StoreEngine, name: str) -> None:
        store.sync()
        with (
            resumed(stream_writer(store, name)) as stream,
            resumed(array_writer(store, f"{name}:r")) as array,
        ):
            for count in range(3):
                grow(stream, count)
                grow(array, count)
                stream.flush()
                array.flush()
                store.sync()
        np.testing.assert_array_equal(store.array(f"{name}:r")[:], rows_from(0, 3))
