"""What the worker's threads do: the messages of a partition, in their order, into the pipelines."""

import time
from collections.abc import Callable, Mapping, Sequence

from ..bus.envelope import ChunkMessage, decode_chunk
from ..bus.interface import BusMessage
from ..config import WorkerSettings
from ..errors import EnvelopeInvalid
from ..store.checkpoint import CheckpointStore, StreamCheckpoint
from ..store.dead_letters import DeadLetter, DeadLetters
from ..store.policy import Policy
from ..store.store import Store
from .catalog_link import NewOutput
from .held_streams import HeldStreams
from .open_streams import OpenStreams, StreamHeld
from .ownership import OwnedPartition, Ownership, repetition_key
from .pipeline import StreamPipeline
from .put_back_models import PutBackModels
from .results_publisher import ResultsPublisher
from .telemetry import WorkerTelemetry
from .trainings import Trainings


class ChunkWork:
    """Works on chunks of one worker; different partitions in different threads at once.

    What cannot be worked on goes to the dead letters. StoreFailed and the like go through: without its store
    the worker must not go on.
    """

    def __init__(
        self,
        *,
        store: Store,
        checkpoints: CheckpointStore,
        dead_letters: DeadLetters,
        settings: WorkerSettings,
        owned: Ownership,
        publisher: ResultsPublisher,
        models: PutBackModels,
        trainings: Trainings,
        new_output: Callable[[NewOutput], None],
        telemetry: WorkerTelemetry,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._models = models
        self._trainings = trainings
        self._dead_letters = dead_letters
        self._window = settings.chunk_id_window
        self._new_output = new_output
        self._telemetry = telemetry
        self._held = HeldStreams(checkpoints, owned, telemetry, give_up_s=settings.stream_wait_s)
        self._checkpoints = checkpoints
        self.streams = OpenStreams(checkpoints, self._open_pipeline)
        self.policies: Mapping[str, Policy] = {}
        """By reference, which is the topic; changed while no thread works."""

    def work_on(self, partition: OwnedPartition, messages: Sequence[BusMessage]) -> None:
        """Works on the messages in their order; parks what comes after one whose stream is held."""
        for index, message in enumerate(messages):
            if partition.released:
                return  # who has it next reads the rest again
            try:
                self._work_on_message(partition, message)
            except StreamHeld:
                partition.parked = list(messages[index:])
                return
            partition.position = message.offset + 1
        partition.parked = []

    def _work_on_message(self, partition: OwnedPartition, message: BusMessage) -> None:
        topic = partition.key.topic
        try:
            chunk = decode_chunk(message.value)
        except EnvelopeInvalid as error:
            self._keep_message(topic, message, error)
            return
        policy = self.policies.get(topic)
        key = repetition_key(chunk, by_content=policy is not None and policy.suppress_repeats == "content")
        if partition.seen_before(key):
            self._telemetry.chunk_repeated()
            return
        self._work_on_chunk(partition, policy, chunk)
        partition.remember(key, window=self._window)

    def _work_on_chunk(self, partition: OwnedPartition, policy: Policy | None, chunk: ChunkMessage) -> None:
        topic = partition.key.topic
        try:
            with self.streams.using(chunk.tag, policy, partition.key) as pipeline:
                self._held.free(chunk.tag)
                if pipeline is not None:
                    self._models.take_up(pipeline)
                    self._trainings.settle(pipeline)
                    pipeline.process(chunk)
                    self._trainings.ask(pipeline)
        except StreamHeld as held:
            reason = self._held.wait_or_give_up(held, partition)
            self._keep(chunk, "stream-held", reason, policy=topic)
            return
        if pipeline is None:
            reason = f"policy {topic!r} was deleted before {chunk.tag!r} had its first chunk; make it again"
            self._keep(chunk, "no-policy", reason, policy=topic)
            return
        self._telemetry.streams = len(self.streams)
        self._telemetry.chunk_stored(events=chunk.events, size=len(chunk.payload))

    def _open_pipeline(
        self, reference: str, policy: Policy, read_committed: Callable[[], StreamCheckpoint | None]
    ) -> StreamPipeline:
        return StreamPipeline(
            reference,
            policy,
            self._store,
            read_committed,
            publisher=self._publisher,
            report_failure=self._report_failure,
            new_output=self._new_output,
            database_id=self._checkpoints.database_id,
        )

    def _report_failure(
        self, pipeline: StreamPipeline, step: str, chunk: ChunkMessage, error: Exception, detail: str
    ) -> None:
        self._telemetry.step_failed(stream=pipeline.reference, step=step, error=error)
        reason = f"step {step!r} of policy {pipeline.policy.reference!r} failed: {error}"
        code = {"archive": "not-archived", "publish": "not-published"}.get(step, "step-failed")
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
