"""Detects missing, late and repeated samples from the times of events and the rate of the rows.

An event's time is that of its first or of its last row, and the rows of an event lie 1 / rate apart. So each
event predicts the begin of the next one. One that begins later by more than a tolerance follows a gap; one
that begins earlier by more than that contains late or repeated rows. Each event is measured against the one
before it, not against the first of all: a sensor's clock that runs 50 ppm slow is 4 s behind after a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from .base.block import Block, EventTimes

EventTimeMeaning = Literal["ignore", "first", "last"]
"""Meaning of an event's time: unrelated to the samples, or the time of its first or last sample."""
Tolerance = Annotated[float, Meta(ge=0)]
MAX_GAP_S = 0.05
"""Default tolerance: over the jitter of clocks read in software, under the length of most senders' events."""

REMEMBERED_GAPS = 16
"""Number of recent gaps, which distinguish late rows from repeated ones."""
SET_BACK_S, SET_BACK_EVENTS = 60.0, 8
"""This much consecutive past data means that the sender's clock was set back."""
MAX_MISSING = 2**48
"""Maximum rows that one gap can skip: clocks can have any value, and an index must stay within int64."""

BY_TIME = "event times decide where rows are missing, late or repeated"
"""The note of a `Reach` over rows that were cut at gaps in time."""

_NS_PER_S = 1_000_000_000
# Years 1824 to 2116: the difference of any two times is within int64.
_MAX_NS = 2**62


@dataclass(frozen=True, slots=True)
class TimelineState:
    """What is kept between blocks.

    Attributes:
        next_index: of the next row if none is missing.
        next_ns: expected time of that row; None before the first event.
        begin_ns: time of the first row of all, or since the clock was set back.
        gaps: (begin, end) in ns of the latest 16 gaps.
        behind: rows and events dropped since the last accepted one.
        counts: since the stream began; see `Timeline.counts`.
    """

    next_index: int = 0
    next_ns: int | None = None
    begin_ns: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    behind: tuple[int, int] = (0, 0)
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)


START = TimelineState()
"""Before the first event."""


