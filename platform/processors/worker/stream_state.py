"""The state of one data stream in a worker: its queue, its pipeline, and how far a commit covers it.

The rules that keep a stream exactly-once are all here, in terms of offsets:

- `queue` has the polled chunks that are not processed, in order. A chunk is removed when it is processed.
- `positions` has the offsets below which every chunk is part of the stream; such chunks are skipped.
- `uncommitted` has the lowest offset of each partition that is part of the stream and of no snapshot.
- `snapshot` is taken between two chunks and waits for its commit; `committing` is in a commit now.
- `reread_from` has the offsets from which a stream that was rolled back must be reread.

So the lowest offset of a partition that a stream still needs is known at any time (`first_uncommitted`), and
a partition's position in a checkpoint is the lowest of its streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...bus.interface import TopicPartition
from ...bus.messages.chunks import ChunkMessage
from ...runtime.health_conditions import HealthCode
from ...store.databases.checkpoint_records import Hole, StreamCheckpoint, StreamPosition
from ...store.model_files import Identity

if TYPE_CHECKING:
    from .pipeline.pipeline import StreamPipeline
    from .progress.adopted_chunks import AdoptedChunks
    from .progress.ownership import OwnedPartition

CHUNK_OVERHEAD_BYTES = 1024
"""Python's overhead, counted for each queued chunk."""


@dataclass(frozen=True, slots=True, eq=False)
class QueuedChunk:
    """A polled chunk and its position on the bus."""

    partition: OwnedPartition
    offset: int
    chunk: ChunkMessage

    @property
    def size(self) -> int:
        """The bytes that count against the backlog."""
        return len(self.chunk.payload) + CHUNK_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True, eq=False)
class StreamSnapshot:
    """One stream between two chunks, as a commit records it.

    `uncommitted` has the lowest offset that the commit covers, by partition; `keys` the chunk keys that come
    with it; `models` the files that the stream has taken models from; `results_mark` stands for the results
    that must be durable on the bus before the commit.
    """

    checkpoint: StreamCheckpoint
    uncommitted: Mapping[OwnedPartition, int]
    keys: list[tuple[TopicPartition, bytes]]
    models: dict[str, Identity]
    results_mark: int


FIRST_RETRY_S = 2.0
"""The pause before the first retry of a stopped stream."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why a stream is stopped. `code` is that of the health condition, `tried_s` the time of the last try."""

    code: HealthCode
    reason: str
    tried_s: float

    def after_retry(self, tried_s: float) -> Stopped:
        """The state after another failed retry."""
        return replace(self, tried_s=tried_s)


