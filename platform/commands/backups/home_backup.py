"""Copies a home, which may be running, as one state that a worker can continue from.

The order gives the state:

1. models that wait to be loaded, and the positions of the bus's groups: neither may be later than 2;
2. the checkpoint database, as of one moment; then catalog, dead letters and the other databases;
3. the logs of the embedded bus: they have every message from the positions of the checkpoints on, and
   everything that was acked until then;
4. all other files, then the streams and arrays, their heads last.

Nothing waits for a backup. Files of the store are copied after the checkpoint that covers them, so they have
at least what it covers, and mostly more. `windvane restore` cuts each output back to its checkpoint, and the
worker reads the rest from the bus, as after a crash.

What would break this is found afterwards (`consistency.py`): an output that was replaced while it was copied,
retention that passed the checkpoint, a segment of the bus that was dropped before it was copied. Then all
steps are repeated; large files that have not changed since are not copied once more.
"""

import os
import stat
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

from ...config import Settings
from ...errors import BackupFailed, ConfigInvalid
from ...store.databases.sqlite_file import copy_database
from ...store.repair.local_store import open_local_store
from ..common.home_check import Checkpoints, read_checkpoints
from . import home_files
from .backup_folder import BackupFolder
from .consistency import Findings, compare_store, missing_segments, read_positions
from .file_copy import checksum, copy_file
from .manifest import FORMAT, Copied, Manifest, Position

ROUNDS = 5
"""How often a home that changes too much meanwhile is copied before the backup fails."""

_SMALL_BYTES = 64 * 1024
"""Files up to this size, some of which change in place, are always copied."""

_SETTLED_NS = 2_000_000_000
"""A file may change once more within the tick of the clock that its time of change shows."""


