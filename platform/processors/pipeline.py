"""A policy's operations at work on one data stream."""

import hashlib
import logging
import pickle
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property

import msgspec

from ..bus.envelope import ChunkMessage
from ..errors import ChunkRefused, ModelRefused
from ..events import check_pairs
from ..store.checkpoint import OutputLength, StreamCheckpoint
from ..store.data_array import DataArrayWriter
from ..store.data_stream import DataStreamWriter
from ..store.policy import Policy, Step, policy_from_mapping, policy_to_mapping
from ..store.store import Store
from .archive import bytes_block, decode_events, json_lines, raw_pieces
from .block import Block, Events, blocks_of
from .catalog_link import NewOutput
from .operation import Operation, make_operation, resolve_inputs

_logger = logging.getLogger("windvane.worker")
EVENTS_A_PASS = 4096
FINGERPRINT_BYTES = 16
"""Of the configuration, ahead of every saved state."""
_POLICY_STATE = ""  # no step has an empty name
FailureReport = Callable[["StreamPipeline", str, ChunkMessage, Exception, str], None]


class StreamPipeline:
    """One data stream: its archive, the operations of its policy, their outputs.

    `process` appends to the outputs at once; `checkpoint` says what is to be committed of it. A step that
    raises is reported, gives nothing for that chunk, and does not stop the others. Memory: one chunk, and
    what the operations keep.
    """

    def __init__(
        self,
        reference: str,
        policy: Policy,
        store: Store,
        committed: StreamCheckpoint | None,
        *,
        report_failure: FailureReport,
        new_output: Callable[[NewOutput], None],
    ) -> None:
        self.reference = reference
        self.policy = policy
        self.in_use = threading.Lock()
        self._store = store
        self._report_failure = report_failure
        self._new_output = new_output
        self._committed: dict[str, OutputLength] = dict(committed.outputs) if committed else {}
        self._archive: DataStreamWriter = store.stream_writer(
            reference, attrs={"tag": reference, "policy": policy.reference, "format": policy.format}
        )
        self._writers: dict[str, DataArrayWriter] = {}
        self._cut_archive()
        new_output(NewOutput("stream", reference, {"tag": reference, "policy": policy.reference}))
        sources = resolve_inputs(policy.pipeline)
        self._steps: list[_RunningStep] = []
        for step, source in zip(policy.pipeline, sources, strict=True):
            before = next((s for s in self._steps if s.name == source), None)
            self._steps.append(_RunningStep(step, source, before))
        states = committed.states if committed else {}
        for running in self._steps:
            running.restore(states.get(running.name))
        self._counted = Counter[str]()
        self.newly_counted()

    def _cut_archive(self) -> None:
        """Back to what was committed: what lies behind it comes again from the bus."""
        committed = self._committed.get(self.reference)
        if committed is not None and committed.uid == self._archive.uid:
            self._archive.cut(committed.length, committed.chunks)
        else:
            self._archive.cut(0, 0)

    def process(self, chunk: ChunkMessage) -> None:
        """Archives the chunk and runs the operations on it.

        StoreFailed and OSError go through: without its store the worker must not go on.
        """
        inputs = _ChunkInputs(chunk, self.policy, self._archive.size)
        try:
            archived = inputs.archived
        except MemoryError:
            raise
        except Exception as error:  # nothing but the chunk can be to blame: it must not come back for ever
            self._fail("archive", chunk, error)
            return
        self._archive.append(
            archived, arrived_ns=chunk.received_ns, chunk_id=chunk.chunk_id, events=chunk.events
        )
        for given in self._passes(chunk, inputs):
            self._run_steps(chunk, given)

    def _passes(self, chunk: ChunkMessage, inputs: "_ChunkInputs") -> Iterator[dict[str, Block | Events]]:
        """What the steps are given of the chunk; events in slices, so that what comes of them is bounded."""
        wanted = {step.source for step in self._steps}
        given: dict[str, Block | Events] = {}
        if "bytes" in wanted and len(inputs.record_bytes.rows):
            given["bytes"] = inputs.record_bytes
        if "events" not in wanted:
            yield given
            return
        try:
            events = inputs.events
        except ChunkRefused as error:
            # It is archived as it came: what is wrong with it concerns the steps that want events alone.
            self._fail("events", chunk, error)
            yield given
            return
        for start in range(0, len(events.records), EVENTS_A_PASS):
            part = slice(start, start + EVENTS_A_PASS)
            yield {**given, "events": Events(events.times_ns[part], events.records[part])}
            given = {}

    def _run_steps(self, chunk: ChunkMessage, given: dict[str, Block | Events]) -> None:
        results: dict[str, tuple[Block | Events, ...]] = {name: (one,) for name, one in given.items()}
        for step in self._steps:
            made: list[Block] = []
            # A source gives several blocks where a gap falls between their rows.
            for taken in results.get(step.source, ()):
                try:
                    made += blocks_of(step.operation.process(taken))
                except MemoryError:
                    raise
                except Exception as error:
                    self._fail(step.name, chunk, error)
            results[step.name] = tuple(made)
            for result in made if step.keep else ():
                try:
                    self._append(step.name, result)
                except (OSError, MemoryError):
                    raise
                except Exception as error:
                    self._fail(step.name, chunk, error)

    def _append(self, name: str, block: Block) -> None:
        writer = self._writers.get(name)
        if writer is None or not _fits(writer, block):
            if writer is not None:
                writer.close()
            writer = self._open_writer(name, block)
        writer.append(block.rows, block.row_times_ns)

    def _open_writer(self, name: str, block: Block) -> DataArrayWriter:
        reference = f"{self.reference}:{name}"
        writer = self._store.array_writer(
            reference,
            dtype=block.rows.dtype,
            row_shape=block.rows.shape[1:],
            attrs={"stream": self.reference, **block.attrs},
        )
        committed = self._committed.get(reference)
        writer.cut(committed.length if committed is not None and committed.uid == writer.uid else 0)
        self._writers[name] = writer
        described = {
            "stream": self.reference,
            "dtype": block.rows.dtype.str,
            "row_shape": list(writer.row_shape),
        }
        self._new_output(NewOutput("array", reference, described))
        return writer

    def _fail(self, step: str, chunk: ChunkMessage, error: Exception) -> None:
        self._report_failure(self, step, chunk, error, "".join(traceback.format_exception(error)))

    def checkpoint(self) -> StreamCheckpoint:
        """States and lengths as they are now; once it is committed, a restart begins here."""
        self._committed[self.reference] = OutputLength(
            self._archive.uid, self._archive.size, self._archive.chunks
        )
        for name, writer in self._writers.items():
            self._committed[f"{self.reference}:{name}"] = OutputLength(writer.uid, writer.length)
        states = {step.name: step.dump() for step in self._steps}
        states[_POLICY_STATE] = msgspec.json.encode(policy_to_mapping(self.policy))
        return StreamCheckpoint(states=states, outputs=dict(self._committed))

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """What each step has counted since its stream began, such as gaps; only what is not 0."""
        counted = {step.name: dict(step.operation.counts()) for step in self._steps}
        some = {name: {key: n for key, n in counts.items() if n} for name, counts in counted.items()}
        return {name: counts for name, counts in some.items() if counts}

    def newly_counted(self) -> Counter[str]:
        """What all steps together have counted since this was last asked, or since the stream was opened."""
        counts = Counter[str]()
        for of_step in self.counts.values():
            counts.update(of_step)
        gained, self._counted = counts - self._counted, counts
        return gained

    @property
    def step_names(self) -> tuple[str, ...]:
        """Of all operations, in order."""
        return tuple(step.name for step in self._steps)

    def take_up(self, step: str, saved: bytes) -> None:
        """Goes on with the state of a step that was changed elsewhere.

        Raises ModelRefused where it does not fit; then all is as it was. `saved` is unpickled: it must come
        from someone who may run code here.
        """
        next(running for running in self._steps if running.name == step).take_up(saved)

    @property
    def open_outputs(self) -> int:
        """The data stream and the data arrays that are open."""
        return 1 + len(self._writers)

    @staticmethod
    def last_policy(committed: StreamCheckpoint) -> Policy | None:
        """The policy that the stream was under at its checkpoint; the catalog may have lost it since."""
        saved = committed.states.get(_POLICY_STATE)
        return None if saved is None else policy_from_mapping(msgspec.json.decode(saved))

    def close(self) -> None:
        """Gives the writers' locks back."""
        self._archive.close()
        for writer in self._writers.values():
            writer.close()


