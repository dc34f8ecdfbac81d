"""The data streams that a worker has open, and for which partition it writes each of them.

A stream has one writer at a time, by the lock of its files. A new owner of a partition can meet a stream that
the former one has not let go of yet: it was stopped (SIGSTOP, a suspended machine) and does not know that its
partition is gone. It will notice, or end; until then the stream is `StreamHeld`, and its partition waits.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..bus.interface import TopicPartition
from ..errors import StoreLocked
from ..store.checkpoint import CheckpointStore, StreamCheckpoint
from ..store.policy import Policy
from .pipeline import StreamPipeline
from .steps import last_policy

MAX_OPEN_OUTPUTS = 25_000  # each has two mappings, of the 65,530 that Linux gives a process

OpenPipeline = Callable[[str, Policy, Callable[[], StreamCheckpoint | None]], StreamPipeline]
"""Makes the pipeline of a stream under a policy; the function reads the stream's last checkpoint."""


class StreamHeld(Exception):
    """Another worker writes the stream. `partition` is the one that it was committed for, if it ever was."""

    def __init__(self, reference: str, partition: TopicPartition | None) -> None:
        super().__init__(reference)
        self.reference = reference
        self.partition = partition


@dataclass(slots=True, eq=False)
class _OpenStream:
    pipeline: StreamPipeline
    partition: TopicPartition
    """The one that has brought the last chunk: when it goes, the stream is closed."""
    changed_by: set[TopicPartition] = field(default_factory=set)
    """The partitions that have brought chunks since the last snapshot."""
    used_s: float = 0.0


