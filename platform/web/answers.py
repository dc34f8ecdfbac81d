"""The JSON answers of the API as types: handlers build them, openapi.py makes their schemas from them."""

from typing import Any, Literal

import msgspec
import numpy as np

from ..runtime.health_conditions import HealthCondition
from ..runtime.statuses import GatewayStatus, WorkerStatus
from ..runtime.supervision import LastExit
from ..store.catalog.alarms import Alarm, HistoryEntry, State
from ..store.catalog.catalog import Document


class Problem(msgspec.Struct, omit_defaults=True):
    """An error (RFC 9457). Some kinds carry further members."""

    type: str
    title: str
    status: int
    detail: str


class Reason(msgspec.Struct):
    """Why an installation is unhealthy: which tier, a stable code, and in words what to do."""

    tier: str
    code: str
    detail: str


class Health(msgspec.Struct, omit_defaults=True):
    """`status` is `ok`, or `unhealthy` with `reasons`."""

    status: Literal["ok", "unhealthy"]
    version: str
    reasons: list[Reason] = []


class TierState(msgspec.Struct):
    """A tier that `windvane up` keeps running.

    `state` is `starting`, `running`, `restarting` or `stopped`, `since` that time (RFC 3339); `restarts`
    counts since `up` started.
    """

    state: str
    since: str
    restarts: int
    last_exit: LastExit | None


class DiskStatus(msgspec.Struct):
    """The file system of the home, in bytes. Below `reserve_bytes` nothing is acked or stored."""

    free_bytes: int
    size_bytes: int
    reserve_bytes: int


class WebStatus(msgspec.Struct):
    """What this web tier has done since it started, and its health conditions.

    `time_ns`: now, in ns since the epoch, UTC.
    """

    requests_total: int
    live_connections: int
    live_subscriptions: int
    rows_sent_total: int
    rows_skipped_total: int
    time_ns: int
    troubles: list[HealthCondition]


class DeadLetterTotals(msgspec.Struct):
    """The dead letters that are kept, and what they cost of `max_bytes`; `evicted` left for newer ones."""

    count: int
    bytes: int
    max_bytes: int
    evicted: int


class Installation(msgspec.Struct):
    """Which installation answers: its home on the server, and HOST:PORT of the gateways that run over it."""

    home: str
    forward: list[str]


class Status(msgspec.Struct):
    """The status of each tier, null if it is not running, and the totals of the dead letters.

    `gateway` and `worker` are all instances together; `gateways` and `workers` each by its name, which is ""
    for the one without. What a tier of another version does not report is 0, empty or null. `tiers` are those
    that `windvane up` keeps running; `disk` is null if it cannot be read.
    """

    installation: Installation
    health: Health
    gateway: GatewayStatus | None
    worker: WorkerStatus | None
    gateways: dict[str, GatewayStatus]
    workers: dict[str, WorkerStatus]
    web: WebStatus
    tiers: dict[str, TierState]
    disk: DiskStatus | None
    dead_letters: DeadLetterTotals


class Behind(msgspec.Struct):
    """Why a stream is behind: the step of its pipeline that is late (or ""), and the reason."""

    step: str
    reason: str


class FailingStep(msgspec.Struct):
    """A step that failed and has not worked since the worker started: when last (ns), how often, and why."""

    step: str
    message: str
    time_ns: int
    times: int


class StreamAlarm(msgspec.Struct):
    """The worst open alarm of a stream, and how many are open. Shelved ones count as the least bad.

    `grade` is 1 for a warning, 2 for danger.
    """

    reference: str
    grade: int
    state: State
    open: int


class StreamInfo(msgspec.Struct):
    """A data stream: `start` is the first byte kept, `size` the offset after the last; times are RFC 3339.

    `checkpoint_age_s` is how long ago its work was last made durable, `lag_chunks` how many chunks wait: null
    if no worker says it. `behind` is null while the stream is up to date, `alarm` while none is open;
    `failing` are the steps that fail.

    Of the last checkpoint, null if it cannot be read: `held_chunks` wait to be put in order (`reorder_s` of
    the policy), `late_events` came too late for that, `early_events` left early since too much was held.
    `inversions` counts chunks of samples that came out of order and were stored so; `order_warning` says what
    to do about them.
    """

    reference: str
    start: int
    size: int
    chunks: int
    events: int
    first_arrival: str | None
    last_arrival: str | None
    tag: str
    policy: str | None
    arrays: list[str]
    checkpoint_age_s: float | None
    lag_chunks: int | None
    behind: Behind | None
    failing: list[FailingStep]
    alarm: StreamAlarm | None
    held_chunks: int | None = None
    late_events: int | None = None
    early_events: int | None = None
    inversions: int | None = None
    order_warning: str | None = None


