"""Extends the pyramids of a worker's arrays, in a thread of its own, behind the checkpoints."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from ...errors import ArrayNotFound, RangeGone, StoreLocked
from ...store.databases.checkpoint_records import OutputLength
from ...store.interface import ArrayReader, PyramidWriter, StoreEngine
from ...store.pyramid.cells import FACTOR
from ...store.pyramid.dropped_rows import first_row_since

WORTHWHILE_ROWS = 4096
WORTHWHILE_BYTES = 1024 * 1024
"""A pyramid is extended when checkpoints have committed so many more rows, or so many bytes of them, and at
least 64 rows. Fewer are read as rows: so an array with few rows has no files for it, and many slow arrays
cost nothing at a checkpoint."""

AT_ONCE_BYTES = 64 * 1024 * 1024
"""An array that is behind catches up by so many bytes of rows at a time, in turn with the others."""

SYNC_AFTER_S = 15.0
"""If no checkpoint has synced the store for so long, the thread does, so that readers can use the cells."""

MOST_KNOWN_ARRAYS = 100_000
"""Arrays of which the progress is in memory, about 500 bytes each; others are looked at again."""

_STOP_TIMEOUT_S = 5.0


@dataclass(slots=True)
class _Progress:
    """How far the pyramid of an array is; `worthwhile_rows` is None if it cannot have one.

    `complete` is the length of each level; `unmarked` are lengths that are complete since `complete_s`
    (monotonic), and not known to be durable.
    """

    uid: bytes
    worthwhile_rows: int | None
    covered_rows: int = 0
    complete: Sequence[int] = ()
    unmarked: Sequence[int] | None = None
    complete_s: float = 0.0


class Pyramids:
    """One thread that extends pyramids up to the committed rows; a checkpoint never waits for it.

    Cells become visible to readers when a sync of the store has succeeded that began after they were
    complete: that of a later checkpoint, or one of this thread. An error concerns one array, and is reported;
    the array is retried after the next checkpoint.

    Memory: blocks of 4 MiB, and `_Progress` of MOST_KNOWN_ARRAYS.
    """

    def __init__(
        self,
        store: StoreEngine,
        failed: Callable[[str, Exception], None],
        *,
        kept_since_ns: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        """`failed` is called with the reference of an array and an error, in this thread.

        `kept_since_ns` gives the time from which on cells are kept, though rows were dropped; None: none are.
        """
        self._store = store
        self._kept_since_ns = kept_since_ns
        self._failed = failed
        self._condition = threading.Condition()
        self._waiting: dict[str, OutputLength] = {}
        self._synced_s = float("-inf")
        self._closed = False
        self._known: OrderedDict[str, _Progress] = OrderedDict()
        self._unmarked: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="pyramids", daemon=True)

    def start(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def committed(self, outputs: Sequence[Mapping[str, OutputLength]], *, began_s: float) -> None:
        """A commit, which began to sync the store after `began_s` (monotonic), covers these outputs."""
        arrays = {
            reference: length for each in outputs for reference, length in each.items() if ":" in reference
        }
        with self._condition:
            self._waiting.update(arrays)
            self._synced_s = began_s
            self._condition.notify()

    def covered_rows(self, reference: str) -> int:
        """How many rows of an array the pyramid covers, durable or not; 0 if this is not known."""
        known = self._known.get(reference)
        return known.covered_rows if known is not None else 0

    def close(self) -> None:
        """Stop the thread, after the blocks that it is computing."""
        with self._condition:
            self._closed = True
            self._condition.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closed or self._waiting, self._wait_s())
                waiting, self._waiting = self._waiting, {}
                synced_s = self._synced_s
            for reference, length in waiting.items():
                if self._closed:
                    return
                self._try(reference, partial(self._extend, reference, length, synced_s))
            self._mark_idle(synced_s)
            if self._closed:
                return

    def _wait_s(self) -> float | None:
        return SYNC_AFTER_S if self._unmarked else None

    def _try(self, reference: str, work: Callable[[], None]) -> None:
        try:
            work()
        except (ArrayNotFound, RangeGone, StoreLocked):
            # Replaced, or dropped, just now; or another worker has the stream now.
            self._forget(reference)
        except Exception as error:
            self._forget(reference)
            self._failed(reference, error)

    def _extend(self, reference: str, length: OutputLength, synced_s: float) -> None:
        known = self._known.get(reference)
        if known is not None and known.uid != length.uid:
            self._forget(reference)
            known = None
        if not _is_worthwhile(known, length.length):
            return
        with self._store.array(reference) as array:
            if array.uid != length.uid:
                return
            known = known or _Progress(array.uid, _worthwhile_rows(array))
            self._remember(reference, known)
            if not _is_worthwhile(known, length.length):
                return
            writer = self._store.pyramid_writer(array, committed_rows=length.length, complete=known.complete)
            if writer is None:
                known.worthwhile_rows = None
                return
            with writer as pyramid:
                self._mark(reference, known, pyramid, synced_s)
                pyramid.drop_before(self._first_row(array))
                at_once = max(FACTOR, AT_ONCE_BYTES // array.row_bytes)
                stop = min(length.length, pyramid.covered_rows + at_once)
                pyramid.extend(stop)
                known.complete, covered_rows = pyramid.lengths, pyramid.covered_rows
        if known.unmarked is None:
            self._note_complete(reference, known)
        known.covered_rows = covered_rows
        if stop < length.length:
            with self._condition:
                self._waiting.setdefault(reference, length)

    def _first_row(self, array: ArrayReader) -> int:
        """The first row of which cells are kept."""
        if not array.start:
            return 0
        since_ns = self._kept_since_ns(array.reference)
        return array.start if since_ns is None else first_row_since(array, since_ns)

    def _mark(self, reference: str, known: _Progress, pyramid: PyramidWriter, synced_s: float) -> None:
        """Mark what the sync that began at `synced_s` has made durable."""
        if known.unmarked is not None and known.complete_s < synced_s:
            marked, known.unmarked = known.unmarked, None
            pyramid.mark_durable(marked)
            self._unmarked.discard(reference)
            if marked != known.complete:
                self._note_complete(reference, known)

    def _note_complete(self, reference: str, known: _Progress) -> None:
        known.unmarked, known.complete_s = known.complete, time.monotonic()
        self._unmarked.add(reference)

    def _mark_idle(self, synced_s: float) -> None:
        """Mark the cells of arrays that no checkpoint has extended since they were complete."""
        now_s = time.monotonic()
        overdue = [each for each in self._unmarked if now_s - self._known[each].complete_s >= SYNC_AFTER_S]
        if any(self._known[each].complete_s >= synced_s for each in overdue):
            try:
                self._store.sync()
            except OSError as error:  # the next checkpoint reports it, and the worker ends
                self._failed(overdue[0], error)
                return
            synced_s = now_s
        for reference in overdue:
            self._try(reference, partial(self._mark_one, reference, synced_s))

    def _mark_one(self, reference: str, synced_s: float) -> None:
        known = self._known[reference]
        with self._store.array(reference) as array:
            writer = None
            if array.uid == known.uid:
                writer = self._store.pyramid_writer(array, committed_rows=len(array), complete=known.complete)
            if writer is None:
                self._forget(reference)
                return
            with writer as pyramid:
                self._mark(reference, known, pyramid, synced_s)

    def _remember(self, reference: str, known: _Progress) -> None:
        self._known[reference] = known
        self._known.move_to_end(reference)
        if len(self._known) > MOST_KNOWN_ARRAYS:
            forgotten, _ = self._known.popitem(last=False)
            self._unmarked.discard(forgotten)

    def _forget(self, reference: str) -> None:
        self._known.pop(reference, None)
        self._unmarked.discard(reference)


def _worthwhile_rows(array: ArrayReader) -> int:
    return min(WORTHWHILE_ROWS, max(FACTOR, WORTHWHILE_BYTES // array.row_bytes))


def _is_worthwhile(known: _Progress | None, rows: int) -> bool:
    if known is None:
        return rows >= FACTOR
    return known.worthwhile_rows is not None and rows - known.covered_rows >= known.worthwhile_rows
