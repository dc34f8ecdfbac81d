"""What a worker reports about streams, checkpoints, trainings, models and operations.

Pipelines and progress have instrumentation of their own; `COUNTED_EVENTS` is of all three.
"""

import logging

from ...runtime.instrumentation import Count, Event, LogLine
from .pipeline.instrumentation import (
    ChunkProcessed,
    ChunkRepeated,
    DataCounted,
    EventsLate,
    ResultsPublished,
    StepFailed,
)
from .progress.instrumentation import PartitionsLost


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

    line = LogLine(logging.WARNING, "a dead letter could not be written: {reason}", key=())

    reason: str


class FlushFailed(Event, frozen=True):
    """No flush message could be published: streams buffer their chunks for longer."""

    line = LogLine(logging.WARNING, "{reason}; it is retried", key=())

    reason: str


class PyramidNotExtended(Event, frozen=True):
    """The pyramid of an array was not extended; overviews of it read more rows."""

    line = LogLine(
        logging.WARNING,
        "the pyramid of {reference} could not be extended: {reason}; it is retried after a checkpoint",
        key=("reference",),
    )

    reference: str
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

    line = LogLine(
        logging.WARNING, "the training of {reference} failed, and its model is unchanged: {reason}"
    )

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

    line = LogLine(logging.INFO, "loaded user-defined operations: {names}")

    names: str


class OperationNotLoaded(Event, frozen=True):
    """A file with operations of the user cannot be loaded."""

    line = LogLine(logging.WARNING, "operation not loaded: {reason}", key=("file", "reason"))

    file: str
    reason: str


class CheckpointCommitted(Event, frozen=True):
    """A checkpoint is durable."""

    counts = (Count("checkpoints_total", "windvane_worker_checkpoints", "Checkpoints committed"),)


class StreamSlow(Event, frozen=True):
    """A chunk takes so long that its stream has moved to the threads for slow streams."""

    line = LogLine(
        logging.WARNING,
        "stream {stream!r:.220} is slow{in_step}: slow threads process it now; other streams continue",
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
        "stream {stream!r:.220} of policy {policy!r} waits for {writer}, which still has it open: it "
        "continues when that worker ends, or notices that it lost the partition",
        key=("stream",),
    )

    stream: str
    policy: str
    writer: str


class RetentionDropped(Event, frozen=True):
    """Retention dropped the beginnings of some outputs of a stream."""

    counts = (
        Count(
            "retention_dropped_bytes_total",
            "windvane_worker_retention_dropped_bytes",
            "Bytes of streams and arrays that retention dropped",
            amount="size_bytes",
        ),
    )

    stream: str
    size_bytes: int


class RetentionFailed(Event, frozen=True):
    """Retention could not drop anything of a stream; the stream is as it was."""

    line = LogLine(
        logging.WARNING,
        "retention cannot drop the beginning of {stream!r}, and retries: {reason}",
        key=("stream",),
    )
    counts = (
        Count(
            "retention_failed_total",
            "windvane_worker_retention_failures",
            "Streams whose beginning could not be dropped",
        ),
    )

    stream: str
    reason: str


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
    RetentionDropped,
    RetentionFailed,
)
"""Those whose totals are in the worker's telemetry."""
