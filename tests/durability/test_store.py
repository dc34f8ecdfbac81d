"""The store after a power cut: synced bytes are intact, and it can always be opened."""

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
import zarr
from windvane.errors import RangeGone, StreamNotFound
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.segmented_writer import SegmentedWriter
from windvane.store.files.store import Store
from windvane.store.files.zarr_metadata import sealed_rows
from windvane.store.model_files import ModelFiles
from windvane.store.repair.array_upgrade import ArrayUpgrade

from tests.durability.file_tree import Kind, Step
from tests.durability.power_cut import Cut, PowerCut
from tests.durability.proof import IS_PROOF, SEEDS, no_real_syncs, sample
from tests.durability.recording_disk import RecordingDisk
from tests.store.files.format_1 import make_array_of_format_1
from tests.store.files.resumed import DATABASE_ID, resumed

pytestmark = pytest.mark.slow

SEGMENT_BYTES = 4096


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


def after_every_cut(
    steps: Sequence[Step],
    tmp_path: Path,
    check: Callable[[Cut, Path], None],
    *,
    seed: int = 0,
    least: int = 20,
) -> int:
    """Runs `check` for each outcome of a power cut, on real files; returns their number."""
    power_cut = PowerCut(steps)
    seen: set[int] = set()
    for stop in sample(range(len(steps) + 1), seed=seed, least=least):
        promises = sum(step.kind in ("mark", "ack") for step in steps[:stop])
        cuts = power_cut.cuts(stop, seed=seed, single_losses=None if IS_PROOF else 4)
        for number, cut in enumerate(cuts):
            state = hash((promises, tuple(sorted(cut.tree.snapshot().items()))))
            if state in seen:
                continue
            seen.add(state)
            home = tmp_path / f"after-{stop}-{number}"
            cut.tree.write_to(home)
            try:
                with no_real_syncs():
                    check(cut, home)
            except BaseException as error:
                before = "\n".join(f"{i} {step}" for i, step in enumerate(steps[:stop]))
                error.add_note(f"after {cut.stop} steps, {cut.how}; the steps:\n{before}")
                raise
            shutil.rmtree(home)
    return len(seen)


def file_writer(directory: Path) -> SegmentedWriter:
    """The writer of a file, to be resumed."""
    return SegmentedWriter(directory, segment_bytes=SEGMENT_BYTES)


@contextmanager
def outputs(
    store: Store, stream_end: OutputLength | None = None, array_end: OutputLength | None = None
) -> Iterator[tuple[DataStreamWriter, DataArrayWriter]]:
    """The writers of a stream and its array, resumed at the lengths that are known to be durable."""
    with (
        store.stream_writer("t", attrs={"tag": "t"}) as stream,
        store.array_writer("t:samples", dtype=np.dtype("<i4"), row_shape=(3,), attrs={}) as array,
    ):
        stream.resume(stream_end, database_id=DATABASE_ID)
        array.resume(array_end, database_id=DATABASE_ID)
        yield stream, array


def marks(steps: Sequence[Step], name: str) -> list[str]:
    return [step.path.removeprefix(f"{name} ") for step in steps if step.path.startswith(f"{name} ")]


def kinds(steps: Sequence[Step]) -> list[Kind]:
    return [step.kind for step in steps]


def test_bytes_are_written_before_the_length_that_shows_them(disk: RecordingDisk) -> None:
    with disk.recording(), file_writer(disk.root / "file").resume() as writer:
        writer.append(b"first")
        disk.mark("begun")
        writer.append(b"second")
        disk.mark("appended")
    at = kinds(disk.steps).index("mark")
    assert kinds(disk.steps)[at:] == ["mark", "write", "store", "mark"]


def test_the_beginning_is_dropped_on_the_disk_before_segments_are_unlinked(disk: RecordingDisk) -> None:
    with disk.recording(), file_writer(disk.root / "file").resume() as writer:
        writer.append(bytes(3 * SEGMENT_BYTES))
        writer.flush()
        disk.mark("begun")
        writer.drop_before(2 * SEGMENT_BYTES)
    steps = disk.steps[kinds(disk.steps).index("mark") :]
    assert kinds(steps) == ["mark", "store", "fdatasync", "unlink", "unlink", "sync directory"]
    assert steps[1].path == steps[2].path == "file/head"


