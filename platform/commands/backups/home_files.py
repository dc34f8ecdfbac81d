"""The files of a home, in groups that a backup copies one after the other.

Everything below the home is part of a backup, apart from `run/` (sockets, locks and addresses of running
processes) and the files next to a database, whose content SQLite copies.

What is relied on of a running home:

- Below `store/` and `bus/`, bytes that a checkpoint covers, or that were acked, never change. Files grow, or
  are replaced by a rename. A file that is changed in place is small or is a head (`is_head`).
- The last segment of a directory of the store may be written through a mapping, so that its time of change
  is not that of its last change (`last_segment`).
- Bytes are written before the length in a head covers them. Retention moves the start in a head before it
  removes the segments below it, so a head that is read after a segment has disappeared tells of it.
- The partition of a log stores its end in the page `committed` after the bytes below that end. A segment is
  whole before the next one is created.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

RUN = "run"
STORE = "store"
BUS = "bus"
GROUPS = f"{BUS}/@groups"
MODELS = "models"
_DATABASE = ".sqlite"
_DATABASE_SIDES = ("-wal", "-shm", "-journal")
_LOG_SEGMENT = ".log"
_NUMBER = re.compile("[0-9]+")
_FIRST_DATABASES = ("checkpoints.sqlite", "catalog.sqlite")


def is_head(path: str) -> bool:
    """Whether a file of the store is a head: it changes in place, and says what readers may see."""
    folder, _, name = path.rpartition("/")
    return name == "head" or folder.rpartition("/")[2] == "heads"


def segment_number(name: str) -> int:
    """The first number in the name of a segment, by which those of a directory are ordered; -1 if none."""
    found = _NUMBER.search(name)
    return -1 if found is None else int(found[0])


def last_segment(folder: Path) -> int:
    """The number of the last segment in a directory of the store."""
    return max(map(segment_number, os.listdir(folder)), default=-1)


def files_before_checkpoints(home: Path) -> Iterator[str]:
    """What must not be later than the checkpoints: models not loaded yet, positions of the bus's groups."""
    yield from files_below(home, MODELS)
    yield from files_below(home, GROUPS)


def databases(home: Path) -> list[str]:
    """The databases, in the order in which they are copied: the worker commits before others see results."""
    found = {name for name in os.listdir(home) if name.endswith(_DATABASE) and (home / name).is_file()}
    first = [name for name in _FIRST_DATABASES if name in found]
    return first + sorted(found - set(first))


def log_segments(home: Path) -> dict[str, list[int]]:
    """The first offsets of the segments of each partition of the embedded log, by `topic/partition`."""
    found: dict[str, list[int]] = {}
    for path in files_below(home, BUS):
        parts = path.split("/")
        base = parts[-1].removesuffix(_LOG_SEGMENT)
        if len(parts) == 4 and path.endswith(_LOG_SEGMENT) and base.isdecimal():
            found.setdefault(f"{parts[1]}/{parts[2]}", []).append(int(base))
    return {partition: sorted(bases) for partition, bases in found.items()}


def log_files(home: Path) -> Iterator[str]:
    """The logs of the bus. Copy each file when it is given: the segments are listed after that."""
    for folder, folders, names in os.walk(home / BUS, followlinks=True):
        relative = os.path.relpath(folder, home)
        folders[:] = sorted(name for name in folders if f"{relative}/{name}" != GROUPS)
        yield from (f"{relative}/{name}" for name in sorted(names) if not name.endswith(_LOG_SEGMENT))
        # The last segment that is found now has all bytes below the end that was copied just before.
        segments = sorted(name for name in os.listdir(folder) if name.endswith(_LOG_SEGMENT))
        yield from (f"{relative}/{name}" for name in segments)


def other_files(home: Path) -> Iterator[str]:
    """Settings, secrets, operations, repairs and whatever else is in the home."""
    elsewhere = {RUN, STORE, BUS, MODELS}
    for name in sorted(os.listdir(home)):
        if name not in elsewhere and not _is_of_database(name):
            yield from files_below(home, name)


def store_files(home: Path) -> Iterator[str]:
    """Streams and arrays: the heads last, so that they tell of the segments that were removed meanwhile."""
    heads = []
    for path in files_below(home, STORE):
        if is_head(path):
            heads.append(path)
        else:
            yield path
    yield from heads


def files_below(home: Path, name: str) -> Iterator[str]:
    """The path of the file `name` of the home, or of all files in the directory of that name."""
    path = home / name
    if path.is_file():
        yield name
    seen: set[tuple[int, int]] = set()
    # Links are followed: a store may be on another disk than its home.
    for folder, folders, names in os.walk(path, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        relative = os.path.relpath(folder, home)
        yield from (f"{relative}/{each}" for each in sorted(names))


def _is_of_database(name: str) -> bool:
    return name.endswith(_DATABASE) or any(name.endswith(f"{_DATABASE}{side}") for side in _DATABASE_SIDES)
