"""Checks a backup against its manifest."""

from collections.abc import Callable, Iterator
from pathlib import Path

from .file_copy import checksum
from .manifest import Copied, Manifest


def damages(
    folder: Path, manifest: Manifest, *, done: Callable[[int], object] = lambda _: None
) -> Iterator[tuple[Path, str]]:
    """Read every file: the path of each damaged one, and what is wrong with it."""
    for path, copied in manifest.files.items():
        file = folder / copied.folder / path
        try:
            problem = difference(copied, *checksum(file, done=done))
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            yield file, problem


def difference(copied: Copied, size: int, crc32c: int) -> str:
    """How a content differs from what the manifest says; "" if it does not."""
    if size != copied.size:
        return f"it has {size} bytes, and the manifest says {copied.size}"
    if crc32c != copied.crc32c:
        return f"its CRC32C is {crc32c:08x}, and the manifest says {copied.crc32c:08x}"
    return ""
