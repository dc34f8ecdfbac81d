"""The content of a store, page by page, by the names of its directories: no stream or array is opened."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..interface.listing import Listing, Page
from .names import directory_name, is_made, names_in, quote, reference_of, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_KNOWN_DIRECTORIES = 4_096
"""Streams whose arrays' names are cached."""

_SETTLED_NS = 2_000_000_000
"""A directory may change again within the tick of the clock that its time of change shows."""


class StoreListing(Listing):
    """The names in a store, read again only when the time of change of their directory differs.

    A page costs one stat(2) for the store, and one for each of its entries. References of hashed names are
    read once. Any thread may call.

    Memory: the references, and the arrays' names of MAX_KNOWN_DIRECTORIES streams.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._streams = _Known()
        self._references: dict[str, str] = {}
        self._sorted: list[str] = []
        self._arrays: OrderedDict[str, _Known] = OrderedDict()
        self.directories_read_total = 0

    def streams(self, *, after: str, limit: int, words: Sequence[str] = ()) -> Page:
        """At most `limit` streams whose references follow `after` and contain each of `words`,
        in any case.
        """
        references = self._stream_references()
        wanted = [word.casefold() for word in words]
        if wanted:
            references = [each for each in references if all(word in each.casefold() for word in wanted)]
        page: list[str] = []
        for index in range(bisect_right(references, after) if after else 0, len(references)):
            if is_made(self._root / directory_name(references[index]) / "stream"):
                if len(page) == limit:
                    return Page(page, more=True, matching=len(references))
                page.append(references[index])
        return Page(page, more=False, matching=len(references))

    def arrays(self, *, after: str, limit: int) -> Page:
        """At most `limit` arrays whose references follow `after`; `matching` counts no further than these."""
        page: list[str] = []
        # By `stream:`, as arrays are ordered: "a.b:x" is before "a:x", though "a" is before "a.b".
        streams = sorted(self._stream_references(), key=_array_prefix)
        begin = bisect_right(streams, after, key=_array_prefix)
        if begin and after.startswith(_array_prefix(streams[begin - 1])):
            begin -= 1
        for stream in streams[begin:]:
            directory = self._root / directory_name(stream) / "arrays"
            for name in sorted(names_in(directory), key=unquote):
                reference = f"{stream}:{unquote(name)}"
                if reference > after and is_made(directory / name):
                    if len(page) == limit:
                        return Page(page, more=True, matching=len(page))
                    page.append(reference)
        return Page(page, more=False, matching=len(page))

    def may_have_array(self, reference: str, *, as_of_s: float | None = None) -> bool:
        """Whether there is a directory for the array `reference`, which may still be in the making.

        Directories that were looked at since `as_of_s` (of time.monotonic()) are not looked at again, so that
        many arrays cost one stat(2) for each stream. None: now.
        """
        as_of_s = time.monotonic() if as_of_s is None else as_of_s
        stream, _, output = reference.partition(":")
        try:
            name = directory_name(stream)
        except UnicodeEncodeError:  # half of a surrogate pair names nothing
            return False
        with self._lock:
            if self._streams.looked_s < as_of_s:
                self._refresh_streams()
            if name not in self._streams.names:
                return False
            known = self._arrays.setdefault(name, _Known())
            self._arrays.move_to_end(name)
            if known.looked_s < as_of_s:
                self._refresh(known, self._root / name / "arrays")
            if len(self._arrays) > MAX_KNOWN_DIRECTORIES:
                self._arrays.popitem(last=False)
            return quote(output) in known.names

    def _stream_references(self) -> list[str]:
        with self._lock:
            self._refresh_streams()
            return self._sorted

    def _refresh_streams(self) -> None:
        # A hashed name without its reference is a stream in the making: it is looked for again.
        if not self._refresh(self._streams, self._root) and len(self._references) == len(self._streams.names):
            return
        kept = {name: self._references[name] for name in self._streams.names & self._references.keys()}
        for name in self._streams.names - kept.keys():
            reference = reference_of(self._root / name)
            if reference is not None:
                kept[name] = reference
        self._references = kept
        self._sorted = sorted(kept.values())

    def _refresh(self, known: _Known, directory: Path) -> bool:
        """Reads the directory again if it may have changed; whether its names differ now."""
        known.looked_s = time.monotonic()
        try:
            changed_ns = os.stat(directory).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            changed_ns = None
        if known.settled and changed_ns == known.changed_ns:
            return False
        now_ns = time.time_ns()
        names = frozenset(names_in(directory))
        self.directories_read_total += 1
        differs = names != known.names
        known.names, known.changed_ns = names, changed_ns
        known.settled = changed_ns is not None and now_ns - changed_ns > _SETTLED_NS
        return differs


class _Known:
    """The names in a directory as of `changed_ns`; not `settled`: it may have changed without a new time."""

    def __init__(self) -> None:
        self.names: frozenset[str] = frozenset()
        self.changed_ns: int | None = None
        self.settled = False
        self.looked_s = -1.0


def _array_prefix(stream: str) -> str:
    return f"{stream}:"
