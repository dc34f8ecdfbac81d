"""Streams for tests of operations: rows cut into events, events put into blocks, and all that comes out.

output = run(operation, whole(1000).blocks(samples, rate_hz=1000.0))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ..operations import Block, Events, EventTimes, Given, Operation, blocks_of, make_operation
from ..processors.operations.base.state_codec import decode_state, encode_state
from ..store.catalog.policy import Step

_SECOND_NS = 1_000_000_000


def operation_of_step(name: str, **parameters: Any) -> Operation:
    """A new operation as a step of a policy makes it. Raises PolicyInvalid for wrong parameters."""
    return make_operation(Step(operation=name, parameters=parameters))


@dataclass(frozen=True)
class Cut:
    """A cut of `length` rows: where each event ends, with its time, and after which events a block ends."""

    event_stops: list[int]
    times_ns: list[int]
    block_ends: list[int]

    def blocks(self, rows: NDArray[Any], *, rate_hz: float = 0.0, **more: Any) -> Iterator[Block]:
        """Blocks with at least one row; an event may be empty."""
        begin = 0
        for end in self.block_ends:
            first = self.event_stops[begin - 1] if begin else 0
            stop = self.event_stops[end - 1]
            times = EventTimes(np.array(self.event_stops[begin:end]), np.array(self.times_ns[begin:end]))
            if stop > first:
                yield Block(rows[first:stop], first, times, rate_hz, **more)
                begin = end

    def regrouped(self, block_ends: Iterable[int]) -> Cut:
        """The same events in other blocks."""
        inner = {end for end in block_ends if 0 < end < len(self.event_stops)}
        return Cut(self.event_stops, self.times_ns, [*sorted(inner), len(self.event_stops)])


def whole(length: int) -> Cut:
    """One event, one block."""
    return Cut([length], [_SECOND_NS], [1])


@st.composite
def cuts(draw: st.DrawFn, length: int, *, max_events: int = 12) -> Cut:
    """Any cut of `length` rows, with any times, not even in order."""
    stops = [*sorted(draw(st.lists(st.integers(0, length), max_size=max_events))), length]
    times = draw(st.lists(st.integers(0, 2**62), min_size=len(stops), max_size=len(stops)))
    ends = draw(st.sets(st.integers(1, len(stops)))) | {len(stops)}
    return Cut(stops, times, sorted(ends))


@dataclass(frozen=True)
class Output:
    """All that an operation gave for a stream: its rows, the event time of each in ns, and the blocks."""

    rows: NDArray[Any]
    times_ns: NDArray[np.int64]
    blocks: list[Block]

    def same_rows(self, other: Output) -> bool:
        """Whether the rows are equal to the last bit, with one dtype and shape."""
        return (
            self.rows.dtype == other.rows.dtype
            and self.rows.shape == other.rows.shape
            and (self.rows.tobytes() == other.rows.tobytes())
        )


def run(operation: Operation, blocks: Iterable[Block | Events], *, gaps: bool = False) -> Output:
    """All that the operation gives for the blocks.

    Each block of it is checked: it follows the one before (with `gaps`, rows may be missing between them),
    has rows and times that fit them, and the columns, rate and attributes of the first.
    """
    given = [block for taken in blocks for block in blocks_of(operation.process(taken))]
    return _together(given, gaps=gaps)


def run_with_restarts(
    make: Callable[[], Operation], blocks: Sequence[Block | Events], *, gaps: bool = False
) -> Output:
    """As `run`, with a new operation for each block, which resumes from the saved state of the one before."""
    given: list[Block] = []
    saved = None
    for index, block in enumerate(blocks):
        operation = make()
        operation.restore(None if saved is None else decode_state(type(operation), saved))
        result = operation.process(block)
        state = operation.state()
        # Work after a checkpoint is lost with the process, and must leave no trace in the state.
        for lost in blocks[index + 1 : index + 2]:
            operation.process(lost)
        saved = encode_state(type(operation), state)
        given += blocks_of(result)
    return _together(given, gaps=gaps)


def one(given: Given) -> Block:
    """The only block of what an operation gave."""
    [block] = blocks_of(given)
    return block


def firsts(output: Output) -> list[int]:
    """The index of each row in its stream: shape (n,)."""
    return [index for block in output.blocks for index in range(block.first, block.stop)]


def _together(given: list[Block], *, gaps: bool) -> Output:
    row = 0
    for block in given:
        assert block.first >= row if gaps else block.first == row
        assert len(block.rows) > 0
        assert block.times.ends[-1] == block.stop
        assert np.all(np.diff(block.times.ends, prepend=block.first) >= 0)
        assert (block.attrs, block.columns, block.rate_hz) == (
            given[0].attrs,
            given[0].columns,
            given[0].rate_hz,
        )
        row = block.stop
    if not given:
        return Output(np.empty(0), np.empty(0, np.int64), [])
    rows = np.concatenate([block.rows for block in given])
    return Output(rows, np.concatenate([block.row_times_ns for block in given]), given)