class _RunningStep:
    """An operation with its name, its source, and what its saved state must match to be taken up."""

    def __init__(self, step: Step, source: str, before: "_RunningStep | None") -> None:
        self.name = step.name
        self.keep = step.keep
        self.source = source
        self.operation: Operation = make_operation(step)
        # With that of the step before it: what a step has learned is of no use on rows of another kind.
        configuration = msgspec.json.encode([step.operation, source, step.parameters], order="sorted")
        above: bytes = before._fingerprint if before else b""
        configured = hashlib.blake2b(above + configuration, digest_size=FINGERPRINT_BYTES)
        self._fingerprint: bytes = configured.digest()

    def dump(self) -> bytes:
        return self._fingerprint + pickle.dumps(self.operation.state(), protocol=5)

    def restore(self, saved: bytes | None) -> None:
        """A step begins anew where its parameters, or those of a step before it, were changed since."""
        if saved is None or not saved.startswith(self._fingerprint):
            return
        try:
            self.operation.restore(pickle.loads(saved[len(self._fingerprint) :]))
        except Exception as error:  # an estimator's library was updated, say: any class of error can come
            _logger.warning("step %r begins anew: its saved state cannot be read: %r", self.name, error)

    def take_up(self, saved: bytes) -> None:
        if not saved.startswith(self._fingerprint):
            raise ModelRefused(f"step {self.name!r}: the policy was changed since its model was taken out")
        before = self.operation.state()
        try:
            self.operation.take_up(pickle.loads(saved[FINGERPRINT_BYTES:]))
        except Exception as error:  # what is unpickled can be anything
            self.operation.restore(before)
            raise ModelRefused(f"step {self.name!r}: its model cannot be taken up: {error!r}") from error


class _ChunkInputs:
    """What the steps can have of a chunk itself, each made once and only where it is asked for."""

    def __init__(self, chunk: ChunkMessage, policy: Policy, stream_size: int) -> None:
        self._chunk = chunk
        self._policy = policy
        self._stream_size = stream_size

    @cached_property
    def events(self) -> Events:
        return decode_events(self._chunk.payload)

    @cached_property
    def record_bytes(self) -> Block:
        pieces = raw_pieces(self.events, self._policy.field)
        return bytes_block(pieces, self.events.times_ns, self._stream_size)

    @property
    def archived(self) -> bytes | memoryview:
        """What the policy's format appends to the data stream."""
        match self._policy.format:
            case "raw":
                return self.record_bytes.rows.data
            case "msgpack":
                check_pairs(self._chunk.payload, self._chunk.events)
                return self._chunk.payload
            case "json":
                return json_lines(self.events)


def _fits(writer: DataArrayWriter, block: Block) -> bool:
    return writer.dtype == block.rows.dtype and writer.row_shape == block.rows.shape[1:]
