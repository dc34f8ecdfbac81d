"""A disk that records: the steps of the real code that matter after a power cut, in one order.

Production code does not depend on it. While it records, the functions of `os` that change or sync files, the
connections of `sqlite3`, and syncfs(2) as any module of Windvane has loaded it, are replaced by ones that do
the same and record it; the syncs themselves are left out, since only their place in the order counts. Changes
that bypass them (a store into a mapped head, a buffered file of Python) are found by comparing the whole
directory with the record, before and after each of these calls. They are recorded at that point, so they
precede everything that could depend on them (as a store, if the file keeps its size). A record is complete if
replaying it gives the directory byte for byte, and `RecordingDisk.check_complete` asserts that after every
recording.

A sync that the disk does not see makes the record look less durable than the disk is, never more: the tests
then fail. SQLite is trusted: a COMMIT with `synchronous = FULL` in write-ahead mode is one step, whole and
durable; with a lower setting it is one that a power cut may lose.
"""

import ctypes
import errno
import os
import sqlite3
import sys
import threading
from asyncio import selector_events
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import windvane.store.files.store as _store_is_loaded  # its syncfs is one of those that are replaced

from tests.durability.file_tree import ROOT, FileTree, Kind, Step

assert _store_is_loaded

_DATABASE_FILES = (".sqlite", ".sqlite-wal", ".sqlite-shm", ".sqlite-journal")
_CHANGE_NAMES = ("mkdir", "rmdir", "rename", "replace", "link", "symlink", "unlink", "remove")


