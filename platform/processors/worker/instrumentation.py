"""What a worker reports: each event with its log line and its counters."""

import logging
from collections.abc import Collection

from ...runtime.instrumentation import Count, Event, LogLine

_LISTED_PARTITIONS = 10


class ChunkProcessed(Event, frozen=True):
    """A chunk went through its pipeline. The hot path counts it with `WorkerTelemetry.chunk_stored`."""

    counts = (
        Count("chunks_total", "windvane_worker_chunks", "Chunks that went through their pipelines"),
        Count("events_total", "windvane_worker_events", "Events in these chunks", amount="events"),
        Count("bytes_total", "windvane_worker_bytes", "Their payload bytes", amount="payload_bytes"),
    )

    events: int
    payload_bytes: int


class ChunkRepeated(Event, frozen=True):
    """A chunk was read that is stored already; it is skipped."""

    counts = (Count("repeated_total", "windvane_worker_repeated_chunks", "Chunks that were stored already"),)


class ChunkDeadLettered(Event, frozen=True):
    """A chunk, or its way through one step, went to the dead letters with `code`."""

    line = LogLine(
        logging.WARNING,
        "dead letter ({code}), stream {tag!r:.220}: {reason}",
        key=("code", "tag", "reason_start"),
    )
    counts = (
        Count(
            "dead_lettered_by_code",
            "windvane_worker_dead_letters",
            "Dead letters by reason",
            labels={"code": "code"},
        ),
    )

    code: str
    tag: str
    reason: str

    @property
    def reason_start(self) -> str:
        """The maximum length of the reason in the log, enough to distinguish it from others."""
        return self.reason[:200]


class DeadLetterNotWritten(Event, frozen=True):
    """A dead letter could not be written; its chunk is in the archive."""

    line = LogLine(logging.WARNING, "a dead letter is not kept: {reason}", key=())

    reason: str


class EventsLate(Event, frozen=True):
    """Events arrived too late to be put in order."""

    counts = (
        Count(
            "late_events_total",
            "windvane_worker_late_events",
            "Events that came too late to be put in order",
            amount="events",
        ),
    )

    events: int


class SamplesOutOfOrder(Event, frozen=True):
    """A chunk of a raw stream begins before the end of the one before it."""

    line = LogLine(
        logging.WARNING,
        "stream {stream!r:.220}: samples came out of order, and are stored in that order; set reorder_s in "
        "policy {policy!r}, or let the sender keep the order (docs/policies.md, reorder_s)",
        key=("stream",),
    )

    stream: str
    policy: str


class FlushFailed(Event, frozen=True):
    """No flush message could be published: streams hold their chunks back for longer."""

    line = LogLine(logging.WARNING, "{reason}; it is retried", key=())

    reason: str


class DataCounted(Event, frozen=True):
    """A step counted something in the data, such as gaps or late samples."""

    counts = (
        Count(
            "counted_by_name",
            "windvane_worker_counted",
            "What steps counted in the data, such as gaps and late samples",
            labels={"what": "what"},
            amount="number",
        ),
    )

    what: str
    number: int


class StepFailed(Event, frozen=True):
    """A step of a pipeline raised an error on a chunk; the other steps processed it."""

    counts = (Count("step_failures_total", "windvane_worker_step_failures", "Chunks on which a step failed"),)

    stream: str
    step: str
    reason: str


class StateLost(Event, frozen=True):
    """The state of a step cannot be read or saved: the step starts over, now or at the next restart."""

    line = LogLine(
        logging.WARNING,
        "policy {policy!r}: the state of step {step!r} {what} ({code}): {reason}",
        key=("policy", "step", "code"),
    )
    counts = (
        Count(
            "by_reason",
            "windvane_worker_lost_states",
            "States of steps not read or not kept, by reason",
            labels={"reason": "code"},
        ),
    )

    policy: str
    step: str
    code: str
    reason: str

    @property
    def what(self) -> str:
        """The loss in words."""
        return "cannot be kept" if self.code == "not-kept" else "cannot be read, so the step starts over"


class CountsNotRead(Event, frozen=True):
    """A user's operation raised an error while its counts were read."""

    line = LogLine(
        logging.WARNING,
        "policy {policy!r}: step {step!r} cannot give its counts: {reason}",
        key=("policy", "step"),
    )

    policy: str
    step: str
    reason: str


