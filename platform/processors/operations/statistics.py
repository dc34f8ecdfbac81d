"""`statistics`: mean, extremes and deviation per second, minute or ten minutes, as wind farms report them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from .base.block import Block, EventTimes
from .base.operation import Operation, operation
from .base.reach import Reach
from .framing import channel_names
from .moments import Measure, Moments

PART_ROWS = 4096
"""Rows whose moments are taken at once. Parts are counted from the beginning of a period, so that results do
not depend on the cutting into blocks."""
MAX_PARTS = 256
"""Parts whose moments are kept separately: merging many at once is faster than one by one."""
SET_BACK_EVENTS = 8
"""This number of consecutive past events, over a period or more, means that the clock was set back."""

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class StatisticsState:
    """What is kept between blocks.

    Attributes:
        columns: of the measured rows; None before the first row.
        period: the open period, counted in periods since 1970.
        moments: of its parts so far, at most 256; more are merged.
        part: shape (fewer than 4096, columns), its rows since then, unchanged.
        origin: period that has the number 0.
        behind: number of past events since the last accepted one, and the time of the first of them.
        late: number of dropped rows.
    """

    columns: tuple[str, ...] | None = None
    period: int = 0
    moments: Moments | None = None
    part: NDArray[Any] | None = None
    origin: int = 0
    behind: tuple[int, int] = (0, 0)
    late: int = 0


@operation("statistics")
class Statistics(Operation):
    """One row for each period of UTC (13:40:00 to 13:50:00) in which there are rows.

    A row belongs to the period in which the time of its event lies. A period is given when the first row of
    a later one comes, with its end as its time; the number of a row counts periods, so those without any row
    leave a gap. For each column of the source there are the `measures`, then `count`, the finite numbers in
    it, and `completeness`, their part of what the rate says (NaN without a rate). What is NaN or infinite
    does not count. `std` is divided by the count. Moments of parts are merged (Chan, Golub and LeVeque 1982;
    Pébay 2008), so a period may have any number of rows.

    Rows that come after their period was given are left out and counted as `late`; where 8 events of them
    and a period's time come in one piece, the clock was set back, and they are taken. A gap in the
    rows does not end a period: `completeness` shows it.

    Rows (n, columns) give float64 rows (m, columns * (measures + 2)). Keeps 4,096
    rows and the moments of 256 parts.

    ```toml
    [[policy.pipeline]]
    operation = "fields"
    rate_hz = 1.0

    [[policy.pipeline]]
    operation = "statistics"
    name = "ten_minutes"
    input = "fields"

    [[policy.pipeline]]
    operation = "statistics"
    name = "minutes"
    input = "fields"
    period_s = 60
    ```
    """

    input = "values"
    accepts = ("samples", "features")
    output = "features"
    state_type = StatisticsState

    def __init__(
        self,
        *,
        period_s: Annotated[float, Meta(ge=0.001, le=86_400)] = 600.0,
        measures: Annotated[list[Measure], Meta(min_length=1)] | None = None,
        rate_hz: Annotated[float, Meta(gt=0)] | None = None,
    ) -> None:
        """The measures and the period.

        Args:
            period_s: seconds of a period, which begins where the time since 1970 is a multiple of it.
            measures: of each column: min, mean, max, std (the default, in this order), rms, peak,
                peak_to_peak, crest, skewness, kurtosis.
            rate_hz: rows per second that there should be; by default what the source says.
        """
        self._measures: list[Measure] = ["min", "mean", "max", "std"] if measures is None else measures
        if len(set(self._measures)) < len(self._measures):
            raise PolicyInvalid(f"measures cannot be {self._measures}: name each once.")
        self._shape = not {"skewness", "kurtosis"}.isdisjoint(self._measures)
        self._period_s, self._period_ns = period_s, round(period_s * _NS_PER_S)
        self._rate_hz = rate_hz
        self._state = StatisticsState()

    def process(self, block: Block) -> tuple[Block, ...]:
        """Takes rows (n, columns); OperationFailed if columns change."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            return self._process(block)

    def _process(self, block: Block) -> tuple[Block, ...]:
        names = (*self._measures, "count", "completeness")
        columns = channel_names(block, names)
        state = self._state
        if state.columns not in (None, columns):
            raise OperationFailed(
                f"The columns changed to {', '.join(block.columns) or block.rows.shape[1]} within one "
                "stream: send those under another tag."
            )
        numbers: list[int] = []
        rows: list[NDArray[np.float64]] = []
        times_ns: list[int] = []
        per_period = self._period_s * (self._rate_hz or block.rate_hz)
        for event_rows, period, time_ns in self._runs(block):
            if state.columns is None:
                state = replace(state, columns=columns, period=period, origin=period)
            elif period < state.period and not self._set_back(state, time_ns):
                events, since_ns = state.behind
                behind = (events + 1, since_ns if events else time_ns)
                state = replace(state, behind=behind, late=state.late + len(event_rows))
                continue
            if period != state.period:
                numbers.append(state.period - state.origin)
                rows.append(self._measured(state, block.rows.shape[1], per_period))
                times_ns.append((state.period + 1) * self._period_ns)
                # Indices never decrease; if the clock does, one is skipped.
                origin = state.origin if period > state.period else period - numbers[-1] - 2
                state = replace(state, period=period, moments=None, part=None, origin=origin)
            state = _with(state, event_rows, shape=self._shape)
        self._state = state
        return tuple(self._blocks(block, columns, numbers, rows, times_ns))

    def counts(self) -> Mapping[str, int]:
        """Rows that arrived too `late` for their period."""
        return {"late": self._state.late}

    def depends_on(self) -> Reach:
        """The rows of the period, and the first one after it, which ends it."""
        return Reach(None, None, "nothing")

    def state(self) -> StatisticsState:
        """The open period."""
        return self._state

    def restore(self, state: StatisticsState | None) -> None:
        """Resumes from `state()`."""
        self._state = state if state is not None else StatisticsState()

    def _runs(self, block: Block) -> Iterator[tuple[NDArray[Any], int, int]]:
        """Rows of events that lie in one period, while the periods increase; else event by event."""
        periods = block.times.times_ns // self._period_ns
        starts = np.append(0, block.times.ends[:-1] - block.first)
        ends = block.times.ends - block.first
        if np.all(periods[1:] >= periods[:-1]) and (
            self._state.columns is None or periods[0] >= self._state.period
        ):
            begins = np.flatnonzero(np.diff(periods, prepend=periods[0] - 1))
        else:
            begins = np.arange(len(periods))
        stops = np.append(begins[1:], len(periods))
        for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
            rows = block.rows[starts[begin] : ends[stop - 1]]
            if len(rows):
                yield rows, int(periods[begin]), int(block.times.times_ns[begin])

    def _set_back(self, state: StatisticsState, time_ns: int) -> bool:
        events, since_ns = state.behind
        return events + 1 >= SET_BACK_EVENTS and time_ns - since_ns >= self._period_ns

    def _measured(self, state: StatisticsState, columns: int, per_period: float) -> NDArray[np.float64]:
        moments = state.moments or Moments.none(columns)
        if state.part is not None and len(state.part):
            moments = moments.with_more(Moments.of(state.part[np.newaxis], shape=self._shape))
        moments = moments.merged(shape=self._shape)
        count = moments.count[0]
        complete = count / per_period if per_period > 0 else np.full(columns, np.nan)
        measured = [moments.measure(name)[0] for name in self._measures]
        return np.stack([*measured, count, complete], axis=1).ravel()

    def _blocks(
        self,
        block: Block,
        columns: tuple[str, ...],
        numbers: list[int],
        rows: list[NDArray[np.float64]],
        times_ns: list[int],
    ) -> Iterator[Block]:
        if not rows:
            return
        apart = np.flatnonzero(np.diff(numbers) != 1) + 1
        for part in np.split(np.arange(len(numbers)), apart):
            first = numbers[part[0]]
            yield Block(
                rows=np.stack([rows[index] for index in part]),
                first=first,
                times=EventTimes(first + np.arange(1, len(part) + 1), np.array(times_ns)[part]),
                rate_hz=1 / self._period_s,
                columns=columns,
                attrs={
                    "kind": self.output,
                    "columns": list(columns),
                    "period_s": self._period_s,
                    "rate_hz": self._rate_hz or block.rate_hz,
                    "time": "end of period, UTC",
                    "unit": block.attrs.get("unit", ""),
                },
            )


def _with(state: StatisticsState, rows: NDArray[Any], *, shape: bool) -> StatisticsState:
    numbers = rows
    if state.part is not None and len(state.part):
        numbers = np.concatenate((state.part, rows))
    moments = state.moments or Moments.none(rows.shape[1])
    whole = len(numbers) // PART_ROWS * PART_ROWS
    parts = numbers[:whole].reshape(-1, PART_ROWS, rows.shape[1])
    taken = 0
    while taken < len(parts):
        more = parts[taken : taken + MAX_PARTS - len(moments.count)]
        moments = moments.with_more(Moments.of(more, shape=shape))
        taken += len(more)
        if len(moments.count) == MAX_PARTS:
            moments = moments.merged(shape=shape)
    return replace(state, moments=moments, part=numbers[whole:].copy(), behind=(0, 0))
