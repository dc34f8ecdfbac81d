"""Alarms as documents: their content and their state transitions. Pure: no clock, no catalog.

    raised ──acknowledge──▶ acknowledged        escalated: raised again, from any of them
      │  ▲                    │  ▲
    shelve │ time is up     shelve │ time is up
      ▼  │                    ▼  │
     shelved                 shelved             clear, or the rows are healthy again: cleared

The worker applies what the rows show (`AlarmEvent`), users do the rest (`acknowledge`, `comment`, `shelve`,
`unshelve`, `clear`). Neither overwrites the other: each change is an entry of the document's history.
Terms as in ANSI/ISA-18.2, Management of Alarm Systems. `alarm_book.py` stores alarms in the catalog.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...errors import AlarmActionRejected, AlarmShelvedTooLong

State: TypeAlias = Literal["raised", "acknowledged", "shelved", "cleared"]
STATES: tuple[State, ...] = ("raised", "acknowledged", "shelved", "cleared")
OPEN_STATES: tuple[State, ...] = ("raised", "acknowledged", "shelved")
MAX_SHELF_S = 365 * 24 * 3600
"""The longest time that an alarm can be shelved: a year."""
Transition: TypeAlias = Literal["raised", "escalated", "eased", "cleared"]
GRADES = ("healthy", "warning", "danger")

WORKER = "windvane"
"""The author of automatic entries."""
_EVIDENCE = ("leading", "values", "contributions", "evidence")
_OUTLOOK = ("rul_s", "rul_low_s", "rul_high_s")
MAX_HISTORY = 500
"""Entries of one alarm; beyond it comments are rejected, and the oldest grade changes but the first go."""
MAX_TEXT = 2_000
MAX_BY = 100


class RowRange(Struct, frozen=True):
    """Rows `first` to `first + count` of a data array, which tell what was at the time of an alarm."""

    array: str
    first: int
    count: int


class Contribution(Struct, frozen=True):
    """A column as it was, and what it usually was before.

    `deviation` is (value - usual) / spread, where the spread is 1.4826 times the median distance from the
    median (the standard deviation, were it a normal distribution), or a hundredth of what is usual, if more.
    """

    column: str
    value: float
    usual: float
    spread: float
    deviation: float


class AlarmEvent(Struct, frozen=True):
    """A change of one alarm that rows have caused.

    An alarm is identified by its stream, its name, the data array and the row at which it was raised:
    `alarm` is all of these. `sequence` counts the events of the stream from 0: an alarm with a higher number
    already contains this event. `time_ns` and `raised_ns` are event times, ns since the epoch, UTC.

    `value` is the evaluated value, in `column` of `stream:output`; `leading` is the column that deviates most
    if the value combines several. `values` are those of the row that it is computed from, by column. `peak`
    is the worst value of the alarm so far, at the event time `peak_ns`.
    """

    alarm: str
    stream: str
    policy: str
    name: str
    output: str
    column: str
    array: str
    row: int
    raised_ns: int
    sequence: int
    transition: Transition
    at_row: int
    time_ns: int
    grade: int
    value: float | None
    peak: float | None = None
    peak_ns: int | None = None
    warning: float | None = None
    danger: float | None = None
    leading: str | None = None
    rul_s: float | None = None
    rul_low_s: float | None = None
    rul_high_s: float | None = None
    values: dict[str, float] = {}
    contributions: tuple[Contribution, ...] = ()
    evidence: tuple[RowRange, ...] = ()


class HistoryEntry(Struct, frozen=True):
    """What was done to an alarm: `number` counts from 0, `at_ns` is when it was recorded.

    For changes that rows have made, `time_ns` is the event time, and `grade` and `value` are those of then.
    """

    number: int
    at_ns: int
    by: str
    action: str
    text: str = ""
    time_ns: int | None = None
    grade: int | None = None
    value: float | None = None


class Alarm(Struct, frozen=True):
    """One alarm. `worst` is the highest grade it had, `sequence` that of the last event applied to it.

    `value` is that of the last change that rows have made; `peak` is the worst value up to that change.
    """

    reference: str
    state: State
    stream: str
    policy: str
    name: str
    output: str
    column: str
    array: str
    row: int
    raised_ns: int
    changed_ns: int
    grade: int
    worst: int
    sequence: int
    value: float | None
    warning: float | None
    danger: float | None
    leading: str | None
    rul_s: float | None
    rul_low_s: float | None
    rul_high_s: float | None
    values: dict[str, float]
    contributions: tuple[Contribution, ...]
    evidence: tuple[RowRange, ...]
    acknowledged_by: str | None = None
    shelved_until_ns: int | None = None
    history: tuple[HistoryEntry, ...] = ()
    peak: float | None = None
    peak_ns: int | None = None

    @property
    def title(self) -> str:
        """The title of its document, for searches."""
        return f"{GRADES[self.worst]} {self.stream} {self.name}"[:200]


def alarm_reference(stream: str, name: str, array: bytes, row: int) -> str:
    """The reference of the alarm that was raised at a row of a data array, whose uid is `array`."""
    return f"{stream}:{name}:{array.hex()[:8]}:{row}"


def to_body(alarm: Alarm) -> dict[str, Any]:
    """The body of its document, without reference and state, which the document has."""
    body: dict[str, Any] = msgspec.to_builtins(alarm)
    del body["reference"], body["state"]
    return body


def from_body(reference: str, state: str, body: Mapping[str, Any]) -> Alarm:
    """The inverse of `to_body`.

    For a document from before peaks were recorded, the peak is the value of its worst grade in the history.
    """
    alarm = msgspec.convert({**body, "reference": reference, "state": state}, Alarm)
    if "peak" in body:
        return alarm
    worst = next((entry for entry in alarm.history if entry.grade == alarm.worst), None)
    if worst is None:
        return alarm
    return msgspec.structs.replace(alarm, peak=worst.value, peak_ns=worst.time_ns)


def apply_event(alarm: Alarm | None, event: AlarmEvent, *, now_ns: int) -> Alarm | None:
    """The alarm with the event applied; None if it was applied before, since events may be repeated."""
    if alarm is None:
        alarm = _begin(event)
    elif event.sequence <= alarm.sequence:
        return None
    changes: dict[str, Any] = {}
    if event.transition in ("raised", "escalated"):
        # A grade worse than the acknowledged or shelved one needs attention again.
        changes = {"state": "raised", "acknowledged_by": None, "shelved_until_ns": None}
        if event.peak is None:  # from a worker of a version without peaks
            changes |= {"peak": event.value, "peak_ns": event.time_ns}
    elif event.transition == "cleared":
        changes = {"state": "cleared", "shelved_until_ns": None}
    if event.peak is not None:
        changes |= {"peak": event.peak, "peak_ns": event.peak_ns}
    # It shows the state at the last time it got worse.
    told = (*_OUTLOOK, *(_EVIDENCE if event.transition in ("raised", "escalated") else ()))
    changes |= {name: getattr(event, name) for name in told}
    return _with_entry(
        alarm,
        HistoryEntry(
            number=_next_number(alarm),
            at_ns=now_ns,
            by=WORKER,
            action=event.transition,
            time_ns=event.time_ns,
            grade=event.grade,
            value=event.value,
        ),
        sequence=event.sequence,
        changed_ns=event.time_ns,
        grade=event.grade,
        worst=max(alarm.worst, event.grade),
        value=event.value,
        warning=event.warning,
        danger=event.danger,
        **changes,
    )


def acknowledge(alarm: Alarm, *, by: str, text: str = "", now_ns: int) -> Alarm:
    """Acknowledge an alarm. Raises AlarmActionRejected if it is acknowledged already."""
    if alarm.acknowledged_by is not None:
        raise AlarmActionRejected(
            f'alarm "{alarm.reference}" is acknowledged already, by {alarm.acknowledged_by}; comment on it '
            "to add something"
        )
    state: State = "acknowledged" if alarm.state == "raised" else alarm.state
    return _by_hand(alarm, "acknowledged", by, text, now_ns, state=state, acknowledged_by=by)


def comment(alarm: Alarm, *, by: str, text: str, now_ns: int) -> Alarm:
    """Comment on an alarm. Raises AlarmActionRejected if the text is empty or too long."""
    if not text.strip():
        raise AlarmActionRejected("a comment without a text says nothing; give it one")
    return _by_hand(alarm, "commented", by, text, now_ns)


def shelf_end_ns(for_s: float, *, now_ns: int) -> int:
    """When the shelving of an alarm ends that is shelved now for `for_s` seconds (ns since the epoch).

    Raises AlarmShelvedTooLong.
    """
    if for_s > MAX_SHELF_S:
        raise AlarmShelvedTooLong
    return now_ns + int(for_s * 1_000_000_000)


def shelve(alarm: Alarm, *, until_ns: int, by: str, text: str = "", now_ns: int) -> Alarm:
    """Shelve an alarm until `until_ns`, or until it escalates. Raises AlarmActionRejected."""
    if until_ns > now_ns + MAX_SHELF_S * 1_000_000_000:
        raise AlarmShelvedTooLong
    if alarm.state == "cleared":
        raise AlarmActionRejected(f'alarm "{alarm.reference}" is cleared; there is nothing to shelve')
    if until_ns <= now_ns:
        raise AlarmActionRejected(
            f'alarm "{alarm.reference}" cannot be shelved until a time that is over; give one that is to come'
        )
    return _by_hand(alarm, "shelved", by, text, now_ns, state="shelved", shelved_until_ns=until_ns)


def unshelve(alarm: Alarm, *, by: str, text: str = "", now_ns: int) -> Alarm:
    """Return an alarm to its state before it was shelved. Raises AlarmActionRejected if it is not shelved."""
    if alarm.state != "shelved":
        raise AlarmActionRejected(f'alarm "{alarm.reference}" is {alarm.state}, not shelved')
    state: State = "raised" if alarm.acknowledged_by is None else "acknowledged"
    return _by_hand(alarm, "unshelved", by, text, now_ns, state=state, shelved_until_ns=None)


def clear(alarm: Alarm, *, by: str, text: str = "", now_ns: int) -> Alarm:
    """Clear an alarm by hand; it is raised again if the rows get worse. Raises AlarmActionRejected."""
    if alarm.state == "cleared":
        raise AlarmActionRejected(f'alarm "{alarm.reference}" is cleared already')
    return _by_hand(alarm, "cleared", by, text, now_ns, state="cleared", shelved_until_ns=None)


def _begin(event: AlarmEvent) -> Alarm:
    taken = {
        name: getattr(event, name) for name in AlarmEvent.__struct_fields__ if name in Alarm.__struct_fields__
    }
    return Alarm(**taken, reference=event.alarm, state="raised", changed_ns=event.time_ns, worst=event.grade)


def _by_hand(alarm: Alarm, action: str, by: str, text: str, now_ns: int, **changes: Any) -> Alarm:
    if not by.strip() or len(by) > MAX_BY or not by.isprintable():
        raise AlarmActionRejected(f"`by` says who did it, in 1 to {MAX_BY} printable characters")
    if len(text) > MAX_TEXT:
        raise AlarmActionRejected(f"a text has at most {MAX_TEXT} characters, and this one {len(text)}")
    if action == "commented" and len(alarm.history) >= MAX_HISTORY:
        raise AlarmActionRejected(
            f'alarm "{alarm.reference}" has {MAX_HISTORY} entries, which is all that it takes; clear it'
        )
    entry = HistoryEntry(number=_next_number(alarm), at_ns=now_ns, by=by, action=action, text=text)
    return _with_entry(alarm, entry, **changes)


def _next_number(alarm: Alarm) -> int:
    return alarm.history[-1].number + 1 if alarm.history else 0


def _with_entry(alarm: Alarm, entry: HistoryEntry, **changes: Any) -> Alarm:
    return msgspec.structs.replace(alarm, history=(*_room_in(alarm.history), entry), **changes)


def _room_in(history: Sequence[HistoryEntry]) -> Sequence[HistoryEntry]:
    if len(history) < MAX_HISTORY:
        return history
    # The first entry stays; entries of users stay as long as there are others to drop.
    old = next((i for i, entry in enumerate(history) if i and entry.by == WORKER), 1)
    return [*history[:old], *history[old + 1 :]]
