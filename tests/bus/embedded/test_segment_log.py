"""The log of one partition: the bytes that it keeps, truncates and rejects."""

import os
import random
import resource
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus import BusMessage, TopicPartition
from windvane.bus.embedded.log_reader import LogReader
from windvane.bus.embedded.record_format import frame
from windvane.bus.embedded.segment_log import COMMITTED, LogWriter, create_log, segment_bases, segment_path
from windvane.errors import BusCorrupt, BusLocked, BusUnavailable, RangeGone

PARTITION = TopicPartition("topic", 0)
Pair = tuple[bytes, bytes]

# A file system on which fdatasync is free; test_embedded tests its guarantees by killing processes.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@contextmanager
def new_log() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as home:
        directory = Path(home) / "0"
        create_log(directory)
        yield directory


@pytest.fixture
def directory() -> Iterator[Path]:
    with new_log() as directory:
        yield directory


def messages_of(pairs: Sequence[Pair]) -> list[tuple[bytes, tuple[bytes]]]:
    return [(key, (value,)) for key, value in pairs]


def write(directory: Path, pairs: Sequence[Pair], *, segment_bytes: int = 1 << 26) -> None:
    """One append for each message."""
    writer = LogWriter(directory, segment_bytes=segment_bytes)
    for pair in pairs:
        writer.append(messages_of([pair]))
    writer.close()


def read(directory: Path, offset: int | None = None, *, max_bytes: int = 1 << 22) -> list[BusMessage]:
    reader = LogReader(directory, PARTITION, offset)
    try:
        found = []
        while reader.behind:
            found += reader.read(max_bytes)[0]
        return found
    finally:
        reader.close()


def pairs_in(directory: Path) -> list[Pair]:
    return [(message.key, message.value) for message in read(directory)]


def numbered(count: int, size: int = 20) -> list[Pair]:
    return [(b"k%d" % number, random.Random(number).randbytes(size)) for number in range(count)]


class TestReading:
    @given(
        groups=st.lists(
            st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=200)), min_size=1, max_size=5),
            max_size=12,
        ),
        segment_bytes=st.integers(1, 600),
        max_bytes=st.integers(0, 700),
    )
    def test_messages_do_not_depend_on_segment_boundaries(
        self, groups: list[list[Pair]], segment_bytes: int, max_bytes: int
    ) -> None:
        with new_log() as directory:
            writer = LogWriter(directory, segment_bytes=segment_bytes)
            for group in groups:
                writer.append(messages_of(group))
            writer.close()
            pairs = [pair for group in groups for pair in group]
            found = read(directory, max_bytes=max_bytes)
            assert [(message.key, message.value) for message in found] == pairs
            assert [message.offset for message in found] == list(range(len(pairs)))
            for offset in range(len(pairs) + 1):
                assert read(directory, offset, max_bytes=max_bytes) == found[offset:]

    def test_a_read_has_at_most_max_bytes_of_records_over_segments_too(self, directory: Path) -> None:
        write(directory, numbered(50), segment_bytes=100)
        reader = LogReader(directory, PARTITION, None)
        record_bytes = 20 + 3 + 20
        reader.read(10 * record_bytes)
        messages, size = reader.read(10 * record_bytes)
        assert len(messages) == 10
        assert size == 10 * record_bytes
        reader.close()

    def test_a_large_first_message_can_be_left_for_later(self, directory: Path) -> None:
        write(directory, [(b"k", bytes(1000))])
        reader = LogReader(directory, PARTITION, None)
        assert reader.read(10, first_bytes=1020) == ([], 0)
        (message,), size = reader.read(10, first_bytes=1021)
        assert len(message.value) == 1000
        assert size == 1021
        reader.close()

    def test_readers_see_only_what_is_durable(self, directory: Path) -> None:
        write(directory, numbered(3))
        with segment_path(directory, 0).open("ab") as file:
            file.write(b"".join(frame(messages_of([(b"k", b"written, not durable")]), 3)))
        assert pairs_in(directory) == numbered(3)

    def test_a_reader_follows_a_live_writer(self, directory: Path) -> None:
        reader = LogReader(directory, PARTITION, None)
        writer = LogWriter(directory, segment_bytes=100)
        for offset, pair in enumerate(numbered(20)):
            assert reader.read(1000) == ([], 0)
            writer.append(messages_of([pair]))
            assert reader.behind == 1
            assert reader.read(1000)[0] == [BusMessage(PARTITION, offset, *pair)]
        writer.close()
        reader.close()

    def test_a_position_after_the_end_is_an_error(self, directory: Path) -> None:
        write(directory, numbered(3))
        with pytest.raises(RangeGone, match=r"message 4 .* ends at 3"):
            read(directory, 4)


