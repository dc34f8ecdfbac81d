"""The permanent description of a stream or an array: a small JSON file next to its segments."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...directories import sync_directory
from ...errors import StoreFailed

if TYPE_CHECKING:
    from pathlib import Path

_NAME = "meta.json"


def as_json(description: Mapping[str, Any]) -> dict[str, Any]:
    """Give a description as it will be read again: tuples as lists, keys as text.

    Raises ValueError for values that JSON lacks, such as NaN and infinity: browsers cannot read them.
    """
    try:
        text = json.dumps(dict(description), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"attributes of streams and arrays must be JSON, and these are not: {error}; use text, plain "
            "numbers, lists and tables"
        ) from error
    plain: dict[str, Any] = json.loads(text)
    return plain


def read_description(directory: Path) -> dict[str, Any] | None:
    """Read the description in a directory; None if there is none that can be read.

    A power failure right after it was made can leave it empty: then no file next to it was synced either.
    """
    try:
        description = json.loads((directory / _NAME).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return description if isinstance(description, dict) else None


def changed_at(directory: Path) -> tuple[int, int] | None:
    """When the description was last written, in ns since the epoch, and its inode; None if there is none."""
    try:
        status = os.stat(directory / _NAME)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mtime_ns, status.st_ino


def write_description(directory: Path, description: Mapping[str, Any]) -> None:
    """Write the description in one step: readers see the former one, or none, or all of the new one."""
    draft = directory / f"{_NAME}.new"
    draft.write_text(json.dumps(description, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(draft, directory / _NAME)


def sync_description(directory: Path) -> None:
    """Make the description in `directory` durable. Raises StoreFailed."""
    try:
        descriptor = os.open(directory / _NAME, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(directory)
    except OSError as error:
        raise StoreFailed(
            f"syncing {directory / _NAME} failed ({error.strerror}); check the disk, then open it again"
        ) from error


def dtype_to_json(dtype: np.dtype[Any]) -> Any:
    """Give a dtype as `numpy.lib.format` describes it: a string like "<f4", or a list of fields."""
    return json.loads(json.dumps(np.lib.format.dtype_to_descr(dtype)))


def dtype_from_json(description: Any) -> np.dtype[Any]:
    """Read what `dtype_to_json` gave, with the tuples that JSON has turned into lists."""
    return np.lib.format.descr_to_dtype(_with_tuples(description))


def _with_tuples(description: Any) -> Any:
    if isinstance(description, str):
        return description
    fields = []
    for name, kind, *shape in description:
        fields.append(
            (tuple(name) if isinstance(name, list) else name, _with_tuples(kind), *map(tuple, shape))
        )
    return fields
