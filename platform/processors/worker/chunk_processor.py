"""Passes the chunks of a stream, in order, to its pipeline: the work of the executor's threads."""

import time
import traceback
from collections.abc import Callable, Collection

from ...bus.interface import TopicPartition
from ...bus.messages.flush import flushed_until_ns
from ...config import WorkerSettings
from ...store.catalog.policy import Policy
from ...store.databases.checkpoint_records import Hole, StreamCheckpoint
from ...store.databases.interfaces import CheckpointDatabase, DeadLetters
from ...store.interface import StoreEngine
from .chunk_dead_letters import ChunkDeadLetters
from .health_codes import health_code
from .instrumentation import StreamFailedUnexpectedly, StreamStopped
from .locked_streams import LockedStreams
from .open_streams import CommitNeeded, OpenStreams
from .order_watch import OrderWatch
from .pipeline.buffered_events import Released
from .pipeline.catalog_link import CatalogLink
from .pipeline.instrumentation import SamplesOutOfOrder
from .pipeline.pipeline import Abandoned, StreamPipeline
from .pipeline.results_publisher import ResultsPublisher
from .pipeline.telemetry import WorkerTelemetry
from .pipeline_opening import PipelineOpener, StreamLocked
from .progress.fatal_chunks import MAX_CRASHES, Suspects, crash_reason
from .progress.in_flight import InFlight, MessagePosition, SuspectWaits
from .progress.ownership import OwnedPartition, Ownership, repetition_key
from .restored_models import RestoredModels
from .retention.drops import StreamDrops
from .stream_executor import SLICE_S, StreamExecutor
from .stream_state import QueuedChunk, StreamSnapshot, StreamState
from .trainings import Trainings

SwitchTo = Callable[[MessagePosition], None]
"""Records that the thread continues with a buffered chunk of another message."""

_RETRY_S = 0.05


