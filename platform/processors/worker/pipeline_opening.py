"""Opens the pipeline of a stream: under which policy, from which checkpoint, and when it has to wait.

A stream has one writer at a time, enforced by a file lock. A new owner of a partition can find a stream that
the former owner has not released yet: it was stopped (SIGSTOP, a suspended machine) and does not know that it
lost the partition. It will notice later, or end. Until then opening the stream raises `StreamLocked`, and its
chunks wait.
"""

from collections.abc import Callable, Mapping

from ...bus.interface import TopicPartition
from ...errors import StoreLocked
from ...store.catalog.policy import Policy
from ...store.databases.checkpoint_records import StreamCheckpoint
from ...store.databases.interfaces import CheckpointDatabase
from .open_streams import CommitNeeded, OpenStreams
from .pipeline.pipeline import StreamPipeline
from .pipeline.steps import last_policy
from .stream_state import StreamState

MakePipeline = Callable[[StreamState, Policy, Callable[[], StreamCheckpoint | None]], StreamPipeline]
"""Makes the pipeline of a stream under a policy; the function reads the stream's last checkpoint."""


class StreamLocked(Exception):
    """Another worker writes the stream. `partition` is the one of its last commit, None if it has no
    commit.
    """

    def __init__(self, reference: str, partition: TopicPartition | None) -> None:
        super().__init__(reference)
        self.reference = reference
        self.partition = partition


class PipelineOpener:
    """Opens pipelines for the chunks of a stream. Only the thread that has claimed the stream calls it."""

    def __init__(self, streams: OpenStreams, checkpoints: CheckpointDatabase, make: MakePipeline) -> None:
        self._streams = streams
        self._checkpoints = checkpoints
        self._make = make

    def open(self, stream: StreamState, policy: Policy | None, partition: TopicPartition) -> bool:
        """Opens the pipeline of the stream for a chunk of `partition`.

        Returns False if there is neither a policy nor a former policy of the stream. Raises StreamLocked if
        another worker writes it, CommitNeeded, and the errors of the store.
        """
        pipeline = stream.pipeline
        if pipeline is not None:
            if not stream.reopen and policy in (None, pipeline.policy):
                return True
            if not stream.reopen and policy is not None and policy.reference != pipeline.policy.reference:
                # Another policy takes the tag: it continues from the present state, without a commit.
                state = pipeline.checkpoint(stream.partition)
                self._streams.close(stream)
                self._streams.opened(stream, self._make(stream, policy, lambda: state))
                return True
            # The output of the old policy is committed first: a replay must not run old chunks through
            # new steps.
            if stream.is_dirty:
                raise CommitNeeded("its policy has changed")
            policy = policy or pipeline.policy
            self._streams.close(stream)
        return self._open_committed(stream, policy, partition)

    def open_former(
        self,
        stream: StreamState,
        policy: Policy | None,
        partition: TopicPartition,
        *,
        policies: Mapping[str, Policy],
    ) -> None:
        """Before a chunk of `policy`, opens a stream that has buffered chunks under the policy of those
        chunks. It is then in the state that it would have had if it had stayed open; otherwise rows would
        depend on when it was closed. Raises the same errors as `open`.
        """
        if stream.pipeline is not None or policy is None:
            return
        if not self._checkpoints.holds_chunks(stream.reference):
            return
        former = self._former_policy(stream)
        if former is not None and former.reference != policy.reference:
            self.open(stream, policies.get(former.reference, former), partition)

    def _open_committed(self, stream: StreamState, policy: Policy | None, partition: TopicPartition) -> bool:
        """Opens a stream that is closed, in the state of its last commit."""
        if stream.committing is not None:
            raise CommitNeeded("its last commit is being made")
        self._streams.make_room()
        policy = policy or self._former_policy(stream)
        if policy is None:
            return False

        def read_committed() -> StreamCheckpoint | None:
            # Read only with the file lock held: until then another worker may have committed more.
            found = self._checkpoints.stream(stream.reference)
            stream.restore(found)
            return found

        try:
            opened = self._make(stream, policy, read_committed)
        except StoreLocked:
            held = self._checkpoints.stream(stream.reference)
            owner = held.partition if held else None
            raise StreamLocked(stream.reference, TopicPartition(*owner) if owner else None) from None
        stream.moved_keys = frozenset(self._checkpoints.keys_elsewhere(stream.reference, partition))
        stream.reopen = False
        self._streams.opened(stream, opened)
        return True

    def _former_policy(self, stream: StreamState) -> Policy | None:
        """The policy of the last commit of the stream; the catalog may no longer contain it."""
        committed = self._checkpoints.stream(stream.reference)
        return last_policy(committed.states) if committed else None