class TrainingSucceeded(Event, frozen=True):
    """A training of a step made a model."""

    line = LogLine(logging.INFO, "{reference} was trained on {rows} of the first {stop_row} rows of {source}")

    reference: str
    rows: int
    stop_row: int
    source: str


class TrainingFailed(Event, frozen=True):
    """A training of a step made no model; the step keeps the one that it has."""

    line = LogLine(logging.WARNING, "the training of {reference} failed, its model stays: {reason}")

    reference: str
    reason: str


class ModelRestored(Event, frozen=True):
    """A step loaded a model that an operator restored."""

    line = LogLine(logging.INFO, "the model restored for {reference} is loaded")

    reference: str


class ModelNotRestored(Event, frozen=True):
    """A step cannot load the model that an operator restored; it keeps the one that it has."""

    line = LogLine(logging.WARNING, "the model restored for {reference} cannot be loaded: {reason}")

    reference: str
    reason: str


class OperationsLoaded(Event, frozen=True):
    """The user's own operations were loaded, changed or removed."""

    line = LogLine(logging.INFO, "operations of your own: {names}")

    names: str


class OperationNotLoaded(Event, frozen=True):
    """A file with operations of the user cannot be loaded."""

    line = LogLine(logging.WARNING, "operation not loaded: {reason}", key=("file", "reason"))

    file: str
    reason: str


class CatalogUnavailable(Event, frozen=True):
    """The catalog cannot be reached; the policies in force stay in force."""

    line = LogLine(logging.WARNING, "the catalog cannot be used now: {reason}", key=())

    reason: str


class PoliciesFromCopy(Event, frozen=True):
    """The catalog is damaged; the worker started with the copy of the policies that were in force last."""

    line = LogLine(logging.WARNING, "working with the policies that were in force last: {reason}", key=())

    reason: str


class PolicyNotApplied(Event, frozen=True):
    """A policy of the catalog is not valid; the one that was in force stays in force."""

    line = LogLine(logging.WARNING, "policy {policy!r} is not valid: {reason}", key=("policy",))

    policy: str
    reason: str


class PipelineNotRunnable(Event, frozen=True):
    """The pipeline of a policy cannot run; the one that was in force stays in force."""

    line = LogLine(logging.WARNING, "policy {policy!r}: its pipeline cannot run: {reason}", key=("policy",))

    policy: str
    reason: str


class CheckpointCommitted(Event, frozen=True):
    """A checkpoint is durable."""

    counts = (Count("checkpoints_total", "windvane_worker_checkpoints", "Checkpoints committed"),)


class StreamSlow(Event, frozen=True):
    """A chunk takes so long that its stream has moved to the threads for slow streams."""

    line = LogLine(
        logging.WARNING,
        "stream {stream!r:.220} is slow{in_step}: it has threads of its own now, and the others continue",
        key=("stream",),
    )
    counts = (
        Count("slow_total", "windvane_worker_slow_streams", "Times that a stream moved to the slow threads"),
    )

    stream: str
    step: str | None

    @property
    def in_step(self) -> str:
        """The step in words, if it is known."""
        return f" in step {self.step!r}" if self.step else ""


class StreamStopped(Event, frozen=True):
    """A stream has stopped and is retried. Nothing of it is lost, and the others continue."""

    line = LogLine(
        logging.WARNING, "stream {stream!r:.220} has stopped: {reason}", key=("health_code", "stream")
    )
    counts = (Count("stopped_total", "windvane_worker_stopped_streams", "Times that a stream has stopped"),)

    stream: str
    health_code: str
    reason: str


class StreamFailedUnexpectedly(Event, frozen=True):
    """A stream has stopped because of a defect in the program; `trace` is its traceback."""

    line = LogLine(logging.ERROR, "stream {stream} has stopped on an unexpected error:\n{trace}")

    stream: str
    trace: str


class StreamHeldByAnother(Event, frozen=True):
    """A chunk waits until another worker stops writing its stream."""

    line = LogLine(
        logging.WARNING,
        "stream {stream!r:.220} of policy {policy!r} waits for {writer}, which still writes it: it continues "
        "when that worker notices that its partition is gone, or ends",
        key=("stream",),
    )

    stream: str
    policy: str
    writer: str