class ChunkProcessor:
    """Processes the streams of one worker; different threads process different streams concurrently.

    An error in a chunk sends that chunk to the dead letters, for one step or as a whole. An error in a
    stream's files stops that stream. No error here ends the worker.
    """

    def __init__(
        self,
        *,
        store: StoreEngine,
        checkpoints: CheckpointDatabase,
        dead_letters: DeadLetters,
        settings: WorkerSettings,
        owned: Ownership,
        publisher: ResultsPublisher,
        models: RestoredModels,
        trainings: Trainings,
        catalog: CatalogLink,
        telemetry: WorkerTelemetry,
        in_flight: InFlight,
        orders: OrderWatch,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._orders = orders
        self._database_id = checkpoints.database_id
        self._publisher = publisher
        self._models = models
        self._trainings = trainings
        self.dead_letters = ChunkDeadLetters(dead_letters, telemetry)
        self._catalog = catalog
        self._telemetry = telemetry
        self._owned = owned
        self._suspects = Suspects(owned, checkpoints)
        self._in_flight = in_flight
        self._quarantined_at = telemetry.checkpoints_total
        """The number of checkpoints when the last chunk of a suspected partition started."""
        self._drops = StreamDrops(store, checkpoints, owned, telemetry)
        self._locked_streams = LockedStreams(checkpoints, owned, telemetry, give_up_s=settings.stream_wait_s)
        self.executor = StreamExecutor(self._process_slice)
        self.streams = OpenStreams(self.executor, rolled_back=self._forget_uncommitted)
        self._opener = PipelineOpener(self.streams, checkpoints, self._make_pipeline)

    def _forget_uncommitted(
        self, stream: str, models: Collection[str], keys: Collection[tuple[TopicPartition, bytes]]
    ) -> None:
        """Forgets models and keys that are not in the stream's checkpoint, to which it rolls back."""
        self._models.forget(stream, models)
        for partition, key in keys:
            self._owned.forget(partition.topic, key)

    def _process_slice(self, stream: StreamState) -> None:
        """Processes one slice: successive chunks, and a snapshot if one is requested."""
        slice_ends_s = time.monotonic() + SLICE_S
        try:
            while True:
                if stream.snapshot_requested:
                    self._take_snapshot(stream)
                if stream.drops:
                    self._drop(stream)
                with self.executor.lock:
                    queued = self._next_chunk(stream)
                    if queued is None:
                        break
                    stream.chunk_began_s = began_s = time.monotonic()
                done = False
                try:
                    done = self._process_chunk(stream, queued)
                finally:
                    with self.executor.lock:
                        ended_s = time.monotonic()
                        stream.chunk_began_s = None
                        if done and not stream.abandoned:
                            stream.dequeue()
                            self.streams.mark_used(stream)
                        self.executor.record_duration(stream, ended_s - began_s)
                if not done or ended_s >= slice_ends_s:
                    break
        except Abandoned:
            pass
        except BaseException as error:  # a thread of the executor has no other caller
            self._stop(stream, error)
        if stream.abandoned:
            self.streams.close(stream)

    def _drop(self, stream: StreamState) -> None:
        """Drops what retention has requested; called between two chunks."""
        with self.executor.lock:
            if stream.abandoned or not stream.can_drop:
                return
        try:
            self._drops.carry_out(stream, stream.drops)
        finally:
            stream.drops = {}

    def _next_chunk(self, stream: StreamState) -> QueuedChunk | None:
        """Under the lock: returns the next chunk of the stream, None if it has to wait."""
        if stream.queue and stream.queue[0].partition.released:
            stream.discard_released(in_progress=None)
        if stream.abandoned or stream.is_rolled_back or not stream.has_work(time.monotonic()):
            return None
        if not stream.queue:
            return None
        self.executor.set_policy(stream, stream.queue[0].partition.key.topic)
        return stream.queue[0]

    def _stop(self, stream: StreamState, error: BaseException) -> None:
        if not isinstance(error, (OSError, MemoryError)):
            trace = "".join(traceback.format_exception(error))
            self._telemetry.emit(StreamFailedUnexpectedly(stream.reference, trace))
        code = health_code(error)
        self.streams.stop(stream, code, str(error) or repr(error))
        if not stream.abandoned:
            self._telemetry.emit(StreamStopped(stream.reference, code, str(error) or repr(error)))

    def _process_chunk(self, stream: StreamState, queued: QueuedChunk) -> bool:
        """Returns whether the chunk is processed; False if it has to wait."""
        partition, chunk = queued.partition, queued.chunk
        topic = partition.key.topic
        policy = self._catalog.policies.get(topic)
        if policy is None and not self._catalog.is_newer_than(partition.polled_s):
            return self._retry_later(
                stream, "the catalog cannot be read, and the policy is not known", _RETRY_S
            )
        crashes, cause = partition.suspects.get(queued.offset, (0, ""))
        is_suspected = partition.is_suspected(stream.reference)
        if is_suspected and self._quarantined_at == self._telemetry.checkpoints_total:
            # The uncommitted work of other streams is committed before each chunk that may end the process.
            with self.executor.lock:
                stream.waits_for_commit = True
                stream.wait_reason = (
                    "a chunk of its policy crashed a worker: other streams are committed first"
                )
            return False
        if crashes >= MAX_CRASHES:
            if not stream.contains(queued):
                self.dead_letters.add(chunk, "ended-worker", crash_reason(crashes, cause), policy=topic)
            return True
        try:
            with self._in_flight.record(partition, queued.offset, suspected=is_suspected) as switch_to:
                if is_suspected:
                    self._quarantined_at = self._telemetry.checkpoints_total
                return self._run_pipeline(stream, queued, policy, switch_to)
        except SuspectWaits:
            return self._retry_later(
                stream, "a chunk of its policy crashed a worker, and another suspect is in progress", _RETRY_S
            )
        except StreamLocked as locked:
            try:
                reason = self._locked_streams.wait_or_give_up(locked, partition)
            except StreamLocked:
                return self._retry_later(stream, "another worker still has it open", _RETRY_S)
            self.dead_letters.add(chunk, "stream-held", reason, policy=topic)
            return True
        except CommitNeeded as needed:
            with self.executor.lock:
                stream.waits_for_commit, stream.wait_reason = True, needed.reason
            self.streams.request_commit()
            return False

    def probe(self, stream: StreamState) -> bool:
        """Whether a stopped stream, which the caller has claimed, can be opened."""
        partition = next(iter(stream.reread_from), None)
        if partition is None:
            return True
        try:
            return self._opener.open(stream, self._catalog.policies.get(stream.policy), partition.key)
        except (StreamLocked, CommitNeeded):
            return False
        except Exception as error:
            self.streams.stop(stream, health_code(error), str(error) or repr(error))
            return False

    def _retry_later(self, stream: StreamState, reason: str, seconds: float) -> bool:
        with self.executor.lock:
            self.streams.pauses.pause(stream, seconds, reason)
        return False

    def _run_pipeline(
        self, stream: StreamState, queued: QueuedChunk, policy: Policy | None, switch_to: SwitchTo
    ) -> bool:
        partition, chunk = queued.partition, queued.chunk
        topic = partition.key.topic
        until_ns = flushed_until_ns(chunk)
        if (
            until_ns is not None
            and stream.pipeline is None
            and not self._checkpoints.stream(stream.reference)
        ):
            return True  # retention has dropped the chunks that it was published for
        self._opener.open_former(stream, policy, partition.key, policies=self._catalog.policies)
        if stream.pipeline is not None and stream.contains(queued):
            return True  # it releases nothing twice
        self._release_under_former_policy(stream, queued, policy, switch_to)
        if not self._opener.open(stream, policy, partition.key):
            reason = f"policy {topic!r} was deleted before {chunk.tag!r} had its first chunk; create it again"
            self.dead_letters.add(chunk, "policy-deleted", reason, policy=topic)
            return True
        self._locked_streams.record_opened(stream.reference)
        if stream.contains(queued):
            return True
        self._record_skipped_messages(stream, queued)
        pipeline = stream.pipeline
        assert pipeline is not None
        self._reject_fatal_events(pipeline)
        if until_ns is not None:
            self._process(pipeline, pipeline.reorder.flush(until_ns), switch_to)
            self._mark_processed(stream, queued, None)
            return True
        position = MessagePosition(partition.log, *partition.key, queued.offset)
        key = repetition_key(chunk, by_content=policy is not None and policy.suppress_repeats == "content")
        is_adopted = stream.adopted is not None and stream.adopted.has(chunk.received_ns, chunk.chunk_id)
        is_adopted = is_adopted or pipeline.reorder.contains(position)
        if is_adopted or self._is_repetition(stream, partition, key):
            self._telemetry.chunk_repeated()
            # No checkpoint contains the key of an adopted chunk.
            self._mark_processed(stream, queued, key if is_adopted else None)
            return True
        late_before, inversions_before = pipeline.reorder.late_events, pipeline.reorder.inversions
        self._process(pipeline, pipeline.reorder.take(chunk, position), switch_to)
        self._telemetry.events_late(pipeline.reorder.late_events - late_before)
        if pipeline.reorder.inversions > inversions_before:
            self._telemetry.emit(SamplesOutOfOrder(stream.reference, topic))
        self._mark_processed(stream, queued, key)
        self.streams.count_mappings(stream)
        self._telemetry.streams = len(self.streams)
        self._telemetry.chunk_stored(events=chunk.events, size=len(chunk.payload))
        return True

    def _process(self, pipeline: StreamPipeline, released: Collection[Released], switch_to: SwitchTo) -> None:
        """Passes the events that the reorder buffer has released to the pipeline."""
        if not released:
            return
        self._models.restore(pipeline)
        self._trainings.report_failures(pipeline)
        for each in released:
            switch_to(each.position)
            pipeline.process(each)
            self._suspects.clear(each.position)
        self._trainings.request_due(pipeline)

    def _release_under_former_policy(
        self, stream: StreamState, queued: QueuedChunk, policy: Policy | None, switch_to: SwitchTo
    ) -> None:
        """Before a chunk of another policy, or of one without reordering, buffered events are released under
        the former policy. If the stream was opened after an edit, they are released under the policy as it is
        then.
        """
        pipeline = stream.pipeline
        if pipeline is None or policy is None or policy == pipeline.policy:
            return
        if policy.reorder_s and policy.reference == pipeline.policy.reference:
            return
        if pipeline.reorder.is_empty and not pipeline.fatal_events:
            return
        self._reject_fatal_events(pipeline)
        self._process(pipeline, pipeline.reorder.release_all(), switch_to)
        with self.executor.lock:
            if not stream.abandoned:
                stream.uncommitted.setdefault(queued.partition, queued.offset)

    def _reject_fatal_events(self, pipeline: StreamPipeline) -> None:
        """Writes buffered events that crashed the worker to the dead letters."""
        while pipeline.fatal_events:
            found = pipeline.fatal_events[0]
            reason = crash_reason(*self._suspects.crashes(found.position))
            self.dead_letters.add(found.message, "ended-worker", reason, policy=found.position.topic)
            self._suspects.clear(found.position)
            del pipeline.fatal_events[0]

    def _is_repetition(self, stream: StreamState, partition: OwnedPartition, key: bytes | None) -> bool:
        if key is None:
            return False
        # A tag's chunks move to another partition when partitions are added; their keys do not.
        return key in stream.moved_keys or self._owned.has_seen(partition.key.topic, key)

    def _mark_processed(self, stream: StreamState, queued: QueuedChunk, key: bytes | None) -> None:
        with self.executor.lock:
            if stream.abandoned:
                return
            stream.mark_processed(queued)
            if key is not None:
                self._owned.remember(queued.partition.key.topic, key)
                stream.keys.append((queued.partition.key, key))
        if stream.pipeline is not None:
            self._orders.update(stream.pipeline.reorder.figures(stream.reference, *queued.partition.key))

    def _record_skipped_messages(self, stream: StreamState, queued: QueuedChunk) -> None:
        """Messages that were skipped before this chunk may have belonged to the stream."""
        for hole in queued.partition.holes:
            known = stream.positions or stream.holes
            if known and hole not in stream.holes and queued.offset >= hole.resume_at:
                stream.holes = (*stream.holes, Hole(*hole))

    def _take_snapshot(self, stream: StreamState) -> None:
        """Called between two chunks, by the thread that has claimed the stream."""
        with self.executor.lock:
            if stream.committing is not None:
                return  # the next one is taken after this commit
            if stream.snapshot is not None or not stream.uncommitted or stream.pipeline is None:
                stream.snapshot_requested = False
                return
            covered = stream.uncommitted
            pipeline = stream.pipeline
            positions = stream.committable_positions()
            partition = stream.partition
        checkpoint = pipeline.checkpoint(
            partition, positions=positions, adopted_chunks=stream.adopted_chunks, holes=stream.holes
        )
        gained = pipeline.newly_counted()
        self._telemetry.steps_counted(stream=stream.reference, gained=gained, total=pipeline.counts)
        with self.executor.lock:
            stream.snapshot_requested = False
            if stream.abandoned or stream.is_rolled_back:
                return
            stream.snapshot = StreamSnapshot(
                checkpoint=checkpoint,
                uncommitted=covered,
                keys=stream.keys,
                models=self._models.take_restored(stream.reference),
                results_mark=self._publisher.mark(stream.reference),
            )
            stream.uncommitted, stream.keys = {}, []

    def _make_pipeline(
        self, stream: StreamState, policy: Policy, read_committed: Callable[[], StreamCheckpoint | None]
    ) -> StreamPipeline:
        pipeline = StreamPipeline(
            stream.reference,
            policy,
            self._store,
            read_committed,
            publisher=self._publisher,
            report_failure=self.dead_letters.add_failure,
            report_worked=self._telemetry.steps_worked,
            new_output=self._catalog.new_outputs.append,
            database_id=self._database_id,
        )
        self._telemetry.steps_known(stream.reference, pipeline.step_names)
        pipeline.fatal_events = pipeline.reorder.remove_fatal(self._suspects.is_fatal)
        return pipeline
