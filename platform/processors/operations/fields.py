"""`fields`: converts records to rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from ...errors import PolicyInvalid
from .base.block import Block, Events, EventTimes, Given
from .base.operation import Operation, operation
from .base.reach import Reach
from .timeline import BY_TIME, MAX_GAP_S, START, Timeline, TimelineState, Tolerance

MAX_FIELDS = 1024
"""Maximum columns that are found automatically; records with more fields need `fields`."""


@dataclass(frozen=True, slots=True)
class FieldsState:
    """What is kept between blocks.

    Attributes:
        columns: fixed permanently, None until a record has a number.
        rows: index of the next row.
        timeline: the state of the event times, if there is a rate.
    """

    columns: tuple[str, ...] | None
    rows: int
    timeline: TimelineState = START


@operation("fields")
class Fields(Operation):
    """Numeric fields of records, one float64 row an event: shape (n, columns).

    True and false count as 1 and 0; what is missing or not a number is NaN, and so is all of a record that is
    not a map. Without `fields`, the numeric fields of the first record that has any become the columns, in
    its order (at most 1,024), and earlier records give no rows. A null in that record counts as numeric:
    a sensor without a first value keeps its column. A row has the time of its event.

    With a rate, the rows are samples of a sensor, and their times show missing samples. Gaps between events
    split the output into several blocks, and late or repeated rows are dropped.

    Keeps the names of the columns, and the times of 16 gaps.
    """

    input = "events"
    output = "values"
    state_type = FieldsState

    def __init__(
        self,
        *,
        fields: list[str] | None = None,
        rate_hz: Annotated[float, Meta(gt=0)] | None = None,
        max_gap_s: Tolerance = MAX_GAP_S,
    ) -> None:
        """The fields, and the rate of events.

        Args:
            fields: names of top-level fields of the record, in the order of the columns.
            rate_hz: events per second, of a sensor that sends regularly; without it there are no gaps.
            max_gap_s: by how many seconds an event may come too late or too early without a gap.
        """
        if rate_hz is not None and not math.isfinite(rate_hz):
            raise PolicyInvalid(f"rate_hz cannot be {rate_hz}: give the events per second, or leave it out.")
        if fields is not None and (not fields or len(set(fields)) < len(fields)):
            raise PolicyInvalid(
                f"fields cannot be {fields}: name each field once, or leave it out for all numeric ones."
            )
        self._given = None if fields is None else tuple(fields)
        self._rate_hz = 0.0 if rate_hz is None else rate_hz
        self._timeline: Timeline | None = None
        if rate_hz is not None:
            self._timeline = Timeline(meaning="first", max_gap_s=max_gap_s, rate_hz=rate_hz)
        self._state = FieldsState(self._given, 0)

    def process(self, block: Events) -> Given:
        """Takes events; returns one row for each."""
        records, times_ns, columns, rows = (
            block.records,
            block.times_ns,
            self._state.columns,
            self._state.rows,
        )
        if columns is None:
            begin = next(
                (index for index, record in enumerate(records) if _numeric_fields(record)), len(records)
            )
            if begin == len(records):
                return None
            columns = _numeric_fields(records[begin])
            records, times_ns = records[begin:], times_ns[begin:]
        if not records:
            return None
        values = np.empty((len(records), len(columns)))
        maps = [record if isinstance(record, dict) else {} for record in records]
        for index, column in enumerate(columns):
            key = column.encode()
            values[:, index] = [_number(record.get(key)) for record in maps]
        attrs: dict[str, Any] = {"kind": self.output, "columns": list(columns)}
        if self._timeline is not None:
            attrs["rate_hz"] = self._rate_hz
        given = Block(
            rows=values,
            first=rows,
            times=EventTimes(np.arange(rows + 1, rows + len(values) + 1), np.array(times_ns, dtype=np.int64)),
            rate_hz=self._rate_hz,
            columns=columns,
            attrs=attrs,
        )
        if self._timeline is None:
            self._state = FieldsState(columns, given.stop)
            return given
        pieces, at = self._timeline.cut(given, self._state.timeline)
        self._state = FieldsState(columns, at.next_index, at)
        return pieces

    def counts(self) -> Mapping[str, int]:
        """Gaps, missing rows, and dropped rows; all 0 without a rate."""
        return Timeline.counts(self._state.timeline)

    def depends_on(self) -> Reach:
        """The event; times, and the first record with a number, can decide more."""
        step = Fraction(1) if self._timeline is None else None
        note = "" if self._timeline is None else BY_TIME
        if self._given is None:
            note = "; ".join(filter(None, (note, "the first record that has a number names the columns")))
        return Reach(1, step, "nothing", note)

    def state(self) -> FieldsState:
        """The columns, and the number of rows so far."""
        return self._state

    def restore(self, state: FieldsState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else FieldsState(self._given, 0)


def _numeric_fields(record: Any) -> tuple[str, ...]:
    if not isinstance(record, dict):
        return ()
    if not any(isinstance(value, (int, float)) and isinstance(key, bytes) for key, value in record.items()):
        return ()
    numeric = [
        key
        for key, value in record.items()
        if (value is None or isinstance(value, (int, float))) and isinstance(key, bytes)
    ]
    return tuple(name for key in numeric[:MAX_FIELDS] if (name := _text(key)) is not None)


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan
