"""The alarms of one data stream: derived from the output rows of its steps, with evidence.

A `condition` step grades each of its rows itself. An alarm rule of the policy grades the values of a column
(`transitions.py`). All state is a function of rows and event times, and part of the stream's checkpoint. So
rows that are processed again after a crash give the same events, with the same references and numbers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from ...bus.messages.alarms import alarm_part
from ...bus.messages.results import ResultPart
from ...bus.topic_names import alarms_topic
from ...errors import WindvaneError
from ...runtime.instrumentation import EventLog
from ...store.catalog.alarm_rules import AlarmRule
from ...store.catalog.alarms import AlarmEvent, Transition, alarm_reference
from ...store.catalog.policy import Policy
from ...store.databases.checkpoint_records import StreamCheckpoint
from ...store.interface import ArrayWriter, StoreEngine
from ..operations.base.block import Block
from .evidence import Evidence, EvidenceSource
from .instrumentation import EvidenceNotRead, RuleNotApplicable
from .transitions import AlarmStateMachine, OpenAlarm, Peak, PeakTracker, ThresholdGrades

WINDOW_ROWS = 10
"""The evidence of an alarm begins this many rows before the one that raised it: a score covers as many."""

_log = EventLog(logging.getLogger("windvane.worker"))


class _AlarmState(msgspec.Struct):
    """The state of one step or rule: 10 times, and a few numbers. `row` and `time_ns` are the last seen.

    The names of the fields are part of checkpoints.
    """

    course: AlarmStateMachine = msgspec.field(default_factory=AlarmStateMachine)
    thresholds: ThresholdGrades = msgspec.field(default_factory=ThresholdGrades)
    peaks: PeakTracker = msgspec.field(default_factory=PeakTracker)
    window_ns: list[int] = msgspec.field(default_factory=list)
    output: str = ""
    column: str = ""
    row: int = 0
    time_ns: int = 0


class _State(msgspec.Struct):
    """`sequence` is the number of the next event of the stream."""

    sequence: int = 0
    courses: dict[str, _AlarmState] = msgspec.field(default_factory=dict)


# Created once: threads of the worker open streams concurrently.
_decode_state = msgspec.msgpack.Decoder(_State).decode


class _Judged(msgspec.Struct):
    """The judged values of a row; None for a value that is unknown or not finite."""

    value: float | None
    warning: float | None
    danger: float | None
    leading: str | None = None
    rul_s: float | None = None
    rul_low_s: float | None = None
    rul_high_s: float | None = None


class _Change(msgspec.Struct):
    """A transition, until the chunk is processed and its evidence can be read."""

    name: str
    opened: OpenAlarm
    transition: Transition
    output: str
    column: str
    row: int
    time_ns: int
    since_ns: int
    grade: int
    judged: _Judged
    peak: Peak | None


class _Levels(msgspec.Struct, frozen=True):
    """The first level that raises an alarm; `sign` is 1 if more is worse, -1 if less is worse."""

    first: float
    sign: int = 1


class AlarmPublisher(Protocol):
    """What publishes alarms to the bus: the worker's publisher of results."""

    def put(self, parts: Sequence[ResultPart]) -> None:
        """Queue parts of one topic; blocks while the queue is full."""


class StreamAlarms:
    """Derives alarms from the outputs of one stream's steps.

    Memory: a few hundred bytes for each step and rule, and the events since the last checkpoint.
    """

    def __init__(
        self,
        stream: str,
        policy: Policy,
        store: StoreEngine,
        publisher: AlarmPublisher,
        committed: StreamCheckpoint | None,
    ) -> None:
        """Continues from the committed state of the stream."""
        self._stream = stream
        self._policy = policy
        self._publisher = publisher
        self._conditions = frozenset(step.name for step in policy.conditions)
        self._rules: dict[str, list[AlarmRule]] = {}
        for rule in policy.alarm:
            self._rules.setdefault(rule.output, []).append(rule)
        self._changes: list[_Change] = []
        self._new: list[bytes] = list(committed.alarms) if committed else []
        self._state = _State()
        if committed is not None and committed.alarm_state is not None:
            self._state = _decode_state(committed.alarm_state)
        self._evidence = EvidenceSource(stream, policy, store, committed.outputs if committed else {})
        self._clear_unwatched()

    def _clear_unwatched(self) -> None:
        watched = self._conditions | {rule.name for rule in self._policy.alarm}
        for name in self._state.courses.keys() - watched:
            state = self._state.courses.pop(name)
            if state.course.open is not None:
                self._changes.append(
                    _Change(
                        name=name,
                        opened=state.course.open,
                        transition="cleared",
                        output=state.output,
                        column=state.column,
                        row=state.row,
                        time_ns=state.time_ns,
                        since_ns=state.time_ns,
                        grade=0,
                        judged=_Judged(None, None, None),
                        peak=state.peaks.peak,
                    )
                )

    def rows(self, step: str, block: Block, array: ArrayWriter, *, first_row: int) -> None:
        """Takes the output of a step that was appended to `array`, as its rows from `first_row`."""
        self._evidence.grown(step, array, first_row + len(block.rows))
        if step in self._conditions:
            self._watch_condition(step, block, array, first_row)
        for rule in self._rules.get(step, ()):
            self._watch_rule(rule, block, array, first_row)

    def finish_chunk(self) -> None:
        """Publishes the events of a chunk whose rows are stored. Raises ResultsNotPublished."""
        changes, self._changes = self._changes, []
        for change in changes:
            event = self._event(change)
            self._state.sequence += 1
            self._new.append(msgspec.msgpack.encode(event))
            self._publisher.put(
                [
                    alarm_part(
                        msgspec.to_builtins(event),
                        topic=alarms_topic(self._policy.reference),
                        partitions=self._policy.partitions,
                    )
                ]
            )

    def state(self) -> bytes:
        """Returns the state between chunks, encoded."""
        return msgspec.msgpack.encode(self._state)

    def take_new(self) -> list[bytes]:
        """Returns the encoded events since the last call, for the outbox of the checkpoint."""
        new, self._new = self._new, []
        return new

    def _watch_condition(self, step: str, block: Block, array: ArrayWriter, first_row: int) -> None:
        columns = {name: block.rows[:, index] for index, name in enumerate(block.columns)}
        grades = columns["grade"]

        def judged(place: int) -> _Judged:
            numbers = {name: _finite(values[place]) for name, values in columns.items()}
            leading, watched = numbers["leading"], block.attrs["watched"]
            return _Judged(
                value=numbers["score"],
                warning=block.attrs["warning"],
                danger=block.attrs["danger"],
                leading=None if leading is None else watched[int(leading)],
                rul_s=numbers["rul_s"],
                rul_low_s=numbers["rul_low_s"],
                rul_high_s=numbers["rul_high_s"],
            )

        state = self._of(step, step, "score")
        # Most blocks have no change at all.
        steps = np.flatnonzero(np.diff(grades, prepend=float(state.course.grade))).tolist()
        changes = ((place, int(grades[place])) for place in steps)
        scores = np.asarray(columns["score"], dtype=np.float64)
        levels = _Levels(block.attrs["warning"])
        self._follow(step, state, changes, scores, levels, block, array, first_row, judged)

    def _watch_rule(self, rule: AlarmRule, block: Block, array: ArrayWriter, first_row: int) -> None:
        found = [
            index
            for index, name in enumerate(block.columns)
            if name == rule.column or name.endswith(f".{rule.column}")
        ]
        if not found or block.rows.ndim != 2:
            _log.emit(
                RuleNotApplicable(
                    policy=self._policy.reference,
                    rule=rule.name,
                    column=rule.column,
                    output=rule.output,
                    columns=", ".join(block.columns) or "no named columns",
                )
            )
            return
        values = np.asarray(block.rows[:, found], dtype=np.float64)
        values[~np.isfinite(values)] = np.nan
        worst_of = np.fmax if rule.side == "above" else np.fmin
        worst: NDArray[np.float64] = worst_of.reduce(values, axis=1)
        state = self._of(rule.name, rule.output, rule.column)

        def judged(place: int) -> _Judged:
            matches = np.flatnonzero(values[place] == worst[place])
            return _Judged(
                value=_finite(worst[place]),
                warning=rule.warning,
                danger=rule.danger,
                leading=block.columns[found[int(matches[0])]] if len(matches) else None,
            )

        grades = ((place, state.thresholds.take(value, rule)) for place, value in enumerate(worst.tolist()))
        self._follow(rule.name, state, grades, worst, _levels_of(rule), block, array, first_row, judged)

    def _of(self, name: str, output: str, column: str) -> _AlarmState:
        state = self._state.courses.setdefault(name, _AlarmState())
        state.output, state.column = output, column
        return state

    def _follow(
        self,
        name: str,
        state: _AlarmState,
        grades: Iterator[tuple[int, int]],
        values: NDArray[np.float64],
        levels: _Levels,
        block: Block,
        array: ArrayWriter,
        first_row: int,
        judged: Callable[[int], _Judged],
    ) -> None:
        """Takes grades at positions in the block, in order, and the judged value of each row."""
        times_ns: list[int] = block.row_times_ns.tolist()
        rows = range(first_row, first_row + len(times_ns))

        def see(begin: int, end: int) -> None:
            seen = values[begin:end], rows[begin:end], times_ns[begin:end]
            if state.course.open is None:
                state.peaks.take(*seen, first_level=levels.first, sign=levels.sign)
            else:
                state.peaks.take_open(*seen, sign=levels.sign)

        seen = 0
        before = len(state.window_ns)
        known_ns = state.window_ns + times_ns
        for place, grade in grades:
            transition = state.course.take(grade)
            if transition is None:
                continue
            see(seen, place)
            seen = place
            row, time_ns = first_row + place, times_ns[place]
            if transition == "raised":
                reference = alarm_reference(self._stream, name, array.uid, row)
                state.course.open = OpenAlarm(reference, array.uid.hex(), row, time_ns)
            see(place, place + 1)
            opened, peak = state.course.open, state.peaks.peak
            assert opened is not None
            if transition == "cleared":
                state.course.open, state.peaks.peak = None, None
            self._changes.append(
                _Change(
                    name=name,
                    opened=opened,
                    transition=transition,
                    output=state.output,
                    column=state.column,
                    row=row,
                    time_ns=time_ns,
                    since_ns=known_ns[max(0, before + place + 1 - WINDOW_ROWS)],
                    grade=grade,
                    judged=judged(place),
                    peak=peak,
                )
            )
        see(seen, len(times_ns))
        if times_ns:
            state.window_ns = known_ns[-WINDOW_ROWS + 1 :]
            state.row, state.time_ns = first_row + len(times_ns) - 1, times_ns[-1]

    def _event(self, change: _Change) -> AlarmEvent:
        evidence = Evidence()
        try:
            evidence = self._evidence.look(change.output, since_ns=change.since_ns, until_ns=change.time_ns)
        except (WindvaneError, ValueError, LookupError) as error:
            # An alarm without evidence is better than none.
            _log.emit(EvidenceNotRead(self._stream, change.opened.reference, str(error)))
        return AlarmEvent(
            alarm=change.opened.reference,
            stream=self._stream,
            policy=self._policy.reference,
            name=change.name,
            output=change.output,
            column=change.column,
            array=change.opened.array,
            row=change.opened.row,
            raised_ns=change.opened.time_ns,
            sequence=self._state.sequence,
            transition=change.transition,
            at_row=change.row,
            time_ns=change.time_ns,
            grade=change.grade,
            **msgspec.structs.asdict(change.judged),
            peak=None if change.peak is None else change.peak.value,
            peak_ns=None if change.peak is None else change.peak.time_ns,
            values=evidence.values,
            contributions=evidence.contributions,
            evidence=evidence.ranges,
        )


def _levels_of(rule: AlarmRule) -> _Levels:
    first = rule.danger if rule.warning is None else rule.warning
    assert first is not None, "a rule has one level or two"
    return _Levels(first, 1 if rule.side == "above" else -1)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
