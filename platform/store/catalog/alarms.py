"""Alarms as documents: what they hold, and what may become of them. Pure: no clock, no catalog.

    raised ──acknowledge──▶ acknowledged        escalated: raised again, from any of them
      │  ▲                    │  ▲
    shelve │ time is up     shelve │ time is up
      ▼  │                    ▼  │
     shelved                 shelved             clear, or the rows are healthy again: cleared

The worker says what the rows say (`AlarmEvent`), people say the rest (`acknowledge`, `comment`, `shelve`,
`unshelve`, `clear`). Neither forgets what the other has said: each is an entry of the document's history.
After the words of ANSI/ISA-18.2, Management of Alarm Systems. `alarm_book.py` keeps them in the catalog.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...errors import AlarmActionRefused, AlarmShelvedTooLong

State: TypeAlias = Literal["raised", "acknowledged", "shelved", "cleared"]
STATES: tuple[State, ...] = ("raised", "acknowledged", "shelved", "cleared")
OPEN_STATES: tuple[State, ...] = ("raised", "acknowledged", "shelved")
MAX_SHELF_S = 365 * 24 * 3600
"""An alarm is shelved for a year at most."""
Transition: TypeAlias = Literal["raised", "escalated", "eased", "cleared"]
GRADES = ("healthy", "warning", "danger")

WORKER = "windvane"
"""Who has made an entry that nobody made by hand."""
_EVIDENCE = ("leading", "values", "contributions", "evidence")
_OUTLOOK = ("rul_s", "rul_low_s", "rul_high_s")
MAX_HISTORY = 500
"""Entries of one alarm; over it comments are refused, and the oldest changes of grade but the first leave."""
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
    """What rows have said of one alarm.

    An alarm is told from others by its stream, its name, the data array and the row at which it was raised:
    `alarm` is all of these. `sequence` counts the events of the stream from 0: who has seen a higher number
    of a stream has had this one. `time_ns` and `raised_ns` are event times, ns since the epoch, UTC.

    `value` is what was judged, in `column` of `stream:output`; `leading` the column that deviates most where
    the value is made of several. `values` are those of the row that it was made of, by column. `peak` is the
    worst value of the alarm so far, at the event time `peak_ns`.
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
    """One alarm. `worst` is the highest grade it had, `sequence` that of the last event that is in it.

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
        """Of its document, to be found by."""
        return f"{GRADES[self.worst]} {self.stream} {self.name}"[:200]


def alarm_reference(stream: str, name: str, array: bytes, row: int) -> str:
    """The reference of the alarm that was raised at a row of a data array, whose uid is `array`."""
    return f"{stream}:{name}:{array.hex()[:8]}:{row}"


def to_body(alarm: Alarm) -> dict[str, Any]:
    """The body of its document; reference and state are the document's own."""
    body: dict[str, Any] = msgspec.to_builtins(alarm)
    del body["reference"], body["state"]
    return body


def from_body(reference: str, state: str, body: Mapping[str, Any]) -> Alarm:
    """The inverse of `to_body`.

    A document of before peaks were kept has that of its history: the value that made it as bad as it was.
    """
    alarm = msgspec.convert({**body, "reference": reference, "state": state}, Alarm)
    if "peak" in body:
        return alarm
    worst = next((entry for entry in alarm.history if entry.grade == alarm.worst), None)
    if worst is None:
        return alarm
    return msgspec.structs.replace(alarm, peak=worst.value, peak_ns=worst.time_ns)


def apply_event(alarm: Alarm | None, event: AlarmEvent, *, now_ns: int) -> Alarm | None:
    """The alarm with what the rows say; None where it knows that already, since events may come twice."""
    if alarm is None:
        alarm = _begin(event)
    elif event.sequence <= alarm.sequence:
        return None
    changes: dict[str, Any] = {}
    if event.transition in ("raised", "escalated"):
        # What is worse than what was acknowledged or shelved wants to be looked at again.
        changes = {"state": "raised", "acknowledged_by": None, "shelved_until_ns": None}
        if event.peak is None:  # of a worker of before peaks were kept
            changes |= {"peak": event.value, "peak_ns": event.time_ns}
    elif event.transition == "cleared":
        changes = {"state": "cleared", "shelved_until_ns": None}
    if event.peak is not None:
        changes |= {"peak": event.peak, "peak_ns": event.peak_ns}
    # What is shown of it is how it was when it was last getting worse.
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
    """Somebody has seen it. Raises AlarmActionRefused where somebody has before."""
    if alarm.acknowledged_by is not None:
        raise AlarmActionRefused(
            f'alarm "{alarm.reference}" is acknowledged already, by {alarm.acknowledged_by}; comment on it '
            "to add something"
        )
    state: State = "acknowledged" if alarm.state == "raised" else alarm.state
    return _by_hand(alarm, "acknowledged", by, text, now_ns, state=state, acknowledged_by=by)