class HomeBackup:
    """One backup of the home of `settings` into `folder`."""

    def __init__(
        self,
        settings: Settings,
        folder: BackupFolder,
        *,
        done: Callable[[int], object] = lambda _: None,
        copied: Callable[[str], object] = lambda _: None,
    ) -> None:
        """`done` receives how many bytes were copied since its last call, `copied` the path of each file."""
        require_files_alone(settings)
        self._settings = settings
        self._home = settings.home
        self._folder = folder
        self._done = done
        self._note_copied = copied
        self._known: dict[str, tuple[Copied, int]] = {}
        if folder.before is not None:
            self._known = {path: (each, folder.before.taken_ns) for path, each in folder.before.files.items()}
        self._files: dict[str, Copied] = {}
        self._last_segments: dict[Path, int] = {}
        self._taken = Checkpoints()
        self._positions: list[Position] = []
        self._taken_ns = 0
        self.new_bytes = 0
        """Bytes that this backup copied."""

    def run(self) -> Manifest:
        """Copy everything and commit it. Raises BackupFailed, StoreFailed, OSError."""
        for _ in range(ROUNDS):
            with self._folder.durable():
                found, reasons = self._round()
            if not reasons:
                return self._commit(found)
        raise BackupFailed(
            f"{self._home} changed faster than it could be copied: {', '.join(reasons[:3])}. Retry when less "
            f"is replaced or dropped, or choose a faster disk than that of {self._folder.path}"
        )

    def _round(self) -> tuple[Findings, list[str]]:
        self._known.update({path: (each, self._taken_ns) for path, each in self._files.items()})
        self._files, self._last_segments = {}, {}
        self._taken_ns = time.time_ns()
        self._copy_all(home_files.files_before_checkpoints(self._home))
        segments = home_files.log_segments(self._home)
        self._copy_databases()
        self._copy_all(home_files.log_files(self._home))
        self._copy_all(home_files.other_files(self._home))
        self._copy_all(home_files.store_files(self._home))
        found = compare_store(self._settings, self._taken)
        dropped = missing_segments(self._home, self._positions, segments, self._files)
        return found, [f"{each} was replaced or dropped" for each in [*found.changed, *dropped]]

    def _commit(self, found: Findings) -> Manifest:
        later = tuple(found.later)
        files = {path: each for path, each in self._files.items() if not (later and path.startswith(later))}
        manifest = Manifest(
            format=FORMAT,
            windvane=version("windvane"),
            taken_ns=self._taken_ns,
            home=str(self._home),
            bus=self._settings.bus,
            positions=self._positions,
            absent=sorted(found.absent),
            files=files,
        )
        self._folder.commit(manifest)
        return manifest

    def _copy_databases(self) -> None:
        for name in home_files.databases(self._home):
            target = self._folder.target / name
            copy_database(self._home / name, target)
            mode = stat.S_IMODE((self._home / name).stat().st_mode)
            target.chmod(mode & 0o700 | stat.S_IRUSR)
            size, crc = checksum(target, done=self._done)
            self._add(name, Copied(self._folder.name, size, crc, mode, 0))
        place = self._folder.target / self._settings.checkpoint_file.name
        self._taken = read_checkpoints(place)
        if not self._taken.is_known:
            raise BackupFailed(
                f"{self._settings.checkpoint_file} cannot be read: {self._taken.problem}. `windvane verify` "
                "shows what is damaged; repair it, then retry"
            )
        self._positions = read_positions(place) if place.exists() else []

    def _copy_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                self._copy(path)
            except FileNotFoundError:  # it was removed; whether that matters is checked at the end
                continue

    def _copy(self, path: str) -> None:
        source = self._home / path
        status = source.stat()
        if not stat.S_ISREG(status.st_mode):
            return
        _require_text(path)
        is_sealed = self._is_sealed(path, source)
        if is_sealed and (known := self._unchanged(path, status)) is not None:
            self._files[path] = known
            self._done(known.size)
            return
        target = self._folder.target / path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(status.st_mode)
        size, crc = copy_file(source, target, mode=mode & 0o700 | stat.S_IRUSR, done=self._done)
        # The time is that of before the copy: what was written meanwhile makes the next backup copy it.
        self._add(path, Copied(self._folder.name, size, crc, mode, status.st_mtime_ns, is_sealed))

    def _is_sealed(self, path: str, source: Path) -> bool:
        """Whether every change of a file shows in its time of change; before the file is read."""
        if not path.startswith(f"{home_files.STORE}/"):
            return True
        if source.parent not in self._last_segments:
            self._last_segments[source.parent] = home_files.last_segment(source.parent)
        return -1 < home_files.segment_number(source.name) < self._last_segments[source.parent]

    def _add(self, path: str, copied: Copied) -> None:
        self._files[path] = copied
        self.new_bytes += copied.size
        self._note_copied(path)

    def _unchanged(self, path: str, status: os.stat_result) -> Copied | None:
        """The copy that a former backup, or a former round, has of a file that has not changed since."""
        known, taken_ns = self._known.get(path, (None, 0))
        if known is None or not known.is_sealed or status.st_size <= _SMALL_BYTES or home_files.is_head(path):
            return None
        is_settled = known.modified_ns < taken_ns - _SETTLED_NS
        if not is_settled or known.identity != (status.st_size, status.st_mtime_ns):
            return None
        try:
            is_there = self._folder.copy_of(path, known).stat().st_size == known.size
        except FileNotFoundError:
            return None
        return known if is_there else None


def require_files_alone(settings: Settings) -> None:
    """Raises ConfigInvalid if the store, or a database of this home, is not in it."""
    open_local_store(settings.store, settings.home).close()
    if settings.has_catalog_elsewhere:
        raise ConfigInvalid(
            "the setting `database` or `catalog` names a database that is not in the home, and a copy of the "
            "home alone is not one state. Stop Windvane, then copy the home, and the database with `pg_dump`"
        )


def _require_text(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise BackupFailed(
            f"the name of {os.fsencode(path)!r} is not UTF-8; rename or remove the file"
        ) from None
