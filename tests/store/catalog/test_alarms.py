"""The state transitions of an alarm, without a catalog: every rule of its workflow."""

from typing import Any

import msgspec
import pytest
from windvane.errors import AlarmActionRejected
from windvane.store.catalog.alarms import (
    MAX_HISTORY,
    Alarm,
    AlarmEvent,
    RowRange,
    acknowledge,
    alarm_reference,
    apply_event,
    clear,
    comment,
    from_body,
    shelve,
    to_body,
    unshelve,
)

REFERENCE = alarm_reference("turbine.1", "condition", bytes.fromhex("0123456789"), 41)


def event(sequence: int, transition: str, grade: int, **more: Any) -> AlarmEvent:
    said = {
        "alarm": REFERENCE,
        "stream": "turbine.1",
        "policy": "vibration",
        "name": "condition",
        "output": "condition",
        "column": "score",
        "array": "0123456789",
        "row": 41,
        "raised_ns": 1_000,
        "sequence": sequence,
        "transition": transition,
        "at_row": 41 + sequence,
        "time_ns": 1_000 + sequence,
        "grade": grade,
        "value": 7.5,
        **more,
    }
    return msgspec.convert(said, AlarmEvent)


def after(alarm: Alarm | None, *events: AlarmEvent) -> Alarm:
    for each in events:
        alarm = apply_event(alarm, each, now_ns=5) or alarm
    assert alarm is not None
    return alarm


RAISED = after(
    None, event(3, "raised", 1, evidence=[{"array": "turbine.1:spectrum", "first": 7, "count": 3}])
)


def test_an_alarm_begins_with_what_its_rows_said() -> None:
    assert REFERENCE == "turbine.1:condition:01234567:41"
    assert (RAISED.reference, RAISED.state, RAISED.grade, RAISED.worst) == (REFERENCE, "raised", 1, 1)
    assert RAISED.evidence == (RowRange("turbine.1:spectrum", 7, 3),)
    [entry] = RAISED.history
    assert (entry.number, entry.by, entry.action, entry.time_ns) == (0, "windvane", "raised", 1_003)


def test_a_repeated_event_changes_nothing() -> None:
    assert apply_event(RAISED, event(3, "raised", 1), now_ns=6) is None
    worse = after(RAISED, event(4, "escalated", 2))
    assert apply_event(worse, event(3, "raised", 1), now_ns=6) is None
    assert apply_event(worse, event(4, "escalated", 2), now_ns=6) is None


def test_it_gets_worse_better_and_ends() -> None:
    alarm = after(RAISED, event(4, "escalated", 2), event(5, "eased", 1), event(6, "cleared", 0))
    assert (alarm.state, alarm.grade, alarm.worst, alarm.sequence) == ("cleared", 0, 2, 6)
    assert [entry.action for entry in alarm.history] == ["raised", "escalated", "eased", "cleared"]
    assert [entry.number for entry in alarm.history] == [0, 1, 2, 3]
    assert alarm.evidence == (), "that of when it last got worse"
    assert after(RAISED, event(4, "cleared", 0)).evidence == RAISED.evidence


def test_the_peak_stays_when_the_alarm_is_cleared() -> None:
    alarm = after(
        RAISED,
        event(4, "escalated", 2, value=9.0, peak=9.5, peak_ns=1_004),
        event(5, "cleared", 0, value=-0.39, peak=14.0, peak_ns=1_005),
    )
    assert (alarm.value, alarm.peak, alarm.peak_ns) == (-0.39, 14.0, 1_005)


def test_an_alarm_of_before_peaks_were_kept_has_that_of_its_history() -> None:
    """A worker of that version, then a document of that version."""
    alarm = after(RAISED, event(4, "escalated", 2, value=9.0), event(5, "cleared", 0, value=-0.39))
    assert (alarm.peak, alarm.peak_ns) == (9.0, 1_004)
    body = to_body(alarm)
    del body["peak"], body["peak_ns"]
    assert from_body(alarm.reference, alarm.state, body) == alarm


