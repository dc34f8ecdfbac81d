"""Ways in which a file can be damaged, each of which takes something from it."""

import os
from collections.abc import Callable
from pathlib import Path


def flip(path: Path, at: int, *, bit: int = 6) -> None:
    """One bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def truncate(path: Path, at: int) -> None:
    """What comes from `at` on."""
    os.truncate(path, at)


def delete(path: Path, at: int) -> None:
    """All of it."""
    path.unlink()


def zero(path: Path, at: int) -> None:
    """64 bytes from `at` on, as a lost write leaves them."""
    size = min(64, path.stat().st_size - at)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(size))


KINDS: dict[str, Callable[[Path, int], None]] = {
    "flip": flip,
    "truncate": truncate,
    "delete": delete,
    "zero": zero,
}
