"""Finds rows that a reprocessing would lose: the current outputs have them, the new ones do not."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....errors import ArrayNotFound, StreamDamaged
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from ....store.interface import REBUILT, ArrayReader, StoreEngine
from ...operations.base.registry import is_built_in
from ...operations.base.steps import resolve_inputs
from ..pipeline.steps import FINGERPRINT_BYTES

_COMPARED_BYTES = 4 * 1024 * 1024


class LostRows(NamedTuple):
    """The losses of one output: `rows` of its `before` rows would be removed, or have NaN instead of a
    number.
    """

    output: str
    rows: int
    before: int
    what: str

    def __str__(self) -> str:
        return f"{self.rows:,} of {self.before:,} rows of {self.output} ({self.what})"


def lost_rows(
    store: StoreEngine,
    reference: str,
    policy: Policy,
    *,
    committed: StreamCheckpoint,
    made: Mapping[str, OutputLength],
    states: Mapping[str, bytes],
    has_failures: bool,
    kept_from_ns: int | None,
) -> list[LostRows]:
    """The losses by output, if those of `made` replaced the ones that are committed.

    Fewer rows are a loss if the step is the same as before, or if steps have failed on some of the archive
    (`has_failures`); another window, say, may give fewer. A step's own code can have changed too. Numbers
    that became NaN are searched in outputs of the same step that depend only on events and bytes: other steps
    may have learned since. Memory: `_COMPARED_BYTES` of both.

    `kept_from_ns` is set if retention has dropped the beginning of the archive: rows from this time on that
    are older than the first new row are lost, since they cannot be recomputed.
    """
    losses = []
    for step, source in zip(policy.pipeline, resolve_inputs(policy.pipeline), strict=True):
        output = f"{reference}:{step.name}"
        before = committed.outputs.get(output)
        if before is None:
            continue
        kept = before.length - _dropped(store, output, before)
        rows = made[output].length if output in made else 0
        same = is_built_in(step.operation) and _is_same(
            committed.states.get(step.name), states.get(step.name)
        )
        if kept_from_ns is not None and _has_uid(store, output, before):
            early, rest = _rows_around_first(store, output, kept_from_ns=kept_from_ns)
            if early:
                losses.append(LostRows(output, early, kept, "from before the archive begins"))
            elif rest > 0 and (same or has_failures):
                losses.append(LostRows(output, rest, kept, "gone"))
        elif rows < kept and (same or has_failures):
            losses.append(LostRows(output, kept - rows, kept, "gone"))
        elif (
            same
            and source in ("events", "bytes")
            and rows == before.length
            and (worse := _rows_with_new_nan(store, output))
        ):
            losses.append(LostRows(output, worse, kept, "with NaN for a number"))
    return losses


def _is_same(before: bytes | None, after: bytes | None) -> bool:
    return (before or b"")[:FINGERPRINT_BYTES] == (after or b"")[:FINGERPRINT_BYTES]


def _has_uid(store: StoreEngine, output: str, length: OutputLength) -> bool:
    return store.array_uid(output) == length.uid


def _rows_around_first(store: StoreEngine, output: str, *, kept_from_ns: int) -> tuple[int, int]:
    """Compares the rows of the output before and after the time of the first new row.

    Returns how many rows from `kept_from_ns` on are older than it, and how many rows the current output has
    after it more than the new one. Rows of the first event are left out: a window may have begun before it.
    """
    first_ns, new = np.iinfo(np.int64).max, 0
    with suppress(ArrayNotFound), store.array(output + REBUILT) as made:
        if len(made) > made.start:
            first_ns = int(made.times_ns[made.start])
            new = sum(int(np.count_nonzero(times > first_ns)) for times in _times(made))
    early = old = 0
    with store.array(output) as current:
        for times in _times(current):
            early += int(np.count_nonzero((times >= kept_from_ns) & (times < first_ns)))
            old += int(np.count_nonzero(times > first_ns))
    return early, old - new


def _times(array: ArrayReader) -> Iterator[NDArray[np.int64]]:
    step = _COMPARED_BYTES // 8
    for start in range(array.start, len(array), step):
        yield np.asarray(array.times_ns[start : start + step])


def _dropped(store: StoreEngine, output: str, length: OutputLength) -> int:
    """How many of its rows retention has dropped."""
    if not _has_uid(store, output, length):
        return 0
    try:
        with store.array(output) as array:
            return array.start
    except (ArrayNotFound, StreamDamaged, OSError):
        return 0


def _rows_with_new_nan(store: StoreEngine, output: str) -> int:
    worse = 0
    try:
        with store.array(output) as before, store.array(output + REBUILT) as after:
            if before.dtype.kind != "f" or before.shape != after.shape or before.dtype != after.dtype:
                return 0
            row_bytes = max(1, before.dtype.itemsize * int(np.prod(before.shape[1:])))
            step = max(1, _COMPARED_BYTES // row_bytes)
            for start in range(max(before.start, after.start), len(before), step):
                some = slice(start, start + step)
                new = np.isnan(after[some]) & ~np.isnan(before[some])
                worse += int(np.count_nonzero(new.reshape(len(new), -1).any(axis=1)))
    except (ArrayNotFound, StreamDamaged, OSError):
        return 0  # an unreadable array has no rows to lose
    return worse
