"""How references become the names of directories below a store's root; `Store` describes the form."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# File systems take names of 255 bytes; this leaves room for the `~1` of an array that was set aside.
LONGEST_NAME_BYTES = 240
HASHED = "%-"
"""Begins the name of a directory whose reference is too long for a name: a hash follows."""

HASHED_REFERENCE = "reference"
"""The file in such a directory that holds the reference."""


_RESERVED = "zarr.json"
"""The metadata for other programs, in the same directories as streams and arrays."""


def quote(name: str) -> str:
    """`name` as the name of a file: `%`, `/`, control characters and a leading dot as `%` and two digits.

    The name of the metadata becomes another one in the same way.
    """
    quoted = re.sub(r"[%/\x00-\x1f\x7f]|^\.", lambda match: f"%{ord(match[0]):02X}", name)
    return f"%{ord(quoted[0]):02X}{quoted[1:]}" if quoted == _RESERVED else quoted


def unquote(name: str) -> str:
    """The inverse of `quote`."""
    return urllib.parse.unquote(name)


def names_in(directory: Path) -> list[str]:
    """The names of streams or arrays in a directory, in no order; none if there is no such directory.

    Others begin with a dot (remains, and copies in the making), or are metadata.
    """
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name in names if not name.startswith(".") and name != _RESERVED]


def directory_name(stream: str) -> str:
    """The name of a stream's directory."""
    name = quote(stream)
    if len(name.encode()) > LONGEST_NAME_BYTES:
        return HASHED + hashlib.sha256(stream.encode()).hexdigest()
    return name


def reference_of(directory: Path) -> str | None:
    """The reference of the stream in `directory`, which for a hashed name is in a file.

    None while it is being made, and if a power failure right after that took the content of the file.
    """
    if not directory.name.startswith(HASHED):
        return unquote(directory.name)
    try:
        kept = (directory / HASHED_REFERENCE).read_bytes().decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return kept if directory_name(kept) == directory.name else None


def is_made(directory: Path) -> bool:
    """Whether the stream or array in `directory` is complete: its description is written last."""
    return (directory / "meta.json").exists()
