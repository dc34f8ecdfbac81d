"""The status of a tier of another version is read as far as it is understood."""

import msgspec
import pytest
from windvane.runtime.health_conditions import HealthCondition
from windvane.runtime.statuses import (
    BehindReason,
    GatewayStatus,
    StepFailure,
    StreamBehind,
    StreamWait,
    TierStatus,
    WorkerStatus,
)
from windvane.web.reported_status import read_status


def worker_status() -> WorkerStatus:
    """A status with something in each member that has a structure of its own."""
    return msgspec.structs.replace(
        read_status(WorkerStatus, {}),
        events_total=5,
        checkpoint_age_s=1.5,
        troubles=[HealthCondition("disk-full", "0 B")],
        waits=[StreamWait("a", "worker-b", 7)],
        streams_behind={
            "a": StreamBehind(41.0, 608, BehindReason(None, "slow")),
            "b": StreamBehind(1, 0, None),
        },
        counted_by_stream={"a": {"pcm": {"gaps": 3}}},
        failures=[StepFailure("a", "model", "why", 1, 2), StepFailure("b", "model", "why", 1, 2, 3)],
    )


def test_the_status_of_this_version_is_read_whole() -> None:
    status = worker_status()
    assert read_status(WorkerStatus, msgspec.json.decode(msgspec.json.encode(status))) == status


@pytest.mark.parametrize("kind", [GatewayStatus, WorkerStatus])
def test_what_a_tier_does_not_report_is_zero_empty_or_null(kind: type[TierStatus]) -> None:
    members = msgspec.to_builtins(read_status(kind, {}))
    assert all(value in (0, "", [], {}, None) for value in members.values())
    assert members.keys() == {field.name for field in msgspec.structs.fields(kind)}


def test_what_this_version_does_not_know_is_left_out() -> None:
    status = read_status(
        WorkerStatus,
        {
            "of_the_future": 1,
            "events_total": 5,
            "troubles": [
                {"code": "of-the-future", "detail": ""},
                {"code": "disk-full", "detail": "0 B", "x": 1},
            ],
        },
    )
    assert status.events_total == 5
    assert status.troubles == [HealthCondition("disk-full", "0 B")]


@pytest.mark.parametrize(
    ("name", "reported", "read"),
    [
        ("events_total", "many", 0),
        ("events_total", True, 0),
        ("checkpoint_age_s", 2, 2.0),
        ("checkpoint_age_s", None, 0.0),
        ("failures", {"a": 1}, []),
        ("failures", [7, {"stream": "a", "time_ns": 1}], [StepFailure("a", "", "", 1, 0)]),
        ("streams_behind", {"a": 3, "b": {"behind": "x"}}, {"b": StreamBehind(0.0, 0, None)}),
        ("dead_lettered_by_code", {"a": 1, "b": "x"}, {"a": 1}),
    ],
)
def test_a_member_of_another_form_is_read_if_it_fits(name: str, reported: object, read: object) -> None:
    assert getattr(read_status(WorkerStatus, {name: reported}), name) == read
