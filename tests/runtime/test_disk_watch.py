"""The watch over a disk, on a real file system of a few megabytes."""

import asyncio
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from windvane.errors import BusUnavailable, DiskReserveUsed
from windvane.runtime.disk_space import DiskWatch, disk_space, wait_for_room
from windvane.runtime.health_conditions import HealthConditions

from tests.small_disk import MIB, fill, free_bytes, full_error, small_disk

pytestmark = pytest.mark.system


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", size="8m") as path:
        yield path


def test_a_disk_is_full_below_its_reserve_and_has_room_well_above_it(disk: Path) -> None:
    watch = DiskWatch(disk)
    reserve = watch.reserve_bytes(disk_space(disk))
    assert reserve == 8 * MIB // 10  # the named reserve is larger than this whole disk
    assert watch.check() is None
    filler = fill(disk, leave_bytes=reserve + 64 * 1024)
    assert watch.check() is None
    fill(disk, leave_bytes=reserve - 64 * 1024)
    full = watch.check()
    assert full is not None
    assert full.code == "disk-full"
    assert "Make room" in full.detail
    assert watch.is_full
    with pytest.raises(DiskReserveUsed):
        watch.require_room()
    os.truncate(filler, filler.stat().st_size - reserve // 4)
    assert free_bytes(disk) > reserve
    assert watch.check() is not None  # it does not come and go at the edge
    os.truncate(filler, filler.stat().st_size - reserve // 2)
    assert watch.check() is None
    watch.require_room()
    print(f"full below {reserve} bytes, room again above {reserve * 3 // 2}: {full.detail}")


def test_a_small_reserve_is_kept_as_it_is(disk: Path) -> None:
    watch = DiskWatch(disk, reserve_bytes=100_000)
    fill(disk, leave_bytes=150_000)
    assert watch.check() is None
    fill(disk, leave_bytes=90_000)
    assert watch.check() is not None


def test_a_failed_write_counts_until_a_write_succeeds_whatever_statvfs_says(disk: Path) -> None:
    watch = DiskWatch(disk, reserve_bytes=4096)
    assert not watch.failed(OSError(errno.EACCES, "no"))
    assert watch.check() is None
    fill(disk, leave_bytes=32 * 1024)  # above the reserve and its half, below what the probe writes
    assert watch.failed(full_error(disk))
    assert watch.is_full
    found = watch.check()
    assert found is not None
    assert "a write failed" in found.detail
    (disk / "filler").unlink()
    assert watch.check() is None
    assert not watch.is_full
    assert list(disk.iterdir()) == []


def test_a_disk_without_inodes_is_full(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size="8m,nr_inodes=200") as disk:
        watch = DiskWatch(disk)
        assert watch.check() is None
        for number in range(190):
            (disk / str(number)).touch()
        full = watch.check()
        assert full is not None
        assert "inodes are free" in full.detail


async def test_who_waits_for_room_continues_when_there_is_some(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    health = HealthConditions(logging.getLogger("windvane.test"))
    filler = fill(disk)
    stop, told = asyncio.Event(), asyncio.Event()
    waiting = asyncio.create_task(wait_for_room(DiskWatch(disk), health, stop, waiting=told.set))
    await told.wait()
    assert [each.code for each in health.current()] == ["disk-full"]
    filler.unlink()
    assert await waiting
    assert health.current() == []
    assert [each.levelname for each in caplog.records if each.levelno >= logging.WARNING] == ["ERROR"]

    fill(disk)
    stop.set()
    assert not await wait_for_room(DiskWatch(disk), health, stop)


def test_a_directory_that_cannot_be_looked_at_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskWatch(tmp_path / "gone").check()


def test_the_errors_of_a_full_disk_leave_the_chunk_with_its_sender() -> None:
    assert issubclass(DiskReserveUsed, BusUnavailable)