class Timeline:
    """Cuts blocks at gaps in their event times, and drops rows that lie in the past.

    After a gap the index of rows jumps by the number of missing rows, at least one: index / rate remains the
    time. Late events would fill an earlier gap, or precede the first row; repeated events cover a time that
    already has rows. Either would break the order of time for all later rows, so their rows are dropped and
    counted; the data stream keeps them. If such events span a minute in succession, and are at least 8, the
    clock was set back: they are accepted, after a gap of one row.

    Keeps the times of 16 gaps.
    """

    def __init__(self, *, meaning: Literal["first", "last"], max_gap_s: float, rate_hz: float) -> None:
        self._last = meaning == "last"
        self._rate_hz = rate_hz
        # Less than half a row is not a gap, whatever the tolerance.
        self._tolerance_ns = max(max_gap_s, 0.5 / rate_hz) * _NS_PER_S

    def cut(
        self, block: Block, before: TimelineState, *, torn: bool = False
    ) -> tuple[tuple[Block, ...], TimelineState]:
        """The block in pieces without a gap, with indices by time; and the state after it.

        Args:
            block: rows with the events that brought them; its own index is ignored.
            before: the state before it.
            torn: whether rows are known to be missing before it, such as rows that could not be decoded.
        """
        ends = block.times.ends - block.first
        sizes = np.diff(ends, prepend=0)
        begins_ns, stops_ns = self._spans(sizes, block.times.times_ns)
        state, pieces, event, torn_here = before, [], 0, torn and before.next_ns is not None
        while event < len(ends):
            expected = state.next_ns
            late_ns = 0.0 if expected is None else float(int(begins_ns[event]) - expected)
            if late_ns < -self._tolerance_ns and not self._set_back(state, int(sizes[event])):
                stop = self._end_of_past(event, begins_ns, sizes, state)
                state = self._left_out(state, begins_ns[event:stop], sizes[event:stop])
                event = stop
                continue
            if abs(late_ns) > self._tolerance_ns or torn_here:
                state = self._behind_gap(state, int(begins_ns[event]), late_ns)
                torn_here = False
            stop = self._end_of_run(event, begins_ns, stops_ns)
            first_row, last_row = int(ends[event] - sizes[event]), int(ends[stop - 1])
            first = state.next_index
            pieces.append(
                replace(
                    block,
                    rows=block.rows[first_row:last_row],
                    first=first,
                    times=EventTimes(ends[event:stop] - first_row + first, block.times.times_ns[event:stop]),
                )
            )
            state = replace(
                state,
                next_index=first + last_row - first_row,
                next_ns=int(stops_ns[stop - 1]),
                begin_ns=int(begins_ns[event]) if expected is None else state.begin_ns,
                behind=(0, 0),
            )
            event = stop
        return tuple(pieces), state

    @staticmethod
    def counts(state: TimelineState) -> Mapping[str, int]:
        """`gaps`, `missing` rows in them, and rows dropped as `late` or `repeated`."""
        return dict(zip(("gaps", "missing", "late", "repeated"), state.counts, strict=True))

    def _spans(
        self, sizes: NDArray[np.int64], times_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The time of each event's first row, and the expected time of the next event's first row."""
        row_ns = _NS_PER_S / self._rate_hz
        times_ns = np.clip(times_ns, -_MAX_NS, _MAX_NS)
        begins = times_ns - _whole((sizes - 1) * row_ns) if self._last else times_ns
        begins = np.clip(begins, -_MAX_NS, _MAX_NS)
        return begins, np.clip(begins + _whole(sizes * row_ns), -_MAX_NS, _MAX_NS)

    def _end_of_run(self, event: int, begins_ns: NDArray[np.int64], stops_ns: NDArray[np.int64]) -> int:
        """The first event after `event` that does not continue the previous one."""
        apart = np.abs((begins_ns[event + 1 :] - stops_ns[event:-1]).astype(np.float64)) > self._tolerance_ns
        return event + 1 + int(np.argmax(apart)) if apart.any() else len(begins_ns)

    def _set_back(self, state: TimelineState, size: int) -> bool:
        rows, events = state.behind
        return events + 1 >= SET_BACK_EVENTS and rows + size > SET_BACK_S * self._rate_hz

    def _end_of_past(
        self, event: int, begins_ns: NDArray[np.int64], sizes: NDArray[np.int64], state: TimelineState
    ) -> int:
        """The first event after `event` to accept or to examine again."""
        assert state.next_ns is not None
        past = (begins_ns[event:] - state.next_ns).astype(np.float64) < -self._tolerance_ns
        rows = state.behind[0] + np.cumsum(sizes[event:])
        events = state.behind[1] + np.arange(1, len(rows) + 1)
        past &= (events < SET_BACK_EVENTS) | (rows <= SET_BACK_S * self._rate_hz)
        return event + int(np.argmin(past)) if not past.all() else len(begins_ns)

    def _left_out(
        self, state: TimelineState, begins_ns: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> TimelineState:
        late = begins_ns < state.begin_ns
        for begin_ns, end_ns in state.gaps:
            late |= (begins_ns >= begin_ns - self._tolerance_ns) & (begins_ns < end_ns)
        late_rows, rows = int(sizes[late].sum()), int(sizes.sum())
        gaps, missing, late_before, repeated = state.counts
        return replace(
            state,
            behind=(state.behind[0] + rows, state.behind[1] + len(sizes)),
            counts=(gaps, missing, late_before + late_rows, repeated + rows - late_rows),
        )

    def _behind_gap(self, state: TimelineState, begin_ns: int, late_ns: float) -> TimelineState:
        assert state.next_ns is not None
        missing = max(1, round(min(late_ns / _NS_PER_S * self._rate_hz, float(MAX_MISSING))))
        gaps, missing_before, late, repeated = state.counts
        set_back = late_ns < -self._tolerance_ns
        return replace(
            state,
            next_index=state.next_index + missing,
            begin_ns=begin_ns if set_back else state.begin_ns,
            gaps=() if set_back else (*state.gaps, (state.next_ns, begin_ns))[-REMEMBERED_GAPS:],
            counts=(gaps + 1, missing_before + missing, late, repeated),
        )


def _whole(duration_ns: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Rounded and limited to 73 years, so that times stay within int64 for any rate."""
    whole: NDArray[np.int64] = np.rint(np.minimum(duration_ns, 2.0**61)).astype(np.int64)
    return whole
