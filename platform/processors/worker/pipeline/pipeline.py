"""Runs a policy's operations on one data stream."""

import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from ....bus.messages.chunks import ChunkMessage
from ....errors import ChunkRejected, OperationFailed, StoreLocked
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint_records import (
    Hole,
    OutputLength,
    Partition,
    StreamCheckpoint,
    StreamPosition,
)
from ....store.interface import StoreEngine, StreamWriter
from ...alarms.stream_alarms import StreamAlarms
from ...learning.training import TrainingRequest
from ...operations.base.block import Block, Events
from ..progress.adopted_chunks import AdoptedChunks
from .buffered_events import Released
from .catalog_link import NewOutput
from .chunk_inputs import ChunkInputs, decode_chunk_inputs
from .output_arrays import OutputArrays
from .pipeline_changes import history_at_opening
from .publication import Publication
from .reorder_buffer import ReorderBuffer
from .results_publisher import ResultsPublisher
from .step_failures import WHOLE_CHUNK
from .steps import RunningSteps, in_passes

FailureReport = Callable[["StreamPipeline", str, ChunkMessage, Exception, str], None]


class Abandoned(Exception):
    """Another worker owns the stream now: its thread stops in the middle of a chunk."""


class StreamPipeline:
    """One data stream: its archive, the operations of its policy, their outputs.

    `reorder` decides the order in which chunks are processed. `process` appends to the outputs at once;
    `checkpoint` returns the state to commit. A step that raises is reported, has no output for that chunk,
    and does not stop the others. Memory: one chunk, the content of `reorder`, and the state of the
    operations. Any thread may call `abandon`. Then `process` raises Abandoned before the next step, and the
    rows that it has appended are truncated when the stream is opened next.
    """

    def __init__(
        self,
        reference: str,
        policy: Policy,
        store: StoreEngine,
        read_committed: Callable[[], StreamCheckpoint | None],
        *,
        publisher: ResultsPublisher,
        report_failure: FailureReport,
        report_worked: Callable[[str, set[str]], None],
        new_output: Callable[[NewOutput], None],
        database_id: bytes,
    ) -> None:
        """`database_id` is that of the checkpoint database: outputs record the database that they were
        created under.
        """
        self.reference = reference
        self.policy = policy
        self._abandoned = False
        self._closing = threading.Lock()  # a commit may end while the stream is being closed
        self._is_closed = False
        self._store = store
        self._report_failure, self._report_worked = report_failure, report_worked
        self._failed: set[str] = set()
        self._worked: set[str] = set()
        self._publication = Publication(reference, policy, publisher)
        self._archive: StreamWriter = store.stream_writer(
            reference, attrs={"tag": reference, "policy": policy.reference, "format": policy.format}
        )
        try:
            # Only with the lock held: until then another worker may have committed more.
            committed = read_committed()
            outputs = committed.outputs if committed else {}
            # Truncate to the committed length: the bus delivers the rest again.
            self._archive.resume(outputs.get(reference), database_id=database_id)
            self._alarms = StreamAlarms(reference, policy, store, publisher, committed)
            self._history = history_at_opening(policy, self._archive, committed)
            self._arrays = OutputArrays(
                reference, store, outputs, database_id=database_id, new_output=new_output
            )
            self._steps = RunningSteps(policy, committed.states if committed else {})
            self.reorder = ReorderBuffer(
                reorder_s=policy.reorder_s,
                is_raw=policy.format == "raw",
                order=committed.order if committed else None,
                held=committed.held if committed else (),
                tag=reference,
            )
        except BaseException:
            self._archive.close()
            raise
        new_output(NewOutput("stream", reference, {"tag": reference, "policy": policy.reference}))
        self._committed: Mapping[str, OutputLength] = {}
        self.fatal_events: list[Released] = []
        """Buffered events that crashed the worker, for the dead letters."""
        self._counted = Counter[str]()
        self.newly_counted()

    def process(self, released: Released) -> None:
        """Archives the events, runs the operations on them, and publishes the results that the policy names.

        StoreFailed, StoreLocked, ResultsNotPublished and OSError are raised: without its store, or with
        results that a checkpoint must not cover, the stream must stop.
        """
        self._failed, self._worked = set(), set(WHOLE_CHUNK)
        inputs = self._decode(released.message)
        if inputs is None:
            return
        chunk = inputs.chunk
        for other in released.others:
            self._history = self._history.with_sender(self._archive.chunks, other.sender)
            self._archive.append(b"", arrived_ns=other.received_ns, chunk_id=other.chunk_id, events=0)
        first_event = self._archive.events
        self._history = self._history.with_sender(self._archive.chunks, chunk.sender)
        self._archive.append(
            inputs.archived,
            arrived_ns=chunk.received_ns,
            chunk_id=chunk.chunk_id,
            events=chunk.events,
            event_times=inputs.event_times,
        )
        if inputs.event_times is not None and not self.policy.reorder_s:
            self.reorder.note_unsorted(inputs.event_times[1], received_ns=chunk.received_ns)
        try:
            self._publication.records(chunk.payload, self._archive, first_event=first_event)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            self._fail("publish", chunk, error)
        if self._steps.broken is not None:
            self._fail("pipeline", chunk, self._steps.broken)
        for given in self._passes(chunk, inputs):
            for step, keep, block in self._steps.run(
                given,
                failed=partial(self._step_failed, chunk),
                worked=self._worked.add,
                before_step=self._check_abandoned,
            ):
                if keep:
                    self._keep(step, block, chunk)
        self._alarms.finish_chunk()
        self._report_worked(self.reference, self._worked - self._failed)

    def _decode(self, chunk: ChunkMessage) -> ChunkInputs | None:
        """Returns the chunk without invalid events, which are reported; None if no valid event is left."""
        inputs, rejected = decode_chunk_inputs(
            chunk, self.policy, stream_bytes=self._archive.size, sources=self._steps.sources
        )
        for each in rejected:
            self._fail("archive", each.chunk, each.error)
        return inputs

    def abandon(self) -> None:
        """Makes the thread of the current chunk stop as soon as a step has returned."""
        self._abandoned = True

    def _check_abandoned(self) -> None:
        if self._abandoned:
            raise Abandoned(self.reference)

    @property
    def running_step(self) -> tuple[str, float] | None:
        """The running step, and its start (monotonic time); None between steps."""
        return self._steps.running_step

    @property
    def slowest_step(self) -> str | None:
        """The step that took longest for one chunk."""
        return self._steps.slowest[0] if self._steps.slowest is not None else None

    def adopted_chunks(self, count: int) -> AdoptedChunks | None:
        """Returns the first `count` chunks of the archive, which no checkpoint covers; None if there are
        none.
        """
        return AdoptedChunks(self._store.stream(self.reference), count) if count else None

    def _passes(self, chunk: ChunkMessage, inputs: ChunkInputs) -> Iterator[dict[str, Block | Events]]:
        """Yields the inputs of the steps for the chunk; events in slices, so that the outputs are bounded."""
        sources = self._steps.sources
        given: dict[str, Block | Events] = {}
        # The chunk is archived unchanged: an error in it concerns only the steps that use this input.
        try:
            if "bytes" in sources and len(inputs.record_bytes.rows):
                given["bytes"] = inputs.record_bytes
        except (ChunkRejected, OperationFailed) as error:
            self._fail("bytes", chunk, error)
        if "events" not in sources:
            yield given
            return
        yield from in_passes(given, inputs.events)

    def _keep(self, step: str, block: Block, chunk: ChunkMessage) -> None:
        try:
            self._append(step, block)
        except (OSError, MemoryError, StoreLocked):
            raise
        except Exception as error:
            self._fail(step, chunk, error)

    def _append(self, name: str, block: Block) -> None:
        writer = self._arrays.writer_for(name, block)
        first_row = writer.length
        writer.append(block.rows, block.row_times_ns)
        self._alarms.rows(name, block, writer, first_row=first_row)
        self._publication.rows(name, block, writer, first_row=first_row)

    def _step_failed(self, chunk: ChunkMessage, step: str, error: Exception) -> None:
        self._fail(step, chunk, error)

    def _fail(self, step: str, chunk: ChunkMessage, error: Exception) -> None:
        self._failed.add(step)
        self._report_failure(self, step, chunk, error, "".join(traceback.format_exception(error)))

    def checkpoint(
        self,
        partition: Partition | None = None,
        *,
        positions: tuple[StreamPosition, ...] = (),
        adopted_chunks: int = 0,
        holes: tuple[Hole, ...] = (),
    ) -> StreamCheckpoint:
        """Returns the current states and lengths; after the commit, a restart continues from here.

        `partition` is that of the last chunk.
        """
        archived = OutputLength(self._archive.uid, self._archive.size, self._archive.chunks)
        return StreamCheckpoint(
            states=self._steps.states(),
            outputs={self.reference: archived, **self._arrays.lengths()},
            partition=partition,
            alarm_state=self._alarms.state(),
            alarms=tuple(self._alarms.take_new()),
            positions=positions,
            adopted_chunks=adopted_chunks,
            holes=holes,
            order=self.reorder.order,
            held=self.reorder.held,
            history=self._history,
        )

    def mark_committed(self, committed: StreamCheckpoint) -> None:
        """After the commit of that checkpoint: the outputs record the committed lengths."""
        with self._closing:
            if self._is_closed:
                return
            self._archive.mark_committed(committed.outputs[self.reference])
            self._arrays.mark_committed(committed.outputs)
            self._committed = committed.outputs

    def drop_before(self, output: str, stop: int) -> None:
        """Drops what is before row `stop` of an array, or before byte `stop` of the archive.

        Only as far as a commit since the stream was opened covers it: a later open must be able to truncate
        to the last commit.
        """
        length = self._committed.get(output)
        if length is None:
            return
        stop = min(stop, length.length)
        if output != self.reference:
            self._arrays.drop_before(output, stop, uid=length.uid)
        elif length.uid == self._archive.uid:
            self._archive.drop_before(stop)

    def awaits_adopted(self, count: int) -> bool:
        """Whether the bus may still redeliver some of the first `count` chunks, which are adopted."""
        length = self._committed.get(self.reference)
        return bool(count) and (length is None or length.chunks <= count)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Returns the counts of each step since its stream began, such as gaps; without zeros."""
        return self._steps.counts()

    def newly_counted(self) -> Counter[str]:
        """Returns the counts of all steps together since the last call, or since the stream was opened."""
        counts = Counter[str]()
        for of_step in self.counts.values():
            counts.update(of_step)
        gained, self._counted = counts - self._counted, counts
        return gained

    @property
    def step_names(self) -> tuple[str, ...]:
        """Of all operations, in order."""
        return self._steps.names

    def restore_model(self, step: str, saved: bytes) -> None:
        """Replaces the state of a step with one that was changed elsewhere.

        Raises ModelRejected if it does not fit, and then changes nothing. `saved` is unpickled: it must come
        from a user who may run code here.
        """
        self._steps.restore_model(step, saved)

    def due_trainings(self, models: Path) -> Iterator[TrainingRequest]:
        """Returns the trainings that are due, each from the rows that were stored when it became due."""
        for training in self._steps.due_trainings():
            writer = self._arrays.get(training.source)
            # None after a restart, until the source has rows again.
            if writer is None or (stop := writer.length - training.rows_since) < 1:
                continue
            yield TrainingRequest(
                reference=f"{self.reference}:{training.step.name}",
                source=f"{self.reference}:{training.source}",
                stop=stop,
                due=training.due,
                columns=training.columns,
                step=training.step,
                fingerprint=training.fingerprint.hex(),
                store=self._store.address.url,
                home=str(self._store.address.home),
                models=str(models),
            )

    def training_failed(self, step: str, request: TrainingRequest) -> None:
        """Records that this training of the step made no model."""
        self._steps.training_failed(step, bytes.fromhex(request.fingerprint), request.due)

    @property
    def mappings(self) -> int:
        """Returns the number of its file mappings: one for each segmented file; an array has two files."""
        return (3 if self.policy.format == "raw" else 2) + 2 * len(self._arrays)

    def close(self) -> None:
        """Releases the writers' locks, that of the archive last: its holder owns the stream."""
        with self._closing:
            self._is_closed = True
            self._arrays.close()
            self._archive.close()
