"""Decides what retention drops next: looks at the streams of a worker in turn, in short passes.

Rules:

1. Whole segments are dropped, from the beginning. A chunk counts by its arrival, a row by its event time; a
   segment has expired if the latest time in it has. Times ahead of the clock do not count.
2. Only what a commit covers is dropped (`StreamPipeline.drop_before`): after a crash a stream is truncated to
   its last commit, and resumes there. Operations never read what they have processed; the last arrival
   record, and chunks that wait to be put in order, are kept elsewhere or always.
3. The thread that processes a stream drops its segments, between two chunks. At most one stream is dropped
   from at a time, so the other threads and all commits continue.
4. A worker drops from the streams of its partitions only. `bytes` counts the streams of all workers, since
   they share the store: the oldest segments of the policy go first, and each worker drops those that it has.
"""

import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from ....bus.interface import TopicPartition
from ....errors import WindvaneError
from ....store.catalog.policy import Policy
from ....store.catalog.retention_rules import Retention
from ....store.databases.interfaces import CheckpointDatabase
from ....store.interface import ArrayReader, StoreEngine, StreamReader
from ....store.oldest_segment import (
    OldestSegment,
    Output,
    bytes_per_row,
    expired_until,
    oldest_segment,
)
from ....store.pyramid.cells import CellLayout
from ..instrumentation import RetentionDropped
from ..open_streams import OpenStreams
from ..pipeline.telemetry import WorkerTelemetry
from ..progress.ownership import Ownership
from ..stream_executor import StreamExecutor

PASS_INTERVAL_S = 1.0
PASS_S = 0.05
"""After this time a pass ends, and the next one continues: 10,000 streams take minutes, and 5 % of a core."""
FIRST_LOOK_S = 1.0
LAST_LOOK_S = 600.0
"""The shortest and the longest time between two looks at a stream; it depends on when its segment expires."""
BYTES_LOOK_S = 10.0
"""The same if the policy bounds bytes."""
NEW_STREAMS_S = 60.0
DROP_AGAIN_S = 5.0
"""If nothing could be dropped, since no commit covers it yet or the stream is busy."""
DROP_TIMEOUT_S = 0.5
MAX_SEGMENTS = 64
"""Dropped from one output at a time."""
_NS_PER_HOUR = 3_600_000_000_000
_KEEPS_ALL = Retention()


@dataclass(slots=True)
class _Kept:
    """What a stream keeps, when it was looked at last; `oldest` has its full segments that come first."""

    policy: str
    size_bytes: int = 0
    oldest: dict[str, OldestSegment] = field(default_factory=dict)


