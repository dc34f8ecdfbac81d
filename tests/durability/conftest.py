"""The temporary directory of the tests of this folder, and the package that they test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import windvane.errors

from tests.durability.mutation import COPY_VARIABLE

_MEMORY = Path("/dev/shm")
_ENOUGH_BYTES = 48 * 1024 * 1024


def pytest_configure() -> None:
    """A mutant is caught only by tests that run with it, not with the source."""
    copy = os.environ.get(COPY_VARIABLE)
    if copy is not None and not Path(windvane.errors.__file__).is_relative_to(copy):
        raise pytest.UsageError(f"windvane is imported from {windvane.errors.__file__}, not from {copy}")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory if there is enough space: thousands of small states are written, and none needs a disk."""
    has_room = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ENOUGH_BYTES
    with tempfile.TemporaryDirectory(
        prefix="windvane-", dir=_MEMORY if has_room else None, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
