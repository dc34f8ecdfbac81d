"""What each tier answers to `GET /status` on its socket. The API passes it on (`GET /api/v1/status`).

Times in `…_ns` are nanoseconds since the epoch, UTC; ages in `…_s` are seconds. Totals count since the
process started. The web tier adds up the statuses of several instances by these suffixes.
"""

from collections.abc import Mapping

import msgspec

from .health_conditions import HealthCondition


class TierStatus(msgspec.Struct, kw_only=True):
    """What the status of every tier has: `troubles` are the health conditions that hold now."""

    troubles: list[HealthCondition] = []


class SourceWithoutTimes(msgspec.Struct):
    """A sender whose last body had records without times; `time_key` is the field that it names, or ""."""

    policy: str
    tag: str
    sender: str
    identity: str | None
    time_key: str
    chunks: int
    last_ns: int


class GatewayStatus(TierStatus, kw_only=True):
    """What a gateway has done. `forward_shut` says why the forward port is shut, null while it is open."""

    events_total: int
    bytes_total: int
    chunks_total: int
    repeated_total: int
    refused_total: int
    refused_by_code: dict[str, int]
    without_times: list[SourceWithoutTimes]
    connections: int
    handshakes_failed_total: int
    pending_bytes: int
    lost_total: int
    forward_shut: str | None
    time_ns: int


class StreamWait(msgspec.Struct):
    """A stream that this worker needs and `writer`, another worker, still writes."""

    stream: str
    writer: str
    since_ns: int


class BehindReason(msgspec.Struct):
    """Why a stream is behind: the step of its pipeline that is late (null if no step is), and the reason."""

    step: str | None
    reason: str


class StreamBehind(msgspec.Struct):
    """A stream that the last checkpoint does not cover, or for which chunks wait."""

    checkpoint_age_s: float
    lag_chunks: int
    behind: BehindReason | None


class StreamOrderStatus(msgspec.Struct):
    """What the order of a stream has cost; `warning` says what to do, null if there is nothing to do."""

    held_chunks: int
    late_events: int
    early_events: int
    inversions: int
    warning: str | None


class HaltedPartition(msgspec.Struct):
    """A partition that cannot be read on from `offset`; reading can continue at `resume_at`."""

    topic: str
    partition: int
    offset: int
    resume_at: int | None
    missing: int | None
    reason: str


class NewLog(msgspec.Struct):
    """A partition that is read from its beginning, since its positions are those of `former` logs."""

    log: str
    former: list[str]


class StepFailure(msgspec.Struct):
    """The newest failure of a step of a stream; `recovered_ns`, when it worked again, is null until then."""

    stream: str
    step: str
    message: str
    time_ns: int
    times: int
    recovered_ns: int | None = None


class WorkerStatus(TierStatus, kw_only=True):
    """What a worker has done. `counted_by_stream` has the counts of each step of a stream, by their names."""

    events_total: int
    bytes_total: int
    chunks_total: int
    repeated_total: int
    lag_messages: int
    streams: int
    partitions: int
    lost_total: int
    waits: list[StreamWait]
    checkpoint_ns: int
    checkpoint_age_s: float
    streams_behind: dict[str, StreamBehind]
    late_events_total: int
    order: dict[str, StreamOrderStatus]
    halted: list[HaltedPartition]
    new_logs: dict[str, NewLog]
    unread_buses: dict[str, str]
    published_total: int
    dead_lettered_by_code: dict[str, int]
    counted_by_name: dict[str, int]
    counted_by_stream: Mapping[str, Mapping[str, Mapping[str, int]]]
    broken_operations: dict[str, str]
    lost_states_by_reason: dict[str, int]
    failures: list[StepFailure]
    time_ns: int
