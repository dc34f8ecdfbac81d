"""The data streams of a worker: queues, rollbacks, rereads, and which streams are closed.

Open files are mapped, and the kernel limits the mappings of a process (`MappingBudget`). Before another
stream is opened, committed streams are closed, the longest idle first. If none can be closed, the stream
waits for the next commit, which is requested at once.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ...bus.interface import TopicPartition
from ...bus.messages.chunks import ChunkMessage
from ...runtime.health_conditions import HealthCode
from .mapping_budget import MappingBudget
from .pipeline.pipeline import StreamPipeline
from .progress.ownership import OwnedPartition
from .stream_executor import StreamExecutor
from .stream_pauses import StreamPauses
from .stream_state import QueuedChunk, Stopped, StreamState

_CLOSED_AT_ONCE = 256


class CommitNeeded(Exception):
    """The stream cannot be opened before the next commit, for `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class OpenStreams:
    """Streams by reference, guarded by the lock of the executor.

    Memory: a few hundred bytes for each stream that is open or has chunks to process. Queued chunks are
    bounded by the backlog of the partitions. A stream is removed when it is closed and idle.
    """

    def __init__(
        self,
        executor: StreamExecutor,
        *,
        rolled_back: Callable[[str, Collection[str], Collection[tuple[TopicPartition, bytes]]], None],
    ) -> None:
        """`rolled_back` is called with a stream, and with its models and chunk keys that no commit will
        include.
        """
        self._rolled_back = rolled_back
        self._executor = executor
        self._streams: OrderedDict[str, StreamState] = OrderedDict()
        self._no_room = False
        self.mappings = MappingBudget()
        self.pauses = StreamPauses(executor)
        self._rewinds: dict[OwnedPartition, int] = {}
        self.request_commit: Callable[[], None] = lambda: None
        """Requests a commit now. Thread-safe."""

    def __len__(self) -> int:
        return len(self.mappings)

    def __iter__(self) -> Iterator[StreamState]:
        """Under the lock: all streams."""
        return iter(self._streams.values())

    def put(self, messages: Iterable[tuple[OwnedPartition, int, ChunkMessage | None]]) -> None:
        """Adds polled messages, in order: (partition, offset, chunk, or None if the message has no chunk)."""
        with self._executor.lock:
            touched: dict[StreamState, None] = {}
            for partition, offset, chunk in messages:
                if partition.released:
                    continue
                partition.frontier = offset + 1
                if chunk is None:
                    continue
                stream = self._streams.get(chunk.tag)
                if stream is None:
                    stream = self._streams[chunk.tag] = StreamState(chunk.tag, partition.key.topic)
                    stream.covered_s = time.monotonic()
                    self.pauses.apply_reservation(stream)
                if not stream.is_rolled_back:
                    stream.enqueue(QueuedChunk(partition, offset, chunk))
                    touched[stream] = None
                elif partition not in stream.reread_from:
                    stream.reread_from[partition] = offset
                    if stream.stopped is None:
                        self.request_reread(stream)
            self._executor.schedule(touched)

    def opened(self, stream: StreamState, pipeline: StreamPipeline) -> None:
        """Records that the pipeline of the stream is open. Only the thread that has claimed the stream calls
        it.
        """
        stream.pipeline = pipeline
        stream.adopted = pipeline.adopted_chunks(stream.adopted_chunks)
        self.count_mappings(stream)

    def count_mappings(self, stream: StreamState) -> None:
        """Counts the mappings again, since the pipeline may have opened more outputs. Only the thread that
        has claimed the stream calls it.
        """
        assert stream.pipeline is not None
        mappings = stream.pipeline.mappings
        if mappings != self.mappings.of(stream):
            with self._executor.lock:
                self.mappings.set(stream, mappings)

    def make_room(self) -> None:
        """Closes idle streams if another one could not be mapped. Raises CommitNeeded if none is idle."""
        with self._executor.lock:
            if self.mappings.has_room:
                return
            closing = [] if self._no_room else self._claim_idle(_CLOSED_AT_ONCE, idle_since_s=None)
            self._no_room = not closing
        if not closing:
            raise CommitNeeded("as many streams are open as the kernel lets a process map")
        self._close_claimed(closing)

    def _claim_idle(self, count: int, *, idle_since_s: float | None) -> list[StreamState]:
        """Under the lock: claims the streams that were idle longest and that commits cover completely."""
        found: list[StreamState] = []
        for stream in self._streams.values():
            if len(found) == count or (idle_since_s is not None and stream.used_s > idle_since_s):
                break
            if stream.pipeline is None or stream.claimed or stream.queue or stream.is_dirty:
                continue
            stream.claimed = True
            found.append(stream)
        return found

    def _close_claimed(self, streams: Iterable[StreamState]) -> None:
        for stream in streams:
            self.close(stream)
            with self._executor.lock:
                self._executor.release(stream)
                self._forget(stream)

    def close(self, stream: StreamState) -> None:
        """Closes the files of the stream without a commit. Only the thread that has claimed the stream calls
        it.
        """
        pipeline, stream.pipeline = stream.pipeline, None
        if pipeline is not None:
            pipeline.close()
            if stream.adopted is not None:
                stream.adopted.close()
                stream.adopted = None
            with self._executor.lock:
                self.mappings.remove(stream)

    def _forget(self, stream: StreamState) -> None:
        """Under the lock: removes a stream that is closed and idle."""
        if (
            stream.pipeline is None
            and not (stream.claimed or stream.queue or stream.is_dirty or stream.is_rolled_back)
            and not stream.drops
            and self._streams.get(stream.reference) is stream
        ):
            self._executor.mark_fast(stream)
            del self._streams[stream.reference]

    @property
    def queued_chunks(self) -> int:
        """Returns the number of chunks that were polled and are not processed."""
        with self._executor.lock:
            return sum(len(stream.queue) for stream in self._streams.values())

    def is_behind(self, reference: str) -> bool:
        """Whether chunks of the stream are queued, or are to be reread."""
        with self._executor.lock:
            stream = self._streams.get(reference)
            return stream is not None and (bool(stream.queue) or stream.is_rolled_back)

    def is_open(self, reference: str) -> bool:
        """Whether the files of the stream are open."""
        with self._executor.lock:
            stream = self._streams.get(reference)
            return stream is not None and stream.pipeline is not None

    def full_partitions(self, bound_bytes: int, *, resume_share: float) -> set[OwnedPartition]:
        """Returns the partitions of streams with more than `bound_bytes` queued; for a paused partition, more
        than `resume_share` of that.
        """
        with self._executor.lock:
            return {
                queued.partition
                for stream in self._streams.values()
                if stream.queued_bytes > bound_bytes * resume_share
                for queued in stream.queue
                if queued.partition.paused or stream.queued_bytes > bound_bytes
            }

    def is_processing(self, partitions: Collection[OwnedPartition]) -> bool:
        """Under the lock: whether a thread is processing a chunk of one of them."""
        return any(
            stream.chunk_began_s is not None and stream.queue and stream.queue[0].partition in partitions
            for stream in self._streams.values()
        )

    def has_uncommitted(self, partition: OwnedPartition) -> bool:
        """Whether a running stream has chunks of the partition that no commit covers."""
        with self._executor.lock:
            return any(
                not stream.is_rolled_back and stream.first_uncommitted(partition, excluding=None) is not None
                for stream in self._streams.values()
            )

    def mark_used(self, stream: StreamState) -> None:
        """Under the lock: records that a chunk of the stream is processed."""
        stream.used_s = time.monotonic()
        stream.retry_s = 0.0
        if self._streams.get(stream.reference) is stream:
            self._streams.move_to_end(stream.reference)
            if stream.pipeline is None:
                self._forget(stream)

    def stop(self, stream: StreamState, code: HealthCode, reason: str) -> None:
        """Stops the stream until a retry succeeds, without data loss. Only the thread that has claimed the
        stream calls it.
        """
        self.close(stream)
        with self._executor.lock:
            self._roll_back(stream)
            if not stream.abandoned:
                stream.stopped = Stopped(code, reason, time.monotonic())

    def _roll_back(self, stream: StreamState) -> None:
        """Under the lock: rolls the stream back to its last commit."""
        models = [] if stream.snapshot is None else list(stream.snapshot.models)
        self._rolled_back(stream.reference, models, stream.roll_back())

    def request_reread(self, stream: StreamState) -> None:
        """Under the lock: requests that the chunks that a rolled-back stream lacks are reread; the caller
        seeks its partitions (`take_rewinds`).
        """
        stream.stopped = None
        for partition, at in stream.reread_from.items():
            self._rewinds[partition] = min(at, self._rewinds.get(partition, at))

    def rewind(self, partition: OwnedPartition, offset: int) -> None:
        """Requests that the partition is reread from this offset."""
        with self._executor.lock:
            self._rewinds[partition] = min(offset, self._rewinds.get(partition, offset))

    def take_rewinds(self) -> dict[OwnedPartition, int]:
        """Returns the offsets to reread partitions from; the caller seeks before the next poll."""
        if not self._rewinds:
            return {}
        with self._executor.lock:
            rewinds, self._rewinds = self._rewinds, {}
            for partition, at in rewinds.items():
                partition.rewind(at)
            for stream in self._streams.values():
                if stream.reread_from and stream.stopped is None:
                    stream.reread_from = {
                        key: at for key, at in stream.reread_from.items() if key not in rewinds
                    }
            return {partition: at for partition, at in rewinds.items() if not partition.released}

    def discard_queued(self, gone: Collection[OwnedPartition]) -> None:
        """Removes the chunks of these partitions that no thread has started; the next owner processes
        them.
        """
        with self._executor.lock:
            for partition in gone:
                partition.released = True
            for stream in self._streams.values():
                in_progress = stream.queue[0] if stream.queue and stream.chunk_began_s is not None else None
                stream.discard_released(in_progress=in_progress)

    def close_streams_of(self, gone: Collection[OwnedPartition], *, also: Collection[TopicPartition]) -> None:
        """Closes, without a commit, streams that are written for these partitions or have buffered chunks of
        them.

        Their uncommitted chunks of other partitions are reread. `also` has the keys of partitions whose
        streams are fully committed; they are closed for their next owner.
        """
        keys = {partition.key for partition in gone} | set(also)
        lost = set(gone)
        with self._executor.lock:
            concerned = [
                stream
                for stream in self._streams.values()
                if stream.partition in keys or not lost.isdisjoint(stream.partitions)
            ]
            for stream in concerned:
                self._detach(stream)
        self._close_claimed([stream for stream in concerned if not stream.abandoned])

    def _detach(self, stream: StreamState) -> None:
        """Under the lock: rolls a stream back. If a thread is processing it, that thread closes it."""
        self._roll_back(stream)
        if not stream.claimed:
            stream.claimed = True
            if stream.reread_from:
                self.request_reread(stream)
            return
        stream.abandoned = True
        self._executor.mark_fast(stream)
        if stream.pipeline is not None:
            stream.pipeline.abandon()
        del self._streams[stream.reference]
        if stream.reread_from:
            replacement = self._streams[stream.reference] = StreamState(stream.reference, stream.policy)
            replacement.reread_from = stream.reread_from
            self.request_reread(replacement)

    def reserve(self, reference: str, seconds: float) -> None:
        """Pauses the stream for this time, while another process writes it."""
        with self._executor.lock:
            self.pauses.reserve(reference, seconds, self._streams.get(reference))

    def request_drops(self, reference: str, policy: str, drops: Mapping[str, int]) -> StreamState:
        """Requests that the thread that processes the stream next drops the beginnings of these outputs.

        The stream may be closed, and stays so. Its `drops` are empty once it is done.
        """
        with self._executor.lock:
            stream = self._streams.get(reference)
            if stream is None:
                stream = self._streams[reference] = StreamState(reference, policy)
                stream.covered_s = time.monotonic()
                self.pauses.apply_reservation(stream)
            stream.drops = drops
            self._executor.schedule([stream])
            return stream

    def close_one(self, reference: str) -> None:
        """Closes the stream if it is idle and committed; called right after a commit of all streams."""
        with self._executor.lock:
            stream = self._streams.get(reference)
            if stream is None or stream.claimed or stream.is_dirty or stream.pipeline is None:
                return
            stream.claimed = True
        self._close_claimed([stream])

    def reopen_naming(self, operations: Collection[str]) -> None:
        """Reopens streams whose pipelines use one of the operations, before their next chunk."""
        with self._executor.lock:
            for stream in self._streams.values():
                if stream.pipeline is not None:
                    named = {step.operation for step in stream.pipeline.policy.pipeline}
                    stream.reopen |= not named.isdisjoint(operations)

    def restore_snapshots(self, streams: Iterable[StreamState]) -> None:
        """Under the lock: after a rejected commit, keeps its snapshots for the next one."""
        for stream in streams:
            committing, stream.committing = stream.committing, None
            if committing is None:
                continue
            if stream.rolled_back_in_commit:
                stream.rolled_back_in_commit = False
                self._rolled_back(stream.reference, list(committing.models), committing.keys)
            else:
                stream.snapshot = committing

    def committed(self, *, idle_s: float | None) -> None:
        """Resumes streams that waited for the commit, and closes those that were idle for `idle_s`."""
        with self._executor.lock:
            self._no_room = False
            for stream in list(self._streams.values()):
                self._forget(stream)
            waiting = [
                stream
                for stream in self._streams.values()
                if stream.waits_for_commit or stream.snapshot_requested
            ]
            for stream in waiting:
                if stream.waits_for_commit:
                    stream.waits_for_commit, stream.wait_reason = False, None
            self._executor.schedule(stream for stream in waiting if stream.has_work(time.monotonic()))
            closing = (
                []
                if idle_s is None
                else self._claim_idle(len(self._streams), idle_since_s=time.monotonic() - idle_s)
            )
        self._close_claimed(closing)

    def close_all(self) -> None:
        """Releases all locks, without a commit. A stream in progress is closed by its thread, or by the end
        of the process.
        """
        with self._executor.lock:
            streams = list(self._streams.values())
            for stream in streams:
                if stream.claimed:
                    stream.abandoned = True
                    if stream.pipeline is not None:
                        stream.pipeline.abandon()
                else:
                    stream.claimed = True
            self._streams.clear()
        for stream in streams:
            if not stream.abandoned:
                self.close(stream)
