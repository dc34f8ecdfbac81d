"""The segments that a segmented file has on the disk: which are there, and up to which byte without a gap."""

from __future__ import annotations

import os

from .file_errors import unreadable
from .mapping import segment_path


def has_bytes(directory: str) -> bool:
    """Whether a segment is not empty."""
    return any(entry.stat().st_size for entry in _segments(directory))


def stored_length(directory: str, *, start: int, length: int, segment_bytes: int) -> int:
    """The offset up to which the bytes from `start` are there without a gap, at most `length`.

    Looks at sizes and reads nothing. Raises StreamDamaged if the disk cannot return them.
    """
    for segment in range(start, length, segment_bytes):
        path = segment_path(directory, segment)
        try:
            stored = os.stat(path).st_size
        except FileNotFoundError:
            stored = 0
        except OSError as error:
            raise unreadable(path, error) from error
        if stored < min(segment_bytes, length - segment):
            return segment + stored
    return length


def remove_segments(directory: str, start: int, stop: int) -> None:
    """Removes the segments that begin in [start, stop)."""
    for entry in _segments(directory):
        if start <= int(entry.name.partition(".")[0]) < stop:
            os.unlink(entry.path)


def _segments(directory: str) -> list[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return []
    return [entry for entry in entries if entry.name.endswith(".seg") and entry.name[:-4].isdigit()]
