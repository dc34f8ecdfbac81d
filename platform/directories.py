"""Names on the disk: a file or directory that was made survives a power cut once its parent is synced."""

import os
from contextlib import suppress
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable. Raises OSError."""
    # Not fdatasync, which may leave names that were added to a directory to a later journal commit.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(directory: Path, *, mode: int = 0o777) -> None:
    """Make `directory` if it does not exist, with what is missing above it; durable on return.

    One that exists is synced too: a process that was killed may have made it just before. Raises OSError.
    """
    parents = [directory.parent]
    while not parents[-1].exists():
        parents.append(parents[-1].parent)
    existed = directory.exists()
    directory.mkdir(mode=mode, parents=True, exist_ok=True)
    for parent in reversed(parents):
        # The parent of a directory that an administrator made may be closed to this user.
        with suppress(*([PermissionError] if existed else [])):
            sync_directory(parent)
