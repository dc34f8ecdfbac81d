"""A late checkpoint is a health condition of the worker until the next one is made."""

import asyncio
import time

import pytest
from windvane.processors.worker.checkpoint_watch import check_checkpoints, watch_checkpoints
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry


def codes(telemetry: WorkerTelemetry) -> list[str]:
    return [trouble.code for trouble in telemetry.health.current()]


@pytest.mark.parametrize(("age_s", "expected"), [(1.9, []), (6.0, []), (6.1, ["checkpoint-late"])])
def test_a_checkpoint_is_late_after_three_intervals(age_s: float, expected: list[str]) -> None:
    telemetry = WorkerTelemetry()
    check_checkpoints(telemetry, interval_s=2.0, now_s=telemetry.checkpoint_s + age_s)
    assert codes(telemetry) == expected


def test_the_next_checkpoint_clears_the_condition() -> None:
    telemetry = WorkerTelemetry()
    telemetry.checkpoint_s -= 100
    check_checkpoints(telemetry, interval_s=2.0, now_s=telemetry.checkpoint_s + 100)
    assert codes(telemetry) == ["checkpoint-late"]
    telemetry.checkpoint_made(began_s=time.monotonic())
    check_checkpoints(telemetry, interval_s=2.0, now_s=telemetry.checkpoint_s)
    assert codes(telemetry) == []


def test_a_worker_without_work_is_not_late() -> None:
    class Idle(WorkerTelemetry):
        def has_work(self) -> bool:
            return False

    telemetry = Idle()
    check_checkpoints(telemetry, interval_s=2.0, now_s=telemetry.checkpoint_s + 100)
    assert codes(telemetry) == []


async def test_the_watch_checks_periodically() -> None:
    telemetry = WorkerTelemetry()
    telemetry.checkpoint_s -= 1000
    watching = asyncio.create_task(watch_checkpoints(telemetry, interval_s=2.0))
    while not codes(telemetry):
        await asyncio.sleep(0.01)
    watching.cancel()