def comment(alarm: Alarm, *, by: str, text: str, now_ns: int) -> Alarm:
    """Somebody has something to say. Raises AlarmActionRefused where there is no text, or too much of it."""
    if not text.strip():
        raise AlarmActionRefused("a comment without a text says nothing; give it one")
    return _by_hand(alarm, "commented", by, text, now_ns)


def shelf_end_ns(for_s: float, *, now_ns: int) -> int:
    """When an alarm that is shelved now for `for_s` seconds returns (ns since 1970).

    Raises AlarmShelvedTooLong.
    """
    if for_s > MAX_SHELF_S:
        raise AlarmShelvedTooLong
    return now_ns + int(for_s * 1_000_000_000)


def shelve(alarm: Alarm, *, until_ns: int, by: str, text: str = "", now_ns: int) -> Alarm:
    """Not to be bothered with until `until_ns`, or until it gets worse. Raises AlarmActionRefused."""
    if until_ns > now_ns + MAX_SHELF_S * 1_000_000_000:
        raise AlarmShelvedTooLong
    if alarm.state == "cleared":
        raise AlarmActionRefused(f'alarm "{alarm.reference}" is cleared; there is nothing to shelve')
    if until_ns <= now_ns:
        raise AlarmActionRefused(
            f'alarm "{alarm.reference}" cannot be shelved until a time that is over; give one that is to come'
        )
    return _by_hand(alarm, "shelved", by, text, now_ns, state="shelved", shelved_until_ns=until_ns)


def unshelve(alarm: Alarm, *, by: str, text: str = "", now_ns: int) -> Alarm:
    """Back to where it was before it was shelved. Raises AlarmActionRefused where it is not."""
    if alarm.state != "shelved":
        raise AlarmActionRefused(f'alarm "{alarm.reference}" is {alarm.state}, not shelved')
    state: State = "raised" if alarm.acknowledged_by is None else "acknowledged"
    return _by_hand(alarm, "unshelved", by, text, now_ns, state=state, shelved_until_ns=None)


def clear(alarm: Alarm, *, by: str, text: str = "", now_ns: int) -> Alarm:
    """It is over, somebody says; where the rows get worse it is raised again. Raises AlarmActionRefused."""
    if alarm.state == "cleared":
        raise AlarmActionRefused(f'alarm "{alarm.reference}" is cleared already')
    return _by_hand(alarm, "cleared", by, text, now_ns, state="cleared", shelved_until_ns=None)


def _begin(event: AlarmEvent) -> Alarm:
    taken = {
        name: getattr(event, name) for name in AlarmEvent.__struct_fields__ if name in Alarm.__struct_fields__
    }
    return Alarm(**taken, reference=event.alarm, state="raised", changed_ns=event.time_ns, worst=event.grade)


def _by_hand(alarm: Alarm, action: str, by: str, text: str, now_ns: int, **changes: Any) -> Alarm:
    if not by.strip() or len(by) > MAX_BY or not by.isprintable():
        raise AlarmActionRefused(f"`by` says who did it, in 1 to {MAX_BY} printable characters")
    if len(text) > MAX_TEXT:
        raise AlarmActionRefused(f"a text has at most {MAX_TEXT} characters, and this one {len(text)}")
    if action == "commented" and len(alarm.history) >= MAX_HISTORY:
        raise AlarmActionRefused(
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
    # How it began stays, and what people said as long as there is anything else.
    old = next((i for i, entry in enumerate(history) if i and entry.by == WORKER), 1)
    return [*history[:old], *history[old + 1 :]]
