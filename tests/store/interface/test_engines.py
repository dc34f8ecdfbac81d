"""The engine of the home and the one in memory, against what every store engine promises."""

from pathlib import Path

import pytest
from windvane.store.files.store import Store
from windvane.store.interface import StoreAddress
from windvane.testing.store import OpenStore, StoreConformance
from windvane_memory_store import MemoryStore


class TestLocalStore(StoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: Store(tmp_path / "store", segment_bytes=4096)


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        return lambda: MemoryStore.open(StoreAddress("memory:", tmp_path))
