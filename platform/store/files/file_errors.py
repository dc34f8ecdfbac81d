"""What errors of the operating system mean for the files of the store."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ...errors import StreamDamaged

if TYPE_CHECKING:
    from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
UNTOUCHED = "Nothing was changed; `windvane verify` shows the damage, `windvane recover list` what to do"


def unreadable(path: Path | str, error: OSError) -> StreamDamaged:
    """The error of a file that the disk cannot return."""
    return StreamDamaged(
        f"cannot read {path}: {error.strerror}. Check the disk; the data is untouched. Then restart"
    )
