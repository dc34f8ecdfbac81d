"""Directories that were made survive a power cut with everything above them."""

import errno
import os
from pathlib import Path

import pytest
from windvane.config import Settings
from windvane.directories import make_directory
from windvane.home import make_home
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store

from tests.durability.power_cut import PowerCut
from tests.durability.recording_disk import RecordingDisk


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    return RecordingDisk(tmp_path)


def left(disk: RecordingDisk) -> dict[str, bytes | None]:
    """Returns the files after a power cut that loses everything that was not synced."""
    return PowerCut(disk.steps).tree(len(disk.steps), lambda i, p: False).snapshot()


def test_all_levels_are_durable(disk: RecordingDisk) -> None:
    with disk.recording():
        make_directory(disk.root / "a" / "b" / "c")
    assert left(disk).keys() == {"a", "a/b", "a/b/c"}


def test_one_that_a_killed_process_made_is_made_durable(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    disk = RecordingDisk(root)
    with disk.recording():
        (root / "a").mkdir()
        assert not left(disk)
        make_directory(root / "a")
    assert left(disk).keys() == {"a"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EINVAL])
def test_one_that_exists_may_have_a_parent_that_cannot_be_synced(disk: RecordingDisk, code: int) -> None:
    (disk.root / "a").mkdir()
    disk.fails = lambda kind, path: code if kind == "sync directory" else None
    with disk.recording():
        make_directory(disk.root / "a")
        with pytest.raises(OSError, match=os.strerror(code)):
            make_directory(disk.root / "a" / "b")


def test_a_failing_disk_is_not_passed_over(disk: RecordingDisk) -> None:
    (disk.root / "a").mkdir()
    disk.fails = lambda kind, path: errno.EIO if kind == "sync directory" else None
    with disk.recording(), pytest.raises(OSError, match="Input/output"):
        make_directory(disk.root / "a")


def test_a_home_its_store_and_its_databases_are_there_after_a_power_cut(disk: RecordingDisk) -> None:
    settings = Settings(home=disk.root / "somewhere" / "home")
    with disk.recording():
        make_home(settings)
        Store(settings.store_dir).close()
        SqlDeadLetters(settings.dead_letter_file).close()
    assert {"somewhere", "somewhere/home", "somewhere/home/store"} <= left(disk).keys()
