"""The worker: reads the bus, runs the pipelines, and makes checkpoints.

Exactly once works so: outputs are appended as results appear. Every few seconds all that belongs together
is committed in one SQLite transaction, after one syncfs of the store: the bus positions, the state of the
operations, the length of every output, the ids of recent chunks. After a crash each output is cut back to
its committed length and the bus is read on from the committed position; operations are deterministic, so
the same rows come again.

Any number of workers may share the home directory; the bus gives each partition to one of them. It cannot
know whether that one still runs, so what holds does not depend on the bus:

1. A commit names the epoch of every partition that this worker has, and is refused where another worker has
   taken one since. What was refused is closed, not committed; what is left is committed without it.
2. A stream is written under the lock of its files. Whoever takes a partition up waits for the lock of its
   streams, and reads their checkpoint when it has it: so nobody writes beside a new owner, and what a former
   one wrote after its last commit is cut off.
3. Snapshots are committed in the order in which they are taken, one at a time; none is taken while a chunk
   is half worked on (`Checkpointing`, whose locks order all that happens here).
4. A partition that is being revoked is not worked on any more, checkpointed, dropped, and its streams are
   closed, before the bus is told to go on. A message that was polled before is dropped with it.
5. Once something has failed nothing is committed any more, and the worker ends.
6. What goes out to others is durable on the bus before the commit that covers it (`ResultsPublisher`): rows
   that are published beyond the last commit are made and published again, under the same numbers.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

from ..bus.interface import WORKER_GROUP, Bus, BusMessage, Consumer, TopicPartition
from ..bus.topic_names import is_chunk_topic
from ..config import WorkerSettings
from ..errors import BusUnavailable, TierFailed
from ..store.checkpoint import CheckpointStore
from ..store.dead_letters import DeadLetters
from ..store.model_files import ModelFiles
from ..store.store import Store
from .catalog_link import CatalogLink
from .checkpointing import Checkpointing
from .chunk_work import ChunkWork
from .ownership import OwnedPartition, Ownership
from .put_back_models import PutBackModels
from .results_publisher import ResultsPublisher
from .snapshot import Snapshot
from .telemetry import WorkerTelemetry
from .trainings import Trainings
from .user_operations import UserOperations

HAND_OVER_BOUND_S = 60.0
"""How long giving partitions back may take: the chunks at work, and two checkpoints. Meanwhile nobody works
on these partitions; the other workers go on, and this one stays in the group."""

STOP_PATIENCE_S = 10.0
"""How long a worker that is to end waits for a bus that does not take its results."""

_POLL_S = 0.25
_REPORT_BOUND_S = 5.0
_THREADS = 2

_Result = TypeVar("_Result")
_Batch: TypeAlias = list[tuple[OwnedPartition, list[BusMessage]]]


class Worker:
    """Runs the pipelines of all streams whose partitions it has; listens to its consumer's assignments.

    Partitions are worked on side by side in threads, one chunk of each at a time, so that messages of a
    partition keep their order and the event loop stays free. Memory: two polls of `poll_bytes`, and two more
    of what waits for other workers' locks; what the operations of the streams with 25,000 outputs together
    keep (those that were idle longest are closed); and `chunk_id_window` keys a partition.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        store: Store,
        checkpoints: CheckpointStore,
        dead_letters: DeadLetters,
        settings: WorkerSettings,
        catalog: CatalogLink,
        telemetry: WorkerTelemetry,
        operations: UserOperations,
        models: ModelFiles,
        name: str = "worker",
    ) -> None:
        """`name` is how other workers speak of this one, to people."""
        self._bus = bus
        self._settings = settings
        self._catalog = catalog
        self._telemetry = telemetry
        self._operations = operations
        self._models = PutBackModels(models)
        self._trainings = Trainings(models.folder, telemetry)
        self._operations_looked_at_s = float("-inf")
        self._consumer: Consumer = bus.consumer(WORKER_GROUP, self)
        self._owned = Ownership(checkpoints, name)
        self._publisher = ResultsPublisher(bus, telemetry, max_pending_bytes=settings.results_pending_bytes)
        self._chunks = ChunkWork(
            store=store,
            checkpoints=checkpoints,
            dead_letters=dead_letters,
            settings=settings,
            owned=self._owned,
            publisher=self._publisher,
            models=self._models,
            trainings=self._trainings,
            new_output=catalog.new_outputs.append,
            telemetry=telemetry,
        )
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline")
        self._durable = Checkpointing(
            store=store,
            checkpoints=checkpoints,
            settings=settings,
            owned=self._owned,
            streams=self._chunks.streams,
            publisher=self._publisher,
            models=self._models,
            threads=self._threads,
            telemetry=telemetry,
        )
        self._committing: asyncio.Task[None] | None = None
        self._next_checkpoint_s = 0.0
        self._topics_read_s = float("-inf")
        self._lag_read_s = float("-inf")
        self._unfinished: set[asyncio.Task[Any]] = set()

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Takes partitions up where their last checkpoint left them."""
        return await self._to_its_end(self._take_up(partitions))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Makes a checkpoint and lets go, within `HAND_OVER_BOUND_S`: the next owner begins exactly there.

        Where that fails the worker ends; the next owner then begins at the checkpoint before.
        """
        for key in partitions:
            if (partition := self._owned.get(key)) is not None:
                partition.released = True
        try:
            async with asyncio.timeout(HAND_OVER_BOUND_S):
                await self._to_its_end(self._give_back(partitions))
        except TimeoutError:
            error = TierFailed(
                f"{len(partitions)} partitions could not be given back within {HAND_OVER_BOUND_S:g} s: a "
                "step takes that long for a chunk, or the disk does; the worker ends, another begins at the "
                "last checkpoint"
            )
            self._durable.fail(error)
            raise error from None

    async def _to_its_end(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Where the caller is cancelled, or out of time, `work` goes on: half of it would break a promise."""
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    async def _take_up(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        try:
            async with self._durable.alone:
                # Where the bus has not said that they were gone in between, what was done is done again.
                if again := [key for key in partitions if key in self._owned]:
                    await self._durable.let_go(again, Snapshot())
                taken = await asyncio.to_thread(self._owned.take, partitions)
                for partition, _ in taken:
                    self._owned.add(partition)
        except BaseException as error:
            self._durable.fail(error)
            raise
        self._telemetry.partitions_taken(partitions, owned=len(self._owned))
        return {partition.key: position or 0 for partition, position in taken}

    async def _give_back(self, partitions: Sequence[TopicPartition]) -> None:
        try:
            async with self._durable.alone:
                if self._durable.failure is None:
                    await self._report(await self._durable.commit_all())
                await self._durable.let_go(partitions, Snapshot())
        except BaseException as error:
            self._durable.fail(error)
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, and makes a last checkpoint.

        Raises what makes going on impossible (StoreFailed, a full disk; ResultsNotPublished, where the bus
        takes no results for `STOP_PATIENCE_S` after `stop`): a new start recovers from the last checkpoint.
        """
        stopping = asyncio.ensure_future(self._lose_patience(stop))
        try:
            await self._run(stop)
        finally:
            stopping.cancel()
            # A commit that is under way ends first: who takes a stream up reads what was committed of it.
            async with self._durable.alone, self._durable.between_chunks:
                self._chunks.streams.close()
            self._threads.shutdown(wait=False)
            await asyncio.to_thread(self._trainings.close)
            await self._publisher.close()

    async def _lose_patience(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(STOP_PATIENCE_S)
        self._publisher.give_up()

    async def _run(self, stop: asyncio.Event) -> None:
        self._next_checkpoint_s = time.monotonic() + self._settings.checkpoint_interval_s
        failing = asyncio.ensure_future(self._durable.failed.wait())
        polling = asyncio.ensure_future(self._poll())
        try:
            while not stop.is_set():
                await asyncio.wait([polling, failing], return_when=asyncio.FIRST_COMPLETED)
                self._durable.check()
                batch = polling.result()
                polling = asyncio.ensure_future(self._poll())
                await self._work(batch)
                self._checkpoint_if_due()
        except BaseException as error:
            self._durable.fail(error)
            raise
        finally:
            failing.cancel()
            polling.cancel()
            await asyncio.wait([polling])
        await self._consumer.close()  # by way of `revoked` it makes the last checkpoint
        unfinished = [*self._unfinished, *([self._committing] if self._committing else [])]
        await asyncio.gather(*unfinished)
        self._durable.check()

    async def _poll(self) -> _Batch:
        """The next messages, each with the partition as it is owned now."""
        try:
            # Before a poll, since one that is under way may still give what comes before a seek.
            await self._take_again()
            await self._subscribe()
            messages = await self._consumer.poll(max_bytes=self._settings.poll_bytes, timeout_s=_POLL_S)
        except BusUnavailable as error:
            self._telemetry.bus_unavailable(error)
            await asyncio.sleep(_POLL_S)
            return []
        batch: dict[OwnedPartition, list[BusMessage]] = {}
        for message in messages:
            partition = self._owned.get(message.topic_partition)
            if partition is not None:  # else another worker has it, though the bus does not know yet
                batch.setdefault(partition, []).append(message)
        await self._read_lag()
        return list(batch.items())

    async def _read_lag(self) -> None:
        if time.monotonic() - self._lag_read_s < _POLL_S:
            return
        try:
            behind = sum((await self._consumer.lag()).values())
        except BusUnavailable as error:
            self._telemetry.bus_unavailable(error)
        else:
            self._telemetry.lag_messages = behind + sum(len(partition.parked) for partition in self._owned)
        self._lag_read_s = time.monotonic()

    async def _subscribe(self) -> None:
        if time.monotonic() - self._topics_read_s >= _POLL_S:
            topics = await self._bus.topics()
            ours = {topic: count for topic, count in topics.items() if is_chunk_topic(topic)}
            self._topics_read_s = time.monotonic()
            self._consumer.subscribe(ours)
            self._durable.is_shared = len(self._owned) < sum(ours.values())

    async def _take_again(self) -> None:
        """A worker that was late has taken partitions which the bus had given to this one meanwhile."""
        for key in self._owned.to_take_again():
            async with self._durable.alone:
                self._owned.drop([key])
                try:
                    self._consumer.pause([key])
                    [(partition, position)] = await asyncio.to_thread(self._owned.take, [key])
                    self._consumer.seek(key, position or 0)
                except BusUnavailable:  # it is not ours any more
                    continue
                self._owned.add(partition)
                self._consumer.resume([key])
                self._telemetry.partitions_taken([key], owned=len(self._owned))

    async def _work(self, batch: _Batch) -> None:
        # A policy may be so new that its first chunk is quicker than the poll of the catalog.
        if any(partition.key.topic not in self._catalog.policies for partition, _ in batch):
            await self._catalog.refresh_until_read()
        await self._take_operations()
        policies = self._catalog.policies
        if policies is not self._chunks.policies:
            # First what the old policies made: a replay must not run old chunks through new steps.
            await self.checkpoint()
            self._chunks.policies = policies
        self._trainings.look()
        self._models.look()
        await self._to_its_end(self._work_on(batch))

    async def release(self, reference: str, *, seconds: float) -> None:
        """Lets go of a stream, and leaves it alone for so long: its chunks wait, and their partition."""
        self._chunks.streams.hold_back(reference, seconds)
        if seconds <= 0:
            return
        await self.checkpoint()
        async with self._durable.between_chunks:
            self._chunks.streams.close_one(reference)

    async def _take_operations(self) -> None:
        """Loads the operations of the user's own again where a file has changed."""
        if time.monotonic() - self._operations_looked_at_s < _POLL_S:
            return
        self._operations_looked_at_s = time.monotonic()
        if not self._operations.is_stale():
            return
        # First what the old ones made; their states go over to the new ones by way of the checkpoint.
        await self.checkpoint()
        async with self._durable.between_chunks:
            concerned = await asyncio.to_thread(self._operations.refresh)
            self._chunks.streams.close_naming(concerned)
        self._catalog.read_again()
        self._telemetry.operations_loaded(concerned, broken=self._operations.broken)

    async def _work_on(self, batch: _Batch) -> None:
        async with self._durable.between_chunks:
            self._durable.check()
            work = {partition: partition.parked for partition in self._owned if partition.parked}
            for partition, messages in batch:
                if self._owned.get(partition.key) is partition:  # else it was revoked since the poll
                    work[partition] = partition.parked + messages
            if not work:
                return
            working = [
                asyncio.get_running_loop().run_in_executor(
                    self._threads, self._chunks.work_on, partition, messages
                )
                for partition, messages in work.items()
            ]
            await asyncio.wait(working)  # all of them, also where one fails: none may outlast the lock
            for each in working:
                if (error := each.exception()) is not None:
                    self._durable.fail(error)  # before a snapshot, which waits for the lock, is taken
                    raise error
            for partition in work:
                self._pause_or_resume(partition)

    def _pause_or_resume(self, partition: OwnedPartition) -> None:
        if partition.paused != bool(partition.parked) and not partition.released:
            try:
                (self._consumer.pause if partition.parked else self._consumer.resume)([partition.key])
            except BusUnavailable:  # it is being revoked
                return
            partition.paused = bool(partition.parked)

    def _checkpoint_if_due(self) -> None:
        """Begins a checkpoint where it is time; it is committed while the next chunks are worked on."""
        if self._committing is not None and self._committing.done():
            committing, self._committing = self._committing, None
            committing.result()
        if self._committing is None and time.monotonic() >= self._next_checkpoint_s:
            self._next_checkpoint_s = time.monotonic() + self._settings.checkpoint_interval_s
            self._committing = asyncio.ensure_future(self.checkpoint())

    async def checkpoint(self) -> None:
        """Makes everything that was worked on so far durable."""
        await self._to_its_end(self._checkpoint())

    async def _checkpoint(self) -> None:
        async with self._durable.alone:
            self._durable.check()
            positions = await self._durable.commit_all()
        await self._report(positions)

    async def _report(self, positions: Mapping[TopicPartition, int]) -> None:
        """Tells the bus too, for lag seen from outside; what counts is committed already."""
        try:
            async with asyncio.timeout(_REPORT_BOUND_S):
                await self._consumer.commit({key: at for key, at in positions.items() if key in self._owned})
        except (BusUnavailable, TimeoutError) as error:
            self._telemetry.bus_unavailable(error)
