"""A catalog over a new SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from windvane.store.catalog.catalog import Catalog


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "catalog.sqlite"


@pytest.fixture
async def catalog(file: Path) -> AsyncIterator[Catalog]:
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{file}")
    yield catalog
    await catalog.close()
