"""What pipelines report: chunks, steps, results and policies."""

import logging

from ....runtime.instrumentation import Count, Event, LogLine


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


class EventsLate(Event, frozen=True):
    """Events arrived too late to be put in order."""

    counts = (
        Count(
            "late_events_total",
            "windvane_worker_late_events",
            "Events that arrived too late to be put in order",
            amount="events",
        ),
    )

    events: int


class SamplesOutOfOrder(Event, frozen=True):
    """A chunk of a raw stream begins before the end of the one before it."""

    line = LogLine(
        logging.WARNING,
        "stream {stream!r:.220}: samples arrived out of order and are stored in that order; set reorder_s in "
        "policy {policy!r}, or configure the sender to keep the order (docs/policies.md, reorder_s)",
        key=("stream",),
    )

    stream: str
    policy: str


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
        "policy {policy!r}: the counts of step {step!r} cannot be read: {reason}",
        key=("policy", "step"),
    )

    policy: str
    step: str
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
    """The bus accepts no results now; pipelines with results wait."""

    line = LogLine(logging.WARNING, "results are not published yet: {reason}", key=())

    reason: str


class CatalogUnavailable(Event, frozen=True):
    """The catalog cannot be reached; the policies in force stay in force."""

    line = LogLine(logging.WARNING, "the catalog is unavailable: {reason}", key=())

    reason: str


class PoliciesFromCopy(Event, frozen=True):
    """The catalog is damaged; the worker started with the copy of the policies that were last in force."""

    line = LogLine(logging.WARNING, "using the policies that were last in force: {reason}", key=())

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
