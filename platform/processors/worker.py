"""The worker: reads the bus, runs the pipelines, and makes checkpoints.

Exactly once works so: outputs are appended as results appear. Every few seconds all that belongs together
is committed in one SQLite transaction, after one syncfs of the store: the bus positions, the state of the
operations, the length of every output, the ids of recent chunks. After a crash each output is cut back to
its committed length and the bus is read on from the committed position; operations are deterministic, so
the same rows come again.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..bus.envelope import ChunkMessage, decode_chunk
from ..bus.interface import WORKER_GROUP, Bus, BusMessage, Consumer, TopicPartition
from ..config import WorkerSettings
from ..errors import BusUnavailable, EnvelopeInvalid, ModelRefused
from ..events import chunk_key, content_key, is_stored_anew
from ..store.checkpoint import CheckpointStore, StreamCheckpoint
from ..store.dead_letters import DeadLetter, DeadLetters
from ..store.model_files import Identity, ModelFiles
from ..store.policy import Policy
from ..store.store import Store
from .catalog_link import CatalogLink
from .pipeline import StreamPipeline
from .telemetry import WorkerTelemetry

_logger = logging.getLogger("windvane.worker")
MAX_OPEN_OUTPUTS = 25_000  # each has two mappings, of the 65,530 that Linux gives a process
_POLL_S = 0.25
_THREADS = 2


@dataclass(slots=True)
class _Partition:
    """What the worker knows of a partition between checkpoints."""

    recent: OrderedDict[bytes, None]
    new_keys: list[bytes] = field(default_factory=list)
    position: int | None = None  # the next offset, once something was worked on

    def saw_before(self, chunk: ChunkMessage, *, by_content: bool, window: int) -> bool:
        """Whether the chunk is a repetition of a recent one; remembers it where it is not."""
        if by_content:
            key = content_key(chunk.sender, chunk.tag, chunk.payload)
        elif chunk.chunk_id:  # an empty one would be the same for all chunks
            key = chunk_key(chunk.sender, chunk.tag, chunk.chunk_id)
        else:
            return False
        if key in self.recent:
            return True
        self.recent[key] = None
        self.new_keys.append(key)
        if len(self.recent) > window:
            self.recent.popitem(last=False)
        return False


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All that one transaction commits."""

    positions: dict[TopicPartition, int]
    streams: dict[str, StreamCheckpoint]
    chunk_keys: dict[TopicPartition, list[bytes]]
    models: dict[str, Identity]


