"""Resumption of outputs: recovery changes nothing before it has checked the existing files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.errors import CheckpointMissing, StreamDamaged
from windvane.store.databases.checkpoint_records import OutputLength
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.data_stream import DataStream
from windvane.store.files.description import read_description
from windvane.store.files.store import Store
from windvane.store.interface import ARRIVAL

from tests.store.files.resumed import resumed

OURS, OTHERS = b"a" * 16, b"b" * 16
CHUNK = b"0123456789"


def files_of(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def stream_of(store: Store, chunks: int, *, database_id: bytes = OURS, committed: int = 0) -> OutputLength:
    """A stream of so many chunks of 10 bytes and one event, the first `committed` of which were committed."""
    with store.stream_writer("t", attrs={"tag": "t"}) as writer:
        writer.resume(None, database_id=database_id)
        for number in range(chunks):
            ends = np.array([writer.size + len(CHUNK)])
            writer.append(
                CHUNK, arrived_ns=number, chunk_id=b"%d" % number, events=1, event_times=(ends, ends)
            )
            if number + 1 == committed:
                writer.mark_committed(writer.found)
        return OutputLength(writer.uid, committed * len(CHUNK), committed)


def assert_rejected(
    store: Store, committed: OutputLength | None, match: str, kind: type = CheckpointMissing
) -> None:
    """Resuming raises, and no file has changed."""
    before = files_of(store.root)
    with store.stream_writer("t", attrs={"tag": "t", "other": 1}) as writer:
        with pytest.raises(kind, match=match):
            writer.resume(committed, database_id=OURS)
        with pytest.raises(ValueError, match="not been resumed"):
            writer.append(CHUNK, arrived_ns=1, chunk_id=None, events=1)
    assert files_of(store.root) == before


def test_a_stream_resumes_at_its_checkpoint_and_the_rest_is_replayed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 5, committed=3)
    with store.stream_writer("t", attrs={"tag": "t"}) as writer:
        assert (writer.size, writer.chunks) == (50, 5)
        writer.resume(committed, database_id=OURS)
        assert (writer.size, writer.chunks, writer.events) == (30, 3, 3)
        assert len(DataStream(writer.directory, "t").event_times(0, 100)) == 3


def test_a_stream_without_commits_restarts_only_under_its_own_database(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    stream_of(store, 2, database_id=OTHERS)
    assert_rejected(store, None, r"20 bytes in 2 chunks.*no checkpoint covers them.*windvane recover adopt t")
    with store.stream_writer("t", attrs={"tag": "t"}) as writer:
        writer.resume(None, database_id=OTHERS)
        assert (writer.size, writer.chunks, writer.events) == (0, 0, 0)


def test_committed_bytes_without_a_checkpoint_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 2, committed=1)
    assert_rejected(store, None, "no checkpoint covers them")
    assert_rejected(store, OutputLength(b"x" * 16, 10, 1), "checkpoint is of another output")
    assert_rejected(store, OutputLength(committed.uid, 0, 0), "checkpoint is older than the stream")


def test_chunks_without_bytes_are_committed_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.stream_writer("t", attrs={}) as writer:
        writer.resume(None, database_id=OURS)
        writer.append(b"", arrived_ns=1, chunk_id=b"1", events=1)
        writer.mark_committed(writer.found)
    assert_rejected(store, None, "no checkpoint covers them")


def test_a_home_of_an_older_version_needs_a_checkpoint_for_what_it_holds(tmp_path: Path) -> None:
    # It has neither the committed length nor the ID of a database: whether it was committed is unknown.
    store = Store(tmp_path)
    committed = stream_of(store, 3)
    directory = store.stream("t").directory
    (directory / "meta.json").write_text(f'{{"attrs": {{}}, "uid": "{committed.uid.hex()}"}}')
    assert_rejected(store, None, "no checkpoint covers them")
    with store.stream_writer("t", attrs={}) as writer:
        writer.resume(OutputLength(committed.uid, 20, 2), database_id=OURS)
        assert writer.size == 20
    assert (read_description(directory) or {})["database_id"] == OURS.hex()


def first_segment(file: str) -> Callable[[Path], Path]:
    return lambda directory: directory / file / f"{0:020d}.seg"


def zero(path: Path, start: int, stop: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(bytes(stop - start))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "bytes cut short": lambda path: os.truncate(path / "bytes" / f"{0:020d}.seg", 29),
    "bytes gone": lambda path: (path / "bytes" / f"{0:020d}.seg").unlink(),
    "arrivals cut short": lambda path: os.truncate(path / "arrivals" / f"{0:020d}.seg", 3 * 72 - 1),
    "arrivals gone": lambda path: (path / "arrivals" / f"{0:020d}.seg").unlink(),
    "head of arrivals gone": lambda path: (path / "arrivals/head").unlink(),
    "last arrival zero": lambda path: zero(path / "arrivals" / f"{0:020d}.seg", 2 * 72, 3 * 72),
    "events cut short": lambda path: os.truncate(path / "events" / f"{0:020d}.seg", 40),
    "length of the bytes too low": lambda path: zero(path / "bytes/head", 24, 32),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_stream_is_rejected_and_not_made_worse(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 5, committed=3)
    DAMAGES[damage](store.stream("t").directory)
    before = files_of(tmp_path)
    with pytest.raises(StreamDamaged) as error, store.stream_writer("t", attrs={}) as writer:
        writer.resume(committed, database_id=OURS)
    assert not isinstance(error.value, CheckpointMissing)
    assert files_of(tmp_path) == before


def test_damage_behind_the_checkpoint_costs_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 5, committed=3)
    directory = store.stream("t").directory
    os.truncate(directory / "bytes" / f"{0:020d}.seg", 31)
    zero(directory / "arrivals" / f"{0:020d}.seg", 3 * ARRIVAL.itemsize, 5 * ARRIVAL.itemsize)
    os.truncate(directory / "events" / f"{0:020d}.seg", 50)
    with store.stream_writer("t", attrs={}) as writer:
        writer.resume(committed, database_id=OURS)
        writer.append(CHUNK, arrived_ns=9, chunk_id=None, events=1)
    assert store.stream("t").read(0, 100) == CHUNK * 4


def test_a_removed_stream_is_not_recreated_in_silence(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 3, committed=3)
    store.stream("t").directory.rename(tmp_path / "elsewhere")
    with (
        store.stream_writer("t", attrs={}) as writer,
        pytest.raises(StreamDamaged, match="holds none of them"),
    ):
        writer.resume(committed, database_id=OURS)


def array_writer(store: Store, *, rate_hz: float = 1.0) -> DataArrayWriter:
    return store.array_writer("t:x", dtype=np.dtype("<f4"), row_shape=(2,), attrs={"rate_hz": rate_hz})


def array_of(store: Store, rows: int, *, committed: int = 0) -> OutputLength:
    with array_writer(store).resume(None, database_id=OURS) as writer:
        writer.append(np.ones((rows, 2), "<f4"), np.arange(rows))
        length = OutputLength(writer.uid, committed)
        if committed:
            writer.mark_committed(length)
        return length


def assert_array_rejected(store: Store, committed: OutputLength | None, match: str) -> None:
    before = files_of(store.root)
    with array_writer(store) as writer, pytest.raises(StreamDamaged, match=match):
        writer.resume(committed, database_id=OURS)
    assert files_of(store.root) == before


def test_an_array_resumes_at_its_checkpoint(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    with array_writer(store).resume(committed, database_id=OURS) as writer:
        assert writer.length == 6
    with array_writer(store) as writer, pytest.raises(CheckpointMissing):
        writer.resume(None, database_id=OURS)


def test_uncommitted_rows_are_recomputed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    array_of(store, 10)
    with array_writer(store) as writer:
        with pytest.raises(CheckpointMissing):
            writer.resume(None, database_id=OTHERS)
        assert writer.resume(None, database_id=OURS).length == 0


@pytest.mark.parametrize("part", ["rows", "times"])
def test_an_array_that_lacks_committed_rows_or_times_is_rejected(tmp_path: Path, part: str) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    os.truncate(store.array("t:x").directory / part / {"rows": "c.0.0", "times": "c.0"}[part], 47)
    assert_array_rejected(store, committed, "missing or short")


def test_an_array_without_its_description_is_rejected_if_it_was_committed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    (store.array("t:x").directory / "meta.json").write_bytes(b"")
    assert_array_rejected(store, committed, "meta.json is missing or unreadable")
    assert_array_rejected(store, None, "no checkpoint covers them")


def test_an_older_checkpoint_of_an_array_is_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    assert_array_rejected(store, OutputLength(committed.uid, 5), "checkpoint is older")


def test_an_array_that_was_set_aside_restarts_and_one_that_was_removed_does_not(tmp_path: Path) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    with array_writer(store, rate_hz=2.0).resume(committed, database_id=OURS) as writer:
        assert writer.uid != committed.uid
    with array_writer(store, rate_hz=2.0).resume(committed, database_id=OURS) as writer:
        assert writer.length == 0
    assert len(store.array("t:x~1")) == 10
    store.array("t:x~1").directory.rename(tmp_path / "elsewhere")
    with array_writer(store, rate_hz=2.0) as writer, pytest.raises(StreamDamaged, match="holds none of them"):
        writer.resume(committed, database_id=OURS)


def test_closed_writers_ignore_a_late_commit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = resumed(store.stream_writer("t", attrs={}))
    writer.close()
    writer.mark_committed(OutputLength(writer.uid, 0, 0))


@pytest.mark.parametrize("content", [b"", bytes(64), None], ids=["empty", "zeros", "missing"])
@pytest.mark.parametrize("name", ["bytes", "arrivals", "events"])
def test_a_stream_whose_head_a_power_cut_took_restarts_if_nothing_was_committed(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    store = Store(tmp_path)
    stream_of(store, 2)
    lose_head(tmp_path / "t/stream" / name, content)
    left = files_of(tmp_path / "t/stream")
    assert_rejected(store, OutputLength(b"x" * 16, 10, 1), "head is missing or empty", StreamDamaged)
    with store.stream_writer("t", attrs={}) as writer, pytest.raises(CheckpointMissing):
        writer.resume(None, database_id=OTHERS)
    assert files_of(tmp_path / "t/stream") == left
    with store.stream_writer("t", attrs={}) as writer:
        writer.resume(None, database_id=OURS)
        assert (writer.size, writer.chunks, writer.events) == (0, 0, 0)
        writer.append(CHUNK, arrived_ns=1, chunk_id=None, events=1)
    assert store.stream("t").read(0, 100) == CHUNK
    assert store.streams() == ["t"]
    aside = files_of(tmp_path / "t/stream~1")
    assert b"".join(aside[path] for path in aside if "bytes/0" in path) == CHUNK * 2


@pytest.mark.parametrize("name", ["bytes", "arrivals", "events"])
def test_a_lost_head_next_to_committed_data_is_damage(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    committed = stream_of(store, 3, committed=2)
    lose_head(tmp_path / "t/stream" / name, None)
    assert_rejected(store, committed, "head is missing or empty", StreamDamaged)
    assert_rejected(store, None, "no checkpoint covers them")


def test_a_stream_whose_description_a_power_cut_took_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stream_of(store, 2)
    (tmp_path / "t/stream/meta.json").unlink()
    with store.stream_writer("t", attrs={}) as writer:
        assert writer.resume(None, database_id=OURS).size == 0
    assert (tmp_path / "t/stream~1/bytes/head").exists()


@pytest.mark.parametrize("name", ["rows", "times"])
def test_an_array_whose_head_a_power_cut_took_restarts_if_nothing_was_committed(
    tmp_path: Path, name: str
) -> None:
    store = Store(tmp_path)
    array_of(store, 10)
    lose_head(tmp_path / "t/arrays/x" / name, None)
    assert_array_rejected(store, OutputLength(b"x" * 16, 5), "head is missing or empty")
    with array_writer(store) as writer:
        with pytest.raises(CheckpointMissing):
            writer.resume(None, database_id=OTHERS)
        assert writer.resume(None, database_id=OURS).length == 0


@pytest.mark.parametrize("name", ["rows", "times"])
def test_a_lost_head_next_to_committed_rows_is_damage(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    committed = array_of(store, 10, committed=6)
    lose_head(tmp_path / "t/arrays/x" / name, None)
    assert_array_rejected(store, committed, "head is missing or empty")
    assert_array_rejected(store, None, "no checkpoint covers them")


def lose_head(directory: Path, content: bytes | None) -> None:
    (directory / "head").unlink()
    if content is not None:
        (directory / "head").write_bytes(content)
