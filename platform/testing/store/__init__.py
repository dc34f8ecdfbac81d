"""What every store engine must do: `StoreConformance`.

A test module subclasses it and gives the fixture `open_store`:

    class TestMemoryStore(StoreConformance):
        @pytest.fixture
        def open_store(self, tmp_path: Path) -> OpenStore:
            return lambda: open_store("memory:", tmp_path)

Each module tests one part of the interface: references and listings, indexing, arrays, streams, resuming,
replaced arrays, readers during a write, and any order of operations against a model.
"""

from .arrays import ArrayConformance
from .fixtures import OpenStore, resumed
from .growth import GrowthConformance
from .histories import HistoryConformance
from .indexing import IndexingConformance
from .references import ReferenceConformance
from .replacement import ReplacementConformance
from .resumption import ResumptionConformance
from .streams import StreamConformance

__all__ = ["OpenStore", "StoreConformance", "resumed"]


class StoreConformance(
    ReferenceConformance,
    IndexingConformance,
    ArrayConformance,
    StreamConformance,
    ResumptionConformance,
    ReplacementConformance,
    GrowthConformance,
    HistoryConformance,
):
    """The promises of `windvane.store.interface`, each by a test of its own.

    The fixture `open_store` gives a function that opens the store of the test, which is empty at first; each
    call gives what another process would have. What survives a power cut differs by engine, and needs tests
    of its own.
    """
