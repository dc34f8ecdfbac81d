"""Whether the worker's checkpoints are on time."""

import asyncio
import time

from .pipeline.telemetry import WorkerTelemetry

LATE_INTERVALS = 3
"""So many intervals without a checkpoint are a condition, while the worker has work."""

LOOK_S = 0.5
CHECKPOINT = "checkpoint"
"""The key of the condition."""


async def watch_checkpoints(telemetry: WorkerTelemetry, *, interval_s: float) -> None:
    """Report and clear `checkpoint-late` until cancelled."""
    while True:
        look_at_checkpoints(telemetry, interval_s=interval_s, now_s=time.monotonic())
        await asyncio.sleep(LOOK_S)


def look_at_checkpoints(telemetry: WorkerTelemetry, *, interval_s: float, now_s: float) -> None:
    """Look once, at `now_s` on the monotonic clock."""
    age_s = now_s - telemetry.checkpoint_s
    if age_s <= LATE_INTERVALS * interval_s or not telemetry.has_work():
        telemetry.health.clear(CHECKPOINT)
        return
    telemetry.health.report(
        CHECKPOINT,
        "checkpoint-late",
        f"the last checkpoint was made {age_s:.0f} s ago, one is due every {interval_s:g} s: a step takes "
        "long, or the disk or the bus does. Nothing is lost; what came since is done again after a restart. "
        "`behind` of the streams names the step",
    )