@dataclass(slots=True, eq=False)
class StreamState:
    """One data stream in a worker. Guarded by the lock of the executor, except `pipeline`: it belongs to the
    thread that has claimed the stream.
    """

    reference: str
    policy: str
    """The policy that brought the last chunk, by reference: streams share threads by it."""
    queue: deque[QueuedChunk] = field(default_factory=deque)
    queued_bytes: int = 0
    pipeline: StreamPipeline | None = None
    partition: TopicPartition | None = None
    """The partition of the last chunk."""
    positions: dict[tuple[str, TopicPartition], int] = field(default_factory=dict)
    uncommitted: dict[OwnedPartition, int] = field(default_factory=dict)
    keys: list[tuple[TopicPartition, bytes]] = field(default_factory=list)
    moved_keys: frozenset[bytes] = frozenset()
    """Keys of chunks from partitions other than the current one, before the stream was opened."""
    holes: tuple[Hole, ...] = ()
    adopted: AdoptedChunks | None = None
    """Chunks in the archive that no checkpoint covers."""
    adopted_chunks: int = 0
    snapshot: StreamSnapshot | None = None
    committing: StreamSnapshot | None = None
    rolled_back_in_commit: bool = False
    """It was rolled back to its checkpoint while a commit was recording `committing`."""
    snapshot_requested: bool = False
    drops: Mapping[str, int] = field(default_factory=dict)
    """What retention is to drop, by output: all before this row, or byte of the archive."""
    reread_from: dict[OwnedPartition, int] = field(default_factory=dict)

    claimed: bool = False
    """A thread processes it, or closes it."""
    scheduled: bool = False
    urgent: bool = False
    abandoned: bool = False
    """Its partition was lost: the thread that processes it closes it without a commit."""
    stopped: Stopped | None = None
    retry_s: float = 0.0
    paused_until_s: float = 0.0
    """Monotonic time until which it is paused."""
    wait_reason: str | None = None
    waits_for_commit: bool = False
    reopen: bool = False
    """Its operations were loaded again."""
    slow: bool = False
    quick_chunks: int = 0
    used_s: float = 0.0
    chunk_began_s: float | None = None
    covered_s: float = 0.0
    """Monotonic time at which a commit last covered all of its chunks."""

    @property
    def is_dirty(self) -> bool:
        """Whether a part of it is in no completed commit."""
        return bool(self.uncommitted) or self.snapshot is not None or self.committing is not None

    @property
    def is_rolled_back(self) -> bool:
        """Whether chunks that are polled now are skipped, to be reread later."""
        return self.stopped is not None or bool(self.reread_from)

    @property
    def partitions(self) -> set[OwnedPartition]:
        """The partitions of which it has uncommitted chunks."""
        found = {queued.partition for queued in self.queue}
        found.update(self.uncommitted, self.reread_from)
        for snapshot in (self.snapshot, self.committing):
            if snapshot is not None:
                found.update(snapshot.uncommitted)
        return found

    @property
    def can_drop(self) -> bool:
        """Whether retention can drop something now: a closed stream may not be in the middle of a commit."""
        return bool(self.drops) and (self.pipeline is not None or self.committing is None)

    def has_work(self, now_s: float) -> bool:
        """Whether a thread can process it now (monotonic time)."""
        if self.abandoned:
            return self.pipeline is not None  # to be closed
        if self.snapshot_requested and self.snapshot is None and self.committing is None:
            return True
        if self.can_drop:
            return True
        waits = self.waits_for_commit or now_s < self.paused_until_s
        return bool(self.queue) and not waits and not self.is_rolled_back

    def enqueue(self, queued: QueuedChunk) -> None:
        """A chunk was polled."""
        self.queue.append(queued)
        self.queued_bytes += queued.size
        queued.partition.queued_bytes += queued.size

    def dequeue(self) -> QueuedChunk:
        """Removes and returns the first chunk."""
        queued = self.queue.popleft()
        self.queued_bytes -= queued.size
        queued.partition.queued_bytes -= queued.size
        return queued

    def discard_released(self, *, in_progress: QueuedChunk | None) -> None:
        """Removes the chunks of released partitions, except the one in progress: their next owner processes
        them.
        """
        kept = [queued for queued in self.queue if queued is in_progress or not queued.partition.released]
        removed = [queued for queued in self.queue if queued is not in_progress and queued.partition.released]
        if not removed:
            return
        self._clear_queue()
        for queued in kept:
            self.enqueue(queued)
        for queued in removed:
            queued.partition.rewind(queued.offset)

    def _clear_queue(self) -> None:
        while self.queue:
            self.dequeue()

    def contains(self, queued: QueuedChunk) -> bool:
        """Whether the chunk is part of the stream already, and was read again."""
        partition = queued.partition
        return queued.offset < self.positions.get((partition.log, partition.key), 0)

    def mark_processed(self, queued: QueuedChunk) -> None:
        """The chunk has become part of the stream."""
        partition = queued.partition
        self.positions[partition.log, partition.key] = queued.offset + 1
        self.uncommitted.setdefault(partition, queued.offset)
        self.partition = partition.key

    def restore(self, committed: StreamCheckpoint | None) -> None:
        """Sets the state to that of a commit, of this worker or another."""
        committed = committed or StreamCheckpoint()
        self.positions = {
            (each.log, TopicPartition(each.topic, each.partition)): each.next_offset
            for each in committed.positions
        }
        self.holes = committed.holes
        self.adopted_chunks = committed.adopted_chunks
        self.partition = TopicPartition(*committed.partition) if committed.partition else None

    def committable_positions(self) -> tuple[StreamPosition, ...]:
        """The positions that a checkpoint must keep: those above the committed one of their partition."""
        below = {
            (owned.log, owned.key): owned.committed or 0
            for owned in self.partitions
            if owned.committed is not None
        }
        return tuple(
            StreamPosition(log, *key, next_offset)
            for (log, key), next_offset in self.positions.items()
            if next_offset > below.get((log, key), -1)
        )

    def first_uncommitted(self, partition: OwnedPartition, *, excluding: StreamSnapshot | None) -> int | None:
        """The lowest offset of the partition that no commit covers; None if there is none.

        `excluding` is a snapshot that a commit is about to cover.
        """
        found = [
            at for source in (self.uncommitted, self.reread_from) if (at := source.get(partition)) is not None
        ]
        for snapshot in (self.snapshot, self.committing):
            if snapshot is None or snapshot is excluding:
                continue
            if (at := snapshot.uncommitted.get(partition)) is not None:
                found.append(at)
        for queued in self.queue:
            if queued.partition is partition:
                found.append(queued.offset)
                break
        return min(found, default=None)

    def roll_back(self) -> list[tuple[TopicPartition, bytes]]:
        """Rolls back to the last commit, and returns the chunk keys that are no longer known.

        Uncommitted chunks are to be reread: here, or by the next owner of a released partition. A commit in
        progress is kept until its outcome is known; the stream is not opened before.
        """
        reread_from = {}
        for partition in self.partitions:
            at = self.first_uncommitted(partition, excluding=None)
            if at is not None and partition.released:
                partition.rewind(at)
            elif at is not None:
                reread_from[partition] = at
        forgotten = [*self.keys, *(self.snapshot.keys if self.snapshot is not None else ())]
        self._clear_queue()
        self.uncommitted, self.keys, self.snapshot = {}, [], None
        self.rolled_back_in_commit = self.committing is not None
        self.snapshot_requested = False
        self.reread_from = reread_from
        return forgotten
