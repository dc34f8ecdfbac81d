"""Opens and locks the head of a segmented file, for its one writer."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from ...errors import DiskFull, StoreFailed, StoreLocked, StreamDamaged
from .file_errors import NO_SPACE, unreadable
from .head import Head

if TYPE_CHECKING:
    from pathlib import Path


class LockedHead:
    """The head of the file in `directory`, which this process has locked.

    The lock is flock(2) on `head`. It belongs to the open file, which the mapping of the head keeps open
    after its descriptor is closed: so an idle writer costs one mapping and no descriptor, and the death of
    the process frees the lock.

    If the head is missing or empty, its file is created and locked, and `head` has the content of a new one
    in memory until `write`.
    """

    def __init__(self, directory: Path, new_head: bytes) -> None:
        """Creates the directory if it is missing; `new_head` is the content of a head that is missing.

        Raises StoreLocked while another writer has it, in this process or in another; StreamDamaged if the
        head is damaged; StoreFailed if it cannot be created.
        """
        self._path = directory / "head"
        self._new_head = new_head
        self.new_directories: set[Path] = set()
        """Directories whose entries are not synced: `directory`, and those that were created for it."""
        self._unwritten: int | None = None
        self._is_new_file = False
        try:
            self.head = self._lock()
        except (StoreFailed, StreamDamaged):
            raise
        except OSError as error:
            if error.errno == errno.EIO:
                raise unreadable(directory, error) from error
            kind = DiskFull if error.errno in NO_SPACE else StoreFailed
            raise kind(f"cannot open {directory} for writing: {error}") from error

    @property
    def is_missing(self) -> bool:
        """Whether the file has no head yet."""
        return self._unwritten is not None

    def write(self) -> Head:
        """Writes a head that is missing, and returns the head. Raises OSError."""
        if self._unwritten is not None:
            os.pwrite(self._unwritten, self._new_head, 0)
            head = Head(self._unwritten, self._path, writeable=True)
            self.head.close()
            self.head = head
            os.close(self._unwritten)
            self._unwritten = None
        return self.head

    def close(self) -> None:
        """Releases the lock; removes the file of a head that was created and not written."""
        self.head.close()
        if self._unwritten is not None:
            if self._is_new_file and _is_at(self._unwritten, self._path):
                os.unlink(self._path)
            os.close(self._unwritten)
            self._unwritten = None

    def _lock(self) -> Head:
        while True:
            is_new = False
            try:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                self._make_directory()
                try:
                    descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                except FileExistsError:
                    continue
                is_new = True
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between opening and locking, the directory may have been renamed and recreated by another.
                if not _is_at(descriptor, self._path):
                    continue
                try:
                    return Head(descriptor, self._path, writeable=True)
                except FileNotFoundError:
                    self._unwritten, self._is_new_file = os.dup(descriptor), is_new
                    return _head_in_memory(self._path, self._new_head)
            except BlockingIOError:
                raise StoreLocked(
                    f"{self._path.parent} is being written by another process, or by another writer of this: "
                    "there is one at a time: stop it first"
                ) from None
            finally:
                os.close(descriptor)

    def _make_directory(self) -> None:
        directory = level = self._path.parent
        while not level.exists():
            level = level.parent
            self.new_directories.add(level)
        self.new_directories.add(directory)
        directory.mkdir(parents=True, exist_ok=True)


def _head_in_memory(path: Path, content: bytes) -> Head:
    """The content of the head of a new file."""
    descriptor = os.memfd_create("head", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, content, 0)
        return Head(descriptor, path, writeable=True)
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