def records(pairs: Sequence[Pair], first_offset: int) -> list[bytes]:
    return [b"".join(frame(messages_of([pair]), first_offset + place)) for place, pair in enumerate(pairs)]


class TestTornTail:
    """A crash in the middle of a write leaves bytes after the durable end."""

    KEPT = numbered(3)
    UNFINISHED = ((b"a", b"first unfinished"), (b"", b""), (b"c", b"x" * 30))
    TAIL = tuple(records(UNFINISHED, 3))

    def check(self, directory: Path, whole: int) -> None:
        """The log has the durable messages and `whole` unfinished ones, and accepts more."""
        writer = LogWriter(directory)
        assert writer.append(messages_of([(b"new", b"message")])) == 3 + whole
        writer.close()
        expected = [*self.KEPT, *self.UNFINISHED[:whole], (b"new", b"message")]
        assert pairs_in(directory) == expected
        assert segment_path(directory, 0).read_bytes() == b"".join(records(expected, 0))

    @pytest.mark.parametrize("stop", range(len(b"".join(TAIL)) + 1))
    def test_cut_at_any_byte(self, directory: Path, stop: int) -> None:
        write(directory, self.KEPT)
        with segment_path(directory, 0).open("ab") as file:
            file.write(b"".join(self.TAIL)[:stop])
        whole = sum(len(b"".join(self.TAIL[: place + 1])) <= stop for place in range(3))
        self.check(directory, whole)

    @pytest.mark.parametrize("place", range(len(b"".join(TAIL))))
    def test_damaged_at_any_byte(self, directory: Path, place: int) -> None:
        write(directory, self.KEPT)
        tail = bytearray(b"".join(self.TAIL))
        tail[place] ^= 0x10
        with segment_path(directory, 0).open("ab") as file:
            file.write(tail)
        whole = sum(len(b"".join(self.TAIL[: number + 1])) <= place for number in range(3))
        self.check(directory, whole)

    @pytest.mark.parametrize("size", [1, 7, 8, 19, 20, 4096, 5_000_000])
    def test_zeros(self, directory: Path, size: int) -> None:
        write(directory, self.KEPT)
        with segment_path(directory, 0).open("ab") as file:
            file.truncate(file.tell() + size)
        self.check(directory, 0)

    def test_an_empty_new_segment(self, directory: Path) -> None:
        write(directory, self.KEPT)
        segment_path(directory, 3).touch()
        write(directory, [(b"new", b"message")])
        assert pairs_in(directory) == [*self.KEPT, (b"new", b"message")]

    def test_after_a_power_cut_the_durable_end_may_be_old(self, directory: Path) -> None:
        write(directory, self.KEPT)
        old = (directory / COMMITTED).read_bytes()
        write(directory, numbered(30), segment_bytes=300)
        (directory / COMMITTED).write_bytes(old)
        writer = LogWriter(directory)
        assert writer.next_offset == 33
        writer.close()
        assert pairs_in(directory) == [*self.KEPT, *numbered(30)]

    def test_records_larger_than_one_read_are_checked_too(self, directory: Path) -> None:
        large = [(b"k", bytes(9_000_000)), (b"k", bytes(100))]
        write(directory, self.KEPT)
        with segment_path(directory, 0).open("ab") as file:
            file.write(b"".join(frame(messages_of(large), 3)))
        writer = LogWriter(directory)
        assert writer.next_offset == 5
        writer.close()
        assert pairs_in(directory) == [*self.KEPT, *large]