class RecordingDisk:
    """Records what happens below `root`, a directory of small files (each is read again at every step).

    Existing files are durable. `before` has the steps of another process that are still in the page cache:
    the record continues after them, as after a SIGKILL. Any thread may write; `steps` is in one order over
    all of them.
    """

    def __init__(self, root: Path, *, before: Sequence[Step] = ()) -> None:
        self.root = root
        self.steps: list[Step] = list(before)
        self.fails: Callable[[Kind, str], int | None] = lambda kind, path: None
        """Called before each write and sync: returns the errno that it fails with, None if it succeeds."""
        self.waits: Callable[[str], None] = lambda path: None
        """Called before each sync of a file and each commit, in its thread: a test can have a slow disk."""
        self._lock = threading.RLock()
        self._tree = FileTree()
        self._node_of: dict[int, int] = {}
        self._last_node = 0
        for step in before:
            self._tree.apply(step)
            self._last_node = max(self._last_node, step.node)
        for path, node in self._tree.paths().items():
            self._node_of[os.stat(root / path).st_ino] = node
        self._node_of[os.stat(root).st_ino] = ROOT
        self._device = os.stat(root).st_dev
        if not before:
            self._look()
            if self.steps:
                self._note(Step("syncfs", ".", ROOT))
            for file in sorted(root.rglob("*.sqlite")):
                with closing(sqlite3.connect(file)) as database:
                    content = database.serialize()
                self._note(Step("commit", str(file.relative_to(root)), data=content))

    @contextmanager
    def recording(self) -> Iterator["RecordingDisk"]:
        """Records while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _CHANGE_NAMES:
                patch.setattr(os, name, self._looking(getattr(os, name)))
            patch.setattr(os, "truncate", self._looking(os.truncate))
            patch.setattr(os, "ftruncate", self._looking(os.ftruncate))
            patch.setattr(os, "write", self._looking(os.write))
            patch.setattr(os, "open", self._open(os.open))
            patch.setattr(os, "pwrite", self._pwrite(os.pwrite))
            patch.setattr(os, "pwritev", self._pwritev(os.pwritev))
            patch.setattr(os, "fsync", self._sync("fsync", os.fsync))
            patch.setattr(os, "fdatasync", self._sync("fdatasync", os.fdatasync))
            patch.setattr(sqlite3, "connect", self._connect(sqlite3.connect))
            for module in [m for name, m in sys.modules.items() if name.startswith("windvane.")]:
                for name, value in list(vars(module).items()):
                    if isinstance(value, ctypes.CDLL):
                        patch.setattr(module, name, _Library(value, self))
            yield self
            self.check_complete()

    def mark(self, what: str, kind: Kind = "mark") -> None:
        """Records an event that a step must precede or follow."""
        with self._lock:
            self._look()
            self._note(Step(kind, what))

    @contextmanager
    def recording_acks(self, acks_in: Callable[[bytes], Iterable[str]]) -> Iterator[None]:
        """Record what a server of this process writes to its sockets, if `acks_in` names acks in it."""
        transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
        write = transport.write

        def recording_write(self_: Any, data: bytes) -> None:
            for what in acks_in(bytes(data)):
                self.mark(what, "ack")
            write(self_, data)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transport, "write", recording_write)
            yield

    def check_complete(self) -> None:
        """Assert that the record gives exactly the files that are there."""
        with self._lock:
            self._look()
            replayed = FileTree()
            for step in self.steps:
                replayed.apply(step)
            real = {
                path: None if is_directory else (self.root / path).read_bytes()
                for path, (_, is_directory) in self._walk().items()
            }
            recorded = {p: c for p, c in replayed.snapshot().items() if p not in replayed.databases}
            assert recorded == real

    def _note(self, step: Step) -> None:
        self.steps.append(step)
        self._tree.apply(step)

    # What the replaced functions do.

    def _looking(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """The changes of the call are found by comparison."""

        def call(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                self._look()
                try:
                    return real(*arguments, **more)
                finally:
                    self._look()

        return call

    def _open(self, real: Callable[..., int]) -> Callable[..., int]:
        looking = self._looking(real)

        def call(path: Any, flags: int, *arguments: Any, **more: Any) -> int:
            changes = flags & (os.O_CREAT | os.O_TRUNC)
            return (looking if changes else real)(path, flags, *arguments, **more)

        return call

    def _pwrite(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, data: Any, offset: int) -> int:
            return self._written(descriptor, [data], offset, lambda: real(descriptor, data, offset))

        return call

    def _pwritev(self, real: Callable[..., int]) -> Callable[..., int]:
        def call(descriptor: int, buffers: Sequence[Any], offset: int, *flags: int) -> int:
            return self._written(
                descriptor, buffers, offset, lambda: real(descriptor, buffers, offset, *flags)
            )

        return call

    def _written(self, descriptor: int, buffers: Sequence[Any], offset: int, write: Callable[[], int]) -> int:
        with self._lock:
            self._look()
            path, node = self._at(descriptor)
            if path is None:
                return write()
            self._fail_if_due("write", path)
            written = write()
            data = b"".join(bytes(memoryview(buffer).cast("B")) for buffer in buffers if len(buffer))
            self._note(Step("write", path, node, offset=offset, data=data[:written]))
            return written

    def _sync(self, kind: Kind, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: Any) -> None:
            descriptor = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            with self._lock:
                path, _ = self._at(descriptor)
            if path is not None:
                self.waits(path)
            with self._lock:
                self._look()
                path, node = self._at(descriptor)
                if path is None:
                    real(descriptor)
                    return
                is_directory = node in self._tree.directories
                self._synced("sync directory" if is_directory else kind, path, node)

        return call

    def synced_file_system(self, descriptor: int) -> int:
        """syncfs(2) of a descriptor below the root; -1 and errno if it fails."""
        with self._lock:
            self._look()
            path, node = self._at(descriptor)
            if path is None:
                return 0
            try:
                self._synced("syncfs", path, node)
            except OSError as error:
                ctypes.set_errno(error.errno or errno.EIO)
                return -1
            return 0

    def exchanged(self, one: bytes, other: bytes, exchange: Callable[[], int]) -> int:
        """renameat2(2) with RENAME_EXCHANGE, of two paths below the root."""
        with self._lock:
            self._look()
            known = self._tree.paths()
            path, target = (str(Path(os.fsdecode(each)).relative_to(self.root)) for each in (one, other))
            failed = exchange()
            if not failed:
                parents = self._parent(path, known), self._parent(target, known)
                self._note(Step("exchange", path, known[path], parents[0], target, parents[1]))
            return failed

    def _synced(self, kind: Kind, path: str, node: int) -> None:
        try:
            self._fail_if_due(kind, path)
        except OSError:
            self._note(Step(kind, path, node, succeeded=False))
            raise
        self._note(Step(kind, path, node))

    def _fail_if_due(self, kind: Kind, path: str) -> None:
        if (code := self.fails(kind, path)) is not None:
            raise OSError(code, os.strerror(code), path)

    def _connect(self, real: Callable[..., sqlite3.Connection]) -> Callable[..., sqlite3.Connection]:
        def call(database: Any, *arguments: Any, **more: Any) -> sqlite3.Connection:
            path = Path(os.fsdecode(database))
            if not path.is_relative_to(self.root):
                return real(database, *arguments, **more)
            connection = real(database, *arguments, factory=_Connection, **more)
            assert isinstance(connection, _Connection)
            connection.disk, connection.path = self, str(path.relative_to(self.root))
            return connection

        return call

    @contextmanager
    def commit_of(self, connection: "_Connection") -> Iterator[None]:
        """Record a commit of a database below the root."""
        self.waits(connection.path)
        with self._lock:
            self._look()
            yield
            is_durable = connection.settings("synchronous") >= 2  # FULL
            content = connection.serialize()
            self._note(Step("commit", connection.path, data=content, succeeded=is_durable))

    # Comparison: changes that are not recorded yet.

    def _at(self, descriptor: int) -> tuple[str | None, int]:
        status = os.fstat(descriptor)
        if status.st_dev != self._device:
            return None, -1
        node = self._node_of.get(status.st_ino)
        if node == ROOT:
            return ".", ROOT
        for path, known in self._tree.paths().items():
            if known == node:
                return path, known
        return None, -1

    def _walk(self) -> dict[str, tuple[int, bool]]:
        found: dict[str, tuple[int, bool]] = {}
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            for entry in os.scandir(self.root / prefix):
                is_directory = entry.is_dir(follow_symlinks=False)
                if entry.name.endswith(_DATABASE_FILES) or not (is_directory or entry.is_file()):
                    continue
                found[prefix + entry.name] = (entry.inode(), is_directory)
                if is_directory:
                    waiting.append(f"{prefix}{entry.name}/")
        return found

    def _look(self) -> None:
        found = self._walk()
        known = self._tree.paths()
        while (change := self._next_name(found, known)) is not None:
            self._note(change)
            known = self._tree.paths()
        for path, node in known.items():
            if node in self._tree.files:
                self._look_into(path, node)

    def _next_name(self, found: dict[str, tuple[int, bool]], known: dict[str, int]) -> Step | None:
        """Records one step towards the current names."""
        for path in sorted(found, key=lambda path: path.count("/")):
            inode, is_directory = found[path]
            node = self._node_of.get(inode)
            if node is not None and known.get(path) == node:
                continue
            parent = self._parent(path, known)
            earlier = next((p for p, n in known.items() if n == node), None) if node is not None else None
            if earlier is not None:
                moved = earlier not in found or found[earlier][0] != inode
                kind: Kind = "rename" if moved else "link"
                assert node is not None
                return Step(kind, earlier, node, self._parent(earlier, known), path, parent)
            if path in known:
                return self._gone(path, known)
            self._last_node += 1
            self._node_of[inode] = self._last_node
            return Step("mkdir" if is_directory else "create", path, self._last_node, parent)
        for path in sorted(known, key=lambda path: -path.count("/")):
            if path not in found:
                return self._gone(path, known)
        return None

    def _gone(self, path: str, known: dict[str, int]) -> Step:
        node = known[path]
        if list(known.values()).count(node) == 1:
            self._node_of = {inode: each for inode, each in self._node_of.items() if each != node}
        kind: Kind = "rmdir" if node in self._tree.directories else "unlink"
        return Step(kind, path, node, self._parent(path, known))

    def _parent(self, path: str, known: dict[str, int]) -> int:
        parent = path.rpartition("/")[0]
        return known[parent] if parent else ROOT

    def _look_into(self, path: str, node: int) -> None:
        content = (self.root / path).read_bytes()
        recorded = self._tree.files[node]
        if content == recorded:
            return
        if len(content) < len(recorded) or not any(content[len(recorded) :]):
            if len(content) != len(recorded):
                self._note(Step("truncate", path, node, offset=len(content)))
            if content == recorded:
                return
        kind: Kind = "store" if len(content) == len(recorded) else "write"
        for start, stop in _changed(bytes(recorded), content):
            self._note(Step(kind, path, node, offset=start, data=content[start:stop]))


def _changed(before: bytes, now: bytes) -> list[tuple[int, int]]:
    """Yields the ranges in which aligned words of eight bytes differ, adjacent ones joined; `before` is not
    the longer one.
    """
    size = -(-len(now) // 8) * 8
    padded = np.frombuffer(before.ljust(size, b"\0"), np.uint64) != np.frombuffer(
        now.ljust(size, b"\0"), np.uint64
    )
    padded[len(before) // 8 :] = True  # what was appended, zeros included
    edges = np.flatnonzero(np.diff(np.concatenate(([False], padded, [False])).astype(np.int8)))
    return [(int(start) * 8, min(int(stop) * 8, len(now))) for start, stop in edges.reshape(-1, 2)]


class _Connection(sqlite3.Connection):
    disk: RecordingDisk
    path: str

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql.strip().rstrip(";").upper() not in ("COMMIT", "END"):
            return super().execute(sql, *arguments)
        with self.disk.commit_of(self):
            return super().execute(sql, *arguments)

    def executescript(self, sql_script: str) -> sqlite3.Cursor:
        # Not under the disk's lock: it may wait for a transaction that another thread is to commit.
        cursor = super().executescript(sql_script)
        with self.disk.commit_of(self):
            return cursor

    def commit(self) -> None:
        with self.disk.commit_of(self):
            super().commit()

    def settings(self, name: str) -> int:
        """A number that a PRAGMA gives."""
        return int(super().execute(f"PRAGMA {name}").fetchone()[0])


class _Library:
    """The C library as a module of Windvane has loaded it, with calls that are recorded."""

    def __init__(self, real: ctypes.CDLL, disk: RecordingDisk) -> None:
        self._real = real
        self.syncfs = disk.synced_file_system
        self._disk = disk

    def renameat2(self, one_at: int, one: bytes, other_at: int, other: bytes, flags: int) -> int:
        """An exchange of two directories."""
        return self._disk.exchanged(
            one, other, lambda: self._real.renameat2(one_at, one, other_at, other, flags)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
