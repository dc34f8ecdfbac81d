"""The memory store, against what every store engine promises."""

from pathlib import Path

import pytest
from windvane.store.interface import open_store
from windvane.testing.store import OpenStore, StoreConformance


class TestMemoryStore(StoreConformance):
    """The shipped suite."""

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        """Opens one more store on the same outputs."""
        return lambda: open_store("memory:test", tmp_path)