class OpenStreams:
    """Pipelines by the reference of their stream.

    `using` may be called by several threads at once; everything else only while no thread works. At most
    25,000 outputs stay open after `close_idle`: those of streams that were idle longest are closed.
    """

    def __init__(self, checkpoints: CheckpointStore, open_pipeline: OpenPipeline) -> None:
        self._checkpoints = checkpoints
        self._open_pipeline = open_pipeline
        self._streams: OrderedDict[str, _OpenStream] = OrderedDict()
        self._held_back: dict[str, float] = {}
        self._opening = threading.Lock()  # two topics may bring the same tag

    def __len__(self) -> int:
        return len(self._streams)

    @contextmanager
    def using(
        self, reference: str, policy: Policy | None, partition: TopicPartition
    ) -> Iterator[StreamPipeline | None]:
        """The stream's pipeline, for a chunk that `partition` brings; opened where it is not, or anew where
        its policy has changed.

        None where there is neither a policy nor one that the stream was under before. Raises StreamHeld.
        """
        with self._opening:
            if time.monotonic() < self._held_back.get(reference, 0.0):
                raise StreamHeld(reference, partition)
            stream = self._opened(reference, policy, partition)
            if stream is not None:
                stream.partition = partition
                stream.changed_by.add(partition)
                stream.used_s = time.monotonic()
                self._streams.move_to_end(reference)
                # Before another partition's thread can close it for a policy of its own.
                stream.pipeline.in_use.acquire()
        if stream is None:
            yield None
            return
        try:
            yield stream.pipeline
        finally:
            stream.pipeline.in_use.release()

    def _opened(self, reference: str, policy: Policy | None, partition: TopicPartition) -> _OpenStream | None:
        stream = self._streams.get(reference)
        if stream is not None and policy in (None, stream.pipeline.policy):
            return stream
        if stream is not None:
            assert policy is not None
            with stream.pipeline.in_use:
                state = stream.pipeline.checkpoint()
                stream.pipeline.close()
            # Not StreamHeld: what it did since the last checkpoint is in `state` alone, so without the stream
            # this worker cannot go on.
            stream.pipeline = self._open_pipeline(reference, policy, lambda: state)
            return stream
        if policy is None:
            committed = self._checkpoints.stream(reference)
            policy = last_policy(committed.states) if committed else None
            if policy is None:
                return None
        try:
            pipeline = self._open_pipeline(reference, policy, lambda: self._checkpoints.stream(reference))
        except StoreLocked:
            committed = self._checkpoints.stream(reference)
            owner = committed.partition if committed else None
            raise StreamHeld(reference, TopicPartition(*owner) if owner else None) from None
        stream = self._streams[reference] = _OpenStream(pipeline, partition)
        return stream

    def snapshot(self) -> tuple[dict[str, StreamCheckpoint], dict[str, frozenset[TopicPartition]]]:
        """The streams that changed since the last one, and which partitions have changed each."""
        streams: dict[str, StreamCheckpoint] = {}
        changed_by: dict[str, frozenset[TopicPartition]] = {}
        for reference, stream in self._streams.items():
            if stream.changed_by:
                streams[reference] = stream.pipeline.checkpoint(stream.partition)
                changed_by[reference] = frozenset(stream.changed_by)
                stream.changed_by.clear()
        return streams, changed_by

    def mark_committed(self, committed: Mapping[str, StreamCheckpoint]) -> None:
        """After their commit: the outputs that are still open remember how far they are covered."""
        for reference, checkpoint in committed.items():
            if (stream := self._streams.get(reference)) is not None:
                stream.pipeline.mark_committed(checkpoint)

    def pipeline(self, reference: str) -> StreamPipeline:
        """That of a stream that is open."""
        return self._streams[reference].pipeline

    def mixed(
        self, gone: Collection[TopicPartition], uncommitted: Mapping[str, frozenset[TopicPartition]]
    ) -> list[str]:
        """The streams with uncommitted chunks of partitions that are `gone` and of others, sorted.

        `uncommitted` is what a snapshot held that could not be committed: the partitions by stream.
        """
        found = []
        for reference, stream in self._streams.items():
            changed_by = stream.changed_by | uncommitted.get(reference, frozenset())
            if not changed_by.isdisjoint(gone) and changed_by.difference(gone):
                found.append(reference)
        return sorted(found)

    def close_of(
        self,
        partitions: Collection[TopicPartition],
        uncommitted: Mapping[str, frozenset[TopicPartition]],
    ) -> None:
        """Close, without a commit, what is written for `partitions` or holds chunks of theirs.

        `uncommitted` is what a snapshot held that could not be committed.
        """
        gone = frozenset(partitions)
        for reference, stream in list(self._streams.items()):
            changed_by = stream.changed_by | uncommitted.get(reference, frozenset())
            if stream.partition in gone or changed_by & gone:
                del self._streams[reference]
                stream.pipeline.close()

    def hold_back(self, reference: str, seconds: float) -> None:
        """From now on, for so long, the stream is StreamHeld: somebody else is to write it."""
        now_s = time.monotonic()
        self._held_back = {name: until for name, until in self._held_back.items() if until > now_s}
        self._held_back[reference] = now_s + seconds

    def close_one(self, reference: str) -> None:
        """Close a stream that is held back, where it is open; right after a commit of all.

        One that was worked on since stays, as the commit may have taken longer than it was held back.
        """
        stream = self._streams.get(reference)
        if stream is not None and not stream.changed_by:
            del self._streams[reference]
            stream.pipeline.close()

    def close_naming(self, operations: Collection[str]) -> None:
        """Close the streams whose pipelines name one of the operations; right after a commit of all."""
        for reference, stream in list(self._streams.items()):
            named = {step.operation for step in stream.pipeline.policy.pipeline}
            if not named.isdisjoint(operations):
                assert not stream.changed_by
                del self._streams[reference]
                stream.pipeline.close()

    def close_idle(self, *, idle_s: float | None) -> None:
        """Right after a commit: what has not changed since is durable and can be opened again.

        Closes the longest idle ones over the bound, and those of `idle_s` and more where that is given.
        """
        outputs = sum(stream.pipeline.open_outputs for stream in self._streams.values())
        idle_since_s = float("-inf") if idle_s is None else time.monotonic() - idle_s
        for reference, stream in list(self._streams.items()):
            if outputs <= MAX_OPEN_OUTPUTS and stream.used_s > idle_since_s:
                break
            if not stream.changed_by:
                del self._streams[reference]
                outputs -= stream.pipeline.open_outputs
                stream.pipeline.close()

    def close(self) -> None:
        """Give all locks back, without a commit."""
        for stream in self._streams.values():
            stream.pipeline.close()
        self._streams.clear()
