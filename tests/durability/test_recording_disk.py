"""The recording disk itself: its record is complete, and a power cut loses what no sync has covered."""

import errno
import mmap
import os
import sqlite3
from pathlib import Path

import pytest

from tests.durability.power_cut import PowerCut
from tests.durability.recording_disk import RecordingDisk


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    return RecordingDisk(tmp_path)


def write_draft(folder: Path, content: bytes, *, synced: bool = False, named: bool = False) -> None:
    with (folder / "draft").open("wb") as file:
        file.write(content)
        file.flush()
        if synced:
            os.fsync(file.fileno())
    (folder / "draft").replace(folder / "it")
    if named:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def outcomes(disk: RecordingDisk, name: str, *, stop: int | None = None) -> set[bytes | None]:
    """The possible contents of a file after a power cut; None: it does not exist."""
    cuts = PowerCut(disk.steps).cuts(len(disk.steps) if stop is None else stop, seed=0)
    return {cut.tree.snapshot().get(name) for cut in cuts}


def kinds(disk: RecordingDisk) -> list[str]:
    return [step.kind for step in disk.steps]


def test_steps_are_recorded_in_the_order_of_the_calls(disk: RecordingDisk) -> None:
    with disk.recording():
        write_draft(disk.root, b"content", synced=True, named=True)
    assert kinds(disk) == ["create", "write", "fsync", "rename", "sync directory"]


def test_a_renamed_draft_is_there_whole_only_after_both_syncs(disk: RecordingDisk) -> None:
    for name in "xyz":
        (disk.root / name).mkdir()
    disk = RecordingDisk(disk.root)
    with disk.recording():
        write_draft(disk.root / "x", b"content", synced=True, named=True)
        write_draft(disk.root / "y", b"content", synced=True)
        write_draft(disk.root / "z", b"content")
    assert outcomes(disk, "x/it") == {b"content"}
    assert outcomes(disk, "y/it") == {b"content", None}
    assert outcomes(disk, "z/it") == {b"content", None, b"", bytes(7)}


def test_a_store_into_a_mapping_is_recorded_before_what_follows_it(disk: RecordingDisk) -> None:
    (disk.root / "words").write_bytes(bytes(4096))
    disk = RecordingDisk(disk.root)
    with (
        disk.recording(),
        (disk.root / "words").open("r+b") as file,
        mmap.mmap(file.fileno(), 4096) as mapped,
    ):
        mapped[8:16] = b"one     "
        disk.mark("told", "ack")
        mapped[16:24] = b"two     "
        os.fdatasync(file.fileno())
    assert kinds(disk)[-4:] == ["store", "ack", "store", "fdatasync"]
    assert [step.offset for step in disk.steps if step.kind == "store"] == [8, 16]


def test_a_write_that_no_sync_covers_can_be_torn_or_leave_zeros(disk: RecordingDisk) -> None:
    with disk.recording():
        descriptor = os.open(disk.root / "log", os.O_RDWR | os.O_CREAT)
        os.pwrite(descriptor, b"first", 0)
        os.fdatasync(descriptor)
        os.fsync(folder := os.open(disk.root, os.O_RDONLY))
        os.close(folder)
        os.pwrite(descriptor, b"second", 5)
        os.close(descriptor)
    assert outcomes(disk, "log") == {
        b"first",
        b"firstsecond",
        b"first" + bytes(6),
        b"firsts",
        b"firstsec",
        b"firstsecon",
    }


def test_pages_after_a_failed_sync_are_written_back_only_if_they_are_written_again(
    disk: RecordingDisk,
) -> None:
    failures = iter([errno.EIO])
    disk.fails = lambda kind, path: next(failures, None) if kind == "fdatasync" else None
    with disk.recording():
        descriptor = os.open(disk.root / "log", os.O_RDWR | os.O_CREAT)
        os.fsync(folder := os.open(disk.root, os.O_RDONLY))
        os.close(folder)
        os.pwrite(descriptor, b"record", 0)
        with pytest.raises(OSError, match="Input/output"):
            os.fdatasync(descriptor)
        os.fdatasync(descriptor)
        only_synced = len(disk.steps)
        os.pwrite(descriptor, b"record", 0)
        os.fdatasync(descriptor)
        os.close(descriptor)
    assert b"" in outcomes(disk, "log", stop=only_synced)
    assert outcomes(disk, "log") == {b"record"}


@pytest.mark.parametrize(("synchronous", "can_be_lost"), [("FULL", False), ("NORMAL", True)])
def test_a_commit_is_durable_where_sqlite_waits_for_the_disk(
    disk: RecordingDisk, tmp_path: Path, synchronous: str, can_be_lost: bool
) -> None:
    with disk.recording():
        database = sqlite3.connect(disk.root / "a.sqlite", isolation_level=None)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.executescript("BEGIN; CREATE TABLE t (x); COMMIT")
        database.execute(f"PRAGMA synchronous = {synchronous}")
        database.execute("BEGIN")
        database.execute("INSERT INTO t VALUES (7)")
        database.execute("COMMIT")
        database.close()
    rows = []
    for number, cut in enumerate(PowerCut(disk.steps).cuts(len(disk.steps), seed=0)):
        cut.tree.write_to(tmp_path / "after" / str(number))
        again = sqlite3.connect(tmp_path / "after" / str(number) / "a.sqlite")
        rows.append(again.execute("SELECT x FROM t").fetchall())
        again.close()
    assert ([] in rows) == can_be_lost
    assert [(7,)] in rows


def test_what_another_process_left_in_the_page_cache_can_still_be_lost(
    disk: RecordingDisk, tmp_path: Path
) -> None:
    with disk.recording():
        (disk.root / "file").write_bytes(b"unsynced")
    killed = PowerCut(disk.steps).tree(len(disk.steps), lambda i, p: True)
    killed.write_to(tmp_path / "later")
    second = RecordingDisk(tmp_path / "later", before=disk.steps)
    with second.recording():
        descriptor = os.open(second.root / "file", os.O_RDONLY)
        assert None in outcomes(second, "file")
        os.fsync(descriptor)
        os.close(descriptor)
        os.fsync(folder := os.open(second.root, os.O_RDONLY))
        os.close(folder)
    assert outcomes(second, "file") == {b"unsynced"}
