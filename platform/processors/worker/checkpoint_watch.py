"""Whether the worker's checkpoints are on time."""

import asyncio
import time

from .pipeline.telemetry import WorkerTelemetry

LATE_INTERVALS = 3
"""So many intervals without a checkpoint are a condition, while the worker has work."""

POLL_S = 0.5
CHECKPOINT = "checkpoint"
"""The key of the condition."""


async def watch_checkpoints(telemetry: WorkerTelemetry, *, interval_s: float) -> None:
    """Reports and clears `checkpoint-late` until cancelled."""
    while True:
        check_checkpoints(telemetry, interval_s=interval_s, now_s=time.monotonic())
        await asyncio.sleep(POLL_S)


def check_checkpoints(telemetry: WorkerTelemetry, *, interval_s: float, now_s: float) -> None:
    """Reports or clears the condition once, at `now_s` on the monotonic clock."""
    age_s = now_s - telemetry.checkpoint_s
    if age_s <= LATE_INTERVALS * interval_s or not telemetry.has_work():
        telemetry.health.clear(CHECKPOINT)
        return
    telemetry.health.report(
        CHECKPOINT,
        "checkpoint-late",
        f"the last checkpoint was made {age_s:.0f} s ago, one is due every {interval_s:g} s: a step, the "
        "disk or the bus is slow. No data is lost; later chunks are reprocessed after a restart. `behind` of "
        "the streams names the step",
    )
