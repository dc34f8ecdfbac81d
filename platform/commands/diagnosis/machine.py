"""The machine: room on its disks, what a process may open and map, its clock."""

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from ...config import Settings
from ...runtime.disk_space import DiskWatch, disk_space
from .finding import Finding, failure, ok, skipped, warning

LOW_RESERVES = 4
"""Fewer free bytes than so many reserves are a warning."""

LOW_INODE_SHARE = 10

MIN_FILES = 1024
FILES_PER_OUTPUT = 2
MAPPINGS_PER_OUTPUT = 2
"""What a worker holds for each data stream and data array that is open: a head and the segment at its end."""

USUAL_MAPPINGS = 1000
"""What a process maps besides: its libraries and its memory."""

MAPPINGS_LIMIT = Path("/proc/sys/vm/max_map_count")
YEARS = range(2025, 2100)

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_STA_UNSYNC = 0x0040
_MIB = 1024 * 1024


def check_machine(settings: Settings) -> Iterator[Finding]:
    """All checks of this module."""
    yield from check_disks(settings)
    outputs = count_outputs(settings)
    yield check_files(outputs)
    yield check_mappings(outputs)
    yield check_year(datetime.now(UTC))
    yield check_synchronization()


def check_disks(settings: Settings) -> Iterator[Finding]:
    """Room and inodes of each file system that the home lies on."""
    seen: set[int] = set()
    for path in (settings.home, settings.store_dir, settings.home / "bus"):
        try:
            device = path.stat().st_dev
        except FileNotFoundError:
            if path == settings.home:
                yield skipped("disk", f"there is no home {path} yet")
            continue
        if device not in seen:
            seen.add(device)
            yield from _check_disk(path, settings.disk_reserve_bytes)


def _check_disk(path: Path, reserve_bytes: int) -> Iterator[Finding]:
    watch = DiskWatch(path, reserve_bytes=reserve_bytes)
    space = disk_space(path)
    reserve = watch.reserve_bytes(space)
    room = f"{path}: {space.free_bytes / _MIB:,.0f} of {space.size_bytes / _MIB:,.0f} MiB are free"
    more = "make room on that disk or enlarge it, or let less be kept (retention of the policies)"
    if space.free_bytes < reserve:
        yield failure(
            "disk", f"{room}, below the reserve of {reserve / _MIB:,.0f} MiB: nothing is stored", more
        )
    elif space.free_bytes < LOW_RESERVES * reserve:
        yield warning("disk", f"{room}; at {reserve / _MIB:,.0f} MiB nothing is stored any more", more)
    else:
        yield ok("disk", room)
    if not space.inodes:
        yield skipped("inodes", f"{path}: this file system does not count them")
        return
    inodes = f"{path}: {space.free_inodes:,} of {space.inodes:,} are free"
    if watch.check() is not None and space.free_bytes >= reserve:
        yield failure(
            "inodes", f"{inodes}: nothing can be made", "remove files of other programs on that disk"
        )
    elif space.free_inodes * LOW_INODE_SHARE < space.inodes:
        yield warning("inodes", inodes, "remove files of other programs there, or use a larger file system")
    else:
        yield ok("inodes", inodes)


def count_outputs(settings: Settings) -> int:
    """The data streams and data arrays in the store."""
    if not settings.store_dir.is_dir():
        return 0

    from ...store.interface import open_store

    with open_store(settings.store, settings.home) as store:
        return len(store.streams()) + len(store.arrays())


def check_files(outputs: int, limit: int | None = None) -> Finding:
    """Whether a process may open as many files as the outputs and their connections need."""
    if limit is None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return ok("open files", "a process may open any number")
    needed = MIN_FILES + FILES_PER_OUTPUT * outputs
    said = f"a process may open {limit:,}; {outputs:,} outputs and their connections need up to {needed:,}"
    fix = (
        f"raise the hard limit to {max(65_536, needed):,}: LimitNOFILE= in the systemd unit, nofile in "
        "/etc/security/limits.conf, --ulimit nofile= with containers"
    )
    if limit < MIN_FILES:
        return failure("open files", said, fix)
    return warning("open files", said, fix) if limit < needed else ok("open files", said)


def check_mappings(outputs: int, limit: int | None = None) -> Finding:
    """Whether a process may have as many memory mappings as the outputs need."""
    if limit is None:
        try:
            limit = int(MAPPINGS_LIMIT.read_text())
        except (OSError, ValueError):
            return skipped("memory mappings", f"{MAPPINGS_LIMIT} cannot be read")
    needed = USUAL_MAPPINGS + MAPPINGS_PER_OUTPUT * outputs
    said = f"vm.max_map_count is {limit:,}; {outputs:,} outputs need up to {needed:,}"
    if needed <= limit:
        return ok("memory mappings", said)
    enough = max(262_144, 2 * needed)
    return warning(
        "memory mappings",
        f"{said}: outputs are closed and opened in turn, which is slow",
        f"sysctl -w vm.max_map_count={enough}, and the same in /etc/sysctl.d/windvane.conf",
    )


def check_year(now: datetime) -> Finding:
    """Whether the clock can be right at all; the time zone does not matter."""
    said = f"it is {now:%Y-%m-%d %H:%M:%S} UTC by this machine's clock"
    if now.year in YEARS:
        return ok("clock", said)
    return failure(
        "clock", f"{said}, which cannot be", "set the clock, then let NTP keep it (chrony, timesyncd)"
    )


def check_synchronization() -> Finding:
    """Whether the kernel's clock is kept by NTP or the like, by adjtimex(2)."""
    found = _clock_state()
    if found is None:
        return skipped("clock synchronization", "the kernel does not say whether the clock is kept")
    state, status, max_error_us = found
    if state == _TIME_ERROR or status & _STA_UNSYNC:
        return warning(
            "clock synchronization",
            "nothing keeps the clock of this machine: arrival times drift",
            "let NTP keep it: install chrony, or `timedatectl set-ntp true`",
        )
    return ok("clock synchronization", f"it is kept, within {max_error_us / 1000:,.0f} ms")


class _Timex(ctypes.Structure):
    """The beginning of `struct timex` of the C library; the rest is padding."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def _clock_state() -> tuple[int, int, int] | None:
    """What the kernel says: state, status bits, maximum error in µs."""
    timex = _Timex()  # modes 0: read only
    with suppress(OSError, AttributeError):
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
        if state >= 0:
            return state, timex.status, timex.maxerror
    return None
