"""Whether a file can have been written by another user: what is run, or unpickled, must not be."""

import os
import stat
from pathlib import Path

from ..errors import FileUntrusted

_BESIDE_DATABASE = ("-wal", "-shm")
"""Files that SQLite reads together with a database."""


def check_own(path: Path, status: os.stat_result | None = None) -> None:
    """Raise FileUntrusted if a user other than this one (or root) can write the file or directory.

    `status` is that of an open descriptor, if there is one: then the check and the read see the same file.
    Raises OSError if the path cannot be read.
    """
    status = os.stat(path) if status is None else status
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise FileUntrusted(
            f"{path} is not read: it belongs to user {status.st_uid} and has mode "
            f"{stat.S_IMODE(status.st_mode):o}, so other users can write it, and reading it can run code. "
            f"If you trust its content, run `chown {os.geteuid()} {path}` and `chmod go-w {path}`"
        )


def check_own_database(path: Path) -> None:
    """Like `check_own`, for an SQLite database: its directory, the file, its log and its shared memory."""
    check_own(path.parent)
    check_own(path)
    for suffix in _BESIDE_DATABASE:
        beside = path.with_name(path.name + suffix)
        try:
            check_own(beside)
        except FileNotFoundError:  # the last process that closes the database removes it
            continue
