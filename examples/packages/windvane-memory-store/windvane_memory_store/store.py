"""The store in memory: finds, makes and renames outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from windvane.errors import ArrayNotFound, StoreLocked, StreamNotFound
from windvane.store.interface import REBUILT, Listing, Page, StoreAddress, StoreEngine

from .content import Output, Shelf
from .readers import MemoryArray, MemoryStream
from .writers import MemoryArrayWriter, MemoryStreamWriter

_BYTE = np.dtype(np.uint8)
_MAX_OUTPUT_BYTES = 240


class MemoryStore(StoreEngine):
    """`memory:NAME`: the store of this name in this process."""

    mappable = False
    shelves: ClassVar[dict[tuple[Path, str], Shelf]] = {}

    def __init__(self, address: StoreAddress, shelf: Shelf) -> None:
        self._address = address
        self._shelf = shelf

    @classmethod
    def open(cls, address: StoreAddress) -> MemoryStore:
        """One more store on the same outputs."""
        address.options()
        return cls(address, cls.shelves.setdefault((address.home, address.place), Shelf()))

    @property
    def address(self) -> StoreAddress:
        """Opens the same store in this process."""
        return self._address

    def streams(self) -> list[str]:
        """All streams."""
        return [each for each in self._shelf.references() if ":" not in each]

    def arrays(self, stream: str | None = None) -> list[str]:
        """All arrays, or those of one stream."""
        prefix = "" if stream is None else f"{stream}:"
        return [each for each in self._shelf.references() if ":" in each and each.startswith(prefix)]

    def listing(self) -> MemoryListing:
        """The references by pages."""
        return MemoryListing(self)

    def stream(self, reference: str) -> MemoryStream:
        """Open a stream."""
        _check(reference, is_array=False)
        found = self._shelf.find(reference)
        if found is None:
            raise StreamNotFound(f"there is no data stream {reference!r}; `windvane ls streams` lists them")
        return MemoryStream(self._shelf, found)

    def array(self, reference: str) -> MemoryArray:
        """Open an array."""
        _check(reference, is_array=True)
        return MemoryArray(self._shelf, self._array(reference))

    def stream_writer(self, reference: str, *, attrs: Mapping[str, Any]) -> MemoryStreamWriter:
        """Open a stream for appending."""
        _check(reference, is_array=False)
        plain = _as_json(attrs)
        with self._shelf.lock:
            output = self._unlocked(reference) or self._shelf.make(
                reference, dtype=_BYTE, row_shape=(), attrs=plain
            )
            return MemoryStreamWriter(self._shelf, output, plain)

    def array_writer(
        self,
        reference: str,
        *,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        attrs: Mapping[str, Any],
        rate_hz: float = 0.0,
    ) -> MemoryArrayWriter:
        """Open an array for appending; the rate would decide how rows are grouped in files."""
        _check(reference, is_array=True)
        dtype, row_shape, plain = np.dtype(dtype), tuple(row_shape), _as_json(attrs)
        has_size = dtype.itemsize and dtype.subdtype is None and not dtype.hasobject
        if not has_size or min(row_shape, default=1) < 1:
            raise ValueError(f"rows of {dtype} {row_shape} have no fixed size")
        with self._shelf.lock:
            output = self._unlocked(reference)
            if output is not None and not output.is_made:  # a writer that was closed before it was resumed
                output = None
            if output is None:
                output = self._shelf.make(reference, dtype=dtype, row_shape=row_shape, attrs=plain)
            return MemoryArrayWriter(self._shelf, output, dtype=dtype, row_shape=row_shape, attrs=plain)

    def sync(self) -> None:
        """Nothing outlives the process."""

    def array_uid(self, reference: str) -> bytes | None:
        """The uid of an array."""
        found = self._shelf.find(reference)
        return None if found is None else found.uid

    def array_bytes(self, reference: str) -> int:
        """The bytes of its rows and times."""
        found = self._shelf.find(reference)
        return 0 if found is None else found.kept_bytes

    def is_rebuilt(self, reference: str, uid: bytes) -> bool:
        """Whether `reference~rebuilt` is the array of this uid."""
        return self.array_uid(reference + REBUILT) == uid

    def put_rebuilt_in_place(self, reference: str, uid: bytes) -> None:
        """Rename `reference~rebuilt` to `reference`."""
        with self._shelf.lock:
            if self.is_rebuilt(reference, uid):
                if reference in self._shelf.outputs:
                    self._shelf.set_aside(reference, by="reprocess")
                rebuilt = self._shelf.outputs.pop(reference + REBUILT)
                rebuilt.reference = reference
                self._shelf.outputs[reference] = rebuilt

    def replaced(self, stream: str | None = None) -> dict[str, Output]:
        """The arrays that were set aside."""
        found = {reference: self._array(reference) for reference in self.arrays(stream)}
        return {reference: each for reference, each in found.items() if each.name}

    def drop_superseded(self, reference: str) -> list[str]:
        """Drop all but the latest of each cause."""
        stream, _, name = reference.partition(":")
        latest: dict[str | None, str] = {}
        dropped = []
        found = {key: each for key, each in self.replaced(stream).items() if each.name == name}
        for key in sorted(found, key=lambda key: found[key].replaced_ns):
            by = found[key].by
            if by in latest:
                dropped.append(latest[by])
            latest[by] = key
        for key in dropped:
            del self._shelf.outputs[key]
        return dropped

    def drop_array(self, reference: str) -> None:
        """Drop an array."""
        with self._shelf.lock:
            self._array(reference)
            self._unlocked(reference)
            del self._shelf.outputs[reference]

    def close(self) -> None:
        """Nothing to release."""

    def _array(self, reference: str) -> Output:
        found = self._shelf.find(reference)
        if found is None:
            raise ArrayNotFound(f"there is no data array {reference!r}; `windvane ls arrays` lists them")
        return found

    def _unlocked(self, reference: str) -> Output | None:
        found = self._shelf.outputs.get(reference)
        if found is not None and found.is_locked:
            raise StoreLocked(f"{reference} is being written; wait for it to end")
        return found


class MemoryListing(Listing):
    """Names are in memory anyway."""

    directories_read_total = 0

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def streams(self, *, after: str, limit: int, words: Sequence[str] = ()) -> Page:
        """The streams after a reference."""
        wanted = [word.casefold() for word in words]
        found = [each for each in self._store.streams() if all(word in each.casefold() for word in wanted)]
        return _page(found, after, limit)

    def arrays(self, *, after: str, limit: int) -> Page:
        """The arrays after a reference."""
        return _page(self._store.arrays(), after, limit)

    def may_have_array(self, reference: str, *, as_of_s: float | None = None) -> bool:
        """Whether it is there."""
        return self._store.array_uid(reference) is not None


def _page(references: Sequence[str], after: str, limit: int) -> Page:
    following = [each for each in references if each > after]
    return Page(following[:limit], more=len(following) > limit, matching=len(references))


def _check(reference: str, *, is_array: bool) -> None:
    stream, colon, output = reference.partition(":")
    if (
        not stream
        or bool(colon) != is_array
        or (colon and not 1 <= len(output.encode()) <= _MAX_OUTPUT_BYTES)
    ):
        raise ValueError(f"{reference!r} cannot name a data {'array' if is_array else 'stream'}")


def _as_json(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return MappingProxyType(json.loads(json.dumps(dict(attrs), allow_nan=False)))
    except TypeError as error:
        raise ValueError(f"attributes must be JSON: {error}") from error
