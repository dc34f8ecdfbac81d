"""The worker: reads the bus, passes chunks to the threads, and makes checkpoints.

Exactly-once processing: outputs are appended as results are computed. Every few seconds one SQLite
transaction, after one syncfs of the store, commits: the bus positions, and for each stream its own positions,
the state of its operations, the length of its outputs, the IDs of recent chunks. After a crash each output is
truncated to its committed length, and reading continues from the committed position; operations are
deterministic, so they compute the same rows.

Failures are isolated: each stream has its own queue, threads take the streams of all policies in turn
(`StreamExecutor`), and a commit covers the streams that are between two chunks (`Checkpointing`). A failing
stream stops alone. The committed position of its partition stays before its first unprocessed chunk, so that
no chunk is lost. When the partition is reread, the other streams skip the chunks that they contain.

Any number of workers may share the home directory; the bus gives each partition to one of them. It cannot
know whether that worker still runs, so the guarantees do not depend on the bus:

1. A commit names the epoch of every partition that this worker has, and is rejected if another worker has
   taken one since. Rejected partitions are closed, not committed; the others are committed without them.
2. A stream is written under the lock of its files. A worker that takes a partition waits for the locks of its
   streams, and reads their checkpoints with the locks held. So a stream has one writer, and rows that a
   former owner wrote after its last commit are truncated.
3. Commits are made one at a time, in the order of their snapshots; a stream gives a snapshot between two
   chunks only.
4. When a partition is revoked, its chunks are no longer processed; it is checkpointed and dropped, and its
   streams are closed, before the rebalance continues. Messages that were already polled are dropped with it.
5. After a failed commit nothing more is committed, and the worker ends.
6. Results are durable on the bus before the commit that covers them (`ResultsPublisher`). Rows that were
   published beyond the last commit are recomputed and republished, under the same numbers.
7. A position belongs to one log. The bus delivers messages only of the log whose identity was read when the
partition was taken. If the log was replaced, the partition is retaken (`PartitionReader`).
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...bus.interface import WORKER_GROUP, Bus, Consumer, TopicPartition
from ...config import WorkerSettings
from ...errors import TierFailed, WindvaneError
from ...store.databases.interfaces import CheckpointDatabase, DeadLetters
from ...store.interface import StoreEngine
from ...store.model_files import ModelFiles
from ..operations.base.user_operations import UserOperations
from .checkpointing import Checkpointing
from .chunk_processor import ChunkProcessor
from .instrumentation import FlushFailed, PyramidNotExtended, StreamSlow
from .order_watch import Flusher, OrderWatch
from .partition_reader import PartitionReader
from .pipeline.catalog_link import CatalogLink
from .pipeline.results_publisher import ResultsPublisher
from .pipeline.telemetry import WorkerTelemetry
from .progress.in_flight import InFlight
from .progress.ownership import Ownership
from .pyramids import Pyramids
from .restored_models import RestoredModels
from .retention.sweep import PASS_INTERVAL_S, RetentionSweep
from .stopped_streams import StoppedStreams
from .stream_status import report_stream_health, streams_behind
from .trainings import Trainings

RELEASE_TIMEOUT_S = 60.0
"""Timeout of a release of partitions. Meanwhile these partitions have no worker; the other workers continue,
and this one stays in the group."""

CHUNK_TIMEOUT_S = 5.0
"""How long the release of a partition waits for a chunk in progress; then the next owner processes it."""

STOP_CHUNK_TIMEOUT_S = 4.0
"""The same timeout when the worker stops."""

RESULTS_TIMEOUT_S = 7.0
"""How long a stopping worker waits for a bus that does not accept its results."""

KEY_WINDOWS = 4
"""The number of windows of chunk keys (`chunk_id_window`) in memory, over all partitions: by default the last
400,000 chunks of the worker, in 16 MiB."""

_POLL_S = 0.05
_OPERATIONS_S = 0.25
_REPORT_HEALTH_S = 1.0
_REPORT_TIMEOUT_S = 5.0
_LAST_REPORT_TIMEOUT_S = 1.0

_Result = TypeVar("_Result")


class Worker:
    """Runs the pipelines of all streams of its partitions; listens to the assignments of its consumer.

    Memory: the backlog (`stream_backlog_bytes`) of each partition; the state of the operations of open
    streams (those that were idle longest are closed when the kernel's limit on mappings is near); and 42
    bytes for each of the last `KEY_WINDOWS` × `chunk_id_window` chunks.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        store: StoreEngine,
        checkpoints: CheckpointDatabase,
        dead_letters: DeadLetters,
        settings: WorkerSettings,
        catalog: CatalogLink,
        telemetry: WorkerTelemetry,
        operations: UserOperations,
        models: ModelFiles,
        in_flight: InFlight | None = None,
        flusher: Flusher | None = None,
        name: str = "worker",
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`name` identifies this worker to the others. `flusher` publishes the flush messages of streams with
        reordering. Retention compares `clock_ns` with the times of rows and chunks.
        """
        self._settings = settings
        self._catalog = catalog
        self._telemetry = telemetry
        self._operations = operations
        self._models = RestoredModels(models)
        self._trainings = Trainings(models.folder, telemetry)
        self._consumer: Consumer = bus.consumer(
            WORKER_GROUP, self, positions_of=checkpoints.database_id.hex()
        )
        self._owned = Ownership(checkpoints, name, remembered_keys=KEY_WINDOWS * settings.chunk_id_window)
        self._publisher = ResultsPublisher(bus, telemetry, max_pending_bytes=settings.results_pending_bytes)
        self._orders = OrderWatch(
            flusher,
            policies=lambda: catalog.policies,
            is_owned=self._owned.__contains__,
            failed=lambda error: telemetry.emit(FlushFailed(str(error) or repr(error))),
        )
        self._processor = ChunkProcessor(
            store=store,
            checkpoints=checkpoints,
            dead_letters=dead_letters,
            settings=settings,
            owned=self._owned,
            publisher=self._publisher,
            models=self._models,
            trainings=self._trainings,
            catalog=catalog,
            telemetry=telemetry,
            in_flight=in_flight or InFlight(None),
            orders=self._orders,
        )
        self._executor = self._processor.executor
        self._streams = self._processor.streams
        self._orders.is_behind = self._streams.is_behind
        self._retention = RetentionSweep(
            store=store,
            checkpoints=checkpoints,
            owned=self._owned,
            streams=self._streams,
            executor=self._executor,
            policies=lambda: catalog.policies,
            telemetry=telemetry,
            clock_ns=clock_ns,
        )
        self.pyramids = Pyramids(
            store,
            failed=lambda reference, error: telemetry.emit(
                PyramidNotExtended(reference, str(error) or repr(error))
            ),
            kept_since_ns=self._retention.overview_since_ns,
        )
        self._checkpointing = Checkpointing(
            store=store,
            checkpoints=checkpoints,
            settings=settings,
            owned=self._owned,
            streams=self._streams,
            executor=self._executor,
            publisher=self._publisher,
            models=self._models,
            pyramids=self.pyramids,
            telemetry=telemetry,
        )
        self._reader = PartitionReader(
            bus=bus,
            consumer=self._consumer,
            checkpoints=checkpoints,
            owned=self._owned,
            streams=self._streams,
            checkpointing=self._checkpointing,
            dead_letters=self._processor.dead_letters,
            before_batch=self._poll_models,
            orders=self._orders,
            settings=settings,
            telemetry=telemetry,
        )
        self._stopped = StoppedStreams(self._streams, self._executor, self._processor.probe)
        self._publisher.broken = self._checkpointing.fail
        self._commit_requested = asyncio.Event()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._streams.request_commit = self._request_commit
        self._unfinished: set[asyncio.Task[Any]] = set()
        telemetry.streams_behind = lambda committed_s: streams_behind(
            self._streams, self._executor, committed_s=committed_s
        )
        telemetry.orders = self._orders.status

    def _request_commit(self) -> None:
        self._loop.call_soon_threadsafe(self._commit_requested.set)

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Takes partitions, each at the position of its last checkpoint."""
        return await self._run_to_completion(self._reader.take(partitions))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Makes a checkpoint and releases the partitions, within `RELEASE_TIMEOUT_S`. The next owner
        continues from it.

        If that fails the worker ends; the next owner then continues from the previous checkpoint.
        """
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._run_to_completion(self._release_partitions(partitions))
        except TimeoutError:
            error = TierFailed(
                f"{len(partitions)} partitions could not be released within {RELEASE_TIMEOUT_S:g} s: the "
                "disk takes that long for a checkpoint. This worker ends; another continues from the last one"
            )
            self._checkpointing.fail(error)
            raise error from None

    async def _run_to_completion(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Runs `work` to completion even if the caller is cancelled or times out: it must not stop
        halfway.
        """
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def _release_partitions(self, keys: Sequence[TopicPartition]) -> None:
        partitions = [each for key in keys if (each := self._owned.get(key)) is not None]
        try:
            await asyncio.to_thread(self._streams.discard_queued, partitions)
            await asyncio.to_thread(
                self._executor.wait_for,
                lambda: not self._streams.is_processing(partitions),
                STOP_CHUNK_TIMEOUT_S if self._stopping else CHUNK_TIMEOUT_S,
            )
            async with self._checkpointing.lock:
                if self._checkpointing.failure is None:
                    await self._report(await self._checkpointing.commit(wait_s=1.0))
                await self._checkpointing.release(partitions)
        except BaseException as error:
            self._checkpointing.fail(error)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set, and makes a last checkpoint.

        Raises fatal errors (StoreFailed, a full disk); a restart recovers from the last checkpoint.
        """
        try:
            await self._run(stop)
        finally:
            self._stopped.close()
            self._executor.close()
            # A commit in progress ends first: the next owner of a stream reads its last commit.
            async with self._checkpointing.lock:
                await asyncio.to_thread(self._streams.close_all)
            await asyncio.to_thread(self.pyramids.close)
            await self._publisher.close()
            self._telemetry.streams_behind = lambda _: {}
            self._telemetry.orders = dict

    async def _run(self, stop: asyncio.Event) -> None:
        self._stopped.start()
        self.pyramids.start()
        tasks = [
            asyncio.ensure_future(work)
            for work in (
                self._checkpointing.failed.wait(),
                stop.wait(),
                self._reader.run(),
                self._make_checkpoints(),
                self._monitor_streams(),
                self._reload_operations(),
                self._drop_expired(),
                self._orders.run(),
            )
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            self._checkpointing.check()
            for task in tasks:
                if task.done():
                    task.result()
        except BaseException as error:
            self._checkpointing.fail(error)
            raise
        finally:
            self._stopping = True
            ending_training = asyncio.ensure_future(asyncio.to_thread(self._trainings.close))
            giving_up = self._loop.call_later(RESULTS_TIMEOUT_S, self._publisher.give_up)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            try:
                # It calls `revoked`, which makes the last checkpoint unless there was an error.
                await self._consumer.close()
                await asyncio.gather(*self._unfinished)
            except Exception as error:
                self._checkpointing.fail(error)
            giving_up.cancel()
            await ending_training
        self._checkpointing.check()

    async def _make_checkpoints(self) -> None:
        while True:
            interval_s = self._settings.checkpoint_interval_s
            try:
                async with asyncio.timeout(interval_s):
                    await self._commit_requested.wait()
            except TimeoutError:
                pass
            self._commit_requested.clear()
            await self.checkpoint()

    async def _monitor_streams(self) -> None:
        reported_s = float("-inf")
        while True:
            for stream in self._executor.find_slow_streams():
                running = stream.pipeline.running_step if stream.pipeline is not None else None
                self._telemetry.emit(StreamSlow(stream.reference, running[0] if running else None))
            self._streams.pauses.resume_due()
            self._poll_models()
            if time.monotonic() - reported_s >= _REPORT_HEALTH_S:
                reported_s = time.monotonic()
                report_stream_health(
                    self._streams,
                    self._executor,
                    self._telemetry,
                    interval_s=self._settings.checkpoint_interval_s,
                )
            await asyncio.sleep(_POLL_S)

    async def _reload_operations(self) -> None:
        """Reloads the user-defined operations if a file has changed."""
        while True:
            await asyncio.sleep(_OPERATIONS_S)
            if not self._operations.is_stale():
                continue
            # The checkpoint passes the states of the old operations to the new ones.
            concerned = await asyncio.to_thread(self._operations.refresh)
            self._streams.reopen_naming(concerned)
            self._catalog.read_again()
            self._telemetry.operations_loaded(concerned, broken=self._operations.broken)

    async def _drop_expired(self) -> None:
        while True:
            await asyncio.sleep(PASS_INTERVAL_S)
            await self._run_to_completion(asyncio.to_thread(self._retention.run_pass))

    def _poll_models(self) -> None:
        self._trainings.poll()
        self._models.poll()

    async def release(self, reference: str, *, seconds: float) -> None:
        """Closes a stream and pauses it for this time."""
        self._streams.reserve(reference, seconds)
        with suppress(WindvaneError):  # the policy of the reprocessing may be new
            await self._catalog.refresh()
        if seconds <= 0:
            return
        await self.checkpoint()
        await asyncio.to_thread(self._streams.close_one, reference)

    async def checkpoint(self) -> None:
        """Makes everything that was processed so far durable, except chunks in progress."""
        await self._run_to_completion(self._checkpoint())

    async def _checkpoint(self) -> None:
        async with self._checkpointing.lock:
            self._checkpointing.check()
            positions = await self._checkpointing.commit()
        await self._report(positions)

    async def _report(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commits the positions to the bus too, for external monitoring of lag and for retention."""
        bound_s = _LAST_REPORT_TIMEOUT_S if self._stopping else _REPORT_TIMEOUT_S
        await self._reader.report(positions, timeout_s=bound_s)
