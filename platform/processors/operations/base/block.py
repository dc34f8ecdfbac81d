"""The data that steps of a pipeline exchange: blocks of rows, and decoded events.

Block boundaries carry no meaning: an operation returns the same rows, with the same times, for any cutting.
So a block has its position in the stream (`first`), and the times of its rows are stored per event, not per
row: a chunk of a million samples that arrived in ten events has ten times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EventTimes:
    """The event that completed each row.

    Event `j` completed the rows from `ends[j - 1]` (or the block's first row) up to, not including,
    `ends[j]`; a row has the time of the event that completed it. Indices are global: counted since the stream
    of rows began.

    Attributes:
        ends: int64 of shape (k,), non-decreasing.
        times_ns: int64 of shape (k,), event times in ns since the epoch, UTC.
    """

    ends: NDArray[np.int64]
    times_ns: NDArray[np.int64]

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Event times in ns of global row indices; IndexError for a row that no event here completed."""
        times: NDArray[np.int64] = self.times_ns[np.searchsorted(self.ends, rows, side="right")]
        return times

    def of_completed(self, first: int, last_sources: NDArray[np.int64]) -> EventTimes:
        """Times of derived rows `first`, `first + 1`, …, each complete with the source row `last_sources[i]`.

        Args:
            first: global index of the first derived row.
            last_sources: int64 of shape (n,), n >= 1, increasing: global indices of source rows.
        """
        events = np.searchsorted(self.ends, last_sources, side="right")
        last_of_event = np.append(np.flatnonzero(events[1:] != events[:-1]), len(events) - 1)
        return EventTimes(first + last_of_event + 1, self.times_ns[events[last_of_event]])

    def of_counts(self, first: int, ends: NDArray[np.int64]) -> EventTimes:
        """Times of derived rows: event `j` completed those below `ends[j]`; events that completed none are
        dropped.

        Args:
            first: global index of the first derived row.
            ends: int64 of shape (k,), non-decreasing, one for each event here: the new global ends.
        """
        gave_rows = np.diff(ends, prepend=first) > 0
        return EventTimes(ends[gave_rows], self.times_ns[gave_rows])


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of one stream of rows.

    Attributes:
        rows: shape (n, *row_shape), n >= 1. Bytes are uint8 of shape (n,), samples (n, channels), values and
            features (n, columns), spectra (n, bins) or (n, channels, bins). May be a read-only view; do
            not write into it.
        first: global index of `rows[0]`, counted since this stream of rows began. A block that does not begin
            at the end of the previous one follows a gap: rows are never joined over it.
        times: event times of the rows.
        rate_hz: rows per second; 0.0 if there is no rate.
        columns: names along the last axis; () if they have none.
        attrs: permanent description of the rows, JSON-serializable; becomes the data array's attributes.
        resolution: the smallest step of the samples that the rows are or derive from, in their unit: one
            count of a converter of 16 bits or more; 0 if unknown, as after a step that changes samples.
    """

    rows: NDArray[Any]
    first: int
    times: EventTimes
    rate_hz: float = 0.0
    columns: tuple[str, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    resolution: float = 0.0

    @property
    def stop(self) -> int:
        """Global index one past the last row."""
        return self.first + len(self.rows)

    @property
    def row_times_ns(self) -> NDArray[np.int64]:
        """Event time of each row in ns, int64 of shape (n,), as a data array stores it with its rows."""
        return self.times.at(np.arange(self.first, self.stop))


Given = Block | tuple[Block, ...] | None
"""The output of an operation for a block: nothing, a block, or several with gaps between their rows."""


def blocks_of(given: Given) -> tuple[Block, ...]:
    """The blocks of an operation's output, none to several, with read-only rows.

    Raises TypeError for any other value.
    """
    if given is None:
        return ()
    blocks = (given,) if isinstance(given, Block) else tuple(given)
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(f"an operation gave {block!r:.80}; give a Block, a tuple of them, or None")
    return tuple(map(_readable, blocks))


def _readable(block: Block) -> Block:
    """Several steps may take the same block."""
    if not block.rows.flags.writeable:
        return block
    rows = block.rows.view()  # the operation may continue to use its output
    rows.flags.writeable = False
    return replace(block, rows=rows)


@dataclass(frozen=True, slots=True)
class Events:
    """Decoded events of one stream, in order.

    Attributes:
        times_ns: event times in ns since the epoch, UTC.
        records: one for each time, as decoded by msgpack, text and binary both as bytes.
    """

    times_ns: list[int]
    records: list[Any]
