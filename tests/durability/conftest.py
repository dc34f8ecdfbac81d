"""Where a mutant is to be caught, the tests must run with it, not with the source."""

import os
from pathlib import Path

import pytest
import windvane.errors

from tests.durability.mutation import COPY_VARIABLE


def pytest_configure() -> None:
    copy = os.environ.get(COPY_VARIABLE)
    if copy is not None and not Path(windvane.errors.__file__).is_relative_to(copy):
        raise pytest.UsageError(f"windvane is imported from {windvane.errors.__file__}, not from {copy}")