class TestDamage:
    """Damage below the durable end is neither truncated nor skipped: it is an error with the position."""

    PAIRS = numbered(3, size=9)
    RECORDS = tuple(records(PAIRS, 0))

    @pytest.mark.parametrize("place", range(len(b"".join(RECORDS))))
    def test_a_damaged_byte_stops_reader_and_writer(self, directory: Path, place: int) -> None:
        write(directory, self.PAIRS)
        path = segment_path(directory, 0)
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 0x40
        path.write_bytes(damaged)

        record_bytes = len(self.RECORDS[0])
        message = place // record_bytes
        where = f"{path.name} is damaged at byte {message * record_bytes}: message {message} "
        reader = LogReader(directory, PARTITION, None)
        if message:
            assert len(reader.read(1000)[0]) == message
        for _ in range(2):
            with pytest.raises(BusCorrupt, match=where):
                reader.read(1000)
        reader.close()
        with pytest.raises(BusCorrupt, match=where):
            LogWriter(directory)
        assert path.read_bytes() == damaged

    @pytest.mark.parametrize("stop", range(len(b"".join(RECORDS))))
    def test_a_missing_end_stops_reader_and_writer(self, directory: Path, stop: int) -> None:
        write(directory, self.PAIRS)
        path = segment_path(directory, 0)
        os.truncate(path, stop)
        with pytest.raises(BusCorrupt, match=path.name):
            read(directory)
        with pytest.raises(BusCorrupt, match=path.name):
            LogWriter(directory)
        assert path.stat().st_size == stop

    def test_a_reader_can_continue_after_a_damaged_message(self, directory: Path) -> None:
        write(directory, self.PAIRS)
        with segment_path(directory, 0).open("r+b") as file:
            file.seek(len(self.RECORDS[0]) - 1)
            file.write(b"!")
        with pytest.raises(BusCorrupt):
            read(directory)
        assert [message.offset for message in read(directory, 1)] == [1, 2]

    def test_a_missing_segment_is_detected(self, directory: Path) -> None:
        write(directory, numbered(9), segment_bytes=100)
        bases = segment_bases(directory)
        segment_path(directory, bases[1]).unlink()
        with pytest.raises(BusCorrupt, match=f"messages {bases[1]} to {bases[2] - 1} .*missing"):
            read(directory)

    def test_a_segment_that_replaces_another_is_detected(self, directory: Path) -> None:
        write(directory, numbered(9, size=30), segment_bytes=100)
        first, second = (segment_path(directory, base) for base in segment_bases(directory)[:2])
        second.write_bytes(first.read_bytes())
        with pytest.raises(BusCorrupt, match=f"{second.name} is damaged at byte 0.*it has offset 0"):
            read(directory)

    def test_the_writer_detects_missing_files(self, directory: Path) -> None:
        write(directory, numbered(3))
        segment_path(directory, 0).unlink()
        with pytest.raises(BusCorrupt, match="3 messages were durable"):
            LogWriter(directory)

    def test_a_damaged_page_of_words_is_detected(self, directory: Path) -> None:
        (directory / COMMITTED).write_bytes(b"")
        with pytest.raises(BusCorrupt, match=COMMITTED):
            LogReader(directory, PARTITION, None)


class TestOneWriter:
    def test_a_second_writer_is_rejected_until_the_first_closes(self, directory: Path) -> None:
        first = LogWriter(directory)
        with pytest.raises(BusLocked, match="another process"):
            LogWriter(directory)
        first.append(messages_of([(b"k", b"the first still writes")]))
        first.close()
        LogWriter(directory).close()

    def test_a_log_is_created_atomically(self, directory: Path) -> None:
        with pytest.raises(FileExistsError):
            create_log(directory)
        assert [path.name for path in directory.parent.iterdir()] == ["0"]


