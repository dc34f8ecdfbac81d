"""Whether the disk has room: a reserve that no tier uses up, so that databases and the rest stay usable."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigInvalid, DiskReserveUsed
from .health_conditions import HealthCondition, HealthConditions, code_of

RESERVE_BYTES = 64 * 1024 * 1024
"""Room that the tiers leave on the home's file system; `disk_reserve_bytes` in the settings."""

RESERVE_INODES = 1000
RESERVE_SHARE = 10
"""The reserve is at most this part (a tenth) of a file system, which may be small."""

PROBE_BYTES = 64 * 1024

LOOK_S = 1.0
"""The interval of a tier's checks."""

DISK = "disk"
"""The key of the health condition."""

_MIB = 1024 * 1024


class DiskSpace(NamedTuple):
    """What `statvfs` says, for a user without privileges; 0 inodes: the file system does not count them."""

    free_bytes: int
    size_bytes: int
    free_inodes: int
    inodes: int


def disk_space(path: Path) -> DiskSpace:
    """The space of the file system that holds `path`. Raises OSError."""
    found = os.statvfs(path)
    return DiskSpace(
        free_bytes=found.f_bavail * found.f_frsize,
        size_bytes=found.f_blocks * found.f_frsize,
        free_inodes=found.f_favail,
        inodes=found.f_files,
    )


class DiskWatch:
    """Watches the file system of one directory. Every method may be called from any thread, and blocks.

    `check` gives a `disk-full` condition while less than the reserve is free, or since a write has failed for
    lack of room (`failed`). The condition ends when half as much again as the reserve is free and, after a
    failed write, a small file could be written and synced: a quota is not seen by statvfs.

    A tier that gets a condition stops writing and keeps checking; it continues when it gets None.
    """

    def __init__(self, home: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.home = home
        self._reserve_bytes = reserve_bytes
        self._lock = threading.Lock()
        self._is_full = False
        self._has_failed = False

    @property
    def is_full(self) -> bool:
        """What the last `check` or `failed` found; does not block."""
        return self._is_full

    def require_room(self) -> None:
        """Raises DiskReserveUsed if the last look found no room; does not block."""
        if self._is_full:
            raise DiskReserveUsed(
                f"the disk of {self.home} is full; nothing is taken until there is room: send it again then"
            )

    def reserve_bytes(self, space: DiskSpace) -> int:
        """How much of a file system like this is left free."""
        return min(self._reserve_bytes, space.size_bytes // RESERVE_SHARE)

    def check(self) -> HealthCondition | None:
        """Look now. None: there is room. An unreadable directory raises OSError."""
        with self._lock:
            space = disk_space(self.home)
            reserve = self.reserve_bytes(space)
            reserve_inodes = min(RESERVE_INODES, space.inodes // RESERVE_SHARE)
            if self._is_full:  # has to rise well above the reserve, so that it does not come and go
                reserve += reserve // 2
                reserve_inodes += reserve_inodes // 2
            lacks_inodes = space.inodes > 0 and space.free_inodes < reserve_inodes
            self._is_full = space.free_bytes < reserve or lacks_inodes
            if not self._is_full and self._has_failed:
                self._has_failed = self._is_full = not self._can_write()
            if not self._is_full:
                return None
            if lacks_inodes and space.free_bytes >= reserve:
                lack = f"{space.free_inodes} of {space.inodes} inodes are free, {reserve_inodes} are needed"
            elif space.free_bytes >= reserve:
                lack = "a write failed for lack of room or quota"
            else:
                lack = (
                    f"{space.free_bytes / _MIB:.1f} of {space.size_bytes / _MIB:.0f} MiB are free, "
                    f"{reserve / _MIB:.1f} MiB are needed"
                )
            return HealthCondition(
                "disk-full",
                f"the disk of {self.home} is full ({lack}). Nothing is acked or stored until there is room, "
                "and nothing that was acked is lost: senders that ask for acks keep the rest. Make room on "
                "that disk, or enlarge it; Windvane then continues by itself",
            )

    def failed(self, error: BaseException) -> bool:
        """Learn that a write below the directory failed; True if that was for lack of room."""
        if code_of(error) != "disk-full":
            return False
        with self._lock:
            self._has_failed = self._is_full = True
        return True

    def _can_write(self) -> bool:
        path = self.home / f".disk-probe.{os.getpid()}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                written = os.write(descriptor, bytes(PROBE_BYTES))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            return written == PROBE_BYTES
        except OSError:
            return False
        finally:
            with suppress(OSError):
                path.unlink()


async def watch_disk(watch: DiskWatch, health: HealthConditions) -> None:
    """Report and clear the health condition of the disk until cancelled."""
    while True:
        await look_at_disk(watch, health)
        await asyncio.sleep(LOOK_S)


async def look_at_disk(watch: DiskWatch, health: HealthConditions) -> bool:
    """Look once; whether there is room."""
    try:
        condition = await asyncio.to_thread(watch.check)
    except OSError as error:
        condition = HealthCondition(
            code_of(error) or "io-error",
            f"the home cannot be looked at: {error}; check that its file system is mounted and sound (dmesg)",
        )
    if condition is None:
        health.clear(DISK)
        return True
    health.report(DISK, condition.code, condition.detail)
    return False


async def wait_for_room(
    watch: DiskWatch,
    health: HealthConditions,
    stop: asyncio.Event,
    *,
    waiting: Callable[[], object] = lambda: None,
) -> bool:
    """Wait until there is room, before anything is opened; False if `stop` was set first.

    Calls `waiting` once if it has to wait, and retries it if it raises an error for lack of room.
    """
    has_told = False
    while not await look_at_disk(watch, health):
        if not has_told:
            with suppress(ConfigInvalid):
                waiting()
                has_told = True
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), LOOK_S)
        if stop.is_set():
            return False
    return True
