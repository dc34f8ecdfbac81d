"""A file system of a few megabytes that a test may fill, and whatever else is done to disks."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

MIB = 1024 * 1024
_PIECE = bytes(4096)


@contextmanager
def small_disk(path: Path, *, size: str) -> Iterator[Path]:
    """A tmpfs of `size` ("8m") at `path`; a test that may not mount is skipped (with CI it fails)."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if mounted.returncode:
        lack = f"no file system can be mounted here: {mounted.stderr.decode().strip()}"
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True, timeout=60)


def free_bytes(path: Path) -> int:
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def fill(disk: Path, *, leave_bytes: int = 0) -> Path:
    """A file that takes all of the room but `leave_bytes`; remove it to make room."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        with suppress(OSError):
            while free_bytes(disk) > leave_bytes:
                os.write(descriptor, _PIECE)
    finally:
        os.close(descriptor)
    return filler


def full_error(path: Path) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