@contextmanager
def disk_room(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size`: the kernel rejects it, even in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def failing_fdatasync(path: Path) -> Iterator[None]:
    """Replace the open file `path` by /dev/null, which accepts bytes and cannot be synced."""
    (fd,) = [int(name) for name in os.listdir("/proc/self/fd") if is_link_to(f"/proc/self/fd/{name}", path)]
    kept, null = os.dup(fd), os.open("/dev/null", os.O_RDWR)
    os.dup2(null, fd)
    try:
        yield
    finally:
        os.dup2(kept, fd)
        os.close(kept)
        os.close(null)


def is_link_to(link: str, path: Path) -> bool:
    return os.path.lexists(link) and os.readlink(link) == str(path)


class TestFullDisk:
    @pytest.mark.parametrize("room", range(5_000, 5_000 + 200, 7))
    def test_a_failed_write_leaves_no_bytes_and_the_next_one_succeeds(
        self, directory: Path, room: int
    ) -> None:
        writer = LogWriter(directory)
        writer.append(messages_of([(b"k", bytes(4_800))]))
        path = segment_path(directory, 0)
        size = path.stat().st_size
        with disk_room(room):
            for _ in range(2):
                with pytest.raises(BusUnavailable, match=f"cannot write .*{path.name}: File too large"):
                    writer.append(messages_of([(b"k", bytes(200)), (b"k", bytes(50_000))]))
                assert writer.usable
                assert path.stat().st_size == size
        assert writer.append(messages_of([(b"k", b"room again")])) == 1
        writer.close()
        assert [value for _, value in pairs_in(directory)] == [bytes(4_800), b"room again"]

    def test_a_small_message_still_finds_room(self, directory: Path) -> None:
        writer = LogWriter(directory)
        with disk_room(10_000):
            with pytest.raises(BusUnavailable):
                writer.append(messages_of([(b"k", bytes(20_000))]))
            assert writer.append(messages_of([(b"k", b"small")])) == 0
        writer.close()
        assert pairs_in(directory) == [(b"k", b"small")]


class TestFailedSync:
    def test_the_writer_stops_and_a_new_one_begins_at_the_durable_end(self, directory: Path) -> None:
        writer = LogWriter(directory)
        writer.append(messages_of([(b"k", b"durable")]))
        stopped = pytest.raises(BusUnavailable, match=r"fdatasync .* stopped permanently")
        with failing_fdatasync(segment_path(directory, 0)), stopped:
            writer.append(messages_of([(b"k", b"lost")]))
        with pytest.raises(BusUnavailable, match="open it again"):
            writer.append(messages_of([(b"k", b"refused")]))
        assert pairs_in(directory) == [(b"k", b"durable")]
        writer.close()
        write(directory, [(b"k", b"after it")])
        assert pairs_in(directory) == [(b"k", b"durable"), (b"k", b"after it")]


class TestRetention:
    def writer(self, directory: Path, *, retention_bytes: int, needed: list[int | None]) -> LogWriter:
        return LogWriter(
            directory, segment_bytes=1000, retention_bytes=retention_bytes, first_needed=lambda: needed[0]
        )

    def test_retention_drops_whole_segments_once_the_others_have_enough(self, directory: Path) -> None:
        writer = self.writer(directory, retention_bytes=5000, needed=[None])
        for pair in numbered(200, size=100):
            writer.append(messages_of([pair]))
            sizes = [segment_path(directory, base).stat().st_size for base in segment_bases(directory)]
            assert sum(sizes) < 5000 + 2 * 1200
        assert sum(sizes) >= 5000
        writer.close()
        first = segment_bases(directory)[0]
        assert [message.offset for message in read(directory)] == list(range(first, 200))
        assert first > 0

    def test_retention_keeps_unread_messages(self, directory: Path) -> None:
        needed: list[int | None] = [30]
        writer = self.writer(directory, retention_bytes=1, needed=needed)
        for pair in numbered(100, size=100):
            writer.append(messages_of([pair]))
        assert segment_bases(directory)[0] <= 30 < segment_bases(directory)[1]
        needed[0] = 100
        for pair in numbered(20, size=100):
            writer.append(messages_of([pair]))
        assert segment_bases(directory)[0] >= 90
        writer.close()

    def test_a_position_that_was_dropped_is_an_error(self, directory: Path) -> None:
        writer = self.writer(directory, retention_bytes=1, needed=[None])
        for pair in numbered(100, size=100):
            writer.append(messages_of([pair]))
        writer.close()
        first = segment_bases(directory)[0]
        with pytest.raises(RangeGone, match=f"messages 3 to {first - 1} "):
            read(directory, 3)

    def test_a_reader_at_the_beginning_moves_with_it_until_it_has_read(self, directory: Path) -> None:
        writer = self.writer(directory, retention_bytes=1, needed=[None])
        writer.append(messages_of(numbered(1)))
        reader = LogReader(directory, PARTITION, None)
        for pair in numbered(100, size=100):
            writer.append(messages_of([pair]))
        (first, second) = segment_bases(directory)[:2]
        assert reader.read(1)[0][0].offset == first
        for pair in numbered(100, size=100):
            writer.append(messages_of([pair]))
        # It reads its open segment to the end; the next one was dropped.
        assert [reader.read(1)[0][0].offset for _ in range(first + 1, second)] == list(
            range(first + 1, second)
        )
        with pytest.raises(RangeGone, match=f"messages {second} to "):
            reader.read(1)
        reader.close()
        writer.close()
