"""The folder of a backup.

    manifest.json        the one whole backup: see `manifest.py`
    0001/checkpoints.sqlite, 0001/store/…
                         the files that the first backup copied, by their paths in the home
    0002/…               those that the second one copied; what did not change stays in 0001

A backup copies into a folder of its own and replaces the manifest last. Then files that the manifest does not
name are removed. A process that is killed at any time leaves the former backup whole; the next backup removes
what the killed one has left.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ...directories import make_directory, synced_at_end
from ...errors import ConfigInvalid, StoreLocked
from .manifest import NAME, Copied, Manifest, read_manifest, write_manifest

_DIGITS = 4


class BackupFolder:
    """A folder that one backup at a time is made into. Use `locked`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.before: Manifest | None = read_manifest(path) if (path / NAME).exists() else None
        """The manifest of the former backup."""
        self._prune({} if self.before is None else self.before.files)
        self.name = f"{max(map(int, self._numbered()), default=0) + 1:0{_DIGITS}d}"
        self.target = path / self.name
        """Where this backup copies to."""

    @classmethod
    @contextmanager
    def locked(cls, path: Path, *, home: Path) -> Iterator["BackupFolder"]:
        """Create the folder, for this user alone, or open it for another backup.

        What an unfinished backup has copied is removed when the block raises. Raises StoreLocked,
        BackupInvalid for a damaged manifest, ConfigInvalid for a folder that holds something else.
        """
        _require_outside(path, home)
        make_directory(path, mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreLocked(f"another backup into {path} is running; wait for it to end") from None
            _require_backup_or_empty(path)
            folder = cls(path)
            folder.target.mkdir(mode=0o700)
            try:
                yield folder
            except BaseException:
                shutil.rmtree(folder.target, ignore_errors=True)
                raise
        finally:
            os.close(descriptor)

    @contextmanager
    def durable(self) -> Iterator[None]:
        """What the block copies is durable at its end. Raises OSError."""
        with synced_at_end(self.path):
            yield

    def commit(self, manifest: Manifest) -> None:
        """Make this the backup of the folder; everything that it names must be durable. Raises OSError."""
        write_manifest(self.path, manifest)
        self._prune(manifest.files)

    def copy_of(self, path: str, copied: Copied) -> Path:
        """Where the copy of a file of the home is."""
        return self.path / copied.folder / path

    def _numbered(self) -> list[str]:
        return sorted(each for each in os.listdir(self.path) if each.isdecimal() and len(each) >= _DIGITS)

    def _prune(self, files: Mapping[str, Copied]) -> None:
        """Remove the copies that none of `files` names."""
        named = {f"{copied.folder}/{path}" for path, copied in files.items()}
        (self.path / f"{NAME}.new").unlink(missing_ok=True)
        for number in self._numbered():
            for folder, _, names in os.walk(self.path / number, topdown=False):
                relative = os.path.relpath(folder, self.path)
                for name in names:
                    if f"{relative}/{name}" not in named:
                        os.unlink(os.path.join(folder, name))
                if not os.listdir(folder):
                    os.rmdir(folder)


def _require_outside(path: Path, home: Path) -> None:
    if path.resolve().is_relative_to(home.resolve()):
        raise ConfigInvalid(f"{path} is inside the home {home}; give a folder elsewhere, on another disk")


def _require_backup_or_empty(path: Path) -> None:
    names = set(os.listdir(path))
    others = {
        name for name in names if not (name.isdecimal() or name.startswith(NAME) or name == "lost+found")
    }
    if others:
        raise ConfigInvalid(
            f"{path} has files that are not of a backup ({min(others)}); give a new folder, or an empty one"
        )
