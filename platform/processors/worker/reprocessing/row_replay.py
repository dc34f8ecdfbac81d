"""Computes the rows of a stream's arrays again, as the worker did: from the archive, and its history.

The worker may have processed the stream by several pipelines, one after the other: the states of steps that
stayed the same were passed on, and an array whose description changed was started over. The history of the
stream says by which policies, and the replay does the same. Rows that were given before the history begins
are taken to be of its first policy.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from ....errors import OperationFailed, RangeGone, StreamNotFound
from ....store.catalog.policy import Policy, Step
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.databases.stream_history import PipelineChange
from ....store.interface import ArrayReader, StoreEngine
from ...operations.base.block import Block, Events
from ...operations.base.steps import make_operation, resolve_inputs
from ..pipeline.pipeline_changes import policy_digest
from ..pipeline.steps import RunningSteps, last_policy
from .archive_replay import recorded_inputs
from .row_trace import RowTrace


class KnownPolicy(NamedTuple):
    """A policy as it was at one of its revisions; `revision` is None if the catalog does not have it."""

    revision: int | None
    policy: Policy


KnownPolicies = Mapping[bytes, KnownPolicy]
"""Revisions of policies, by the digest that histories of streams name."""


class ReplayedRows(NamedTuple):
    """Rows of a step: `first` is the number of the first one in the step's array.

    `array` counts the arrays that the step has begun. `chunk` is the number of the chunk that completed them.
    """

    step: str
    array: int
    first: int
    block: Block
    chunk: int

    def part(self, start: int, stop: int) -> "ReplayedRows":
        """The rows from `start` to `stop` of the array."""
        begin, block = start - self.first, self.block
        rows = block.rows[begin : stop - self.first]
        return self._replace(first=start, block=replace(block, rows=rows, first=block.first + begin))


class _Output:
    """The array of one step, as far as it was replayed."""

    def __init__(self) -> None:
        self.array = 0
        self.rows = 0
        self.described: tuple[Any, ...] | None = None
        self.reopened = True

    def place(self, block: Block) -> tuple[int, int]:
        """Where the rows of the block go: which array, and the number of the first row."""
        shape = (block.rows.dtype, block.rows.shape[1:])
        described = (*shape, dict(block.attrs))
        before = self.described
        # As the worker: the attributes are compared when the array is opened.
        if before is not None and (before[:2] != shape or (self.reopened and before != described)):
            self.array, self.rows = self.array + 1, 0
            self.described = None
        if self.described is None or self.reopened:
            self.described = described
        self.reopened = False
        first, self.rows = self.rows, self.rows + len(block.rows)
        return self.array, first


class RowReplay:
    """The replay of one stream, up to its checkpoint. Memory: one chunk, and the state of the operations.

    Attributes:
        stream: the archive.
        committed: the checkpoint.
        trace: follows rows back to the input.
        failed: the last error of each step that failed.
        change: which pipeline runs now, and since which chunk.
        policy: its policy.
    """

    def __init__(
        self,
        store: StoreEngine,
        reference: str,
        committed: StreamCheckpoint,
        policies: KnownPolicies,
        *,
        wanted: Collection[str] = (),
    ) -> None:
        """Only the steps `wanted`, and those that they depend on, run; all if there are none.

        Raises StreamNotFound, RangeGone if the beginning was dropped, OperationFailed if a policy is unknown.
        """
        self.committed = committed
        self._policies = policies
        self._wanted = frozenset(wanted)
        self.stream = store.stream(reference)
        self.failed: dict[str, str] = {}
        length = committed.outputs.get(reference)
        if length is None or length.uid != self.stream.uid:
            self.stream.close()
            raise StreamNotFound(
                f"{reference} has no checkpoint yet; a worker makes it a few seconds after its first chunk"
            )
        self.stop_chunk = length.chunks
        self.changes = self._changes()
        self._require_kept(self.changes[0][0].chunk)
        self.change, self.policy = self.changes[0]
        self._outputs: dict[str, _Output] = {}
        self.trace: RowTrace
        self._steps: RunningSteps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def _changes(self) -> list[tuple[PipelineChange, Policy]]:
        last = last_policy(self.committed.states)
        history = self.committed.history.of_stream(self.stream.uid).pipelines
        begun = max((at for at, each in enumerate(history) if each.begins == "outputs"), default=0)
        changes = list(history[begun:])
        if last is None:
            raise OperationFailed(f"{self.stream.reference} was processed by no pipeline yet")
        if not changes:  # the checkpoint is of a version without histories
            changes = [PipelineChange(0, last.reference, policy_digest(last), {})]
        if changes[0].begins != "outputs":
            changes[0] = changes[0]._replace(chunk=0)
        found = []
        for change in changes:
            is_last = change is changes[-1] or change.digest == policy_digest(last)
            known = KnownPolicy(None, last) if is_last else self._policies.get(change.digest)
            if known is None:
                raise OperationFailed(
                    f"{self.stream.reference} was processed by a revision of policy {change.policy!r} that "
                    f"the catalog no longer keeps, from chunk {change.chunk} on: its rows cannot be computed "
                    "again. `windvane reprocess` computes all rows by the current policy"
                )
            found.append((change, known.policy))
        return found

    def _require_kept(self, first_chunk: int) -> None:
        arrivals = self.stream.arrivals
        kept = arrivals.start
        while kept < len(arrivals) and int(arrivals[kept]["offset"]) < self.stream.start:
            kept += 1
        if kept > first_chunk:
            raise RangeGone(
                f"the bytes of {self.stream.reference} before {self.stream.start} are no longer kept, and "
                "its rows are computed from the first byte on: they cannot be computed again"
            )

    @property
    def first_byte(self) -> int:
        """The first byte of the stream that the rows are computed from."""
        return int(self.stream.arrivals[self.changes[0][0].chunk]["offset"])

    @property
    def revision(self) -> int | None:
        """The revision of the present policy; None if the catalog does not keep it."""
        known = self._policies.get(self.change.digest)
        return None if known is None else known.revision

    @property
    def source_of(self) -> Mapping[str, str]:
        """The input of each step that runs."""
        return self._steps.source_of

    def rows(self, each_chunk: Callable[[int], object] = lambda _: None) -> Iterator[ReplayedRows]:
        """Yields the rows of all kept steps that run; `each_chunk` is called with the bytes so far.

        While a result is handled, `trace` can follow its rows back.
        """
        states: Mapping[str, bytes] = {}
        for number, (change, policy) in enumerate(self.changes):
            more = self.changes[number + 1 :]
            stop = min(more[0][0].chunk, self.stop_chunk) if more else self.stop_chunk
            self.change, self.policy = change, policy
            self._open(policy, {} if change.begins else states)
            yield from self._rows_of_pipeline(change, stop, each_chunk)
            if more:
                states = self._steps.states()

    def _open(self, policy: Policy, states: Mapping[str, bytes]) -> None:
        running = with_steps(policy, self._wanted)
        self._steps = RunningSteps(running, states)
        problems = [self._steps.broken, *self._steps.unusable.values()]
        for problem in filter(None, problems):
            raise OperationFailed(f"the pipeline of policy {policy.reference!r} cannot run: {problem}")
        steps = {step.name: step for step in running.pipeline}
        if hasattr(self, "trace"):
            self.trace.continue_with(self._steps.source_of, lambda name: make_operation(steps[name]))
        else:
            self.trace = RowTrace(self._steps.source_of, lambda name: make_operation(steps[name]))
        for output in self._outputs.values():
            output.reopened = True

    def _rows_of_pipeline(
        self, change: PipelineChange, stop: int, each_chunk: Callable[[int], object]
    ) -> Iterator[ReplayedRows]:
        inputs = recorded_inputs(
            self.stream,
            self.policy,
            self._steps.sources,
            first_chunk=change.chunk,
            stop_chunk=stop,
            failed=self._failed,
        )
        before, event = -1, 0
        for chunk, given in inputs:
            if chunk != before:
                each_chunk(int(self.stream.arrivals[chunk]["offset"]))
                before, event = chunk, first_event(self.stream.arrivals, chunk)
            self.trace.begin_pass(event)
            events = given.get("events")
            event += len(events.records) if isinstance(events, Events) else 0
            for step, keep, block in self._steps.run(given, failed=self._failed, observer=self.trace):
                if keep:
                    output = self._outputs.setdefault(step, _Output())
                    yield ReplayedRows(step, *output.place(block), block, chunk)

    def _failed(self, step: str, error: Exception) -> None:
        self.failed[step] = str(error) or repr(error)
        self.trace.failed(step)


def first_event(arrivals: Any, chunk: int) -> int:
    """The number of the first event of a chunk, counted since the stream began."""
    return int(arrivals[chunk - 1]["events_total"]) if chunk > arrivals.start else 0


def with_steps(policy: Policy, wanted: Collection[str]) -> Policy:
    """The policy with those steps alone, and what they depend on."""
    sources = dict(zip((s.name for s in policy.pipeline), resolve_inputs(policy.pipeline), strict=True))
    if not wanted:
        return policy
    needed: set[str] = set()
    for name in wanted:
        source = name
        while source in sources:
            needed.add(source)
            source = sources[source]
    # Their inputs are named: the nearest step of a kind may be left out.
    steps = [_reading(step, sources[step.name]) for step in policy.pipeline if step.name in needed]
    return Policy(reference=policy.reference, format=policy.format, field=policy.field, pipeline=tuple(steps))


def _reading(step: Step, source: str) -> Step:
    return msgspec.structs.replace(step, input=source)


class Compared(NamedTuple):
    """Rows that were compared, how many of them differ, and the number of the first that does."""

    compared: int
    different: int
    first: int | None


def same_rows(array: ArrayReader, rows: ReplayedRows) -> Compared:
    """Compares rows, and their times, with those of the array, bit by bit; with those that the array has."""
    block = rows.block
    start, stop = max(rows.first, array.start), min(rows.first + len(block.rows), len(array))
    if stop <= start:
        return Compared(0, 0, None)
    part = slice(start - rows.first, stop - rows.first)
    found, times = array[start:stop], array.times_ns[start:stop]
    expected = block.rows[part]
    if (expected.dtype, expected.shape) != (found.dtype, found.shape):
        return Compared(stop - start, stop - start, start)
    different = (_bytes_of(expected) != _bytes_of(found)).any(axis=1) | (block.row_times_ns[part] != times)
    count = int(np.count_nonzero(different))
    return Compared(stop - start, count, start + int(np.argmax(different)) if count else None)


def _bytes_of(rows: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