class RetentionSweep:
    """Looks at streams when something of them may have expired. Only one thread at a time runs passes.

    Memory: a few hundred bytes for each stream of the worker if any policy has a retention.
    """

    def __init__(
        self,
        *,
        store: StoreEngine,
        checkpoints: CheckpointDatabase,
        owned: Ownership,
        streams: OpenStreams,
        executor: StreamExecutor,
        policies: Callable[[], Mapping[str, Policy]],
        telemetry: WorkerTelemetry,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`clock_ns` is compared with the times of rows and chunks."""
        self._store = store
        self._checkpoints = checkpoints
        self._owned = owned
        self._streams = streams
        self._executor = executor
        self._policies = policies
        self._telemetry = telemetry
        self._clock_ns = clock_ns
        self._retentions: dict[str, Retention] = {}
        self._due: list[tuple[float, str]] = []
        self._known: set[str] = set()
        self._kept: dict[str, _Kept] = {}
        self._partitions: dict[str, TopicPartition | None] = {}
        self._searched_s = float("-inf")

    def run_pass(self) -> None:
        """Looks at the streams that are due, and drops what has expired; blocks for about `PASS_S`."""
        ends_s = time.monotonic() + PASS_S
        self._follow_policies()
        if not self._retentions:
            return
        with suppress(WindvaneError):  # an unavailable database stops commits, which says so
            self._find_streams()
        while self._due and self._due[0][0] <= time.monotonic() < ends_s:
            _, reference = heapq.heappop(self._due)
            try:
                look_again_s = self._look_at(reference)
            except (WindvaneError, OSError):  # damaged or removed: not for retention to report
                self._kept.pop(reference, None)
                look_again_s = LAST_LOOK_S
            heapq.heappush(self._due, (time.monotonic() + look_again_s, reference))
        for policy, retention in self._retentions.items():
            if retention.bytes is not None:
                with suppress(WindvaneError, OSError):
                    self._keep_to_bytes(policy, retention.bytes, ends_s)

    def overview_since_ns(self, array: str) -> int | None:
        """The time from which on the overview of an array is kept longer than its rows; None if it is not.

        Thread-safe. Raises StreamNotFound.
        """
        with self._store.stream(array.partition(":")[0]) as stream:
            policy = self._policies().get(str(stream.attrs.get("policy")))
        hours = None if policy is None else policy.retention.pyramid_hours
        return None if hours is None else self._clock_ns() - int(hours * _NS_PER_HOUR)

    def _follow_policies(self) -> None:
        retentions = {
            reference: policy.retention
            for reference, policy in self._policies().items()
            if policy.retention != _KEEPS_ALL
        }
        if retentions != self._retentions:
            self._retentions = retentions
            self._due, self._known, self._kept = [], set(), {}
            self._searched_s = float("-inf")

    def _find_streams(self) -> None:
        """Adds streams that are new. Closed ones are in the checkpoint database."""
        with self._executor.lock:
            found = {stream.reference for stream in self._streams if stream.pipeline is not None}
        now_s = time.monotonic()
        if now_s - self._searched_s >= NEW_STREAMS_S:
            self._searched_s = now_s
            found.update(self._checkpoints.streams())
        for reference in found - self._known:
            self._known.add(reference)
            heapq.heappush(self._due, (now_s, reference))

    def _look_at(self, reference: str) -> float:
        """Drops what has expired of a stream; returns after how many seconds to look again."""
        self._kept.pop(reference, None)
        with ExitStack() as closing:
            stream = closing.enter_context(self._store.stream(reference))
            policy = str(stream.attrs.get("policy"))
            retention = self._retentions.get(policy)
            is_ours = retention is not None and self._is_ours(reference)
            if retention is None or not (is_ours or retention.bytes is not None):
                return LAST_LOOK_S
            outputs = self._outputs_of(stream, closing)
            stops, look_again_s = self._note_kept(policy, retention, outputs)
            if stops and is_ours:
                look_again_s = FIRST_LOOK_S if self._drop(policy, outputs, stops) else DROP_AGAIN_S
            return max(FIRST_LOOK_S, look_again_s)

    def _is_ours(self, reference: str) -> bool:
        """Whether the stream's last chunk came by a partition of this worker."""
        if self._streams.is_open(reference):
            return True
        if reference not in self._partitions:
            committed = self._checkpoints.stream(reference)
            partition = committed.partition if committed is not None else None
            self._partitions[reference] = None if partition is None else TopicPartition(*partition)
        return self._partitions[reference] in self._owned

    def _outputs_of(self, stream: StreamReader, closing: ExitStack) -> list[Output]:
        arrays = [
            closing.enter_context(self._store.array(array))
            for array in self._store.arrays(stream.reference)
            if "~" not in array.partition(":")[2]  # set aside, or not in place yet
        ]
        return [stream, *arrays]

    def _note_kept(
        self, policy: str, retention: Retention, outputs: Sequence[Output]
    ) -> tuple[dict[str, int], float]:
        """Returns what has expired, by output, and when the next segment expires (seconds from now)."""
        now_ns = self._clock_ns()
        kept = _Kept(policy, sum(output.kept_bytes for output in outputs))
        stops = {}
        look_again_s = LAST_LOOK_S if retention.bytes is None else BYTES_LOOK_S
        for output in outputs:
            hours = retention.stream_hours if isinstance(output, StreamReader) else retention.array_hours
            oldest = oldest_segment(output)
            if hours is not None:
                stop, oldest = expired_until(
                    output,
                    cutoff_ns=now_ns - int(hours * _NS_PER_HOUR),
                    now_ns=now_ns,
                    max_segments=MAX_SEGMENTS,
                )
                if retention.pyramid_hours is not None and not isinstance(output, StreamReader):
                    stop = min(stop, _overview_stop(output))
                if stop > output.start:
                    stops[output.reference] = stop
                expires_ns = (now_ns if oldest is None else oldest.last_ns) + hours * _NS_PER_HOUR
                look_again_s = min(look_again_s, (expires_ns - now_ns) / 1e9)
            if oldest is not None:
                kept.oldest[output.reference] = oldest
        self._kept[outputs[0].reference] = kept
        return stops, look_again_s

    def _drop(self, policy: str, outputs: Sequence[Output], stops: Mapping[str, int]) -> bool:
        """Lets the stream's thread drop what is before `stops`; returns whether anything was dropped."""
        reference = outputs[0].reference
        before = [(output, output.start, bytes_per_row(output)) for output in outputs]
        requested = self._streams.request_drops(reference, policy, stops)
        self._executor.wait_for(lambda: not requested.drops, DROP_TIMEOUT_S)
        dropped_bytes = sum((output.start - start) * size for output, start, size in before)
        if dropped_bytes > 0:
            self._telemetry.emit(RetentionDropped(reference, dropped_bytes))
        return dropped_bytes > 0

    def _keep_to_bytes(self, policy: str, bound_bytes: int, ends_s: float) -> None:
        """Drops the oldest segments of the policy's streams until all of them are within the bound.

        All workers of the home see the same segments in the same order, and each drops those of its streams.
        """
        kept = {reference: each for reference, each in self._kept.items() if each.policy == policy}
        surplus = sum(each.size_bytes for each in kept.values()) - bound_bytes
        if surplus <= 0:
            return
        oldest = [
            (segment.last_ns, reference, output, segment)
            for reference, each in kept.items()
            for output, segment in each.oldest.items()
        ]
        heapq.heapify(oldest)
        stops: dict[str, dict[str, int]] = {}
        while oldest and surplus > 0 and time.monotonic() < ends_s:
            _, reference, name, segment = heapq.heappop(oldest)
            surplus -= segment.size_bytes
            stops.setdefault(reference, {})[name] = segment.stop
            with self._store.stream(reference) if name == reference else self._store.array(name) as output:
                following = oldest_segment(output, start=segment.stop)
            if following is not None:
                heapq.heappush(oldest, (following.last_ns, reference, name, following))
        for reference, of_stream in stops.items():
            if time.monotonic() < ends_s and self._is_ours(reference):
                with ExitStack() as closing:
                    stream = closing.enter_context(self._store.stream(reference))
                    outputs = self._outputs_of(stream, closing)
                    self._drop(policy, outputs, of_stream)
                    self._note_kept(policy, self._retentions[policy], outputs)


def _overview_stop(array: ArrayReader) -> int:
    """Rows before it are in the pyramid, which would start over without them; all if there cannot be one."""
    if CellLayout.of(array.dtype, array.row_shape) is None:
        return len(array)
    levels = array.levels()
    return levels[0].stop_row if levels else 0
