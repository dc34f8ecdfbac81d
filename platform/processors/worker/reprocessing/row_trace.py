"""Follows rows of a pipeline back to its input, while a stored stream is replayed.

An operation says how many input rows a row is computed from (`Reach`), but not which: gaps, late samples and
failed chunks shift them. So the trace finds the input row that completes a row by bisection: from the state
before the block, the first rows of the block are processed, and fewer of them, until one more completes the
row. This is exact because cutting a block changes no row. The rows that an earlier row of the same range
depends on lie `step` input rows earlier, or, if that varies, in or after the block that gave it.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...operations.base.block import Block, Events, EventTimes, blocks_of
from ...operations.base.operation import Operation
from ...operations.base.reach import Reach
from ..pipeline.steps import StepObserver, partial_output

REMEMBERED_INPUTS = 4096
"""How many inputs of a step are remembered: which rows went in, which came out."""

SOURCES = ("bytes", "events")


class Range(NamedTuple):
    """Rows `start` to `stop` of a step; or bytes of the stream, or events, counted since it began."""

    start: int
    stop: int


_NOTHING = Range(0, 0)


@dataclass(slots=True)
class Traced:
    """What a row depends on.

    `direct` is what it was computed from, besides what operations have kept for long; `all` is everything it
    depends on. Both are ranges of `source`. `widened` names the steps by which `all` is larger, with what
    they depend on; `notes` has what else has an influence, by step. `steps` are those that the row came
    through, its own first.
    """

    source: str = ""
    direct: Range = _NOTHING
    all: Range = _NOTHING
    widened: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)


class _Input(NamedTuple):
    """One input of a step: its rows, and the rows that it gave (-1 if none), by global index."""

    start: int
    stop: int
    first_given: int
    stop_given: int


@dataclass(slots=True, eq=False)
class _Run:
    """Input without a gap: its first row, and the first row that was given of it since a failure."""

    since: int
    first_given: int | None = None


@dataclass(slots=True, eq=False)
class _Processed:
    """An input of a step in this pass, with what is needed to process it again."""

    state: Any
    data: Block | Events
    start: int
    run: _Run
    blocks: Sequence[Block] = ()

    @property
    def size(self) -> int:
        return len(self.data.records) if isinstance(self.data, Events) else len(self.data.rows)


class _Step:
    """What is remembered of a step."""

    def __init__(self) -> None:
        self.next_input: int | None = None
        self.run = _Run(0)
        self.inputs: deque[_Input] = deque(maxlen=REMEMBERED_INPUTS)
        self.processed: list[_Processed] = []
        self.reach = Reach()


class RowTrace(StepObserver):
    """Observes the steps of a replay; `trace` follows a row of the last pass back.

    Memory: the states before the inputs of one pass, and `REMEMBERED_INPUTS` numbers of each step.
    """

    def __init__(self, source_of: dict[str, str], new_operation: Callable[[str], Operation]) -> None:
        """`source_of` has the input of each step; `new_operation` makes the operation of a step."""
        self._source_of = source_of
        self._new_operation = new_operation
        self._steps = {name: _Step() for name in source_of}
        self._first_event = 0

    def continue_with(self, source_of: dict[str, str], new_operation: Callable[[str], Operation]) -> None:
        """Another pipeline processes what follows, from the states of this one."""
        self._source_of, self._new_operation = source_of, new_operation
        self._steps = {name: self._steps.get(name, _Step()) for name in source_of}

    def begin_pass(self, first_event: int) -> None:
        """The next inputs are those of one pass, whose events are counted from `first_event` on."""
        self._first_event = first_event
        for step in self._steps.values():
            step.processed = []

    def before(self, step: str, operation: Operation, data: Block | Events) -> None:
        """See `StepObserver`."""
        start = self._first_event if isinstance(data, Events) else data.first
        try:
            state = operation.state()
        except BaseException:  # of an operation that is not ours
            state = None
        known = self._steps[step]
        if known.next_input != start:
            known.run = _Run(start)
        known.processed.append(_Processed(state, data, start, known.run))

    def after(self, step: str, operation: Operation, blocks: Sequence[Block]) -> None:
        """See `StepObserver`."""
        known = self._steps[step]
        done = known.processed[-1]
        done.blocks = blocks
        stop = done.start + done.size
        known.next_input = stop
        first = min((block.first for block in blocks), default=-1)
        known.inputs.append(_Input(done.start, stop, first, max((b.stop for b in blocks), default=-1)))
        if known.run.first_given is None and blocks:
            known.run.first_given = first
        known.reach = _reach_of(operation)

    def failed(self, step: str) -> None:
        """The step has failed: its next rows are not a fixed number of input rows after those before."""
        if step in self._steps:
            self._steps[step].run = _Run(self._steps[step].run.since)

    def trace(self, step: str, row: int) -> Traced:
        """What the row with this global index depends on; a row that the step gave in this pass."""
        traced = Traced()
        direct = everything = Range(row, row + 1)
        while step not in SOURCES:
            known = self._steps[step]
            reach = known.reach
            traced.steps.append(step)
            if reach.note:
                traced.notes[step] = reach.note
            done = self._processed(step, everything.stop - 1)
            low, high = self._completing(step, done, everything.stop - 1)
            direct = Range(self._begin(step, direct, low, done.run), high + 1)
            start = self._begin(step, everything, low, done.run)
            if reach.earlier == "since gap":
                start = done.run.since if start >= done.run.since else 0
            elif reach.earlier == "all":
                start = 0
            if reach.earlier != "nothing":
                traced.widened[step] = reach.earlier
            everything = Range(start, high + 1)
            step = self._source_of[step]
        traced.source, traced.direct, traced.all = step, direct, everything
        return traced

    def describe(self, step: str) -> str:
        """How far back the step looks, for users."""
        reach = self._steps[step].reach
        unit = {"bytes": "bytes", "events": "events"}.get(
            self._source_of[step], f"rows of {self._source_of[step]}"
        )
        if reach.earlier == "all":
            return f"all earlier {unit}"
        if reach.earlier == "since gap":
            return f"all {unit} since the last gap"
        if reach.rows is None:
            return f"the {unit} since the row before"
        return f"{reach.rows:,} {unit}"

    def _begin(self, step: str, rows: Range, completed_at: int, run: _Run) -> int:
        """The first input row that these rows are computed from; `completed_at`, which is of `run`, completes
        the last of them.
        """
        reach = self._steps[step].reach
        if reach.rows is None:
            return self._completing_before(step, rows.start)
        if rows.stop - rows.start == 1:
            completing = completed_at
        elif reach.step is not None and run.first_given is not None and rows.start >= run.first_given:
            completing = completed_at - math.ceil((rows.stop - 1 - rows.start) * reach.step)
        else:
            completing = self._completing_earlier(step, rows.start)
        start = completing - reach.rows + 1
        return max(start, run.since if completing >= run.since else 0)

    def _completing_earlier(self, step: str, row: int) -> int:
        """An input row at or before the one that completes `row`."""
        known = self._steps[step]
        for done in known.processed:
            if _has(done.blocks, row):
                return self._completing(step, done, row)[0]
        for each in known.inputs:
            if each.stop_given > row:
                return each.start if len(known.inputs) < REMEMBERED_INPUTS or each.first_given <= row else 0
        return 0

    def _completing_before(self, step: str, row: int) -> int:
        """An input row at or before the one that completes the row before `row`."""
        known = self._steps[step]
        for done in reversed(known.processed):
            before = [block for block in done.blocks if block.first < row]
            if before:
                return self._completing(step, done, min(row, before[-1].stop) - 1)[0]
        for earlier in reversed(known.inputs):
            if 0 <= earlier.first_given < row:
                return earlier.start
        return 0

    def _processed(self, step: str, row: int) -> _Processed:
        return next(each for each in self._steps[step].processed if _has(each.blocks, row))

    def _completing(self, step: str, done: _Processed, row: int) -> tuple[int, int]:
        """The input row that completes `row`, which `done` gave: at least the first, at most the second."""
        reach, blocks = self._steps[step].reach, done.blocks
        is_row_by_row = reach.rows == reach.step == 1 and len(blocks) == 1
        if is_row_by_row and len(blocks[0].rows) == done.size:
            at = done.start + row - blocks[0].first
            return at, at
        exact = None if reach.whole_events else self._bisect(step, done, row, None)
        if exact is None and isinstance(done.data, Block):
            ends = done.data.times.ends - done.start
            exact = self._bisect(step, done, row, ends[(ends > 0) & (ends <= done.size)])
        low, high = exact or (0, done.size - 1)
        return done.start + low, done.start + high

    def _bisect(self, step: str, done: _Processed, row: int, ends: Any) -> tuple[int, int] | None:
        """The first and last row between the two ends at which `row` is not given yet, and is given.

        `ends` are where the input may be cut, everywhere if None. Returns None if it cannot be cut there.
        """
        count = done.size if ends is None else len(ends)
        low, high = 0, count  # with `low` of the pieces the row is not given, with `high` it is
        while high - low > 1:
            middle = (low + high) // 2
            size = middle if ends is None else int(ends[middle - 1])
            operation = self._new_operation(step)
            try:
                operation.restore(done.state)
                given = blocks_of(operation.process(_first_rows(done.data, size)))
            except BaseException as error:
                given = partial_output(error)
                if not given:
                    return None
            low, high = (low, middle) if _has(given, row) else (middle, high)
        if count == 0:
            return None
        if ends is None:
            return high - 1, high - 1
        return (int(ends[low - 1]) if low else 0), int(ends[high - 1]) - 1


def _has(blocks: Sequence[Block], row: int) -> bool:
    return any(block.first <= row < block.stop for block in blocks)


def _first_rows(data: Block | Events, count: int) -> Block | Events:
    if isinstance(data, Events):
        return Events(data.times_ns[:count], data.records[:count])
    stop = data.first + count
    events = int(np.searchsorted(data.times.ends, stop, side="left")) + 1
    times = EventTimes(np.minimum(data.times.ends[:events], stop), data.times.times_ns[:events])
    return replace(data, rows=data.rows[:count], times=times)


def _reach_of(operation: Operation) -> Reach:
    try:
        reach = operation.depends_on()
    except BaseException:  # of an operation that is not ours
        return Reach()
    return reach if isinstance(reach, Reach) else Reach()
