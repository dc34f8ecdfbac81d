"""Alarms on their whole way through a worker: rows, evidence, the bus, the outbox, documents."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.bus.messages.alarms import ALARMS_SCHEMA
from windvane.bus.topic_names import alarms_topic
from windvane.errors import CatalogUnavailable, PolicyInvalid
from windvane.processors.alarms.relay import AlarmRelay
from windvane.store.catalog.alarm_book import AlarmBook, alarm_of
from windvane.store.catalog.alarms import Alarm
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase

from tests.processors.alarms.alarming import (
    CONDITION,
    COURSE,
    DANGER,
    FIELDS,
    POLICY,
    QUIET,
    RULE,
    WARNING,
    payload,
    time_ns,
)
from tests.processors.worker.test_worker import Home
from tests.processors.worker.test_worker_results import messages


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def work_on(
    home: Home, levels: list[float], *, first: int = 0, chunk: int = 3, dies: bool = False
) -> None:
    """Sends a level a second, `chunk` to a message, and has a worker do all of it.

    One that dies has published two alarm events, and makes no last checkpoint.
    """
    sizes = range(0, len(levels), chunk)
    for start in sizes:
        part = levels[start : start + chunk]
        await home.publish("p", *part, payload=payload(part, first=first + start))
    async with home.working(dies=dies):
        await home.until_stored(len(sizes))
        async with asyncio.timeout(30):
            while dies and home.telemetry.published_total < 2:
                await asyncio.sleep(0.01)


async def recorded(home: Home) -> list[Alarm]:
    """The alarms in the catalog, once the outbox is empty, oldest change first."""
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    await AlarmRelay(checkpoints, home.catalog).empty()
    assert checkpoints.outbox() == []
    checkpoints.close()
    return [alarm_of(document) for document in reversed(await AlarmBook(home.catalog).latest())]


def story(alarm: Alarm) -> list[tuple[str, int]]:
    return [(entry.action, ((entry.time_ns or 0) - time_ns(0)) // 10**9) for entry in alarm.history]


async def test_a_level_that_is_passed_raises_one_alarm_with_its_evidence(home: Home) -> None:
    await home.policy("p", **POLICY)
    await work_on(home, COURSE)
    [alarm] = await recorded(home)
    array = home.store.array("t:fields")
    assert alarm.reference == f"t:fields:{array.uid.hex()[:8]}:5"
    assert story(alarm) == [("raised", 5), ("escalated", 8), ("eased", 11), ("cleared", 13)]
    assert (alarm.state, alarm.worst, alarm.grade, alarm.warning, alarm.danger) == ("cleared", 2, 0, 10, 20)
    assert (alarm.policy, alarm.column, alarm.leading) == ("p", "rms", "rms")
    assert alarm.values == {"rms": DANGER, "speed": 12.0}
    [rows] = alarm.evidence
    assert rows.array == "t:fields"
    assert array.times_ns[rows.first : rows.first + rows.count].tolist() == [time_ns(r) for r in range(9)]


@pytest.mark.parametrize("chunk", [1, 4, 20])
async def test_a_cleared_alarm_keeps_its_peak(home: Home, chunk: int) -> None:
    await home.policy("p", **POLICY)
    for number, spike in enumerate((4, 6, 9, 10)):  # it raises, is between two changes, in danger, falls
        levels = [*COURSE]
        levels[spike] = 50.0 + number
        await work_on(home, levels, first=number * len(COURSE), chunk=chunk)
    alarms = sorted(await recorded(home), key=lambda alarm: alarm.row)
    assert [(alarm.state, alarm.value) for alarm in alarms] == [("cleared", QUIET)] * len(alarms)
    # At row 10 a single row is not a new rise: the alarm is still open, and its peak is that row.
    assert [alarm.peak for alarm in alarms] == [50.0, 51.0, 52.0, 53.0]
    seconds = [((alarm.peak_ns or 0) - time_ns(0)) // 10**9 for alarm in alarms]
    assert seconds == [4, 15 + 6, 30 + 9, 45 + 10]


async def test_the_peak_of_a_lower_limit_is_the_lowest_value_also_after_a_crash(home: Home) -> None:
    await home.policy(
        "p", **{**POLICY, "alarm": [{**RULE, "side": "below", "warning": 20.0, "danger": 10.0}]}
    )
    await work_on(home, [25.0] * 4, chunk=1)
    await work_on(home, [15.0] * 3 + [5.0, 5.0, 0.5, 5.0], first=4, chunk=1, dies=True)
    async with home.working():
        await home.until_stored(7)
    await work_on(home, [25.0] * 5, first=11, chunk=1)
    [alarm] = await recorded(home)
    assert (alarm.state, alarm.value, alarm.peak) == ("cleared", 25.0, 0.5)


async def test_alarm_messages_do_not_depend_on_chunk_boundaries(home: Home) -> None:
    await home.policy("p", **POLICY)
    await work_on(home, COURSE, chunk=1)
    found = await messages(home, alarms_topic("p"), ALARMS_SCHEMA)
    events = [event for message in found for event in message["events"]]
    assert [message["first_sequence"] for message in found] == np.cumsum(
        [0] + [len(message["events"]) for message in found[:-1]]
    ).tolist()
    assert [(event["transition"], event["at_row"], event["grade"]) for event in events] == [
        ("raised", 5, 1),
        ("escalated", 8, 2),
        ("eased", 11, 1),
        ("cleared", 13, 0),
    ]
    [alarm] = await recorded(home)
    assert {event["alarm"] for event in events} == {alarm.reference}
    assert events[1]["values"] == alarm.values
    assert [(e["array"], e["first"], e["count"]) for e in events[1]["evidence"]] == [
        (rows.array, rows.first, rows.count) for rows in alarm.evidence
    ]


async def test_records_reprocessed_after_a_crash_raise_the_same_alarm(home: Home) -> None:
    await home.policy("p", **POLICY)
    await work_on(home, COURSE[:4])
    # It dies when the alarm is on the bus, and before its checkpoint.
    await work_on(home, COURSE[4:9], first=4, dies=True)
    await work_on(home, [], chunk=1)
    async with home.working():
        await home.until_stored(2)
    [after] = await recorded(home)
    assert [entry.action for entry in after.history] == ["raised", "escalated"]
    found = await messages(home, alarms_topic("p"), ALARMS_SCHEMA)
    numbers = [m["first_sequence"] + i for m in found for i in range(len(m["events"]))]
    assert numbers == [0, 1, 0, 1], "events are republished under the same numbers"


async def test_alarms_wait_while_the_catalog_is_unavailable_and_are_recorded_once(home: Home) -> None:
    await home.policy("p", **POLICY)
    await work_on(home, COURSE)
    checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")
    away = await Catalog.open(f"sqlite+aiosqlite:///{home.path / 'other.sqlite'}")
    async with away.database._engine.begin() as connection:
        await connection.exec_driver_sql("DROP TABLE documents")
    with pytest.raises(CatalogUnavailable):
        await AlarmRelay(checkpoints, away).empty()
    await away.close()
    kept = checkpoints.outbox()
    assert len(kept) == 4
    await AlarmRelay(checkpoints, home.catalog).empty()
    # As after a crash before the messages were deleted.
    checkpoints.close()
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.executemany("INSERT INTO outbox VALUES (?, ?)", kept)
    [alarm] = await recorded(home)
    assert len(alarm.history) == 4


async def test_condition_raises_alarms_without_a_rule_and_names_what_deviates(home: Home) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS, {**CONDITION, "interval_s": 1.0}])
    noise = np.random.default_rng(7).normal(1.0, 0.02, 90)
    levels = noise * np.where(np.arange(90) < 60, 1.0, 3.0)
    await work_on(home, levels.tolist(), chunk=10)
    [alarm] = await recorded(home)
    condition = home.store.array("t:condition")
    assert alarm.state == "raised"
    assert (alarm.name, alarm.column, alarm.leading) == ("condition", "score", "rms")
    assert np.asarray(condition[alarm.row])[1] > 0
    assert np.asarray(condition[alarm.row - 1])[1] == 0
    assert alarm.raised_ns == condition.times_ns[alarm.row]
    assert alarm.value is not None
    assert alarm.value >= 6.0
    [first, *_] = alarm.contributions
    assert first.column == "rms"
    assert first.value == pytest.approx(3.0, rel=0.1)
    assert first.usual == pytest.approx(1.0, rel=0.02)
    assert first.deviation > 20
    assert {rows.array for rows in alarm.evidence} == {"t:fields", "t:condition"}
    for rows in alarm.evidence:
        times = home.store.array(rows.array).times_ns[rows.first : rows.first + rows.count]
        assert len(times) == 10
        assert times[-1] == alarm.changed_ns


async def test_removing_a_rule_clears_its_alarm(home: Home) -> None:
    await home.policy("p", **POLICY)
    await work_on(home, [QUIET, WARNING, WARNING])
    await home.policy("p", **{**POLICY, "alarm": []})
    await work_on(home, [WARNING], first=3)
    [alarm] = await recorded(home)
    assert [entry.action for entry in alarm.history] == ["raised", "cleared"]
    await home.policy("p", **POLICY)
    await work_on(home, [WARNING, WARNING], first=4)
    _, again = await recorded(home)
    assert (again.state, again.row, again.sequence) == ("raised", 5, 2)


async def test_a_rule_for_a_missing_column_raises_no_alarm_and_stops_no_step(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    await home.policy("p", tags=["t"], pipeline=[FIELDS], alarm=[{**RULE, "column": "rpm"}])
    await work_on(home, COURSE)
    assert await recorded(home) == []
    assert len(home.store.array("t:fields")) == len(COURSE)
    assert "judges column 'rpm' of 'fields', which has rms, speed" in caplog.text
    assert home.letters.list() == []


@pytest.mark.parametrize(
    ("alarm", "says"),
    [
        ({"output": "feilds", "column": "rms", "warning": 1}, 'alarm[0].output: "feilds" must be a step'),
        ({"output": "fields", "column": "rms"}, "alarm[0]: has no level"),
        ({"output": "fields", "warning": 1}, "alarm[0].column: is missing"),
        (
            {"output": "fields", "column": "rms", "warning": 2, "danger": 1},
            "alarm[0].danger: is 1, and must be",
        ),
        (
            {"output": "fields", "column": "rms", "warning": 1, "side": "up"},
            "alarm[0].side: 'up' is not known",
        ),
        ({"output": "fields", "column": "rms", "warn": 1}, 'did you mean "warning"?'),
        ({"output": "fields", "column": "rms", "warning": "1"}, "alarm[0].warning: is text"),
        ({"output": "fields", "column": "rms", "warning": 1, "hold_rows": 0}, "hold_rows: is 0, must be"),
        ({"output": "fields", "column": "a", "warning": 1, "name": "condition"}, "that of the step"),
        ("fields", "alarm: is a list of tables"),
    ],
)
def test_a_rule_that_cannot_apply_is_rejected(alarm: Any, says: str) -> None:
    with pytest.raises(PolicyInvalid) as rejection:
        policy_from_mapping(
            {
                "reference": "p",
                "pipeline": [FIELDS, CONDITION],
                "alarm": alarm if isinstance(alarm, str) else [alarm],
            }
        )
    assert says in str(rejection.value)


def test_the_schema_of_the_topic_has_what_an_event_has() -> None:
    from windvane.store.catalog.alarms import AlarmEvent

    described = {field["name"] for field in ALARMS_SCHEMA["fields"][-1]["type"]["items"]["fields"]}
    renamed = {"raised": "raised_ns", "time": "time_ns", "peak_time": "peak_ns"}
    assert {renamed.get(name, name) for name in described} | {"stream", "sequence"} == {
        field.name for field in msgspec.structs.fields(AlarmEvent)
    }
