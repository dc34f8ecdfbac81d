"""Computes the rows of a stream's arrays again and compares them with the stored ones, bit by bit.

A row that cannot be computed again is never counted as equal: `reason` of its array says why.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

from ....errors import ArrayNotFound, OperationFailed, RangeGone, StreamDamaged
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.interface import ArrayReader, StoreEngine
from ....store.row_origin import RowOrigin
from ....store.selection.first_rows import FirstRowsOfArray
from ...operations.base.steps import resolve_inputs
from .row_origin import TRAINED, origin_of
from .row_replay import KnownPolicies, ReplayedRows, RowReplay, same_rows


@dataclass(slots=True)
class Recomputed:
    """The result for one array.

    `rows` were compared, of `rows_total` that the checkpoint covers and that are kept. `different` counts
    those that differ; `first` is the origin of the first of them. `reason` says why rows could not be
    compared; "" if all that were wanted could.
    """

    array: str
    rows_total: int
    rows: int = 0
    different: int = 0
    first: RowOrigin | None = None
    reason: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether all rows that were wanted are equal."""
        return not self.different and not self.reason


@dataclass(slots=True)
class _Comparison:
    """An array that is being compared; `rows` of it, all if None, in ascending order."""

    array: ArrayReader
    result: Recomputed
    rows: list[int] | None
    generation: int = 0
    made: int = 0


def recompute(
    store: StoreEngine,
    stream: str,
    committed: StreamCheckpoint | None,
    policies: KnownPolicies,
    *,
    arrays: Collection[str] = (),
    sample: int | None = None,
    seed: int = 0,
    each_chunk: Callable[[int], object] = lambda _: None,
) -> list[Recomputed]:
    """Compares the arrays of a stream, or those of them that are named, with rows that are computed again.

    With `sample`, as many rows of each array are compared, chosen by `seed`; the replay ends with the last of
    them. Memory: one chunk, and the state of the operations. Raises StreamNotFound, and ArrayNotFound for an
    array that no checkpoint covers.
    """
    committed = committed or StreamCheckpoint()
    wanted = sorted(arrays) or sorted(each for each in committed.outputs if ":" in each)
    comparisons = {each.partition(":")[2]: _opened(store, each, committed) for each in wanted}
    if not comparisons:
        return []
    try:
        for comparison in comparisons.values():
            if sample is not None:
                comparison.rows = _sampled(comparison, sample, random.Random(seed))
        try:
            with RowReplay(store, stream, committed, policies, wanted=comparisons) as replay:
                _compare(replay, comparisons, each_chunk, ends_early=sample is not None)
                _note_missing(replay, comparisons)
        except (RangeGone, OperationFailed, StreamDamaged) as error:
            for comparison in comparisons.values():
                comparison.result.reason = str(error)
    finally:
        for comparison in comparisons.values():
            comparison.array.close()
    return [comparison.result for comparison in comparisons.values()]


def _opened(store: StoreEngine, reference: str, committed: StreamCheckpoint) -> _Comparison:
    length = committed.outputs.get(reference)
    array = store.array(reference)
    if length is None or length.uid != array.uid:
        array.close()
        raise ArrayNotFound(f"{reference} is in no checkpoint yet; try again in a few seconds")
    return _Comparison(
        FirstRowsOfArray(array, length.length), Recomputed(reference, length.length - array.start), None
    )


def _sampled(comparison: _Comparison, count: int, chance: random.Random) -> list[int]:
    rows = range(comparison.array.start, len(comparison.array))
    return sorted(chance.sample(rows, min(count, len(rows))))


def _compare(
    replay: RowReplay,
    comparisons: Mapping[str, _Comparison],
    each_chunk: Callable[[int], object],
    *,
    ends_early: bool,
) -> None:
    may_start_over = len(replay.changes) > 1
    for rows in replay.rows(each_chunk):
        comparison = comparisons.get(rows.step)
        if comparison is None:  # another step depends on it
            continue
        if rows.array != comparison.generation:  # the worker began another array here
            comparison.generation = rows.array
            comparison.result = Recomputed(comparison.array.reference, comparison.result.rows_total)
        comparison.made = rows.first + len(rows.block.rows)
        for part in _parts(comparison, rows):
            _compare_part(replay, comparison, part)
        if ends_early and not may_start_over and all(map(_is_done, comparisons.values())):
            return


def _is_done(comparison: _Comparison) -> bool:
    return comparison.rows is not None and comparison.result.rows == len(comparison.rows)


def _parts(comparison: _Comparison, rows: ReplayedRows) -> list[ReplayedRows]:
    if comparison.rows is None:
        return [rows]
    stop = rows.first + len(rows.block.rows)
    chosen = comparison.rows[bisect_left(comparison.rows, rows.first) : bisect_left(comparison.rows, stop)]
    return [rows.part(row, row + 1) for row in chosen]


def _compare_part(replay: RowReplay, comparison: _Comparison, rows: ReplayedRows) -> None:
    result, array = comparison.result, comparison.array
    found = same_rows(array, rows)
    result.rows += found.compared
    result.different += found.different
    if found.first is not None and result.first is None:
        result.first = origin_of(replay, array, rows, found.first)


def _note_missing(replay: RowReplay, comparisons: Mapping[str, _Comparison]) -> None:
    """Adds to each result the reason why rows were not compared, or why some that differ are not counted."""
    for step, comparison in comparisons.items():
        result = comparison.result
        wanted = result.rows_total if comparison.rows is None else len(comparison.rows)
        trained = trained_step(replay.policy, step)
        if trained is not None and result.different:
            first = result.first.row if result.first is not None else 0
            comparison.result = replace(
                result,
                different=0,
                first=None,
                rows=result.rows - result.different,
                reason=f"{result.different:,} rows, from row {first} on, cannot be computed again: they used "
                f"models of step {trained!r}, which were trained meanwhile, and when each of them was taken "
                "is not recorded",
            )
        elif result.rows < wanted:
            causes = "; ".join(f"step {name!r} failed now: {error}" for name, error in replay.failed.items())
            result.reason = (
                f"the archive gives {comparison.made:,} rows, so {wanted - result.rows:,} were not compared"
                + (f" ({causes})" if causes else "")
            )


def trained_step(policy: Policy, step: str) -> str | None:
    """The step, of those that `step` depends on and itself, whose models are trained meanwhile."""
    sources = dict(zip((s.name for s in policy.pipeline), resolve_inputs(policy.pipeline), strict=True))
    operations = {each.name: each.operation for each in policy.pipeline}
    while step in sources:
        if operations[step] == TRAINED:
            return step
        step = sources[step]
    return None