def test_an_acknowledged_alarm_that_gets_worse_must_be_acknowledged_again() -> None:
    seen = acknowledge(RAISED, by="ada", text="on my way", now_ns=6)
    assert (seen.state, seen.acknowledged_by) == ("acknowledged", "ada")
    assert after(seen, event(4, "eased", 1)).state == "acknowledged"
    worse = after(seen, event(4, "escalated", 2))
    assert (worse.state, worse.acknowledged_by) == ("raised", None)
    with pytest.raises(AlarmActionRejected, match="acknowledged already, by ada"):
        acknowledge(seen, by="bob", now_ns=7)


def test_an_unshelved_alarm_has_its_former_state_or_is_raised_if_it_gets_worse() -> None:
    on_shelf = shelve(RAISED, until_ns=100, by="ada", now_ns=6)
    assert (on_shelf.state, on_shelf.shelved_until_ns) == ("shelved", 100)
    assert unshelve(on_shelf, by="ada", now_ns=7).state == "raised"
    seen = acknowledge(on_shelf, by="bob", now_ns=7)
    assert seen.state == "shelved"
    back = unshelve(seen, by="ada", now_ns=8)
    assert (back.state, back.shelved_until_ns) == ("acknowledged", None)
    assert after(on_shelf, event(4, "escalated", 2)).state == "raised"
    assert after(on_shelf, event(4, "cleared", 0)).state == "cleared"


def test_one_that_was_cleared_by_hand_is_raised_again_only_by_what_is_worse() -> None:
    cleared = clear(RAISED, by="ada", text="a bird", now_ns=6)
    assert cleared.state == "cleared"
    assert after(cleared, event(4, "eased", 1)).state == "cleared"
    assert after(cleared, event(4, "escalated", 2)).state == "raised"
    assert acknowledge(cleared, by="ada", now_ns=7).state == "cleared"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda: unshelve(RAISED, by="ada", now_ns=6), "is raised, not shelved"),
        (lambda: shelve(RAISED, until_ns=6, by="ada", now_ns=6), "until a time that is over"),
        (lambda: comment(RAISED, by="ada", text=" ", now_ns=6), "without a text"),
        (lambda: comment(RAISED, by="", text="x", now_ns=6), "`by` says who"),
        (lambda: comment(RAISED, by="a\nb", text="x", now_ns=6), "`by` says who"),
        (lambda: comment(RAISED, by="ada", text="x" * 2_001, now_ns=6), "at most 2000 characters"),
        (lambda: clear(after(RAISED, event(4, "cleared", 0)), by="ada", now_ns=6), "cleared already"),
        (
            lambda: shelve(after(RAISED, event(4, "cleared", 0)), until_ns=9, by="ada", now_ns=6),
            "nothing to shelve",
        ),
    ],
)
def test_an_invalid_action_is_rejected(what: Any, says: str) -> None:
    with pytest.raises(AlarmActionRejected, match=says):
        what()


def test_the_history_is_bounded_and_keeps_the_notes_of_operators() -> None:
    alarm = comment(RAISED, by="ada", text="mine", now_ns=6)
    for number in range(MAX_HISTORY + 50):
        transition, grade = [("escalated", 2), ("eased", 1)][number % 2]
        alarm = after(alarm, event(4 + number, transition, grade))
    assert len(alarm.history) == MAX_HISTORY
    assert [entry.action for entry in alarm.history[:2]] == ["raised", "commented"]
    assert alarm.history[-1].number == MAX_HISTORY + 51, "numbers continue, as deliveries are known by them"
    with pytest.raises(AlarmActionRejected, match="has 500 entries"):
        comment(alarm, by="ada", text="more", now_ns=7)


def test_a_document_gives_back_what_was_put_into_it() -> None:
    alarm = acknowledge(RAISED, by="ada", now_ns=6)
    body = msgspec.json.decode(msgspec.json.encode(to_body(alarm)))
    assert from_body(alarm.reference, alarm.state, body) == alarm
