"""What every operation must do: `OperationConformance`, and `SampleConformance` for operations on samples.

A test module subclasses one of them and gives the fixture `make_operation`:

    class TestDifference(SampleConformance):
        @pytest.fixture
        def make_operation(self) -> MakeOperation:
            return lambda: operation_of_step("difference")
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray

from ..operations import Block, Events, Operation, blocks_of
from ..processors.operations.base.state_codec import decode_state, encode_state, is_typed
from .streams import Cut, cuts, firsts, operation_of_step, run, run_with_restarts, whole

__all__ = ["MakeOperation", "OperationConformance", "SampleConformance", "operation_of_step"]

MakeOperation: TypeAlias = Callable[[], Operation]
"""Makes one more operation, always with the same parameters."""

# A fixture gives a function that makes operations, and subclasses share the tests: neither keeps anything.
# Of several failures the first is raised, an AssertionError: an author fixes one at a time.
_of_any_stream = settings(
    max_examples=25,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class OperationConformance:
    """How a stream is cut changes no row, a restart changes no row, input stays unchanged, memory is bounded.

    Override `rows`, or `blocks` for an operation on events, if it does not take samples of two channels.
    """

    rate_hz: ClassVar[float] = 1000.0
    """Of the blocks."""
    max_rows: ClassVar[int] = 400
    """Of a stream that is cut."""
    dtypes: ClassVar[tuple[DTypeLike, ...]] = (np.int16, np.float32, np.float64)
    """Of the rows, one for each stream."""
    max_state_bytes: ClassVar[int] = 1 << 20
    """Of the saved state, however long the stream is."""
    max_growth_bytes: ClassVar[int] = 1 << 16
    """Of memory, over a stream that is five times as long as one that has filled the state."""

    @pytest.fixture
    def make_operation(self) -> MakeOperation:
        """Give a function that makes a new operation each time."""
        raise NotImplementedError("the subclass gives the fixture make_operation")

    def rows(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        """The first `count` rows of a stream, for any count the same: shape (count, *row_shape)."""
        noise = np.random.default_rng(0).standard_normal((count, 2)) * 50 + 3
        return noise.astype(dtype)

    def blocks(self, cut: Cut, dtype: DTypeLike = np.float64) -> Iterator[Block | Events]:
        """A stream of `cut.event_stops[-1]` rows, in the blocks of the cut."""
        return cut.blocks(self.rows(cut.event_stops[-1], dtype), rate_hz=self.rate_hz)

    @given(data=st.data())
    @_of_any_stream
    def test_no_cut_and_no_restart_changes_a_row(
        self, make_operation: MakeOperation, data: st.DataObject
    ) -> None:
        count = data.draw(st.integers(1, self.max_rows))
        dtype = data.draw(st.sampled_from(self.dtypes))
        cut = data.draw(cuts(count))
        expected = run(make_operation(), self.blocks(whole(count), dtype))
        blocks = list(self.blocks(cut, dtype))
        output = run(make_operation(), blocks)
        restarted = run_with_restarts(make_operation, blocks)
        assert output.same_rows(expected), "rows depend on how the stream is cut into blocks"
        assert restarted.same_rows(expected), "rows depend on a restart: state() is incomplete"
        assert output.times_ns.tolist() == restarted.times_ns.tolist(), "a restart changes the times of rows"
        assert set(output.times_ns.tolist()) <= set(cut.times_ns), "a row has a time that no event has"

    def test_a_restored_state_is_saved_as_the_same_bytes(self, make_operation: MakeOperation) -> None:
        operation = make_operation()
        for block in self.blocks(_even(self.max_rows, 7)):
            operation.process(block)
            if not is_typed(type(operation)):
                pytest.skip("its states are pickled: equal states can have different bytes")
            saved = encode_state(type(operation), operation.state())
            restored = make_operation()
            restored.restore(decode_state(type(operation), saved))
            assert encode_state(type(operation), restored.state()) == saved

    def test_its_input_stays_unchanged(self, make_operation: MakeOperation) -> None:
        operation = make_operation()
        for block in self.blocks(_even(self.max_rows, 7)):
            if isinstance(block, Block):
                block.rows.setflags(write=False)
            blocks_of(operation.process(block))

    def test_memory_is_bounded(self, make_operation: MakeOperation) -> None:
        operation = make_operation()
        stream = iter(list(self.blocks(_even(250 * self.max_rows, 100))))
        self._process(operation, islice(stream, 200))
        tracemalloc.start()
        try:
            self._process(operation, islice(stream, 40))
            before_bytes, _ = tracemalloc.get_traced_memory()
            self._process(operation, stream)
            after_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after_bytes - before_bytes <= self.max_growth_bytes

    def _process(self, operation: Operation, blocks: Iterable[Block | Events]) -> None:
        for block in blocks:
            operation.process(block)
            state_bytes = len(encode_state(type(operation), operation.state()))
            assert state_bytes <= self.max_state_bytes, "the state grows with the stream"


class SampleConformance(OperationConformance):
    """Also for operations on samples that treat channels alike, and join nothing over a gap."""

    @given(before=st.integers(1, 250), missing=st.integers(1, 2000), after=st.integers(1, 250))
    @_of_any_stream
    def test_nothing_is_joined_over_a_gap(
        self, make_operation: MakeOperation, before: int, missing: int, after: int
    ) -> None:
        samples = self.rows(before + after, np.float64)
        first, second = Cut([before, before + after], [1, 2], [1, 2]).blocks(samples, rate_hz=self.rate_hz)
        moved = replace(second.times, ends=second.times.ends + missing)
        output = run(
            make_operation(), [first, replace(second, first=before + missing, times=moved)], gaps=True
        )
        alone = [
            run(make_operation(), whole(len(part)).blocks(part, rate_hz=self.rate_hz)).rows
            for part in (samples[:before], samples[before:])
        ]
        alone = [rows for rows in alone if len(rows)]
        same = output.rows.tobytes() == b"".join(rows.tobytes() for rows in alone)
        assert same, "rows depend on what is before the gap"
        if len(alone) == 2:
            assert firsts(output)[len(alone[0])] > len(alone[0]), "the gap does not show in the output"

    def test_each_channel_is_as_if_it_were_alone(self, make_operation: MakeOperation) -> None:
        samples = self.rows(2000, np.float64)
        (block,) = whole(2000).blocks(samples, rate_hz=self.rate_hz)
        together = run(make_operation(), [block]).rows
        for channel in range(2):
            alone = run(make_operation(), [replace(block, rows=samples[:, [channel]])]).rows
            part = together[:, channel] if together.ndim == 3 else np.split(together, 2, axis=1)[channel]
            same = part.tobytes() == alone.tobytes()
            assert same, f"rows of channel {channel} depend on the other channel"


def _even(count: int, block_rows: int) -> Cut:
    """Blocks of that many rows, each of one event."""
    stops = [*range(block_rows, count, block_rows), count]
    return Cut(stops, list(range(len(stops))), list(range(1, len(stops) + 1)))
