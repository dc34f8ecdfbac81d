"""Streams that another worker still has locked: how long their chunks wait, and what is reported."""

import time
from collections import OrderedDict

from ...store.databases.interfaces import CheckpointDatabase
from .pipeline.telemetry import WorkerTelemetry
from .pipeline_opening import StreamLocked
from .progress.ownership import OwnedPartition, Ownership

_MAX_REMEMBERED = 10_000


class LockedStreams:
    """Decides whether a chunk waits for a stream's lock. Called from the pipelines' threads.

    If the stream is written for a partition that this worker owns, or for the same topic, the other worker is
    a former owner, or will release the stream since its tag has moved to another partition. The chunk then
    waits without a timeout. Otherwise two policies route the same tag to two workers, and neither may ever
    release the stream: the chunk waits for `give_up_s`. Remembers the last 10,000 locked streams.
    """

    def __init__(
        self,
        checkpoints: CheckpointDatabase,
        owned: Ownership,
        telemetry: WorkerTelemetry,
        *,
        give_up_s: float,
    ) -> None:
        self._checkpoints = checkpoints
        self._owned = owned
        self._telemetry = telemetry
        self._give_up_s = give_up_s
        self._since_s: OrderedDict[str, float] = OrderedDict()

    def record_opened(self, reference: str) -> None:
        """Records that this worker has the stream's lock now."""
        if reference in self._since_s and self._since_s.pop(reference, None) is not None:
            self._telemetry.stream_is_free(reference)

    def wait_or_give_up(self, locked: StreamLocked, wanted_by: OwnedPartition) -> str:
        """Raises `locked` if the chunk has to wait; after the timeout, returns the dead letter's reason."""
        since_s = self._since_s.setdefault(locked.reference, time.monotonic())
        if len(self._since_s) > _MAX_REMEMBERED:
            self._since_s.popitem(last=False)
        writer = self._writer(locked, wanted_by)
        if not self._will_be_free(locked, wanted_by) and time.monotonic() - since_s >= self._give_up_s:
            self._telemetry.stream_is_free(locked.reference)
            assert locked.partition is not None
            return (
                f"stream {locked.reference!r} is written by {writer}, for policy {locked.partition.topic!r}; "
                "route the tag to one policy only, then resend this chunk"
            )
        self._telemetry.waits_for_stream(locked.reference, writer=writer, policy=wanted_by.key.topic)
        raise locked

    def _will_be_free(self, locked: StreamLocked, wanted_by: OwnedPartition) -> bool:
        return (
            locked.partition
            is None  # nothing is committed: most likely the former owner of the partition has it
            or locked.partition in self._owned
            or locked.partition.topic == wanted_by.key.topic
        )

    def _writer(self, locked: StreamLocked, wanted_by: OwnedPartition) -> str:
        if locked.partition is None:
            return wanted_by.before or "another worker"
        if (owned := self._owned.get(locked.partition)) is not None:
            return owned.before or "another worker"
        return self._checkpoints.owner(locked.partition) or "another worker"
