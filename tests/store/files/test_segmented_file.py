import mmap
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray
from windvane.errors import RangeGone, StoreFailed, StoreLocked, StreamDamaged
from windvane.store.files import mapping
from windvane.store.files.open_segments import open_segments
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.segmented_writer import SegmentedWriter

from tests.processes import started

PAGE = mmap.PAGESIZE


@contextmanager
def soft_limit(name: int, value: int) -> Iterator[None]:
    """Lowers a resource limit of this process inside the block."""
    soft, hard = resource.getrlimit(name)
    resource.setrlimit(name, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(name, (soft, hard))


def expected(start: int, stop: int) -> NDArray[np.uint8]:
    """The bytes at these offsets, for tests that need to know what another process wrote."""
    return (np.arange(start, stop) * 7 // 5 % 251).astype(np.uint8)


class AgainstPlainBytes(RuleBasedStateMachine):
    """After any operations, a segmented file reads like the same bytes without segments."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.directory = Path(self.folder.name) / "file"
        self.writer = SegmentedWriter(self.directory, segment_bytes=PAGE).resume()
        self.reader = SegmentedFile(self.directory)
        self.model = bytearray()
        self.start = 0
        self.uid = self.writer.uid
        self.views: list[tuple[int, NDArray[np.uint8], bytes]] = []

    @rule(sizes=st.lists(st.integers(0, 3 * PAGE), max_size=4), seed=st.integers(0, 255))
    def append(self, sizes: list[int], seed: int) -> None:
        buffers = [(np.arange(size) + seed).astype(np.uint8).tobytes() for size in sizes]
        assert self.writer.append(*buffers) == len(self.model)
        self.model += b"".join(buffers)

    @rule(share=st.floats(0, 1))
    def cut(self, share: float) -> None:
        length = self.start + int(share * (len(self.model) - self.start))
        self.writer.cut(length)
        del self.model[length:]
        self.forget_views_past(length)

    @rule()
    def restart(self) -> None:
        self.writer.cut(0)
        self.start = 0
        self.model.clear()
        self.forget_views_past(0)

    @rule(share=st.floats(0, 1))
    def drop(self, share: float) -> None:
        offset = int(share * len(self.model))
        self.writer.drop_before(offset)
        self.start = max(self.start, offset - offset % PAGE)

    @rule()
    def flush(self) -> None:
        self.writer.flush()

    @rule()
    def reopen_the_writer(self) -> None:
        self.writer.close()
        self.writer = SegmentedWriter(self.directory).resume()

    @rule()
    def reopen_the_reader(self) -> None:
        self.reader.close()
        self.reader = SegmentedFile(self.directory)

    @precondition(lambda self: len(self.model) > self.start)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        low = data.draw(st.integers(self.start, len(self.model)))
        high = data.draw(st.integers(low, len(self.model)))
        assert self.reader.read(low, high - low) == self.model[low:high]
        view = self.reader.view(low, high)
        assert view.tobytes() == self.model[low:high]
        assert not view.flags.writeable
        self.views.append((high, view, bytes(self.model[low:high])))

    @precondition(lambda self: self.start > 0)
    @rule(data=st.data())
    def look_at_what_was_dropped(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.start - 1))
        with pytest.raises(RangeGone, match="dropped"):
            self.reader.read(offset, 1)
        with pytest.raises(RangeGone, match="dropped"):
            self.reader.view(offset, self.start)

    @invariant()
    def reads_the_same(self) -> None:
        for file in (self.writer, self.reader):
            assert (file.start, file.length, file.uid) == (self.start, len(self.model), self.uid)
        assert self.reader.read(self.start, 1 << 30) == self.model[self.start :]

    @invariant()
    def views_stay_as_they_were(self) -> None:
        for _, view, content in self.views:
            assert view.tobytes() == content

    def forget_views_past(self, length: int) -> None:
        # What is cut back may be overwritten in place.
        self.views = [view for view in self.views if view[0] <= length]

    def teardown(self) -> None:
        self.writer.close()
        self.folder.cleanup()


AgainstPlainBytes.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstPlainBytes = AgainstPlainBytes.TestCase


class AgainstPlainBytesInWindows(AgainstPlainBytes):
    """The same in a process whose address space is too small for a whole file."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mapping, "_may_reserve", lambda size: False)

    def teardown(self) -> None:
        self.patch.undo()
        super().teardown()


AgainstPlainBytesInWindows.TestCase.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None
)
TestAgainstPlainBytesInWindows = AgainstPlainBytesInWindows.TestCase


def test_many_buffers_and_arrays_are_appended_as_one(tmp_path: Path) -> None:
    numbers = np.arange(3 * PAGE, dtype=np.int64)
    pieces = [bytes([i % 256]) for i in range(3000)]
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(bytearray(b"begin"), memoryview(b""), numbers.data)
        writer.append(*pieces)
    assert SegmentedFile(tmp_path).read(0, 1 << 30) == b"begin" + numbers.tobytes() + b"".join(pieces)


@pytest.mark.system
def test_a_second_writer_is_rejected_in_this_process_and_in_another(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path).resume()
    with pytest.raises(StoreLocked, match="stop it first"):
        SegmentedWriter(tmp_path)
    assert open_in_another_process(tmp_path) == "StoreLocked"
    writer.close()
    assert open_in_another_process(tmp_path) == "opened"
    SegmentedWriter(tmp_path).close()


def open_in_another_process(directory: Path) -> str:
    program = """
import sys
from pathlib import Path
from windvane.store.files.segmented_writer import SegmentedWriter
try:
    SegmentedWriter(Path(sys.argv[1])).resume()
    print("opened")
except Exception as error:
    print(type(error).__name__)
"""
    command = [sys.executable, "-c", program, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.system
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path).resume()
    context = multiprocessing.get_context("fork")
    done = context.Event()
    child = context.Process(target=done.wait, args=(60.0,))
    child.start()
    try:
        writer.close()
        SegmentedWriter(tmp_path).close()
    finally:
        done.set()
        child.join(timeout=60)


def test_a_writer_that_was_forgotten_gives_its_lock_back(tmp_path: Path) -> None:
    SegmentedWriter(tmp_path).resume().append(b"something")
    with SegmentedWriter(tmp_path).resume() as writer:
        assert writer.length == 9


READER = """
import sys
import threading
from pathlib import Path
import numpy as np
from windvane.errors import RangeGone
from windvane.store.files.segmented_file import SegmentedFile

file = SegmentedFile(Path(sys.argv[1]))
stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
print("reading", flush=True)
looks = 0
while True:
    last_look = stopped.is_set()
    epoch = file.epoch
    start, length = file.start, file.length
    if start < length:
        try:
            view = file.view(start, length)
            read = file.read(start, length - start)
        except RangeGone:
            continue
        except IndexError:
            assert file.epoch > epoch, "only a restart at 0 makes a file shorter than a length that was read"
            continue
        expected = (np.arange(start, length) * 7 // 5 % 251).astype(np.uint8)
        assert np.array_equal(view, expected), (start, length)
        assert read == expected[:len(read)].tobytes(), (start, length)
        looks += 1
    if last_look:
        print(looks)
        break
"""


@pytest.mark.system
def test_another_process_reads_what_is_appended_cut_back_and_dropped(tmp_path: Path) -> None:
    # An offset always has the same bytes: so it may read at any moment, even while they are replayed.
    randomness = np.random.default_rng(1)
    with ExitStack() as running, SegmentedWriter(tmp_path, segment_bytes=4 * PAGE).resume() as writer:
        command = [sys.executable, "-c", READER, str(tmp_path)]
        reader = running.enter_context(
            started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        for _ in range(3000):
            size = int(randomness.integers(1, 3 * PAGE))
            writer.append(expected(writer.length, writer.length + size).data)
            chance = randomness.random()
            if chance < 0.3:
                writer.cut(int(randomness.integers(writer.start, writer.length + 1)))
            elif chance < 0.32:
                writer.drop_before(int(randomness.integers(writer.start, writer.length + 1)))
            elif chance < 0.325:
                writer.cut(0)
        writer.append(b"" if writer.length else expected(0, 1).data)
        out, _ = reader.communicate("", timeout=60)
    assert reader.returncode == 0
    assert int(out) > 0


WRITER = """
import sys
from pathlib import Path
import numpy as np
from windvane.store.files.segmented_writer import SegmentedWriter

writer = SegmentedWriter(Path(sys.argv[1]), segment_bytes=16384).resume()
print("writing", flush=True)
while True:
    start, stop = writer.length, writer.length + 1 + writer.length * 31 % 9973
    writer.append((np.arange(start, stop) * 7 // 5 % 251).astype(np.uint8).data)
"""


@pytest.mark.system
def test_a_killed_writer_leaves_whole_appends(tmp_path: Path) -> None:
    for grown_to in (1, 300_000, 2_000_000):
        with started([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            file = SegmentedFile(tmp_path)
            while file.length < grown_to:
                assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        length = 0
        while length < file.length:
            length += 1 + length * 31 % 9973
        assert file.length == length
        assert np.array_equal(file.view(0, length), expected(0, length))


def test_a_failed_write_stops_the_writer_and_shows_nothing_of_it(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path, segment_bytes=16 * PAGE).resume()
    writer.append(b"before")
    with (
        soft_limit(resource.RLIMIT_FSIZE, PAGE),
        pytest.raises(StoreFailed, match=r"File too large.*has stopped"),
    ):
        writer.append(bytes(3 * PAGE))
    for action in (
        lambda: writer.append(b"x"),
        lambda: writer.cut(0),
        writer.flush,
        lambda: writer.drop_before(6),
    ):
        with pytest.raises(StoreFailed, match="has stopped"):
            action()
    assert SegmentedFile(tmp_path).read(0, 100) == b"before"
    writer.close()
    with SegmentedWriter(tmp_path).resume() as mended:
        mended.append(b" after")
    assert SegmentedFile(tmp_path).read(0, 100) == b"before after"


def test_a_segment_that_cannot_be_made_stops_the_writer(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path, segment_bytes=PAGE).resume()
    (tmp_path / f"{PAGE:020d}.seg").mkdir()
    with pytest.raises(StoreFailed, match="has stopped"):
        writer.append(bytes(PAGE + 1))
    assert writer.length == 0
    with pytest.raises(StoreFailed, match="has stopped"):
        writer.append(b"x")


def test_a_failed_sync_stops_the_writer(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path).resume()
    writer.append(b"bytes")
    segment = tmp_path / f"{0:020d}.seg"
    segment.rename(tmp_path / "aside")
    segment.symlink_to("/dev/null")  # which cannot be synced
    with pytest.raises(StoreFailed, match=r"Invalid argument.*has stopped"):
        writer.flush()
    segment.unlink()
    (tmp_path / "aside").rename(segment)
    for action in (writer.flush, lambda: writer.append(b"x")):
        with pytest.raises(StoreFailed, match="has stopped"):
            action()


def test_a_closed_writer_rejects_calls(tmp_path: Path) -> None:
    writer = SegmentedWriter(tmp_path).resume()
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(b"x")


def test_cutting_to_more_than_there_is_says_that_data_is_missing(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path).resume() as writer:
        writer.append(b"abc")
        with pytest.raises(StreamDamaged, match=r"3 bytes, fewer than 4.*missing"):
            writer.cut(4)
        writer.append(b"d")
        assert writer.length == 4


def test_cutting_back_into_what_was_dropped_is_rejected(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(bytes(3 * PAGE))
        writer.drop_before(2 * PAGE)
        with pytest.raises(RangeGone, match="dropped"):
            writer.cut(PAGE)


def test_dropped_segments_leave_the_disk_and_stay_in_views(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(expected(0, 5 * PAGE + 10).data)
        reader = SegmentedFile(tmp_path)
        before = reader.view(0, reader.length)
        writer.drop_before(3 * PAGE + 5)
        assert sorted(path.name for path in tmp_path.glob("*.seg")) == [
            f"{n * PAGE:020d}.seg" for n in (3, 4, 5)
        ]
        assert reader.start == 3 * PAGE
        after = reader.view(reader.start, reader.length)
    reader.close()
    assert np.array_equal(before, expected(0, 5 * PAGE + 10))
    assert np.array_equal(after, expected(3 * PAGE, 5 * PAGE + 10))


def test_a_recreated_file_shows_none_of_its_former_bytes(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(bytes(3 * PAGE))
        reader = SegmentedFile(tmp_path)
        former = reader.view(0, reader.length)
        writer.drop_before(2 * PAGE)
        writer.cut(0)
        assert (reader.start, reader.length) == (0, 0)
        writer.append(expected(7, 4 * PAGE).data)
        assert np.array_equal(reader.view(0, reader.length), expected(7, 4 * PAGE))
        assert not former[: 2 * PAGE].any()


def test_what_a_crash_while_dropping_left_goes_with_the_next_drop(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(bytes(5 * PAGE))
        first = tmp_path / f"{0:020d}.seg"
        kept = first.read_bytes()
        writer.drop_before(2 * PAGE)
    first.write_bytes(kept)
    with SegmentedWriter(tmp_path).resume() as writer:
        assert first.exists()  # a damaged start must not delete segments below it
        writer.drop_before(3 * PAGE)
    assert not first.exists()


def all_files(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", [None, 0, 10, PAGE])
def test_a_short_or_missing_segment_is_found_and_nothing_is_changed(tmp_path: Path, left: int | None) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=2 * PAGE).resume() as writer:
        writer.append(expected(0, 7 * PAGE).data)
    segment = tmp_path / f"{2 * PAGE:020d}.seg"
    segment.unlink() if left is None else os.truncate(segment, left)
    reader = SegmentedFile(tmp_path)
    for look in (lambda: reader.view(0, reader.length), lambda: reader.read(0, reader.length)):
        with pytest.raises(StreamDamaged, match=r"missing|has"):
            look()
    before = all_files(tmp_path)
    with SegmentedWriter(tmp_path) as writer:
        for length in (None, 7 * PAGE, 2 * PAGE + (left or 0) + 1):
            with pytest.raises(StreamDamaged, match=r"missing or short.*windvane verify"):
                writer.resume(length)
            with pytest.raises(ValueError, match="not been resumed"):
                writer.append(b"x")
        assert all_files(tmp_path) == before
        writer.resume(2 * PAGE + (left or 0))  # committed bytes are present: the rest is resent
        writer.append(expected(writer.length, 9 * PAGE).data)
        assert np.array_equal(reader.view(0, 9 * PAGE), expected(0, 9 * PAGE))


@pytest.mark.parametrize("content", [b"", bytes(64), None], ids=["empty", "zeros", "missing"])
def test_a_head_that_never_reached_the_disk_is_recreated_unless_there_are_bytes(
    tmp_path: Path, content: bytes | None
) -> None:
    with SegmentedWriter(tmp_path).resume() as writer:
        writer.append(b"kept")
        uid = writer.uid
    head, [segment] = tmp_path / "head", tmp_path.glob("*.seg")
    head.unlink() if content is None else head.write_bytes(content)
    with pytest.raises(FileNotFoundError):
        SegmentedFile(tmp_path)
    before = all_files(tmp_path)
    for length in (None, 0, 4):
        with SegmentedWriter(tmp_path) as writer:
            assert writer.lacks_head
            with pytest.raises(StreamDamaged, match=r"head is missing or empty.*Nothing was changed"):
                writer.resume(length)
        assert all_files(tmp_path) == before
    os.truncate(segment, 0)
    with SegmentedWriter(tmp_path) as writer:
        assert not writer.lacks_head
        assert writer.resume().length == 0
        assert writer.uid != uid


def test_a_new_file_that_was_not_resumed_leaves_nothing(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path) as writer:
        with pytest.raises(StoreLocked):
            SegmentedWriter(tmp_path)
        uid = writer.uid
    assert not list(tmp_path.iterdir())
    with SegmentedWriter(tmp_path) as writer:
        assert writer.uid != uid


def test_a_head_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(b"RIFF" + bytes(60))
    for opened in (SegmentedFile, SegmentedWriter):
        with pytest.raises(StreamDamaged, match="52 49 46 46"):
            opened(tmp_path)
    (tmp_path / "head").write_bytes(struct.pack("<4sIQ", b"WVSF", 1, PAGE + 1) + bytes(48))
    for opened in (SegmentedFile, SegmentedWriter):
        with pytest.raises(StreamDamaged, match=f"segments of {PAGE + 1} bytes"):
            opened(tmp_path)


def test_opening_changes_nothing(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(expected(0, 3 * PAGE + 7).data)
    before = all_files(tmp_path)
    with SegmentedWriter(tmp_path) as writer:
        assert writer.length == 3 * PAGE + 7
        for action in (lambda: writer.append(b"x"), lambda: writer.cut(0), lambda: writer.drop_before(PAGE)):
            with pytest.raises(ValueError, match="not been resumed"):
                action()
    assert all_files(tmp_path) == before


def test_the_committed_word_is_kept_and_never_behind_the_length(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path).resume() as writer:
        writer.append(b"0123456789")
        assert writer.committed == 0
        writer.mark_committed(7)
    with SegmentedWriter(tmp_path).resume(8) as writer:
        assert (writer.length, writer.committed) == (8, 7)
        writer.cut(3)
        assert writer.committed == 3


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SegmentedFile(tmp_path / "nothing")


def test_views_past_the_end_are_rejected(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        writer.append(bytes(2 * PAGE))
        with pytest.raises(IndexError, match=f"{2 * PAGE} bytes"):
            SegmentedFile(tmp_path).view(0, 3 * PAGE)


def test_a_reader_notices_that_its_file_was_replaced(tmp_path: Path) -> None:
    SegmentedWriter(tmp_path / "file").resume().close()
    reader = SegmentedFile(tmp_path / "file")
    assert not reader.replaced
    (tmp_path / "file").rename(tmp_path / "aside")
    assert reader.replaced
    SegmentedWriter(tmp_path / "file").resume().close()
    assert reader.replaced


def test_more_writers_than_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_segments, "_limit", 0)  # the limit of this test, not of earlier ones
    used = len(os.listdir("/proc/self/fd"))
    limit = used + 40
    with soft_limit(resource.RLIMIT_NOFILE, limit):
        writers = [SegmentedWriter(tmp_path / str(number)).resume() for number in range(used + 160)]
        for turn in range(3):
            for number, writer in enumerate(writers):
                writer.append(f"{number}/{turn} ".encode())
        assert len(open_segments) <= limit // 2
    for writer in writers:
        writer.close()
    for number in range(len(writers)):
        assert (
            SegmentedFile(tmp_path / str(number)).read(0, 99) == f"{number}/0 {number}/1 {number}/2 ".encode()
        )


def test_an_idle_writer_costs_no_descriptor(tmp_path: Path) -> None:
    used = len(os.listdir("/proc/self/fd"))
    writers = [SegmentedWriter(tmp_path / str(number)).resume() for number in range(20)]
    assert len(os.listdir("/proc/self/fd")) == used
    assert len(writers) == 20