def test_flush_syncs_segments_then_the_head_then_new_names(disk: RecordingDisk) -> None:
    with disk.recording(), file_writer(disk.root / "a" / "file").resume() as writer:
        writer.append(bytes(2 * SEGMENT_BYTES))
        disk.mark("appended")
        writer.flush()
    steps = disk.steps[kinds(disk.steps).index("mark") + 1 :]
    assert [(step.kind, step.path) for step in steps[:3]] == [
        ("fdatasync", f"a/file/{0:020d}.seg"),
        ("fdatasync", f"a/file/{SEGMENT_BYTES:020d}.seg"),
        ("fdatasync", "a/file/head"),
    ]
    assert {(step.kind, step.path) for step in steps[3:]} == {
        ("sync directory", path) for path in (".", "a", "a/file")
    }


def test_no_append_waits_for_the_disk_and_flush_syncs_the_names_of_new_segments(disk: RecordingDisk) -> None:
    with disk.recording(), file_writer(disk.root / "file").resume() as writer:
        writer.append(bytes(SEGMENT_BYTES))
        writer.flush()
        disk.mark("begun")
        writer.append(b"next")
        disk.mark("appended")
        writer.flush()
    steps = disk.steps[kinds(disk.steps).index("mark") :]
    assert kinds(steps)[:5] == ["mark", "create", "write", "store", "mark"]
    assert ("sync directory", "file") in {(step.kind, step.path) for step in steps[5:]}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_keeps_what_was_flushed_through_every_power_cut(
    tmp_path: Path, disk: RecordingDisk, seed: int
) -> None:
    """Appends, truncates, drops and flushes at random; after a truncation it waits for the next flush."""
    chance = random.Random(seed)
    content = bytearray()
    with disk.recording(), file_writer(disk.root / "file").resume() as writer:
        for number in range(14):
            data = bytes([number + 1]) * chance.choice([1, 700, 5000])
            writer.append(data)
            content += data
            if number % 5 == 4:
                length = chance.randrange(max(writer.start, len(content) - 3000), len(content) + 1)
                disk.mark(f"flushed 0 {writer.start} ")  # from now on bytes are overwritten
                writer.cut(length)
                del content[length:]
            if number % 3 == 2:
                writer.flush()
                disk.mark(f"flushed {len(content)} {writer.start} {bytes(content[writer.start :]).hex()}")
            if number % 6 == 5:
                writer.drop_before(len(content) - 2000)

    def check(cut: Cut, home: Path) -> None:
        flushed = [mark.split(" ") for mark in marks(disk.steps[: cut.stop], "flushed")]
        length, start, kept = flushed[-1] if flushed else ("0", "0", "")
        if not int(length):
            return
        promised, first = bytes.fromhex(kept), int(start)
        with file_writer(home / "file") as writer:
            assert writer.length >= int(length)
            with SegmentedFile(home / "file") as file:
                begin = max(file.start, first)
                assert file.read(begin, int(length) - begin) == promised[begin - first :]
                with pytest.raises(RangeGone) if file.start else nullcontext():
                    file.read(0, 1)
            writer.resume(int(length))
            writer.append(b"resumed")
            writer.flush()

    checked = after_every_cut(disk.steps, tmp_path, check, seed=seed)
    print(f"{checked} states after a power cut in {len(disk.steps)} steps: all that was flushed was there")


def append_chunk(stream: DataStreamWriter, number: int) -> None:
    data = bytes([65 + number]) * (50 + number * 37)
    ends = np.array([stream.size + len(data)], np.int64)
    stream.append(
        data,
        arrived_ns=number + 1,
        chunk_id=b"%d" % number,
        events=1,
        event_times=(ends, np.array([number], np.int64)),
    )


def grow(store: Store, disk: RecordingDisk, *, chunks: int, flush: bool) -> None:
    """A stream and an array, made durable at every third chunk."""
    with outputs(store) as (stream, array):
        for number in range(chunks):
            append_chunk(stream, number)
            rows = np.full((number % 4 + 400, 3), number, "<i4")
            array.append(rows, np.full(len(rows), number, np.int64))
            if number % 3 == 2:
                if flush:
                    stream.flush()
                    array.flush()
                else:
                    store.sync()
                for writer in (stream, array):
                    disk.mark(f"durable {writer.reference} {_words(writer.found)}")
                stream.mark_committed(stream.found)
                array.mark_committed(array.found)


