"""What the worker says about itself: one call is a counter and, where people must know, a log line."""

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ....bus.interface import TopicPartition
from ....errors import PartitionHalted, PartitionLost
from ....runtime.health_conditions import HealthConditions
from ....runtime.telemetry import RateLimitedLog
from ....store.databases.checkpoint import Hole
from .state_losses import state_losses
from .step_failures import StepFailures

_REMEMBERED_STEPS = 200
_COUNTED_STREAMS = 1000
_LISTED_PARTITIONS = 10
_logger = logging.getLogger("windvane.worker")


class WorkerTelemetry(Collector):
    """Counters of one worker, the 200 steps that failed last, and what steps counted in the 1,000 streams
    that counted last. Called from the pipelines' threads too."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.events_total = 0
        self.bytes_total = 0
        self.chunks_total = 0
        self.repeated_total = 0
        self.lag_messages = 0
        self.streams = 0
        self.partitions = 0
        self.lost_total = 0
        self.checkpoint_ns = 0
        self.checkpoints_total = 0
        self.checkpoint_s = time.monotonic()
        """When the last commit began, on the monotonic clock; at first when the worker started."""
        self.streams_behind: Callable[[float], dict[str, dict[str, Any]]] = lambda _: {}
        """The streams that a commit begun at that time (monotonic) does not cover; the worker sets it."""
        self.orders: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
        """The streams of whose order there is something to be said; the worker sets it."""
        self.late_events_total = 0
        self.published_total = 0
        self.dead_lettered_by_code: Counter[str] = Counter()
        self.counted_by_name: Counter[str] = Counter()
        self._counted: OrderedDict[str, Mapping[str, Mapping[str, int]]] = OrderedDict()
        self._waits: dict[str, dict[str, Any]] = {}
        self.unread_buses: Mapping[str, str] = {}
        """Buses that the home was used with before and that cannot be read, each with the reason."""
        self.slow_total = 0
        self.stopped_by_code: Counter[str] = Counter()
        self.halted: Mapping[TopicPartition, PartitionHalted] = {}
        self._new_logs: dict[str, dict[str, Any]] = {}
        self._failures = StepFailures(_REMEMBERED_STEPS)
        self._broken_operations: Mapping[str, str] = {}
        self._log = RateLimitedLog(_logger)
        self.health = HealthConditions(_logger)

    def chunk_stored(self, *, events: int, size: int) -> None:
        """A chunk went through its pipeline."""
        self.chunks_total += 1
        self.events_total += events
        self.bytes_total += size

    def chunk_repeated(self) -> None:
        """A chunk that is stored already came again, and was left out."""
        self.repeated_total += 1

    def events_late(self, count: int) -> None:
        """Events came too late to be put in order."""
        self.late_events_total += count

    def samples_went_back(self, *, stream: str, policy: str) -> None:
        """A chunk of a raw stream begins before the end of the one before it."""
        self._log.warning(
            ("order", stream),
            f"stream {stream!r:.220}: samples came out of order, and are stored as they came; set reorder_s "
            f"in policy {policy!r}, or let the sender keep the order (docs/policies.md, reorder_s)",
        )

    def flush_failed(self, error: Exception) -> None:
        """What streams hold back waits longer."""
        self._log.warning(("flush",), f"{str(error) or repr(error)}; it is tried again")

    def steps_counted(
        self, *, stream: str, gained: Mapping[str, int], total: Mapping[str, Mapping[str, int]]
    ) -> None:
        """What the steps of a stream have counted, such as gaps: since the last time, and since it began."""
        if not gained:
            return
        self.counted_by_name.update(gained)
        self._counted[stream] = total
        self._counted.move_to_end(stream)
        if len(self._counted) > _COUNTED_STREAMS:
            self._counted.popitem(last=False)

    def operations_loaded(self, names: Collection[str], *, broken: Mapping[Path, str]) -> None:
        """Operations of the user's own came, changed or went; these files could not be loaded."""
        if names:
            _logger.info("operations of your own: %s", ", ".join(sorted(names)))
        self._broken_operations = {path.name: reason for path, reason in broken.items()}
        for name, reason in self._broken_operations.items():
            self._log.warning(("operation", name, reason), f"operation not loaded: {reason}")

    def checkpoint_made(self, *, began_s: float) -> None:
        """What was done at `began_s` (monotonic) is durable, except of streams that are late."""
        self.checkpoint_ns = time.time_ns()
        self.checkpoint_s = began_s
        self.checkpoints_total += 1

    def has_work(self) -> bool:
        """Whether a checkpoint is due now. A worker without work makes them too, so it always is."""
        return True

    def stream_is_slow(self, stream: str, *, step: str | None) -> None:
        """A chunk takes so long that the stream has moved to the slow threads."""
        self.slow_total += 1
        self._log.warning(
            ("slow", stream),
            f"stream {stream!r:.220} is slow{f' in step {step!r}' if step else ''}: it has threads of its "
            "own now, and the others go on",
        )

    def stream_stopped(self, stream: str, *, code: str, reason: str) -> None:
        """A stream does not go on; nothing of it is lost, and the others go on."""
        self.stopped_by_code[code] += 1
        self._log.warning((code, stream), f"stream {stream!r:.220} has stopped: {reason}")

    def partitions_halted(self, halted: Mapping[TopicPartition, PartitionHalted]) -> None:
        """These partitions cannot be read on; all others can."""
        for key, error in halted.items():
            self._log.warning(("halted", f"{key.topic}/{key.partition}"), str(error))
        self.halted = dict(halted)

    def hole_skipped(self, key: TopicPartition, hole: Hole) -> None:
        """Reading goes on behind messages that are gone, as an operator decided."""
        _logger.warning(
            "%s/%d is read on at message %d; messages %d to %d were given up",
            *key,
            hole.resume_at,
            hole.first,
            hole.resume_at - 1,
        )

    def log_is_new(self, key: TopicPartition, *, log: str, former: Collection[str]) -> None:
        """A partition has positions of another log only, so it is read from its beginning."""
        self._new_logs[f"{key.topic}/{key.partition}"] = {"log": log, "former": list(former)}
        self._log.warning(
            ("new log", f"{key.topic}/{key.partition}"),
            f"{key.topic}/{key.partition} is a new log ({log}); it is read from its beginning. Positions of "
            f"the former one ({', '.join(former)}) are kept",
        )

    def worker_died(self, chunks: int, reason: str) -> None:
        """The worker before this one died while it worked on so many chunks, and one of them may be why."""
        _logger.warning(
            "the last worker ended while it worked on %d chunks: %s. A chunk that a worker ends with twice "
            "is set aside as a dead letter",
            chunks,
            reason,
        )

    def dead_letter_lost(self, error: Exception) -> None:
        """A dead letter could not be kept; its chunk is in the archive."""
        self._log.warning(("dead letters",), f"a dead letter is not kept: {error}")

    def step_failed(self, *, stream: str, step: str, error: Exception) -> None:
        """A step raised; the others went on."""
        self._failures.add(stream, step, str(error))

    def training_failed(self, *, stream: str, step: str, error: Exception) -> None:
        """A training of a step gave no model; the step goes on with the one that it has."""
        self._failures.add(stream, step, str(error), of_training=True)

    def training_worked(self, *, stream: str, step: str) -> None:
        """A training of a step gave a model."""
        self._failures.recover(stream, {step}, of_training=True)

    def steps_known(self, stream: str, steps: Collection[str]) -> None:
        """The stream was opened with these steps: what others failed with is over."""
        self._failures.forget_others(stream, steps)

    def steps_worked(self, stream: str, steps: Collection[str]) -> None:
        """These steps did what they had to do with a chunk."""
        self._failures.recover(stream, steps)

    def dead_lettered(self, *, code: str, tag: str, reason: str) -> None:
        """A chunk, or its way through one step, went to the dead letters."""
        self.dead_lettered_by_code[code] += 1
        self._log.warning((code, tag, reason[:200]), f"dead letter ({code}), stream {tag!r:.220}: {reason}")

    def waits_for_stream(self, stream: str, *, writer: str, policy: str) -> None:
        """A chunk waits until another worker lets go of its stream; its partition stands still."""
        if stream not in self._waits:
            self._waits[stream] = {"stream": stream, "writer": writer, "since_ns": time.time_ns()}
        self._log.warning(
            ("held", stream),
            f"stream {stream!r:.220} of policy {policy!r} waits for {writer}, which still writes it: it goes "
            "on when that one notices that its partition is gone, or ends",
        )

    def stream_is_free(self, stream: str) -> None:
        """Nothing waits for it any more."""
        self._waits.pop(stream, None)

    def partitions_taken(self, keys: Collection[TopicPartition], *, owned: int) -> None:
        """The bus has given partitions to this worker."""
        self.partitions = owned
        _logger.info("took up %s; has %d partitions", _listed(keys), owned)

    def partitions_left(self, keys: Collection[TopicPartition], *, owned: int) -> None:
        """Partitions were given back, or turned out to be another's."""
        self.partitions = owned
        _logger.info("let go of %s; has %d partitions", _listed(keys), owned)

    def partitions_lost(self, lost: PartitionLost) -> None:
        """Others took partitions while this worker stood still, or was away."""
        self.lost_total += len(lost.owners)
        self._log.warning(("lost",), str(lost))

    def results_published(self, count: int) -> None:
        """Rows or events are durable on their topic."""
        self.published_total += count

    def results_wait(self, error: Exception) -> None:
        """The bus takes no results now; pipelines that make some will wait."""
        self._log.warning(("results",), f"results wait for the bus: {error}")

    def bus_unavailable(self, error: Exception) -> None:
        """The bus gives no messages now."""
        self._log.warning(("bus",), f"waiting for the bus: {str(error) or repr(error)}")

    def status(self) -> dict[str, Any]:
        """For the status page."""
        return {
            "events_total": self.events_total,
            "bytes_total": self.bytes_total,
            "chunks_total": self.chunks_total,
            "repeated_total": self.repeated_total,
            "lag_messages": self.lag_messages,
            "streams": self.streams,
            "partitions": self.partitions,
            "lost_total": self.lost_total,
            "waits": list(self._waits.values()),
            "checkpoint_ns": self.checkpoint_ns,
            "checkpoint_age_s": round(time.monotonic() - self.checkpoint_s, 3),
            "streams_behind": self.streams_behind(self.checkpoint_s),
            "late_events_total": self.late_events_total,
            "order": self.orders(),
            "halted": [
                {
                    "topic": key.topic,
                    "partition": key.partition,
                    "offset": error.offset,
                    "resume_at": error.resume_at,
                    "missing": error.missing,
                    "reason": str(error),
                }
                for key, error in self.halted.items()
            ],
            "new_logs": self._new_logs,
            "unread_buses": self.unread_buses,
            "published_total": self.published_total,
            "dead_lettered_by_code": dict(self.dead_lettered_by_code),
            "counted_by_name": dict(self.counted_by_name),
            "counted_by_stream": dict(self._counted),
            "broken_operations": self._broken_operations,
            "lost_states_by_reason": state_losses.by_reason,
            "failures": self._failures.as_json(),
            "time_ns": time.time_ns(),
        }

    def collect(self) -> Iterator[Metric]:
        """Prometheus asks."""
        for name, text, total in (
            ("chunks", "Chunks that went through their pipelines", self.chunks_total),
            ("events", "Events in them", self.events_total),
            ("bytes", "Payload bytes in them", self.bytes_total),
            ("repeated_chunks", "Chunks that were stored already", self.repeated_total),
            ("published_results", "Rows and events published on topics of results", self.published_total),
            ("late_events", "Events that came too late to be put in order", self.late_events_total),
            ("lost_partitions", "Partitions that another worker took unnoticed", self.lost_total),
            ("slow_streams", "Times that a stream moved to the slow threads", self.slow_total),
            ("stopped_streams", "Times that a stream has stopped", self.stopped_by_code.total()),
        ):
            yield CounterMetricFamily(f"windvane_worker_{name}", text, value=total)
        letters = CounterMetricFamily(
            "windvane_worker_dead_letters", "Dead letters by reason", labels=["code"]
        )
        for code, count in self.dead_lettered_by_code.items():
            letters.add_metric([code], count)
        yield letters
        lost = CounterMetricFamily(
            "windvane_worker_lost_states",
            "States of steps not read or not kept, by reason",
            labels=["reason"],
        )
        for reason, count in state_losses.by_reason.items():
            lost.add_metric([reason], count)
        yield lost
        counted = CounterMetricFamily(
            "windvane_worker_counted",
            "What steps counted in the data, such as gaps and late samples",
            labels=["what"],
        )
        for name, count in self.counted_by_name.items():
            counted.add_metric([name], count)
        yield counted
        yield GaugeMetricFamily(
            "windvane_worker_lag_messages", "Messages still on the bus", value=self.lag_messages
        )
        yield GaugeMetricFamily(
            "windvane_worker_halted_partitions", "Partitions that cannot be read on", value=len(self.halted)
        )
        yield GaugeMetricFamily("windvane_worker_streams", "Open data streams", value=self.streams)
        yield GaugeMetricFamily(
            "windvane_worker_partitions", "Partitions that it works on", value=self.partitions
        )
        yield GaugeMetricFamily(
            "windvane_worker_waiting_streams", "Streams that another still writes", value=len(self._waits)
        )
        yield GaugeMetricFamily(
            "windvane_worker_checkpoint_timestamp_seconds",
            "The last checkpoint",
            value=self.checkpoint_ns / 1e9,
        )


def _listed(keys: Collection[TopicPartition]) -> str:
    names = [f"{topic}/{partition}" for topic, partition in sorted(keys)]
    more = len(names) - _LISTED_PARTITIONS
    return ", ".join(names[:_LISTED_PARTITIONS]) + (f" and {more} more" if more > 0 else "")
