"""Which streams of a worker are behind, and why: for the status, the dashboard and the health route."""

import time

from ...runtime.health_conditions import HealthCode
from ...runtime.statuses import BehindReason, StreamBehind
from .open_streams import OpenStreams
from .pipeline.telemetry import WorkerTelemetry
from .stream_executor import SLOW_AFTER_S, StreamExecutor
from .stream_state import StreamState

MAX_LISTED = 1000
LATE_INTERVALS = 3
"""A stream that no checkpoint has covered for this many intervals is late."""
MAX_NAMED = 3


def streams_behind(
    streams: OpenStreams, executor: StreamExecutor, *, committed_s: float
) -> dict[str, StreamBehind]:
    """The streams that the last commit, begun at `committed_s` (monotonic), does not cover, or that have
    queued chunks: the 1,000 that have been behind longest.
    """
    now_s = time.monotonic()
    with executor.lock:
        found = [
            (stream.reference, _row(stream, now_s, committed_s))
            for stream in streams
            if stream.queue or stream.is_rolled_back or (stream.is_dirty and stream.covered_s < committed_s)
        ]
    found.sort(key=lambda each: -each[1].checkpoint_age_s)
    return dict(found[:MAX_LISTED])


def _row(stream: StreamState, now_s: float, committed_s: float) -> StreamBehind:
    return StreamBehind(
        checkpoint_age_s=round(now_s - min(stream.covered_s, now_s), 3),
        lag_chunks=len(stream.queue),
        behind=_behind(stream, now_s, committed_s),
    )


def _behind(stream: StreamState, now_s: float, committed_s: float) -> BehindReason | None:
    if stream.stopped is not None:
        return BehindReason(None, stream.stopped.reason)
    if stream.wait_reason is not None:
        return BehindReason(None, f"waiting: {stream.wait_reason}")
    pipeline = stream.pipeline
    running = pipeline.running_step if pipeline is not None else None
    if stream.chunk_began_s is not None and now_s - stream.chunk_began_s >= SLOW_AFTER_S:
        seconds = now_s - stream.chunk_began_s
        step = running[0] if running is not None else None
        what = f"step {step!r}" if step else "storing"
        return BehindReason(step, f"{what} has been processing one chunk for {seconds:.1f} s")
    if stream.slow:
        step = pipeline.slowest_step if pipeline is not None else None
        what = f"step {step!r}" if step else "one of its steps"
        return BehindReason(
            step,
            f"{what} takes longer than {SLOW_AFTER_S:g} s a chunk, so threads for slow streams process it",
        )
    if stream.queue and stream.covered_s < committed_s:
        return BehindReason(None, "chunks arrive faster than they are processed")
    return None


def report_stream_health(
    streams: OpenStreams, executor: StreamExecutor, telemetry: WorkerTelemetry, *, interval_s: float
) -> None:
    """Reports the streams that have stopped or are late: one health condition for each code."""
    now_s = time.monotonic()
    stopped: dict[HealthCode, list[str]] = {}
    late: list[str] = []
    with executor.lock:
        for stream in streams:
            if stream.stopped is not None:
                stopped.setdefault(stream.stopped.code, []).append(
                    f"{stream.reference}: {stream.stopped.reason}"
                )
            elif (stream.is_dirty or stream.queue) and now_s - stream.covered_s > LATE_INTERVALS * interval_s:
                behind = _behind(stream, now_s, now_s)
                late.append(f"{stream.reference}: {behind.reason if behind else 'it is being reread'}")
    for code in _STOP_CODES:
        _report(
            telemetry,
            f"streams {code}",
            code,
            "have stopped; no data is lost",
            stopped.get(code, []),
        )
    _report(telemetry, "streams late", "checkpoint-late", "are late; the others continue", late)
    halted = [str(error) for error in telemetry.halted.values()]
    _report(
        telemetry,
        "halted",
        "stuck",
        "of the bus cannot be read further; the others can",
        halted,
        what="partition",
    )


_STOP_CODES: tuple[HealthCode, ...] = ("no-checkpoint", "io-error", "disk-full", "bus-away", "stuck")


def _report(
    telemetry: WorkerTelemetry,
    key: str,
    code: HealthCode,
    happened: str,
    details: list[str],
    *,
    what: str = "stream",
) -> None:
    if not details:
        telemetry.health.clear(key)
        return
    named = "; ".join(details[:MAX_NAMED])
    more = f"; and {len(details) - MAX_NAMED} more" if len(details) > MAX_NAMED else ""
    telemetry.health.report(key, code, f"{len(details)} {what}s {happened}: {named}{more}")
