"""Data arrays that others have replaced: set aside as `output~1`, `output~2`, …, listed, and dropped.

An array is replaced by a reprocessing, or by rows of another dtype or shape. It keeps its files and gets the
file `replaced.json`: when it was replaced, and by what. Arrays that an earlier version set aside have no such
file.

Dropping renames the directory to `.dropped-…` and then removes it: a crash leaves an array that is whole, or
a directory that no reference names and that the next drop in its folder removes. No array has a name with a
leading dot.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...errors import StoreLocked

Cause = Literal["reprocess", "layout"]

_MARK = "replaced.json"
_DROPPED = ".dropped-"
_BLOCK_BYTES = 512  # of `st_blocks`, whatever the file system
_NUMBERED = re.compile(r"(.+)~([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Replaced:
    """A directory that was set aside.

    Attributes:
        directory: its present directory.
        name: of the directory that it was, without `~1`.
        replaced_ns: when, in ns since the epoch; of the directory's last change if that was not recorded.
        by: what replaced it, None if that was not recorded.
    """

    directory: Path
    name: str
    replaced_ns: int
    by: Cause | None

    @property
    def size_bytes(self) -> int:
        """Its size on disk."""
        return size_bytes(self.directory)


def set_aside(directory: Path, *, by: Cause) -> None:
    """Rename an array's directory, if there is one, to the first free of `…~1`, `…~2`, …"""
    if not directory.exists():
        return
    number = 1
    while (aside := directory.with_name(f"{directory.name}~{number}")).exists():
        number += 1
    # Later than all others, whatever the clock says: the latest is the one that is kept.
    latest_ns = max((each.replaced_ns for each in replaced(directory.parent, directory.name)), default=0)
    mark = {"replaced_ns": max(time.time_ns(), latest_ns + 1), "by": by}
    (directory / _MARK).write_text(json.dumps(mark) + "\n", encoding="utf-8")
    os.rename(directory, aside)


def replaced(folder: Path, name: str | None = None) -> list[Replaced]:
    """The arrays in a folder that were set aside, or those of one name, the earliest first."""
    return sorted(_replaced(folder, name), key=lambda each: (each.name, each.replaced_ns))


def _replaced(folder: Path, name: str | None) -> Iterator[Replaced]:
    try:
        entries = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        match = _NUMBERED.fullmatch(entry)
        if match is None or entry.startswith(".") or name not in (None, match[1]):
            continue
        try:
            yield _described(folder / entry, match[1])
        except FileNotFoundError:  # it was dropped meanwhile
            continue


def _described(directory: Path, name: str) -> Replaced:
    replaced_ns, by = directory.stat().st_ctime_ns, None
    try:
        mark = json.loads((directory / _MARK).read_bytes())
        replaced_ns, by = int(mark["replaced_ns"]), mark["by"]
    except (OSError, ValueError, LookupError, TypeError):
        pass
    return Replaced(directory, name, replaced_ns, by)


def superseded(folder: Path, name: str) -> list[Replaced]:
    """The superseded arrays: for each cause, all but the latest.

    Arrays that were replaced for another layout are counted apart: the array that a reprocessing replaces
    after a change of the policy often holds but the rows since then, and the one before it all others. Those
    of which the cause was not recorded are never superseded.
    """
    found = replaced(folder, name)
    return [
        each
        for index, each in enumerate(found)
        if each.by and each.by in {later.by for later in found[index + 1 :]}
    ]


def drop(directory: Path) -> None:
    """Remove an array that was set aside, and the remains of killed drops next to it.

    Raises StoreLocked while another process writes to it, and FileNotFoundError.
    """
    _require_unlocked(directory)
    number = 0
    while (doomed := directory.with_name(f"{_DROPPED}{number}-{directory.name}"[:250])).exists():
        number += 1
    os.rename(directory, doomed)
    for name in os.listdir(directory.parent):
        if name.startswith(_DROPPED):
            shutil.rmtree(directory.with_name(name), ignore_errors=True)


def _require_unlocked(directory: Path) -> None:
    try:
        descriptor = os.open(directory / "rows" / "head", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(f"{directory} is being written by another process; wait for it to end") from None
    finally:
        os.close(descriptor)


def size_bytes(directory: Path) -> int:
    """The size of a directory on disk."""
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_blocks * _BLOCK_BYTES
        except FileNotFoundError:
            continue
    return total
