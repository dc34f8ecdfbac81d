import mmap
import tempfile
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from windvane.errors import RangeGone, StoreFailed, StoreLocked, StreamDamaged
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_stream import DataStream
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.segmented_writer import SegmentedWriter
from windvane.store.files.store import Store
from windvane.store.interface import ARRIVAL, EVENT

from tests.store.files.resumed import DATABASE_ID, resumed

PAGE = mmap.PAGESIZE
ATTRS = {"tag": "s", "policy": "p"}


def open_writer(directory: Path) -> DataStreamWriter:
    return resumed(DataStreamWriter(directory, "s", attrs=ATTRS, segment_bytes=PAGE))


class AgainstChunks(RuleBasedStateMachine):
    """After any operations, a data stream has the bytes and the arrivals of its chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name) / "stream"
        self.writer = open_writer(self.directory)
        self.reader = DataStream(self.directory, "s")
        self.chunks: list[tuple[bytes, int, bytes | None, int]] = []
        self.times: list[NDArray[np.int64]] = []

    @rule(
        size=st.integers(0, 2 * PAGE),
        arrived_ns=st.integers(-(2**63), 2**63 - 1),
        chunk_id=st.none() | st.binary(max_size=40),
        events=st.integers(1, 1000),
    )
    def append(self, size: int, arrived_ns: int, chunk_id: bytes | None, events: int) -> None:
        data = np.arange(len(self.chunks), len(self.chunks) + size).astype(np.uint8).tobytes()
        before = sum(len(chunk[0]) for chunk in self.chunks)
        self.chunks.append((data, arrived_ns, chunk_id, events))
        self.times.append(np.arange(events) + 1000 * len(self.times))
        ends = before + (np.arange(1, events + 1) * size) // max(events, 1)
        offset = self.writer.append(
            data,
            arrived_ns=arrived_ns,
            chunk_id=chunk_id,
            events=events,
            event_times=(ends, self.times[-1]),
        )
        assert offset == before

    @precondition(lambda self: self.chunks)
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        kept = data.draw(st.integers(0, len(self.chunks)))
        del self.chunks[kept:]
        del self.times[kept:]
        self.writer.cut(sum(len(chunk[0]) for chunk in self.chunks), len(self.chunks))

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.writer = open_writer(self.directory)

    def committed(self) -> OutputLength:
        return OutputLength(self.writer.uid, sum(len(chunk[0]) for chunk in self.chunks), len(self.chunks))

    @rule(size=st.integers(1, PAGE))
    def crash_before_the_arrival_is_recorded(self, size: int) -> None:
        self.writer.close()
        end = sum(len(chunk[0]) for chunk in self.chunks) + size
        with SegmentedWriter(self.directory / "bytes").resume() as stream_bytes:
            stream_bytes.append(bytes(size))
        with SegmentedWriter(self.directory / "events", segment_bytes=PAGE).resume() as events:
            events.append(np.array([(end, 7)], EVENT).tobytes())
        committed = self.committed()
        self.writer = DataStreamWriter(self.directory, "s", attrs=ATTRS, segment_bytes=PAGE)
        self.writer.resume(committed, database_id=DATABASE_ID)

    @invariant()
    def has_the_bytes_and_arrivals_of_its_chunks(self) -> None:
        content = b"".join(chunk[0] for chunk in self.chunks)
        for stream in (self.writer, self.reader):
            assert stream.size == len(content)
            assert stream.chunks == len(self.chunks)
            assert stream.events == sum(chunk[3] for chunk in self.chunks)
        assert self.reader.read(0, 1 << 30) == content
        assert self.reader.first_arrival_ns == (self.chunks[0][1] if self.chunks else None)
        assert self.reader.last_arrival_ns == (self.chunks[-1][1] if self.chunks else None)
        offset = events_total = 0
        arrivals = self.reader.arrivals[:]
        assert len(arrivals) == len(self.chunks)
        for arrival, (data, arrived_ns, chunk_id, events), of_events in zip(
            arrivals, self.chunks, self.times, strict=True
        ):
            events_total += events
            assert arrival["offset"] == offset
            times = self.reader.event_times(offset, offset + len(data))
            if len(data) >= events:  # so that each event has a byte; empty ones may follow at the same end
                assert times["time_ns"][:events].tolist() == of_events.tolist()
                assert times["end"][events - 1] == offset + len(data)
            assert arrival["size"] == len(data)
            assert arrival["arrived_ns"] == arrived_ns
            assert arrival["events_total"] == events_total
            assert arrival["crc32c"] == google_crc32c.value(data)
            assert arrival["chunk_id_size"] == len(chunk_id or b"")
            assert bytes(arrival["chunk_id"]) == (chunk_id or b"")[:32].ljust(32, b"\0")
            offset += len(data)

    def teardown(self) -> None:
        self.writer.close()
        self.folder.cleanup()


AgainstChunks.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestAgainstChunks = AgainstChunks.TestCase


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda data: np.frombuffer(data, np.int16)])
def test_any_contiguous_bytes_are_taken(tmp_path: Path, kind: type) -> None:
    with open_writer(tmp_path) as writer:
        writer.append(kind(b"0123456789"), arrived_ns=5, chunk_id=None, events=1)
    stream = DataStream(tmp_path, "s")
    assert stream.read(0, 99) == b"0123456789"
    assert stream.arrivals[0]["crc32c"] == google_crc32c.value(b"0123456789")
    assert dict(stream.attrs) == ATTRS


def test_chunks_and_bytes_must_belong_together_to_be_cut_back_to(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        for _ in range(3):
            writer.append(b"12345", arrived_ns=0, chunk_id=None, events=1)
        with pytest.raises(ValueError, match="first 2 chunks end at byte 10, not at 9"):
            writer.cut(9, 2)
        for size, chunks in ((16, 3), (15, 4)):
            with pytest.raises(StreamDamaged, match="missing"):
                writer.cut(size, chunks)
        assert (writer.size, writer.chunks, writer.events) == (15, 3, 3)


def test_a_chunk_whose_arrival_cannot_be_recorded_stops_the_writer(tmp_path: Path) -> None:
    obstacle = tmp_path / f"arrivals/{0:020d}.seg"
    with open_writer(tmp_path) as writer:
        obstacle.mkdir()
        for _ in range(2):
            with pytest.raises(StoreFailed, match="has stopped"):
                writer.append(b"12345", arrived_ns=1, chunk_id=None, events=1)
            assert (DataStream(tmp_path, "s").size, DataStream(tmp_path, "s").chunks) == (5, 0)
    obstacle.rmdir()
    with DataStreamWriter(tmp_path, "s", attrs=ATTRS) as writer:
        writer.resume(None, database_id=DATABASE_ID)
        assert (writer.size, writer.chunks) == (0, 0)


def test_dropping_keeps_what_is_needed_to_resume(tmp_path: Path) -> None:
    content = bytes(range(256)) * 72
    with open_writer(tmp_path) as writer:
        for number in range(256):  # as large as their records: a segment of both ends in the same chunk
            chunk = content[number * 72 : number * 72 + 72]
            writer.append(chunk, arrived_ns=number, chunk_id=b"x", events=3)
        stream = DataStream(tmp_path, "s")
        for offset in (5000, 10_000, 1 << 30):
            writer.drop_before(offset)
            kept_from = min(offset, len(content))
            assert stream.start == kept_from - kept_from % PAGE
            assert stream.read(stream.start, 1 << 30) == content[stream.start :]
            assert stream.arrivals[stream.arrivals.start]["offset"] <= stream.start
            assert stream.first_arrival_ns == stream.arrivals.start
        with pytest.raises(RangeGone):
            stream.read(0, 10)
        assert stream.chunks == 256
    with open_writer(tmp_path) as writer:
        assert writer.events == 256 * 3
        writer.append(b"more", arrived_ns=1, chunk_id=None, events=1)
        assert stream.events == 256 * 3 + 1
        writer.cut(0, 0)
        assert (stream.start, stream.size, stream.chunks, stream.events) == (0, 0, 0, 0)


def test_attrs_are_exchanged_and_the_stream_continues(tmp_path: Path) -> None:
    with open_writer(tmp_path) as writer:
        writer.append(b"abc", arrived_ns=1, chunk_id=None, events=1)
    with resumed(DataStreamWriter(tmp_path, "s", attrs={"tag": "s", "policy": "other"})) as writer:
        assert writer.size == 3
    assert DataStream(tmp_path, "s").attrs["policy"] == "other"


def test_a_second_writer_is_rejected(tmp_path: Path) -> None:
    with open_writer(tmp_path), pytest.raises(StoreLocked):
        open_writer(tmp_path)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DataStream(tmp_path / "s", "s")


def test_arrival_records_have_no_gaps() -> None:
    assert ARRIVAL.itemsize == 72
    assert sum(ARRIVAL[name].itemsize for name in ARRIVAL.names or ()) == 72


def test_zeros_that_a_power_failure_left_in_the_arrivals_take_nothing_committed_with_them(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    writer = resumed(store.stream_writer("t", attrs={}))
    for _ in range(10):
        writer.append(b"0123456789", arrived_ns=1, chunk_id=None, events=1)
    writer.append(b"not committed", arrived_ns=1, chunk_id=None, events=1)
    directory = writer.directory
    writer.close()
    [arrivals] = (directory / "arrivals").glob("*.seg")
    with arrivals.open("r+b") as file:
        file.seek(10 * ARRIVAL.itemsize)
        file.write(bytes(ARRIVAL.itemsize))
    writer = store.stream_writer("t", attrs={})
    writer.resume(OutputLength(writer.uid, 100, 10), database_id=DATABASE_ID)
    assert (writer.size, writer.chunks) == (100, 10)
    writer.close()
    assert store.stream("t").read(0, 1000) == b"0123456789" * 10


@pytest.mark.parametrize("committed_chunks", [1, 2])
def test_events_without_bytes_behind_the_checkpoint_are_cut_off_and_come_once(
    tmp_path: Path, committed_chunks: int
) -> None:
    """The bytes end at the same place with and without them, so their count decides."""

    def send(writer: DataStreamWriter, value: bytes, time_ns: int) -> None:
        ends, times_ns = np.array([writer.size + len(value)]), np.array([time_ns])
        writer.append(value, arrived_ns=1, chunk_id=None, events=1, event_times=(ends, times_ns))

    store = Store(tmp_path)
    values = [b"", b"", b"ab", b""]
    with resumed(store.stream_writer("t", attrs={})) as writer:
        for number, value in enumerate(values[:committed_chunks], 1):
            send(writer, value, number)
        committed = writer.found
        writer.mark_committed(committed)
        for number, value in enumerate(values[committed_chunks:], committed_chunks + 1):
            send(writer, value, number)
    with store.stream_writer("t", attrs={}) as writer:
        writer.resume(committed, database_id=DATABASE_ID)
        for number, value in enumerate(values[committed_chunks:], committed_chunks + 1):
            send(writer, value, number)
    with SegmentedFile(tmp_path / "t" / "stream" / "events") as file:
        records = np.frombuffer(file.read(0, 1 << 20), EVENT)
    assert records["time_ns"].tolist() == [1, 2, 3, 4]
    assert records["end"].tolist() == [0, 0, 2, 2]
