"""The segments that a segmented file has on the disk: which are there, and up to which byte without a gap."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .file_errors import unreadable

if TYPE_CHECKING:
    from .segment_names import SegmentNames


def has_bytes(directory: str, names: SegmentNames) -> bool:
    """Whether a segment is not empty."""
    return any(segments(directory, names).values())


def stored_length(directory: str, names: SegmentNames, *, start: int, length: int, segment_bytes: int) -> int:
    """The offset up to which the bytes from `start` are there without a gap, at most `length`.

    Looks at sizes and reads nothing. Raises StreamDamaged if the disk cannot return them.
    """
    for segment in range(start, length, segment_bytes):
        path = f"{directory}/{names.name(segment)}"
        try:
            stored = os.stat(path).st_size
        except FileNotFoundError:
            stored = 0
        except OSError as error:
            raise unreadable(path, error) from error
        if stored < min(segment_bytes, length - segment):
            return segment + stored
    return length


def remove_segments(directory: str, names: SegmentNames, start: int, stop: int) -> None:
    """Removes the segments that begin in [start, stop)."""
    for segment in segments(directory, names):
        if start <= segment < stop:
            os.unlink(f"{directory}/{names.name(segment)}")


def segments(directory: str, names: SegmentNames) -> dict[int, int]:
    """The size of each segment in bytes, by the offset of its first byte."""
    try:
        entries = list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = ((names.offset(entry.name), entry) for entry in entries)
    return {offset: entry.stat().st_size for offset, entry in found if offset is not None}
