"""The totals of a worker, its health conditions and its status."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import Metric

from ....bus.interface import TopicPartition
from ....errors import PartitionHalted
from ....runtime.instrumentation import Reading
from ....runtime.statuses import (
    HaltedPartition,
    NewLog,
    StreamBehind,
    StreamOrderStatus,
    StreamWait,
    WorkerStatus,
)
from ....runtime.telemetry import Telemetry
from ..instrumentation import (
    COUNTED_EVENTS,
    CheckpointCommitted,
    OperationNotLoaded,
    OperationsLoaded,
    StreamHeldByAnother,
    TrainingFailed,
)
from ..progress.instrumentation import (
    PartitionLogReplaced,
    PartitionReadHalted,
    PartitionsAssigned,
    PartitionsReleased,
    listed_partitions,
)
from .instrumentation import ChunkRepeated, DataCounted, EventsLate, StepFailed
from .state_losses import state_losses
from .step_failures import StepFailures

_REMEMBERED_STEPS = 200
_COUNTED_STREAMS = 1000


class WorkerTelemetry(Telemetry):
    """Counts and logs the events of one worker. Called from the pipelines' threads too.

    Memory: the newest failures of 200 steps, and what steps counted in the 1,000 streams that counted last.
    """

    # CPython reads and writes the attributes of an object faster if it has at most 30. These are written for
    # each chunk.
    __slots__ = ("bytes_total", "chunks_total", "events_total")

    events = COUNTED_EVENTS
    readings = (
        Reading(
            "gauge",
            "windvane_worker_lag_messages",
            "Messages still on the bus",
            lambda telemetry: telemetry.lag_messages,
        ),
        Reading(
            "gauge",
            "windvane_worker_halted_partitions",
            "Partitions that cannot be read further",
            lambda telemetry: len(telemetry.halted),
        ),
        Reading("gauge", "windvane_worker_streams", "Open data streams", lambda telemetry: telemetry.streams),
        Reading(
            "gauge",
            "windvane_worker_partitions",
            "Partitions that this worker owns",
            lambda telemetry: telemetry.partitions,
        ),
        Reading(
            "gauge",
            "windvane_worker_waiting_streams",
            "Streams that another worker still writes",
            lambda telemetry: telemetry.waiting_streams,
        ),
        Reading(
            "gauge",
            "windvane_worker_checkpoint_timestamp_seconds",
            "When the last checkpoint was committed, in seconds since the epoch",
            lambda telemetry: telemetry.checkpoint_ns / 1e9,
        ),
    )
    events_total: int
    bytes_total: int
    chunks_total: int
    repeated_total: int
    lost_total: int
    late_events_total: int
    published_total: int
    slow_total: int
    stopped_total: int
    checkpoints_total: int
    step_failures_total: int
    retention_dropped_bytes_total: int
    dead_lettered_by_code: Counter[str]
    counted_by_name: Counter[str]

    def __init__(self) -> None:
        super().__init__(logging.getLogger("windvane.worker"))
        self.lag_messages = 0
        self.streams = 0
        self.partitions = 0
        self.checkpoint_ns = 0
        self.checkpoint_s = time.monotonic()
        """When the last commit began, on the monotonic clock; at first when the worker started."""
        self.streams_behind: Callable[[float], dict[str, StreamBehind]] = lambda _: {}
        """The streams that a commit begun at that time (monotonic) does not cover; the worker sets it."""
        self.orders: Callable[[], dict[str, StreamOrderStatus]] = dict
        """The streams with late events or other effects of reordering; the worker sets it."""
        self.unread_buses: dict[str, str] = {}
        """Buses that the home used before and that cannot be read, each with the reason."""
        self.halted: Mapping[TopicPartition, PartitionHalted] = {}
        self._counted: OrderedDict[str, Mapping[str, Mapping[str, int]]] = OrderedDict()
        self._waits: dict[str, StreamWait] = {}
        self._new_logs: dict[str, NewLog] = {}
        self._failures = StepFailures(_REMEMBERED_STEPS)
        self._broken_operations: dict[str, str] = {}

    @property
    def waiting_streams(self) -> int:
        """Streams that another worker still writes."""
        return len(self._waits)

    def chunk_stored(self, *, events: int, size: int) -> None:
        """Updates the counters of `ChunkProcessed` without creating the event: this is the hot path."""
        self.chunks_total += 1
        self.events_total += events
        self.bytes_total += size

    def chunk_repeated(self) -> None:
        """A chunk was read that is stored already, and was skipped."""
        self.emit(ChunkRepeated())

    def events_late(self, count: int) -> None:
        """Counts events that arrived too late to be reordered, often 0."""
        if count:
            self.emit(EventsLate(count))

    def steps_counted(
        self, *, stream: str, gained: Mapping[str, int], total: Mapping[str, Mapping[str, int]]
    ) -> None:
        """What the steps of a stream have counted, such as gaps: since the last time, and since it began."""
        if not gained:
            return
        for what, number in gained.items():
            self.emit(DataCounted(what, number))
        self._counted[stream] = total
        self._counted.move_to_end(stream)
        if len(self._counted) > _COUNTED_STREAMS:
            self._counted.popitem(last=False)

    def operations_loaded(self, names: Collection[str], *, broken: Mapping[Path, str]) -> None:
        """The user's operations with these names changed; the files in `broken` could not be loaded."""
        if names:
            self.emit(OperationsLoaded(", ".join(sorted(names))))
        self._broken_operations = {path.name: reason for path, reason in broken.items()}
        for name, reason in self._broken_operations.items():
            self.emit(OperationNotLoaded(name, reason))

    def checkpoint_made(self, *, began_s: float) -> None:
        """What was done at `began_s` (monotonic) is durable, except of streams that are late."""
        self.checkpoint_ns = time.time_ns()
        self.checkpoint_s = began_s
        self.emit(CheckpointCommitted())

    def has_work(self) -> bool:
        """Whether a checkpoint is due now. A worker without work makes them too, so it always is."""
        return True

    def partitions_halted(self, halted: Mapping[TopicPartition, PartitionHalted]) -> None:
        """These partitions cannot be read further; the others can."""
        for key, error in halted.items():
            self.emit(PartitionReadHalted(key.topic, key.partition, str(error)))
        self.halted = dict(halted)

    def log_is_new(self, key: TopicPartition, *, log: str, former: Collection[str]) -> None:
        """A partition has positions of other logs only, so it is read from its beginning."""
        self._new_logs[f"{key.topic}/{key.partition}"] = NewLog(log, list(former))
        self.emit(PartitionLogReplaced(key.topic, key.partition, log, ", ".join(former)))

    def step_failed(self, *, stream: str, step: str, error: Exception) -> None:
        """A step raised an error; the others processed the chunk."""
        self._failures.add(stream, step, str(error))
        self.emit(StepFailed(stream, step, str(error)))

    def training_failed(self, *, stream: str, step: str, stop_row: int, reason: str) -> None:
        """A training on the rows before `stop_row` made no model; the step keeps its current one."""
        message = f"the training on {stop_row} rows failed, the model is unchanged: {reason}"
        self._failures.add(stream, step, message, of_training=True)
        self.emit(TrainingFailed(f"{stream}:{step}", reason))

    def training_worked(self, *, stream: str, step: str) -> None:
        """A training of a step made a model."""
        self._failures.recover(stream, {step}, of_training=True)

    def steps_known(self, stream: str, steps: Collection[str]) -> None:
        """The stream was opened with these steps: failures of other steps are forgotten."""
        self._failures.forget_others(stream, steps)

    def steps_worked(self, stream: str, steps: Collection[str]) -> None:
        """These steps processed a chunk."""
        self._failures.recover(stream, steps)

    def waits_for_stream(self, stream: str, *, writer: str, policy: str) -> None:
        """A chunk waits until another worker stops writing its stream; its partition waits with it."""
        if stream not in self._waits:
            self._waits[stream] = StreamWait(stream, writer, time.time_ns())
        self.emit(StreamHeldByAnother(stream, policy, writer))

    def stream_is_free(self, stream: str) -> None:
        """Nothing waits for the stream any more."""
        self._waits.pop(stream, None)

    def partitions_taken(self, keys: Collection[TopicPartition], *, owned: int) -> None:
        """The bus has assigned partitions to this worker, which owns so many now."""
        self.partitions = owned
        self.emit(PartitionsAssigned(listed_partitions(keys), owned))

    def partitions_left(self, keys: Collection[TopicPartition], *, owned: int) -> None:
        """Partitions were released, or another worker owns them."""
        self.partitions = owned
        self.emit(PartitionsReleased(listed_partitions(keys), owned))

    def status(self) -> WorkerStatus:
        """For the status route."""
        return WorkerStatus(
            events_total=self.events_total,
            bytes_total=self.bytes_total,
            chunks_total=self.chunks_total,
            repeated_total=self.repeated_total,
            lag_messages=self.lag_messages,
            streams=self.streams,
            partitions=self.partitions,
            lost_total=self.lost_total,
            waits=list(self._waits.values()),
            checkpoint_ns=self.checkpoint_ns,
            checkpoint_age_s=round(time.monotonic() - self.checkpoint_s, 3),
            streams_behind=self.streams_behind(self.checkpoint_s),
            late_events_total=self.late_events_total,
            order=self.orders(),
            halted=[
                HaltedPartition(
                    key.topic, key.partition, error.offset, error.resume_at, error.missing, str(error)
                )
                for key, error in self.halted.items()
            ],
            new_logs=dict(self._new_logs),
            unread_buses=self.unread_buses,
            published_total=self.published_total,
            dead_lettered_by_code=dict(self.dead_lettered_by_code),
            counted_by_name=dict(self.counted_by_name),
            counted_by_stream=dict(self._counted),
            broken_operations=self._broken_operations,
            lost_states_by_reason=dict(state_losses.by_reason),
            failures=self._failures.listed(),
            time_ns=time.time_ns(),
        )

    def collect(self) -> Iterator[Metric]:
        """Prometheus scrapes. The pipelines of all workers of this process share the losses of states."""
        yield from super().collect()
        yield from state_losses.collect()