def _words(length: OutputLength) -> str:
    return f"{length.uid.hex()} {length.length} {length.chunks}"


def durable_end(steps: Sequence[Step], reference: str) -> OutputLength | None:
    """The length of the output that was last reported as durable."""
    said = marks(steps, f"durable {reference}")
    if not said:
        return None
    uid, length, chunks = said[-1].split(" ")
    return OutputLength(bytes.fromhex(uid), int(length), int(chunks))


@pytest.mark.parametrize("flush", [False, True], ids=["syncfs", "flush"])
def test_a_stream_and_its_array_keep_what_was_synced_through_every_power_cut(
    tmp_path: Path, disk: RecordingDisk, flush: bool
) -> None:
    with disk.recording(), Store(disk.root / "store", segment_bytes=SEGMENT_BYTES) as store:
        grow(store, disk, chunks=7, flush=flush)
    whole = RecordingDisk(tmp_path)
    (tmp_path / "undisturbed").mkdir()
    with Store(tmp_path / "undisturbed", segment_bytes=SEGMENT_BYTES) as undisturbed:
        grow(undisturbed, whole, chunks=7, flush=False)
        expected_bytes = undisturbed.stream("t").read(0, 1 << 20)
        expected_arrivals = undisturbed.stream("t").arrivals[:].tobytes()
        expected_events = undisturbed.stream("t").event_times(0, 1 << 20).tobytes()
        expected_rows = undisturbed.array("t:samples")[:].copy()
        expected_times = undisturbed.array("t:samples").times_ns[:].copy()

    def check(cut: Cut, home: Path) -> None:
        stream_end = durable_end(disk.steps[: cut.stop], "t")
        array_end = durable_end(disk.steps[: cut.stop], "t:samples")
        size, chunks = (stream_end.length, stream_end.chunks) if stream_end else (0, 0)
        rows = array_end.length if array_end else 0
        with Store(home / "store", segment_bytes=SEGMENT_BYTES) as store:
            if stream_end:
                assert store.streams() == ["t"]
            if array_end:
                assert store.arrays() == ["t:samples"]
            else:
                with suppress(StreamNotFound):
                    store.stream("t")
            with outputs(store, stream_end, array_end) as (stream, _):
                found, samples = store.stream("t"), store.array("t:samples")
                assert found.read(0, 1 << 20) == expected_bytes[:size]
                assert found.arrivals[:].tobytes() == expected_arrivals[: chunks * 72]
                assert found.event_times(0, 1 << 20).tobytes() == expected_events[: chunks * 16]
                assert np.array_equal(samples[:], expected_rows[:rows])
                assert np.array_equal(samples.times_ns[:], expected_times[:rows])
                if (sealed := sealed_rows(samples.directory)) and samples.zarr_path is not None:
                    assert sealed <= rows
                    described = zarr.open_array(str(samples.zarr_path), mode="r")
                    assert np.array_equal(np.asarray(described[:]), expected_rows[:sealed])
                for number in range(chunks, 7):
                    append_chunk(stream, number)
                assert store.stream("t").read(0, 1 << 20) == expected_bytes
                assert store.stream("t").event_times(0, 1 << 20).tobytes() == expected_events

    checked = after_every_cut(disk.steps, tmp_path, check)
    print(f"{checked} states after a power cut in {len(disk.steps)} steps: stream and array as undisturbed")


