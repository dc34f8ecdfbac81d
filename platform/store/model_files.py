"""Files of models that a worker loads with the next chunk of their stream.

A file is `HOME/models/<hash of stream:step>.model`, and holds what a checkpoint holds of the step. The
estimator in it is a pickle, and a pickle can run anything when it is read: so the file and the folder must be
writable by no other user (`file_owner.check_own`).
"""

import hashlib
import os
import tempfile
from pathlib import Path

from ..directories import make_directory, sync_directory
from .file_owner import check_own

_SUFFIX = ".model"

Identity = tuple[int, int]
"""Inode and time of change in ns: another put gives another."""


class ModelFiles:
    """The folder of models that the worker has not loaded yet; it is created with the first of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """The path of the folder."""
        return self._folder

    @staticmethod
    def name(reference: str) -> str:
        """The name of the file of `stream:step`: references can be longer than file names."""
        return hashlib.blake2b(reference.encode(), digest_size=16).hexdigest() + _SUFFIX

    def put(self, reference: str, saved: bytes) -> None:
        """Stores a model for the worker, atomically and durably; replaces one that was not loaded yet.

        Raises ModelRejected if other users can write to the folder, and OSError.
        """
        make_directory(self._folder, mode=0o700)
        check_own(self._folder)
        handle, temporary = tempfile.mkstemp(dir=self._folder)  # of mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(saved)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / self.name(reference))
            sync_directory(self._folder)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def waiting(self) -> dict[str, Identity]:
        """Names of the pending files, with a version that distinguishes files of the same name."""
        try:
            with os.scandir(self._folder) as entries:
                found = [entry for entry in entries if entry.name.endswith(_SUFFIX)]
            return {entry.name: _identity(entry.stat(follow_symlinks=False)) for entry in found}
        except OSError:  # no folder, which is usual; one of no use; or a file that was just taken
            return {}

    def read(self, name: str) -> tuple[bytes, Identity]:
        """The content of a file. Raises ModelRejected if other users could have written it, and OSError."""
        check_own(self._folder)
        handle = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            check_own(self._folder / name, status)
            return file.read(), _identity(status)

    def remove(self, name: str, identity: Identity) -> None:
        """Removes a file whose model is durable elsewhere, unless the file was replaced since."""
        if self.waiting().get(name) == identity:
            (self._folder / name).unlink(missing_ok=True)


def _identity(status: os.stat_result) -> Identity:
    return status.st_ino, status.st_mtime_ns
