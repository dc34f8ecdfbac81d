"""What the writer and the reader of a stream promise."""

import google_crc32c
import numpy as np
import pytest

from ...errors import RangeGone, StoreLocked, StreamDamaged
from ...store.interface import PART_OF_CHUNK, StoreEngine
from .fixtures import OpenStore, StoreFixtures, append_chunk, resumed, stream_writer


class StreamConformance(StoreFixtures):
    """Each promise of `StreamWriter` and `StreamReader` but those about resuming."""

    def test_readers_see_chunks_at_once(self, store: StoreEngine, open_store: OpenStore, name: str) -> None:
        with (
            resumed(stream_writer(store, name)) as writer,
            open_store() as other,
            other.stream(name) as stream,
        ):
            assert (stream.size, stream.chunks, stream.events) == (0, 0, 0)
            assert (stream.first_arrival_ns, stream.last_arrival_ns) == (None, None)
            assert writer.append(b"first", arrived_ns=7, chunk_id=b"id", events=2) == 0
            assert writer.append(b"", arrived_ns=8, chunk_id=None, events=0) == 5
            assert writer.append(bytearray(b"second"), arrived_ns=-9, chunk_id=PART_OF_CHUNK, events=3) == 5
            for each in (writer, stream):
                assert (each.size, each.chunks, each.events) == (11, 3, 5)
            assert (stream.first_arrival_ns, stream.last_arrival_ns) == (7, -9)
            assert stream.read(0, 100) == b"firstsecond"
            assert stream.read(3, 4) == b"stse"
            assert stream.read(11, 5) == stream.read(50, 5) == stream.read(2, 0) == b""
            assert (stream.uid, stream.attrs) == (writer.uid, {"tag": name})
            assert not stream.replaced

    def test_arrivals_describe_the_chunks(self, store: StoreEngine, name: str) -> None:
        chunks = [(b"abc", b"1"), (b"", None), (bytes(5000), b"x" * 40)]
        with resumed(stream_writer(store, name)) as writer, store.stream(name) as stream:
            for data, chunk_id in chunks:
                append_chunk(writer, data, chunk_id=chunk_id)
            arrivals = stream.arrivals[:]
            assert arrivals["offset"].tolist() == [0, 3, 3]
            assert arrivals["size"].tolist() == [3, 0, 5000]
            assert arrivals["arrived_ns"].tolist() == [1, 2, 3]
            assert arrivals["events_total"].tolist() == [1, 2, 3]
            assert arrivals["crc32c"].tolist() == [google_crc32c.value(data) for data, _ in chunks]
            assert arrivals["chunk_id_size"].tolist() == [1, 0, 40]
            assert bytes(arrivals[2]["chunk_id"]) == b"x" * 32
            assert len(stream.arrivals) == stream.arrivals.shape[0] == 3

    def test_a_buffer_may_change_after_it_was_appended(self, store: StoreEngine, name: str) -> None:
        data = np.arange(6, dtype="<u2")
        with resumed(stream_writer(store, name)) as writer:
            append_chunk(writer, data.data)  # type: ignore[arg-type]
            data[:] = 0
            assert store.stream(name).read(0, 99) == np.arange(6, dtype="<u2").tobytes()

    def test_the_times_of_events_are_found_by_bytes(self, store: StoreEngine, name: str) -> None:
        with resumed(stream_writer(store, name)) as writer, store.stream(name) as stream:
            assert len(stream.event_times(0, 10)) == 0
            for first in (0, 6):
                ends = first + np.array([2, 4, 6])
                writer.append(
                    b"eventx", arrived_ns=1, chunk_id=None, events=3, event_times=(ends, ends * 100)
                )
            assert stream.event_times(0, 12)["time_ns"].tolist() == [200, 400, 600, 800, 1000, 1200]
            assert stream.event_times(4, 8)["end"].tolist() == [6, 8]
            assert stream.event_times(12, 99)["end"].tolist() == []
            writer.cut(6, 1)
            assert stream.event_times(0, 99)["end"].tolist() == [2, 4, 6]

    def test_a_cut_ends_the_stream_after_a_chunk(self, store: StoreEngine, name: str) -> None:
        with resumed(stream_writer(store, name)) as writer, store.stream(name) as stream:
            for number in range(5):
                append_chunk(writer, b"%d" % number * 3, events=2)
            with pytest.raises(ValueError, match="byte"):
                writer.cut(7, 2)
            with pytest.raises(StreamDamaged):
                writer.cut(18, 6)
            writer.cut(6, 2)
            assert (stream.size, stream.chunks, stream.events) == (6, 2, 4)
            assert append_chunk(writer, b"other") == 6
            assert (stream.read(0, 99), stream.events) == (b"000111other", 5)
            writer.cut(0, 0)
            assert (stream.size, stream.chunks, stream.events, stream.read(0, 9)) == (0, 0, 0, b"")

    def test_dropped_bytes_are_gone_and_the_others_keep_their_offsets(
        self, store: StoreEngine, name: str
    ) -> None:
        """As far as the engine drops any: what is kept begins at `start`."""
        content = b"".join(b"%09d\n" % number for number in range(10_000))
        with resumed(stream_writer(store, name)) as writer, store.stream(name) as stream:
            for offset in range(0, len(content), 1000):
                append_chunk(writer, content[offset : offset + 1000], events=100)
            before = stream.kept_bytes
            assert before >= len(content)
            stop = stream.segment_stop(0)
            assert stop > 0
            writer.drop_before(min(stop, 70_500) - 1)
            assert stream.start == 0
            writer.drop_before(70_500)
            start = stream.start
            assert (start >= stop, stream.kept_bytes < before) == (stop <= 70_500, start > 0)
            assert 0 <= start <= 70_500
            assert (stream.size, stream.chunks, stream.events) == (100_000, 100, 10_000)
            assert stream.read(start, 200_000) == content[start:]
            assert stream.arrivals.start <= start // 1000
            kept = stream.arrivals[:]
            assert int(kept[0]["offset"]) == 1000 * stream.arrivals.start
            assert stream.last_arrival_ns == 100
            if start:
                with pytest.raises(RangeGone):
                    stream.read(start - 1, 10)
            assert append_chunk(writer, b"next") == 100_000

    @pytest.mark.parametrize(("offset", "size"), [(-1, 1), (0, -1)])
    def test_negative_ranges_raise(self, store: StoreEngine, name: str, offset: int, size: int) -> None:
        resumed(stream_writer(store, name)).close()
        with store.stream(name) as stream, pytest.raises(ValueError, match="negative"):
            stream.read(offset, size)

    def test_a_stream_has_one_writer(self, store: StoreEngine, open_store: OpenStore, name: str) -> None:
        with resumed(stream_writer(store, name)), open_store() as other:
            for place in (store, other):
                with pytest.raises(StoreLocked):
                    stream_writer(place, name)
        resumed(stream_writer(store, name)).close()

    def test_a_writer_works_between_resume_and_close(self, store: StoreEngine, name: str) -> None:
        writer = stream_writer(store, name)
        with pytest.raises(ValueError, match="resume"):
            append_chunk(writer, b"early")
        resumed(writer).close()
        writer.close()
        for change in (
            lambda: append_chunk(writer, b"late"),
            lambda: writer.cut(0, 0),
            lambda: writer.drop_before(0),
            writer.flush,
        ):
            with pytest.raises(ValueError, match="closed"):
                change()

    def test_new_attributes_replace_the_others_and_readers_can_tell(
        self, store: StoreEngine, name: str
    ) -> None:
        resumed(stream_writer(store, name)).close()
        stream = store.stream(name)
        resumed(store.stream_writer(name, attrs={"tag": name, "policy": "p"})).close()
        assert stream.outdated
        assert not stream.replaced
        assert store.stream(name).attrs == {"tag": name, "policy": "p"}
