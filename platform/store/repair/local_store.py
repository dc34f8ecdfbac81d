"""The store whose files can be verified and repaired: the one in the home."""

from pathlib import Path
from typing import Any

from ...errors import ConfigInvalid
from ..files.description import read_description
from ..files.store import Store
from ..interface import open_store


def open_local_store(url: str, home: Path) -> Store:
    """Open the store of a home. Raises ConfigInvalid for other engines, and as `open_store`."""
    store = open_store(url, home)
    if not isinstance(store, Store):
        store.close()
        raise ConfigInvalid(
            f"the files of the store {url!r} are not in {home}, and only those of the store local: can be "
            "verified, repaired and copied by these commands; use the tools of that engine"
        )
    return store


def stored_attrs(directory: Path) -> dict[str, Any]:
    """The attributes of the stream in `directory`, {} if its description cannot be read."""
    attrs = (read_description(directory) or {}).get("attrs")
    return attrs if isinstance(attrs, dict) else {}
