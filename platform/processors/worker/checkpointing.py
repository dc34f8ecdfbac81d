"""Makes a worker's output durable: streams take snapshots between two chunks, and commits record them."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ...bus.interface import TopicPartition
from ...config import WorkerSettings
from ...errors import PartitionLost
from ...store.databases.interfaces import CheckpointDatabase
from ...store.interface import StoreEngine
from .open_streams import OpenStreams
from .pipeline.results_publisher import ResultsPublisher
from .pipeline.telemetry import WorkerTelemetry
from .progress.instrumentation import PartitionsLost
from .progress.ownership import OwnedPartition, Ownership
from .pyramids import Pyramids
from .restored_models import RestoredModels
from .stream_executor import StreamExecutor
from .stream_state import StreamSnapshot, StreamState

SNAPSHOT_WAIT_S = 0.5
"""How long a commit waits for streams that process a chunk; then they are part of the next commit."""
RESULTS_WAIT_S = 1.0
"""How long a commit waits for results that the bus has not accepted; then their streams are part of the next
commit."""
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class _Commit:
    """The streams whose snapshots a commit takes, and the positions of the partitions with it.

    `owned` has every partition of the worker, changed or not, so that the loss of an idle one is noticed too.
    """

    owned: Collection[OwnedPartition]
    positions: Mapping[OwnedPartition, int]
    streams: Mapping[StreamState, StreamSnapshot]


class Checkpointing:
    """Commits the snapshots of the streams. A late stream does not delay the others.

    `lock` is held during a commit, and while partitions are taken or released. So commits do not overlap,
    and the outcome of each is known before the next one.
    """

    def __init__(
        self,
        *,
        store: StoreEngine,
        checkpoints: CheckpointDatabase,
        settings: WorkerSettings,
        owned: Ownership,
        streams: OpenStreams,
        executor: StreamExecutor,
        publisher: ResultsPublisher,
        models: RestoredModels,
        pyramids: Pyramids,
        telemetry: WorkerTelemetry,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._settings = settings
        self._owned = owned
        self._streams = streams
        self._executor = executor
        self._publisher = publisher
        self._models = models
        self._pyramids = pyramids
        self._telemetry = telemetry
        self.lock = asyncio.Lock()
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.is_shared = False
        """Whether other workers own partitions of the same topics."""

    def fail(self, error: BaseException) -> None:
        """Stops all commits, since the outcome of the last one is unknown."""
        if self.failure is None:
            self.failure = error
            self.failed.set()
            self._publisher.give_up()  # else this would wait for a thread that waits for the bus

    def check(self) -> None:
        """Raises the error of a failed commit."""
        if self.failure is not None:
            raise self.failure

    async def commit(self, *, wait_s: float = SNAPSHOT_WAIT_S) -> Mapping[TopicPartition, int]:
        """Commits the snapshots whose partitions are still owned; returns the positions.

        Under `lock`. Streams that process a chunk get `wait_s` to finish it. After an exception nothing more
        is committed.
        """
        try:
            self.check()
            began_s = time.monotonic()
            await self._request_snapshots(wait_s)
            await self._wait_for_results()
            commit = self._collect()
            while True:
                try:
                    await asyncio.to_thread(self._commit, commit)
                    break
                except PartitionLost as lost:
                    gone = [TopicPartition(*key) for key in lost.owners]
                    partitions = [each for key in gone if (each := self._owned.get(key)) is not None]
                    with self._executor.lock:
                        self._streams.restore_snapshots(commit.streams)
                    await self.release(partitions)
                    self._owned.lose(gone)
                    self._telemetry.emit(PartitionsLost(len(lost.owners), str(lost)))
                    commit = self._collect()
            self._record_commit(commit, began_s)
            await asyncio.to_thread(
                self._streams.committed, idle_s=self._settings.stream_wait_s / 2 if self.is_shared else None
            )
        except BaseException as error:
            # With the lock held: otherwise the next snapshot would lack the content of this one.
            self.fail(error)
            raise
        self._telemetry.streams = len(self._streams)
        self._telemetry.checkpoint_made(began_s=began_s)
        return {partition.key: at for partition, at in commit.positions.items()}

    async def _request_snapshots(self, wait_s: float) -> None:
        with self._executor.lock:
            pending = [
                stream
                for stream in self._streams
                if stream.uncommitted and stream.snapshot is None and not stream.is_rolled_back
            ]
            for stream in pending:
                stream.snapshot_requested = True
            self._executor.schedule(pending)

        def is_done() -> bool:
            while pending and not pending[-1].snapshot_requested:
                pending.pop()
            return not pending

        if pending:
            await asyncio.to_thread(self._executor.wait_for, is_done, wait_s)

    async def _wait_for_results(self) -> None:
        give_up_at_s = time.monotonic() + RESULTS_WAIT_S
        while (left_s := give_up_at_s - time.monotonic()) > 0:
            with self._executor.lock:
                waiting = [
                    stream
                    for stream in self._streams
                    if stream.snapshot is not None and not self._is_durable(stream)
                ]
            if not waiting:
                return
            await self._publisher.wait_for_progress(min(left_s, _POLL_S))

    def _is_durable(self, stream: StreamState) -> bool:
        return stream.snapshot is not None and self._publisher.is_durable(
            stream.reference, stream.snapshot.results_mark
        )

    def _collect(self) -> _Commit:
        """Returns the snapshots that are ready to commit, and for each partition the lowest offset that is
        still needed.
        """
        owned = list(self._owned)
        with self._executor.lock:
            streams = {stream: stream.snapshot for stream in self._streams if self._is_durable(stream)}
            taken = {}
            positions = {each: each.frontier for each in owned if each.frontier is not None}
            for stream in self._streams:
                if (snapshot := streams.get(stream)) is not None:
                    taken[stream] = stream.committing = snapshot
                    stream.snapshot = None
                for partition in stream.partitions:
                    needed = stream.first_uncommitted(partition, excluding=snapshot)
                    if needed is not None and needed < positions.get(partition, -1):
                        positions[partition] = needed
        return _Commit(
            owned=owned,
            positions={each: at for each, at in positions.items() if at != each.committed},
            streams=taken,
        )

    def _commit(self, commit: _Commit) -> None:
        if commit.streams:
            self._store.sync()
        keys: dict[TopicPartition, list[tuple[str, bytes]]] = {}
        for stream, each in commit.streams.items():
            for key, chunk_key in each.keys:
                keys.setdefault(key, []).append((stream.reference, chunk_key))
        self._checkpoints.commit(
            positions={partition.key: at for partition, at in commit.positions.items()},
            streams={stream.reference: each.checkpoint for stream, each in commit.streams.items()},
            chunk_keys=dict(keys.items()),
            window=self._settings.chunk_id_window,
            epochs={partition.key: partition.epoch for partition in commit.owned},
            logs={partition.key: partition.log for partition in commit.owned},
        )
        for each in commit.streams.values():
            self._models.remove(each.models)

    def _record_commit(self, commit: _Commit, began_s: float) -> None:
        with self._executor.lock:
            for partition, at in commit.positions.items():
                partition.committed = at
            for stream, each in commit.streams.items():
                stream.committing = None
                if stream.pipeline is not None and not stream.rolled_back_in_commit:
                    stream.pipeline.mark_committed(each.checkpoint)
                stream.rolled_back_in_commit = False
            for stream in self._streams:
                # A stream is behind if a chunk has waited since before the commit started.
                if (
                    not stream.is_rolled_back and not stream.is_dirty and not stream.queue
                ) or stream in commit.streams:
                    stream.covered_s = began_s
        if commit.streams:
            self._pyramids.committed(
                [each.checkpoint.outputs for each in commit.streams.values()], began_s=began_s
            )

    async def release(self, partitions: Collection[OwnedPartition]) -> None:
        """Releases the partitions: stops processing them, and closes their streams without a commit."""
        keys = [partition.key for partition in partitions]
        await asyncio.to_thread(self._streams.discard_queued, partitions)
        await asyncio.to_thread(self._streams.close_streams_of, partitions, also=keys)
        released = [key for key in keys if key in self._owned]
        self._owned.drop(keys)
        if released:
            self._telemetry.partitions_left(released, owned=len(self._owned))
