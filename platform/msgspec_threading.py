"""Prepares msgspec's information about types, so that threads can decode.

msgspec 0.22 builds the information when it first decodes a type. It crashes if two threads build that of one
type at the same time. Call `prepare` for each type before threads decode it.
"""

import threading
from contextlib import suppress
from typing import Any

import msgspec

_building = threading.Lock()
_prepared: set[Any] = set()


def prepare(kind: Any) -> None:
    """Build the information about a type, unless it exists; then any thread may decode or convert to it."""
    try:
        if kind in _prepared:
            return
    except TypeError:  # an annotation that has no hash
        return
    with _building:
        with suppress(TypeError):  # msgspec does not support the type, so there is nothing to build
            msgspec.json.Decoder(kind, dec_hook=lambda _, value: value)
        _prepared.add(kind)
