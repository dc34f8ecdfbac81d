"""What every store engine offers: data streams and data arrays that grow while they are read.

Open `engine.py` first. The engines (`../files/`, and those of other packages) differ in where they keep the
bytes, not in what they guarantee. This package states the guarantees, and `windvane.testing.store` checks
them for each engine. The other parts of Windvane use a store through these classes alone.

An output (a stream or an array) has one writer and any number of readers. The writer appends; a checkpoint
records lengths after `StoreEngine.sync`; after a crash `resume` cuts back to these, and later data is
appended again. So an engine may lose what was appended since the last sync, and nothing before it.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ...errors import ConfigInvalid
from ...extensions import STORES
from .arrivals import ARRIVAL, CHUNK_ID_BYTES, EVENT, PART_OF_CHUNK
from .engine import REBUILT, ReplacedArray, StoreAddress, StoreEngine
from .listing import Listing, Page
from .pyramids import PyramidLevel, PyramidWriter
from .readers import ArrayReader, StreamReader
from .rows import IndexedRows, RowReader
from .writers import ArrayWriter, StreamWriter

__all__ = [
    "ARRIVAL",
    "CHUNK_ID_BYTES",
    "EVENT",
    "PART_OF_CHUNK",
    "REBUILT",
    "ArrayReader",
    "ArrayWriter",
    "IndexedRows",
    "Listing",
    "Page",
    "PyramidLevel",
    "PyramidWriter",
    "ReplacedArray",
    "RowReader",
    "StoreAddress",
    "StoreEngine",
    "StreamReader",
    "StreamWriter",
    "open_store",
]


def open_store(url: str, home: Path, *, segment_bytes: int | None = None) -> StoreEngine:
    """Open the store of this URL, or make it; an installed package may register its scheme.

    `local:` is the directory `home/store`. `segment_bytes` is as in `StoreAddress`.

    Raises:
        ConfigInvalid: the URL is not valid, or no package registers its scheme.
        ExtensionInvalid: the package that registers its scheme cannot be used.
        StoreFailed: it cannot be opened.
    """
    return _engine_of(url).open(StoreAddress(url, home, segment_bytes))


def _engine_of(url: str) -> type[StoreEngine]:
    scheme = urlsplit(url).scheme
    try:
        engine: type[StoreEngine] = STORES.load_class(scheme, StoreEngine)
    except LookupError:
        known = ", ".join(f"{name}:" for name in STORES.extensions)
        raise ConfigInvalid(f"{url!r} is not a valid store URL; it must begin with one of {known}") from None
    return engine
