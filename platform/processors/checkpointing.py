"""How a worker's work becomes durable: one snapshot after another, of the partitions that are still owned."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from ..bus.interface import TopicPartition
from ..config import WorkerSettings
from ..errors import PartitionLost, TierFailed
from ..store.checkpoint import CheckpointStore
from ..store.store import Store
from .open_streams import OpenStreams
from .ownership import Ownership
from .put_back_models import PutBackModels
from .results_publisher import ResultsPublisher
from .snapshot import Snapshot
from .telemetry import WorkerTelemetry


class Checkpointing:
    """Takes snapshots and commits them. The locks are for who calls, too:

    - `alone` is held from before a snapshot is taken until it is committed, and where partitions are taken up
      or given back: so snapshots are committed in the order in which they are taken.
    - `between_chunks` is held while threads work, and while a snapshot is taken or streams are closed; where
      both are needed, inside `alone`.
    """

    def __init__(
        self,
        *,
        store: Store,
        checkpoints: CheckpointStore,
        settings: WorkerSettings,
        owned: Ownership,
        streams: OpenStreams,
        publisher: ResultsPublisher,
        models: PutBackModels,
        threads: Executor,
        telemetry: WorkerTelemetry,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._settings = settings
        self._owned = owned
        self._streams = streams
        self._publisher = publisher
        self._models = models
        self._threads = threads
        self._telemetry = telemetry
        self.alone = asyncio.Lock()
        self.between_chunks = asyncio.Lock()
        self.failure: BaseException | None = None
        self.failed = asyncio.Event()
        self.is_shared = False
        """Whether other workers have partitions of the same topics."""

    def fail(self, error: BaseException) -> None:
        """From now on nothing is committed: a chunk may be half worked on, or a commit half known."""
        if self.failure is None:
            self.failure = error
            self.failed.set()
            self._publisher.give_up()  # a thread that waits for the bus would be waited for

    def check(self) -> None:
        """Raises what has failed."""
        if self.failure is not None:
            raise self.failure

    async def commit_all(self) -> Mapping[TopicPartition, int]:
        """Commits a snapshot as far as its partitions are still owned; gives the positions in it.

        Under `alone`. Whatever it raises has failed: nothing is committed after it.
        """
        try:
            async with self.between_chunks:
                self.check()
                snapshot = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._take_snapshot
                )
                published = self._publisher.mark()
            await self._publisher.durable(published)
            while True:
                try:
                    await asyncio.to_thread(self._commit, snapshot)
                    break
                except PartitionLost as lost:
                    gone = [TopicPartition(*key) for key in lost.owners]
                    await self.let_go(gone, snapshot)
                    self._owned.lose(gone)
                    self._telemetry.partitions_lost(lost)
                    snapshot = snapshot.without(gone)
            async with self.between_chunks:
                self._close_idle_streams()
        except BaseException as error:
            # Before anybody else gets the lock: the next snapshot would lack what was in this one.
            self.fail(error)
            raise
        self._telemetry.checkpoint_made()
        return snapshot.positions

    def _take_snapshot(self) -> Snapshot:
        partitions = list(self._owned)
        streams, changed_by = self._streams.snapshot()
        for reference in streams:
            pipeline = self._streams.pipeline(reference)
            gained = pipeline.newly_counted()
            self._telemetry.steps_counted(stream=reference, gained=gained, total=pipeline.counts)
        return Snapshot(
            epochs={partition.key: partition.epoch for partition in partitions},
            positions={p.key: at for p in partitions if (at := p.moved_to()) is not None},
            chunk_keys={p.key: keys for p in partitions if (keys := p.take_new_keys())},
            streams=streams,
            changed_by=changed_by,
            models=self._models.take_taken(),
        )

    def _commit(self, snapshot: Snapshot) -> None:
        if snapshot.positions or snapshot.streams:
            self._store.sync()
        self._checkpoints.commit(
            positions=dict(snapshot.positions.items()),
            streams=snapshot.streams,
            chunk_keys={p: [("", key) for key in keys] for p, keys in snapshot.chunk_keys.items()},
            window=self._settings.chunk_id_window,
            epochs=dict(snapshot.epochs.items()),
        )
        self._streams.mark_committed(snapshot.streams)
        for taken in snapshot.models.values():
            self._models.remove(taken)

    def _close_idle_streams(self) -> None:
        # Others may wait for a stream whose tag has moved to them.
        self._streams.close_idle(idle_s=self._settings.stream_wait_s / 2 if self.is_shared else None)
        self._telemetry.streams = len(self._streams)

    async def let_go(self, partitions: Sequence[TopicPartition], uncommitted: Snapshot) -> None:
        """Stops working on the partitions, and closes their streams without a commit.

        `uncommitted` is a snapshot that could not be committed. Raises TierFailed where a stream has chunks
        of other partitions too that are not committed: they would be missing in it.
        """
        gone = set(partitions)
        async with self.between_chunks:
            if self.failure is None:
                mixed = self._streams.mixed(gone, uncommitted.changed_by)
                if mixed:
                    raise TierFailed(
                        f"streams have chunks of lost partitions and of others ({', '.join(mixed[:5])}): the "
                        "worker ends, so that all begin at the last checkpoint; let each tag belong to "
                        "one policy alone"
                    )
            self._streams.close_of(gone, uncommitted.changed_by)
            given_up = [key for key in gone if key in self._owned]
            self._owned.drop(gone)
            if given_up:
                self._telemetry.partitions_left(given_up, owned=len(self._owned))