class Worker:
    """Runs the pipelines of all streams whose partitions it has.

    Partitions are worked on side by side in threads, one chunk of each at a time, so that messages of a
    partition keep their order and the event loop stays free. Memory: two polls of `poll_bytes`, what the
    operations of the streams with 25,000 outputs together keep (those that were idle longest are closed),
    and `chunk_id_window` keys a partition.
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
        models: ModelFiles | None = None,
    ) -> None:
        self._bus = bus
        self._models = models
        self._models_waiting: dict[str, Identity] = {}
        self._models_seen: dict[str, Identity] = {}  # taken up, and not removed yet; or refused
        self._models_taken: dict[str, Identity] = {}  # since the last snapshot
        self._store = store
        self._checkpoints = checkpoints
        self._dead_letters = dead_letters
        self._settings = settings
        self._catalog = catalog
        self._policies_in_use: Mapping[str, Policy] = {}
        self._telemetry = telemetry
        self._consumer: Consumer = bus.consumer(WORKER_GROUP, self)
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._streams: OrderedDict[str, StreamPipeline] = OrderedDict()
        self._changed: set[str] = set()
        self._opening = threading.Lock()  # two topics may bring the same tag
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="pipeline")
        self._between_chunks = asyncio.Lock()  # a snapshot must not see a chunk half worked on
        self._committing: asyncio.Task[None] | None = None
        self._next_checkpoint = 0.0
        self._failed = False  # a chunk may be half worked on: nothing may be committed any more

    async def assigned(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Takes partitions up where their last checkpoint left them."""
        positions = await asyncio.to_thread(self._checkpoints.positions)
        for partition in partitions:
            keys = await asyncio.to_thread(self._checkpoints.chunk_keys, *partition)
            self._partitions[partition] = _Partition(OrderedDict.fromkeys(keys))
        return {partition: positions.get(partition, 0) for partition in partitions}

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Makes a checkpoint and lets go: the next owner begins exactly there."""
        if not self._failed:
            await self.checkpoint()
        for partition in partitions:
            self._partitions.pop(partition, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, and makes a last checkpoint.

        Raises what makes going on impossible (StoreFailed, a full disk): a new start recovers from the last
        checkpoint.
        """
        self._next_checkpoint = time.monotonic() + self._settings.checkpoint_interval_s
        polling = asyncio.ensure_future(self._poll())
        try:
            while not stop.is_set():
                batch = await polling
                polling = asyncio.ensure_future(self._poll())
                if batch:
                    await self._work(batch)
                await self._checkpoint_if_due()
        except BaseException:
            self._failed = True
            raise
        finally:
            polling.cancel()
            await asyncio.wait([polling])
        await self._consumer.close()  # by way of `revoked` it makes the last checkpoint
        for pipeline in self._streams.values():
            pipeline.close()

    async def _poll(self) -> list[BusMessage]:
        try:
            self._consumer.subscribe(await self._bus.topics())
            messages = await self._consumer.poll(max_bytes=self._settings.poll_bytes, timeout_s=_POLL_S)
            self._telemetry.lag_messages = sum((await self._consumer.lag()).values())
        except BusUnavailable as error:
            self._telemetry.bus_unavailable(error)
            await asyncio.sleep(_POLL_S)
            return []
        return messages

    async def _work(self, batch: list[BusMessage]) -> None:
        # A policy may be so new that its first chunk is quicker than the poll of the catalog.
        if any(message.topic_partition.topic not in self._policies_in_use for message in batch):
            await self._catalog.refresh_until_read()
        policies = self._catalog.policies
        if policies is not self._policies_in_use:
            # First what the old policies made: a replay must not run old chunks through new steps.
            await self.checkpoint()
            self._policies_in_use = policies
        self._look_for_models()
        by_partition: dict[TopicPartition, list[BusMessage]] = {}
        for message in batch:
            by_partition.setdefault(message.topic_partition, []).append(message)
        loop = asyncio.get_running_loop()
        async with self._between_chunks:
            await asyncio.gather(
                *(
                    loop.run_in_executor(
                        self._threads, self._work_on_partition, self._partitions[partition], messages
                    )
                    for partition, messages in by_partition.items()
                    if partition in self._partitions  # else it was revoked since the poll
                )
            )

    def _work_on_partition(self, partition: _Partition, messages: list[BusMessage]) -> None:
        for message in messages:
            topic = message.topic_partition.topic
            try:
                chunk = decode_chunk(message.value)
            except EnvelopeInvalid as error:
                self._keep_message(topic, message, error)
            else:
                policy = self._policies_in_use.get(topic)
                by_content = policy is not None and policy.suppress_repeats == "content"
                by_content = by_content and not is_stored_anew(chunk.chunk_id)
                window = self._settings.chunk_id_window
                if not partition.saw_before(chunk, by_content=by_content, window=window):
                    self._work_on_chunk(topic, chunk)
                else:
                    self._telemetry.chunk_repeated()
            partition.position = message.offset + 1

    def _work_on_chunk(self, topic: str, chunk: ChunkMessage) -> None:
        with self._opening:
            pipeline = self._pipeline(topic, chunk.tag)
            if pipeline is not None:
                self._changed.add(chunk.tag)
                self._streams.move_to_end(chunk.tag)
                # Before another partition's thread can close it for a policy of its own.
                pipeline.in_use.acquire()
        if pipeline is None:
            reason = f"policy {topic!r} was deleted before {chunk.tag!r} had its first chunk; make it again"
            self._keep(chunk, "no-policy", reason, policy=topic)
            return
        try:
            if self._models_waiting:
                self._take_models(pipeline)
            pipeline.process(chunk)
        finally:
            pipeline.in_use.release()
        self._telemetry.chunk_stored(events=chunk.events, size=len(chunk.payload))

    def _look_for_models(self) -> None:
        waiting = self._models.waiting() if self._models is not None else {}
        self._models_seen = {n: seen for n, seen in self._models_seen.items() if waiting.get(n) == seen}
        self._models_waiting = {n: found for n, found in waiting.items() if n not in self._models_seen}

    def _take_models(self, pipeline: StreamPipeline) -> None:
        """Takes up what was put back for the stream; it is removed once the next checkpoint has it."""
        assert self._models is not None
        for step in pipeline.step_names:
            reference = f"{pipeline.reference}:{step}"
            name = ModelFiles.name(reference)
            if name not in self._models_waiting or name in self._models_seen:
                continue
            self._models_seen[name] = self._models_waiting[name]
            try:
                saved, identity = self._models.read(name)
                pipeline.take_up(step, saved)
            except (ModelRefused, OSError) as error:
                _logger.warning("the model put back for %s is not taken up: %s", reference, error)
            else:
                self._models_seen[name] = self._models_taken[name] = identity
                _logger.info("the model put back for %s is taken up", reference)

    def _pipeline(self, topic: str, tag: str) -> StreamPipeline | None:
        """The pipeline of a stream, opened where it is not, opened anew where its policy has changed."""
        policy = self._policies_in_use.get(topic)
        pipeline = self._streams.get(tag)
        if pipeline is not None and policy in (None, pipeline.policy):
            return pipeline
        if pipeline is not None:
            with pipeline.in_use:
                committed: StreamCheckpoint | None = pipeline.checkpoint()
                pipeline.close()
        else:
            committed = self._checkpoints.stream(tag)
        policy = policy or (StreamPipeline.last_policy(committed) if committed else None)
        if policy is None:
            return None
        pipeline = StreamPipeline(
            tag,
            policy,
            self._store,
            committed,
            report_failure=self._report_failure,
            new_output=self._catalog.new_outputs.append,
        )
        self._streams[tag] = pipeline
        self._telemetry.streams = len(self._streams)
        return pipeline

    def _report_failure(
        self, pipeline: StreamPipeline, step: str, chunk: ChunkMessage, error: Exception, detail: str
    ) -> None:
        self._telemetry.step_failed(stream=pipeline.reference, step=step, error=error)
        reason = f"step {step!r} of policy {pipeline.policy.reference!r} failed: {error}"
        code = "not-archived" if step == "archive" else "step-failed"
        self._keep(chunk, code, reason, policy=pipeline.policy.reference, detail=detail)

    def _keep_message(self, topic: str, message: BusMessage, error: EnvelopeInvalid) -> None:
        """Bytes on the bus that are no chunk: another program published them."""
        chunk = ChunkMessage(
            tag="", sender="bus", chunk_id=None, received_ns=time.time_ns(), events=0, payload=message.value
        )
        self._keep(chunk, "bad-envelope", str(error), policy=topic)

    def _keep(self, chunk: ChunkMessage, code: str, reason: str, *, policy: str, detail: str = "") -> None:
        self._telemetry.dead_lettered(code=code, tag=chunk.tag, reason=reason)
        self._dead_letters.add(
            DeadLetter(
                code=code,
                reason=reason,
                tag=chunk.tag,
                sender=chunk.sender,
                policy=policy,
                payload=chunk.payload,
                time_ns=chunk.received_ns,
                detail=detail,
            )
        )

    async def _checkpoint_if_due(self) -> None:
        """Takes a snapshot where it is time, and commits it while the next chunks are worked on."""
        if self._committing is not None and self._committing.done():
            committing, self._committing = self._committing, None
            committing.result()
            self._close_idle_streams()
        if self._committing is None and time.monotonic() >= self._next_checkpoint:
            self._next_checkpoint = time.monotonic() + self._settings.checkpoint_interval_s
            self._committing = asyncio.ensure_future(self._commit(await self._snapshot()))

    async def checkpoint(self) -> None:
        """Makes everything that was worked on so far durable."""
        if self._committing is not None:
            await self._committing
            self._committing = None
        await self._commit(await self._snapshot())

    async def _snapshot(self) -> _Snapshot:
        async with self._between_chunks:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._take_snapshot)

    def _take_snapshot(self) -> _Snapshot:
        changed, self._changed = self._changed, set()
        partitions = dict(self._partitions)  # a copy in one step: `assigned` adds to it on the event loop
        snapshot = _Snapshot(
            positions={key: p.position for key, p in partitions.items() if p.position is not None},
            streams={tag: self._streams[tag].checkpoint() for tag in changed},
            chunk_keys={key: p.new_keys for key, p in partitions.items() if p.new_keys},
            models=self._models_taken,
        )
        self._models_taken = {}
        for partition in partitions.values():
            partition.new_keys = []
        for tag in changed:
            stream = self._streams[tag]
            self._telemetry.steps_counted(stream=tag, gained=stream.newly_counted(), total=stream.counts)
        return snapshot

    async def _commit(self, snapshot: _Snapshot) -> None:
        if snapshot.streams or snapshot.positions:
            await asyncio.to_thread(self._commit_in_thread, snapshot)
            assigned = {key: at for key, at in snapshot.positions.items() if key in self._partitions}
            await self._consumer.commit(assigned)
        self._telemetry.checkpoint_made()

    def _commit_in_thread(self, snapshot: _Snapshot) -> None:
        self._store.sync()
        self._checkpoints.commit(
            positions={(key.topic, key.partition): at for key, at in snapshot.positions.items()},
            streams=snapshot.streams,
            chunk_keys={(key.topic, key.partition): keys for key, keys in snapshot.chunk_keys.items()},
            window=self._settings.chunk_id_window,
        )
        for name, identity in snapshot.models.items():
            if self._models is not None:
                self._models.remove(name, identity)

    def _close_idle_streams(self) -> None:
        """Right after a commit: what has not changed since is durable and can be opened again."""
        outputs = sum(pipeline.open_outputs for pipeline in self._streams.values())
        for tag in [tag for tag in self._streams if tag not in self._changed]:
            if outputs <= MAX_OPEN_OUTPUTS:
                break
            pipeline = self._streams.pop(tag)
            outputs -= pipeline.open_outputs
            pipeline.close()
        self._telemetry.streams = len(self._streams)
