"""Names on the disk: a file or directory that was made survives a power cut once its parent is synced."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syncfs.argtypes = (ctypes.c_int,)

_NOT_OURS_TO_SYNC = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOTSUP})
"""A closed parent, a medium that is only read, a file system that syncs no directories."""


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable. Raises OSError."""
    # Not fdatasync, which may leave names that were added to a directory to a later journal commit.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path, *, mode: int = 0o777) -> None:
    """Make `directory` if it does not exist, with what is missing above it; durable on return.

    One that exists is synced too, if that is possible: a process that was killed may have made it just
    before. Raises OSError.
    """
    if not directory.parent.exists():
        make_directory(directory.parent)
    existed = directory.exists()
    directory.mkdir(mode=mode, exist_ok=True)
    try:
        sync_directory(directory.parent)
    except OSError as error:
        if not existed or error.errno not in _NOT_OURS_TO_SYNC:
            raise


@contextmanager
def synced_at_end(directory: Path) -> Iterator[None]:
    """Make all that the block writes on the file system of `directory` durable: one syncfs(2) at its end.

    Raises OSError if the kernel could not write something since the block began.
    """
    # Opened first: syncfs reports the errors since the descriptor that it is given was opened.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(directory))
    finally:
        os.close(descriptor)
