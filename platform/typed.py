"""msgspec's information about types, built by one thread at a time.

msgspec 0.22 builds it when a type is first decoded, and crashes if two threads build that of one type at
once. What threads decode is prepared here first.
"""

import threading
from contextlib import suppress
from typing import Any

import msgspec

_building = threading.Lock()
_prepared: set[Any] = set()


def prepare(kind: Any) -> None:
    """Make the information about a type, unless it is there; then any thread may decode or convert to it."""
    try:
        if kind in _prepared:
            return
    except TypeError:  # an annotation that has no hash
        return
    with _building:
        with suppress(TypeError):  # what msgspec knows nothing of has no information
            msgspec.json.Decoder(kind, dec_hook=lambda _, value: value)
        _prepared.add(kind)
