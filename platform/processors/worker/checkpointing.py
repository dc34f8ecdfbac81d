"""Makes a worker's output durable: streams take snapshots between two chunks, and commits record them."""

import asyncio
import time
from collections.abc import Collection, Mapping

from ...bus.interface import TopicPartition
from ...config import WorkerSettings
from ...errors import PartitionLost
from ...store.databases.checkpoint import CheckpointStore
from ...store.files.store import Store
from .lanes import Lanes
from .open_streams import OpenStreams
from .pipeline.results_publisher import ResultsPublisher
from .pipeline.telemetry import WorkerTelemetry
from .progress.instrumentation import PartitionsLost
from .progress.ownership import OwnedPartition, Ownership
from .restored_models import RestoredModels
from .snapshot import Snapshot
from .stream_work import StreamWork

SNAPSHOT_WAIT_S = 0.5
"""How long a commit waits for streams that process a chunk; then they are part of the next commit."""
RESULTS_WAIT_S = 1.0
"""How long a commit waits for results that the bus has not accepted; then their streams are part of the next
commit."""
_LOOK_S = 0.05


class Checkpointing:
    """Commits the snapshots of the streams. A late stream does not delay the others.

    `alone` is held during a commit, and while partitions are taken or released. So commits do not overlap,
    and the outcome of each is known before the next one.
    """

    def __init__(
        self,
        *,
        store: Store,
        checkpoints: CheckpointStore,
        settings: WorkerSettings,
        owned: Ownership,
        streams: OpenStreams,
        lanes: Lanes,
        publisher: ResultsPublisher,
        models: RestoredModels,
        telemetry: WorkerTelemetry,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._settings = settings
        self._owned = owned
        self._streams = streams
        self._lanes = lanes
        self._publisher = publisher
        self._models = models
        self._telemetry = telemetry
        self.alone = asyncio.Lock()
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

        Under `alone`. Streams that process a chunk get `wait_s` to finish it. After an exception nothing more
        is committed.
        """
        try:
            self.check()
            began_s = time.monotonic()
            await self._ask_for_snapshots(wait_s)
            await self._wait_for_results()
            snapshot = self._collect()
            while True:
                try:
                    await asyncio.to_thread(self._commit, snapshot)
                    break
                except PartitionLost as lost:
                    gone = [TopicPartition(*key) for key in lost.owners]
                    partitions = [each for key in gone if (each := self._owned.get(key)) is not None]
                    with self._lanes.lock:
                        self._streams.roll_back(snapshot.streams)
                    await self.let_go(partitions)
                    self._owned.lose(gone)
                    self._telemetry.emit(PartitionsLost(len(lost.owners), str(lost)))
                    snapshot = self._collect()
            self._settle(snapshot, began_s)
            await asyncio.to_thread(
                self._streams.committed, idle_s=self._settings.stream_wait_s / 2 if self.is_shared else None
            )
        except BaseException as error:
            # With the lock held: otherwise the next snapshot would lack the content of this one.
            self.fail(error)
            raise
        self._telemetry.streams = len(self._streams)
        self._telemetry.checkpoint_made(began_s=began_s)
        return {partition.key: at for partition, at in snapshot.positions.items()}

    async def _ask_for_snapshots(self, wait_s: float) -> None:
        with self._lanes.lock:
            asked = [
                stream
                for stream in self._streams
                if stream.uncommitted and stream.snapshot is None and not stream.is_dropped
            ]
            for stream in asked:
                stream.snapshot_wanted = True
            self._lanes.schedule(asked)

        def is_done() -> bool:
            while asked and not asked[-1].snapshot_wanted:
                asked.pop()
            return not asked

        if asked:
            await asyncio.to_thread(self._lanes.wait_for, is_done, wait_s)

    async def _wait_for_results(self) -> None:
        give_up_at_s = time.monotonic() + RESULTS_WAIT_S
        while (left_s := give_up_at_s - time.monotonic()) > 0:
            with self._lanes.lock:
                waiting = [
                    stream
                    for stream in self._streams
                    if stream.snapshot is not None and not self._is_durable(stream)
                ]
            if not waiting:
                return
            await self._publisher.settle(min(left_s, _LOOK_S))

    def _is_durable(self, stream: StreamWork) -> bool:
        return stream.snapshot is not None and self._publisher.is_durable(
            stream.reference, stream.snapshot.results_mark
        )

    def _collect(self) -> Snapshot:
        """Returns the snapshots that are ready to commit, and for each partition the lowest offset that is
        still needed.
        """
        owned = list(self._owned)
        with self._lanes.lock:
            streams = {stream: stream.snapshot for stream in self._streams if self._is_durable(stream)}
            taken = {}
            positions = {each: each.frontier for each in owned if each.frontier is not None}
            for stream in self._streams:
                if (snapshot := streams.get(stream)) is not None:
                    taken[stream] = stream.committing = snapshot
                    stream.snapshot = None
                for partition in stream.partitions:
                    needed = stream.needs(partition, besides=snapshot)
                    if needed is not None and needed < positions.get(partition, -1):
                        positions[partition] = needed
        return Snapshot(
            owned=owned,
            positions={each: at for each, at in positions.items() if at != each.committed},
            streams=taken,
        )

    def _commit(self, snapshot: Snapshot) -> None:
        if snapshot.streams:
            self._store.sync()
        keys: dict[TopicPartition, list[tuple[str, bytes]]] = {}
        for stream, each in snapshot.streams.items():
            for key, chunk_key in each.keys:
                keys.setdefault(key, []).append((stream.reference, chunk_key))
        self._checkpoints.commit(
            positions={partition.key: at for partition, at in snapshot.positions.items()},
            streams={stream.reference: each.checkpoint for stream, each in snapshot.streams.items()},
            chunk_keys=dict(keys.items()),
            window=self._settings.chunk_id_window,
            epochs={partition.key: partition.epoch for partition in snapshot.owned},
            logs={partition.key: partition.log for partition in snapshot.owned},
        )
        for each in snapshot.streams.values():
            self._models.remove(each.models)

    def _settle(self, snapshot: Snapshot, began_s: float) -> None:
        with self._lanes.lock:
            for partition, at in snapshot.positions.items():
                partition.committed = at
            for stream, each in snapshot.streams.items():
                stream.committing = None
                if stream.pipeline is not None and not stream.dropped_in_commit:
                    stream.pipeline.mark_committed(each.checkpoint)
                stream.dropped_in_commit = False
            for stream in self._streams:
                # A stream is behind if a chunk has waited since before the commit started.
                if (
                    not stream.is_dropped and not stream.is_dirty and not stream.queue
                ) or stream in snapshot.streams:
                    stream.covered_s = began_s

    async def let_go(self, partitions: Collection[OwnedPartition]) -> None:
        """Stops processing the partitions, and closes their streams without a commit."""
        keys = [partition.key for partition in partitions]
        await asyncio.to_thread(self._streams.release_partitions, partitions)
        await asyncio.to_thread(self._streams.let_go, partitions, also=keys)
        given_up = [key for key in keys if key in self._owned]
        self._owned.drop(keys)
        if given_up:
            self._telemetry.partitions_left(given_up, owned=len(self._owned))
