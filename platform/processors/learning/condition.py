"""`condition`: grades from healthy to warning to danger, and remaining useful life; without tuning.

docs/condition.md has the method with its formulas, its sources and its limits.
"""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from ...errors import OperationFailed, PolicyInvalid
from ..operations.base.block import Block, EventTimes
from ..operations.base.operation import Operation, operation
from ..operations.base.unpickling import unpickle
from .baseline import medians
from .monitor import FLOOR_COUNTS, Judgement, Monitor, Thresholds
from .monitored_columns import Watched
from .operating_time import RunningTime

MAX_GROUP_ROWS = 1024


@dataclass(slots=True)
class _Course:
    """A monitor, and the pending rows of the current interval."""

    monitor: Monitor
    next_row: int
    clock: RunningTime = field(default_factory=RunningTime)
    due_s: float = 0.0
    group: list[NDArray[np.float64]] = field(default_factory=list)

    def take(
        self, row: NDArray[np.float64], time_ns: int, rate_hz: float, interval_s: float, floor: float
    ) -> Judgement | None:
        """The judgement if this row completes an interval."""
        now_s = self.clock.advance(time_ns, rate_hz)
        if len(self.group) < MAX_GROUP_ROWS:
            self.group.append(row)
        if now_s < self.due_s:
            return None
        # Fixed intervals: counted from row to row, a row per second would miss every other one.
        self.due_s = (now_s // interval_s + 1) * interval_s
        middle = self.group[0] if len(self.group) == 1 else medians(np.array(self.group))
        self.group.clear()
        return self.monitor.take(middle, now_s, floor)


@dataclass(frozen=True, slots=True)
class ConditionState:
    """State between blocks: the number of the next output row, and everything learned."""

    given: int = 0
    course: _Course | None = None


@operation("condition")
class Condition(Operation):
    """Learns what healthy looks like, scores how far rows are from it, grades that, and looks ahead.

    Rows of shape (n, columns), such as features of windows or fields of records, give one float64 row for
    each `interval_s` of running time (for each row, if they are less frequent), with the columns

    - `score`: the deviation from health that 8 of the last 10 rows reach, in spreads of the leading column,
      or a rise of 20 dB in each of the last 3 rows, in least spreads. NaN while learning or at standstill. A
      spread of a level (`rms`) is at least 1 dB and of a band 2 dB: so 6 means that the level has doubled, 10
      that it is 3.2-fold, at least;
    - `grade`: 0 healthy, 1 warning, 2 danger; it falls by one where ten scores in a row are below two thirds
      of the threshold that raised it;
    - `phase`: 0 learning (this operating state), 1 watching, 2 degrading;
    - `state`: number of the operating state, in the order in which they were met;
    - `change`: 1 where a change point of the score was found;
    - `drift`: slope of the score over its last 60 rows, per hour of running;
    - `rul_s`, `rul_low_s`, `rul_high_s`: remaining useful life in seconds of running, and what it lies
      between with a chance of 80 %. `rul_s` is the 20 % quantile: four times in five it holds longer. NaN
      while the grade is 0;
    - `leading`: number of the column that deviates most, in the attribute `watched`; NaN while learning.

    Looked at are levels and bands, in decibels and upward only; if there are none, all columns, both ways.
    A row has the time of the last row that it was made of. NaN and levels of 0 count as missing, and so
    does infinity, but for levels and bands: there it is larger than all else.

    Keeps 12 operating states with 128 rows each, 210 rows of scores, and at most 1,024 rows of one interval;
    of at most 256 columns.
    """

    input = "features"
    accepts = ("values", "score")
    output = "condition"
    state_type = ConditionState

    def __init__(
        self,
        *,
        columns: list[str] | None = None,
        operating: list[str] | None = None,
        interval_s: Annotated[float, Meta(gt=0)] = 1.0,
        learn: Annotated[int, Meta(ge=10, le=100_000)] = 40,
        warning: Annotated[float, Meta(gt=0)] = 6.0,
        danger: Annotated[float, Meta(gt=0)] = 10.0,
        standstill: Annotated[float, Meta(ge=0)] | None = None,
    ) -> None:
        """All parameters are optional.

        Args:
            columns: to look at, by name or by the last part of it ("rms" is that of every channel).
            operating: columns that give the operating state of the machine, such as its speed: they define
                operating states; by default those with rpm, speed, power, load or torque as a word of their
                name. [] for none.
            interval_s: seconds of running that one row sums up, by medians.
            learn: intervals that are learned before the first score; up to four times as many, while what
                is learned still moves.
            warning: score from which the grade is 1.
            danger: score from which it is 2.
            standstill: level (`rms`, in the unit of the samples) up to which the machine stands still: by
                default 4 counts of the converter if `pcm` or `wav` decode integers of 16 bits or more right
                before `features`, else none. 0 for none.
        """
        if not warning < danger < np.inf:
            raise PolicyInvalid(f"danger is {danger:g}, and must be above warning, which is {warning:g}.")
        self._columns, self._operating = columns, operating
        self._interval_s, self._learn = interval_s, learn
        self._thresholds = Thresholds(warning, danger)
        self._standstill = standstill
        self._course: _Course | None
        self._given: int
        self.restore(None)

    def process(self, block: Block) -> Block | None:
        """Takes rows (n, columns); OperationFailed if columns change, or named columns are missing."""
        course = self._follow(block)
        watched = course.monitor.watched
        rows = watched.finite(np.array(block.rows[:, watched.taken], dtype=np.float64))
        times_ns = block.row_times_ns
        floor = FLOOR_COUNTS * block.resolution if self._standstill is None else self._standstill
        given, places = [], []
        for place, time_ns in enumerate(times_ns.tolist()):
            row = course.take(rows[place], time_ns, block.rate_hz, self._interval_s, floor)
            if row is not None:
                given.append(row)
                places.append(place)
        course.next_row = block.stop
        if not given:
            return None
        first, self._given = self._given, self._given + len(given)
        return Block(
            rows=np.array(given),
            first=first,
            times=EventTimes(np.arange(first + 1, self._given + 1), times_ns[places]),
            columns=Judgement._fields,
            attrs={
                "kind": self.output,
                "columns": list(Judgement._fields),
                "watched": [watched.names[index] for index in watched.indices],
                "operating": [watched.names[index] for index in watched.operating],
                "interval_s": self._interval_s,
                "warning": self._thresholds.warning,
                "danger": self._thresholds.danger,
            },
        )

    def _follow(self, block: Block) -> _Course:
        """The course after the block; changes nothing if the block is rejected."""
        names = block.columns or tuple(f"column{index}" for index in range(block.rows.shape[1]))
        if self._course is None:
            watched = Watched.of(names, self._columns, self._operating)
            self._course = _Course(Monitor(watched, self._thresholds, self._learn), block.first)
        known = self._course.monitor.watched.names
        if known != names:
            raise OperationFailed(
                f"The condition of {', '.join(known)} is watched, and now come {', '.join(names)}: give what "
                "has other columns a tag, or a step, of its own."
            )
        if block.first != self._course.next_row:
            # No interval is joined over a gap, and the gap shows in the output.
            self._course.group.clear()
            self._given += 1
        return self._course

    def state(self) -> ConditionState:
        """A copy of everything learned, which later blocks do not change."""
        return ConditionState(self._given, _copied(self._course))

    def restore(self, state: ConditionState | bytes | None) -> None:
        """Resumes from `state()`, which may be a pickle: earlier versions returned one."""
        if isinstance(state, bytes):
            given, course = unpickle(state)
            state = ConditionState(given, _complete(course))
        state = state or ConditionState()
        self._given, self._course = state.given, _copied(state.course)


def _copied(value: Any) -> Any:
    """A copy with its own lists and objects; arrays are shared, as this module never writes into one."""
    if isinstance(value, list | deque):
        new: Any = copy.copy(value)
        for index, each in enumerate(value):
            if not isinstance(each, np.ndarray | float | int):
                new[index] = _copied(each)
        return new
    if is_dataclass(value) and not isinstance(value, type) and not _is_frozen(value):
        new = copy.copy(value)
        for each in fields(value):
            setattr(new, each.name, _copied(getattr(value, each.name)))
        return new
    return value


def _is_frozen(value: Any) -> bool:
    return bool(value.__dataclass_params__.frozen)


def _complete(course: _Course | None) -> _Course | None:
    """Sets center and spread of references, which earlier versions left unset while learning."""
    for reference in course.monitor._states.references if course else ():
        for name in ("center", "spread"):
            if not hasattr(reference, name):
                setattr(reference, name, np.empty(0))
    return course