class PartitionsAssigned(Event, frozen=True):
    """The bus has assigned partitions to this worker."""

    line = LogLine(logging.INFO, "assigned {partitions}; owns {owned} partitions")

    partitions: str
    owned: int


class PartitionsReleased(Event, frozen=True):
    """This worker has released partitions, or noticed that another worker owns them."""

    line = LogLine(logging.INFO, "released {partitions}; owns {owned} partitions")

    partitions: str
    owned: int


class PartitionsLost(Event, frozen=True):
    """Other workers took partitions while this one was suspended or disconnected."""

    line = LogLine(logging.WARNING, "{reason}", key=())
    counts = (
        Count(
            "lost_total",
            "windvane_worker_lost_partitions",
            "Partitions that another worker took unnoticed",
            amount="number",
        ),
    )

    number: int
    reason: str


class PartitionReadHalted(Event, frozen=True):
    """A partition cannot be read on; all others can."""

    line = LogLine(logging.WARNING, "{reason}", key=("topic", "partition"))

    topic: str
    partition: int
    reason: str


class MessagesGivenUp(Event, frozen=True):
    """Reading continues after messages that are gone, as an operator decided."""

    line = LogLine(
        logging.WARNING,
        "{topic}/{partition} is read on at message {resume_at}; messages {first} to {last} were given up",
    )

    topic: str
    partition: int
    resume_at: int
    first: int

    @property
    def last(self) -> int:
        """The last message that was skipped."""
        return self.resume_at - 1


class PartitionLogReplaced(Event, frozen=True):
    """A partition has positions of other logs only, so it is read from its beginning."""

    line = LogLine(
        logging.WARNING,
        "{topic}/{partition} is a new log ({log}); it is read from its beginning. Positions of the former "
        "one ({former}) are kept",
        key=("topic", "partition"),
    )

    topic: str
    partition: int
    log: str
    former: str


class PreviousWorkerDied(Event, frozen=True):
    """The worker before this one died while it worked on chunks, and one of them may be the cause."""

    line = LogLine(
        logging.WARNING,
        "the last worker ended while it worked on {chunks} chunks: {reason}. A chunk that a worker ends with "
        "twice is set aside as a dead letter",
    )

    chunks: int
    reason: str


class FormerBusFound(Event, frozen=True):
    """A bus that the home used before has messages that are not stored."""

    line = LogLine(logging.INFO, "the former bus {url} holds {messages} messages to store first")

    url: str
    messages: int


class FormerBusUnreadable(Event, frozen=True):
    """A bus that the home used before cannot be read."""

    line = LogLine(
        logging.WARNING,
        "the former bus {url} cannot be read ({reason}). If it holds chunks that are not stored, they stay "
        "there: make it reachable and restart the worker",
    )

    url: str
    reason: str


class ResultsPublished(Event, frozen=True):
    """Rows or events are durable on their topic."""

    counts = (
        Count(
            "published_total",
            "windvane_worker_published_results",
            "Rows and events published on topics of results",
            amount="rows",
        ),
    )

    rows: int


class ResultsDelayed(Event, frozen=True):
    """The bus accepts no results now; pipelines that make some wait."""

    line = LogLine(logging.WARNING, "results wait for the bus: {reason}", key=())

    reason: str


class BusUnreachable(Event, frozen=True):
    """The bus gives no messages now."""

    line = LogLine(logging.WARNING, "waiting for the bus: {reason}", key=())

    reason: str

    @classmethod
    def of(cls, error: Exception) -> "BusUnreachable":
        """The event of a request that `error` ended."""
        return cls(str(error) or repr(error))


def listed_partitions(keys: Collection[tuple[str, int]]) -> str:
    """The first ten as TOPIC/NUMBER, and how many more there are."""
    names = [f"{topic}/{partition}" for topic, partition in sorted(keys)]
    more = len(names) - _LISTED_PARTITIONS
    return ", ".join(names[:_LISTED_PARTITIONS]) + (f" and {more} more" if more > 0 else "")


COUNTED_EVENTS: tuple[type[Event], ...] = (
    ChunkProcessed,
    ChunkRepeated,
    ChunkDeadLettered,
    EventsLate,
    DataCounted,
    StepFailed,
    CheckpointCommitted,
    StreamSlow,
    StreamStopped,
    PartitionsLost,
    ResultsPublished,
)
"""Those whose totals are in the worker's telemetry."""