def test_an_upgraded_array_is_whole_through_every_power_cut(tmp_path: Path, disk: RecordingDisk) -> None:
    rows = np.random.default_rng(1).integers(0, 99, (1500, 3), np.int32)
    times = np.arange(1, 1501)

    def upgrade_of(store: Store) -> ArrayUpgrade:
        return ArrayUpgrade(store.array_directory("t:x"), "t:x", zarr_root=store.root)

    def assert_whole(store: Store) -> None:
        with store.array("t:x") as array:
            assert np.array_equal(array[:], rows)
            assert np.array_equal(array.times_ns[:], times)

    with Store(disk.root / "store") as store:
        length = make_array_of_format_1(store, "t:x", rows, times, attrs={})
        store.sync()
    disk = RecordingDisk(disk.root)
    with disk.recording(), Store(disk.root / "store") as store:
        disk.mark("begun 0")
        upgrade_of(store).copy()
        upgrade_of(store).exchange()

    def check(cut: Cut, home: Path) -> None:
        if not marks(disk.steps[: cut.stop], "begun"):
            return
        with Store(home / "store") as store:
            assert_whole(store)
            if upgrade_of(store).is_needed:
                upgrade_of(store).copy()
                upgrade_of(store).exchange()
            upgrade_of(store).remove_former()
            assert_whole(store)
            writer = store.array_writer("t:x", dtype=rows.dtype, row_shape=(3,), attrs={})
            with writer.resume(length, database_id=DATABASE_ID), store.array("t:x") as array:
                assert array.format == 2
                assert store.arrays() == ["t:x"]
            assert_whole(store)

    checked = after_every_cut(disk.steps, tmp_path, check)
    print(
        f"{checked} states after a power cut in {len(disk.steps)} steps: all rows, in one format or the other"
    )


def test_after_a_killed_process_rows_without_times_are_never_seen(
    tmp_path: Path, disk: RecordingDisk
) -> None:
    """Only the process dies: its completed writes survive, later ones do not exist."""
    with disk.recording(), Store(disk.root / "store", segment_bytes=SEGMENT_BYTES) as store:
        grow(store, disk, chunks=4, flush=False)
    power_cut = PowerCut(disk.steps)
    for stop in range(len(disk.steps) + 1):
        home = tmp_path / f"killed-{stop}"
        power_cut.tree(stop, lambda i, p: True).write_to(home)
        with Store(home / "store", segment_bytes=SEGMENT_BYTES) as store:
            for reference in store.arrays():
                with store.array(reference) as array:
                    rows, times = array[:], array.times_ns[:]
                    assert len(rows) == len(times)
                    assert [int(row[0]) for row in rows] == times.tolist()
            for reference in store.streams():
                with store.stream(reference) as stream:
                    assert all(r["offset"] + r["size"] <= stream.size for r in stream.arrivals[:])


def test_a_long_reference_is_found_again_after_every_power_cut(tmp_path: Path, disk: RecordingDisk) -> None:
    reference = "x" * 300
    with disk.recording(), Store(disk.root / "store", segment_bytes=SEGMENT_BYTES) as store:
        with resumed(store.stream_writer(reference, attrs={})) as stream:
            stream.append(b"data", arrived_ns=1, chunk_id=None, events=1)
        store.sync()
        disk.mark("durable 4")

    def check(cut: Cut, home: Path) -> None:
        with Store(home / "store", segment_bytes=SEGMENT_BYTES) as store:
            if marks(disk.steps[: cut.stop], "durable"):
                assert store.streams() == [reference]
                assert store.stream(reference).read(0, 9) == b"data"
            with store.stream_writer(reference, attrs={}) as stream:
                is_durable = bool(marks(disk.steps[: cut.stop], "durable"))
                stream.resume(stream.found if is_durable else None, database_id=DATABASE_ID)
                assert store.streams() == [reference]

    after_every_cut(disk.steps, tmp_path, check)


def test_a_model_that_was_put_is_there_after_every_power_cut(tmp_path: Path, disk: RecordingDisk) -> None:
    name = ModelFiles.name("t:step")
    with disk.recording():
        models = ModelFiles(disk.root / "models")
        models.put("t:step", b"first model" * 500)
        disk.mark("put first")
        models.put("t:step", b"other model" * 500)
        disk.mark("put other")

    def check(cut: Cut, home: Path) -> None:
        put = marks(disk.steps[: cut.stop], "put")
        models = ModelFiles(home / "models")
        assert bool(models.waiting()) >= bool(put)
        if models.waiting():
            (home / "models").chmod(0o700)
            (home / "models" / name).chmod(0o600)
            saved = models.read(name)[0]
            assert saved in (b"first model" * 500, b"other model" * 500)
            assert not put or saved[:5].decode() in (put[-1], "other")

    after_every_cut(disk.steps, tmp_path, check)
    assert [kind for kind in kinds(disk.steps) if kind != "mark"][-4:] == [
        "write",
        "fsync",
        "rename",
        "sync directory",
    ]
