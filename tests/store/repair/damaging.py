"""Ways to damage a file, each of which destroys some of its content."""

import os
from collections.abc import Callable
from pathlib import Path


def flip(path: Path, at: int, *, bit: int = 6) -> None:
    """Flips one bit."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def truncate(path: Path, at: int) -> None:
    """Cuts the file off at `at`."""
    os.truncate(path, at)


def delete(path: Path, at: int) -> None:
    """Removes the file."""
    path.unlink()


def zero(path: Path, at: int) -> None:
    """Overwrites 64 bytes from `at` on, like a lost write."""
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