class ArrayInfo(msgspec.Struct):
    """A data array: `dtype` as in .npy files, `start` the first row kept.

    `uid` tells two arrays apart that had the same reference, one after the other. `zarr` is the path at which
    `zarr.open_array` finds the sealed rows; null while no rows are sealed.
    """

    reference: str
    stream: str
    uid: str
    dtype: str | list[Any]
    shape: list[int]
    start: int
    attrs: dict[str, Any]
    zarr: str | None


class OverviewInfo(msgspec.Struct):
    """A range of an array in pixels: pixel i has the rows from `rows[i]` to `rows[i + 1]`, without the last.

    `times_ns` are the event times of `rows` (ns since the epoch, UTC), that of the last row for an edge at
    the end of the array, null if there is no row. A pixel of `min`, `max` and `mean` is a number, or
    nested lists if a row has several values; null for a gap: no rows, or only NaN. Other NaN are ignored.
    """

    rows: list[int]
    times_ns: list[int | None]
    min: list[Any]
    max: list[Any]
    mean: list[Any]


class Overview2DInfo(msgspec.Struct):
    """A range of spectra in cells: `max[i][j]` is the largest value of the rows from `rows[i]` to
    `rows[i + 1]` and the bins from `bins[j]` to `bins[j + 1]`, without the last ones; NaN is ignored.

    `times_ns` as in an overview. A pixel without rows is null.
    """

    rows: list[int]
    times_ns: list[int | None]
    bins: list[int]
    max: list[list[float | None] | None]


class DocumentInfo(msgspec.Struct):
    """A document of the catalog. Times are RFC 3339."""

    type: str
    reference: str
    state: str
    title: str
    body: dict[str, Any]
    revision: int
    created: str
    modified: str
    id: int


class AlarmSummary(msgspec.Struct):
    """An alarm in a list: `last` is the last of its history's `entries`. Times are ns since the epoch.

    `value` is that of the last change that rows have made; `peak` is the worst value up to that change.
    """

    reference: str
    state: State
    stream: str
    policy: str
    name: str
    output: str
    column: str
    row: int
    raised_ns: int
    changed_ns: int
    grade: int
    worst: int
    value: float | None
    peak: float | None
    peak_ns: int | None
    warning: float | None
    danger: float | None
    leading: str | None
    rul_s: float | None
    acknowledged_by: str | None
    shelved_until_ns: int | None
    entries: int
    last: HistoryEntry
    revision: int


class AlarmInfo(Alarm, frozen=True, kw_only=True):
    """An alarm with its evidence and history; `revision` is its ETag. Times are ns since the epoch, UTC."""

    revision: int


class DeadLetterInfo(msgspec.Struct):
    """Rejected input. `size` in bytes; `times` is how often it arrived, first and last at these ns.

    `replayable`: it can be replayed.
    """

    id: int
    code: str
    reason: str
    tag: str
    sender: str
    policy: str | None
    size: int
    time_ns: int
    last_time_ns: int
    times: int
    replayable: bool


class DeadLetterDetail(DeadLetterInfo):
    """A dead letter with `detail` (such as a traceback) and `excerpt`, the first bytes of it in base64.

    `decoded` is what they say, a line for each event; `obstacle` why it cannot be replayed. `chunk_id`
    (base64) is what its sender gave it; `format` how a body that came over HTTP is to be read; `identity` who
    proved to have sent it.
    """

    detail: str
    excerpt: bytes
    decoded: list[str]
    obstacle: str | None
    chunk_id: bytes | None
    compression: str
    format: str
    identity: str | None


def rfc3339(time_ns: int) -> str:
    """`time_ns` (ns since the epoch, UTC) as text with all nine digits of the nanoseconds.

    >>> rfc3339(1)
    '1970-01-01T00:00:00.000000001Z'
    """
    return f"{np.datetime64(time_ns, 'ns')}Z"


def document_info(document: Document) -> DocumentInfo:
    """The description of a document of the catalog."""
    return DocumentInfo(
        type=document.type,
        reference=document.reference,
        state=document.state,
        title=document.title,
        body=document.body,
        revision=document.revision,
        created=rfc3339(document.created_ns),
        modified=rfc3339(document.modified_ns),
        id=document.id,
    )
