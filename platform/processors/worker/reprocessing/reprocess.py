"""Recomputes the outputs of a data stream from its stored chunks.

The new outputs are written next to the old ones, as `stream:output~rebuilt`, while the worker continues. To
replace the old ones, the worker briefly releases the stream: chunks that have arrived meanwhile are
processed, and one commit makes the new outputs current. After a crash before the commit the old outputs are
current, after a crash after it the new ones.

Only chunks that a checkpoint of the worker covers are processed: later ones can be truncated and redelivered.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from ....errors import (
    CheckpointMissing,
    OperationFailed,
    PolicyInvalid,
    RangeGone,
    RowsWouldBeLost,
    StoreLocked,
    WindvaneError,
)
from ....store.catalog.policy import Policy
from ....store.databases.checkpoint_records import OutputLength, StreamCheckpoint
from ....store.databases.interfaces import CheckpointDatabase
from ....store.interface import REBUILT, ArrayWriter, StoreEngine, StreamWriter
from ...operations.base.block import Block
from ..pipeline.pipeline_changes import pipeline_change
from ..pipeline.steps import RunningSteps
from .archive_replay import recorded_inputs
from .lost_rows import lost_rows

LOCK_TIMEOUT_S = 30.0
_LOCK_AGAIN_S = 0.02
_NS_PER_HOUR = 3_600_000_000_000
_FIRST_NS = -(2**63)
_CATCH_UPS = 3  # each has less to process than the one before; the rest is processed with the stream locked


class Reprocessing:
    """The new outputs of one stream. Memory: one chunk, and the state of the operations.

    Raises StreamNotFound, PolicyInvalid if the policy's steps cannot run on the stored data, and StoreLocked
    if another reprocessing of the stream runs.
    """

    def __init__(
        self,
        store: StoreEngine,
        reference: str,
        policy: Policy,
        checkpoints: CheckpointDatabase,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """Retention compares `clock_ns` with the times of rows."""
        self._clock_ns = clock_ns
        self._store = store
        self._policy = policy
        self._checkpoints = checkpoints
        self._database_id = checkpoints.database_id
        self._closing = ExitStack()
        self._stream = self._closing.enter_context(store.stream(reference))
        self.steps = RunningSteps(policy, {})
        if self.steps.broken is not None:
            raise self.steps.broken
        for error in self.steps.unusable.values():
            raise error
        if not policy.pipeline:
            raise PolicyInvalid(f"policy {policy.reference!r} has no pipeline, so there is nothing to make")
        self._writers: dict[str, ArrayWriter] = {}
        arrivals = self._stream.arrivals
        self._next_chunk = arrivals.start
        # Records of a dropped beginning can outlast their bytes.
        while self._next_chunk < len(arrivals) and arrivals[self._next_chunk]["offset"] < self._stream.start:
            self._next_chunk += 1
        self._first_chunk = self._next_chunk
        self.archive_begins_ns: int | None = None
        """If retention has dropped the first chunks: when the first arrived that is recomputed."""
        if self._first_chunk:
            first = min(self._first_chunk, len(arrivals) - 1)
            self.archive_begins_ns = int(arrivals[first]["arrived_ns"])
        self.failed: dict[str, str] = {}
        """The last error of each step that raised; of "events" if those of a chunk cannot be decoded."""
        self.set_aside: list[str] = []
        self.dropped: list[str] = []
        """References of arrays that `put_in_place` has replaced, and of earlier ones that it has dropped."""
        self._finish_earlier_one()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes all files."""
        for writer in self._writers.values():
            writer.close()
        self._closing.close()

    @property
    def rows(self) -> dict[str, int]:
        """Rows made so far, by output."""
        return {name: writer.length for name, writer in self._writers.items()}

    def run(self, done: Callable[[int], object] = lambda _: None) -> None:
        """Processes all stored chunks that are not processed yet; `done` is called with the bytes so far."""
        committed = self._committed().outputs.get(self._stream.reference)
        stop = self._stream.chunks
        if committed is not None and committed.uid == self._stream.uid:
            stop = min(stop, committed.chunks)
        inputs = recorded_inputs(
            self._stream,
            self._policy,
            self.steps.sources,
            first_chunk=self._next_chunk,
            stop_chunk=stop,
            failed=self._failed,
        )
        try:
            for chunk, given in inputs:
                for step, keep, block in self.steps.run(given, failed=self._failed):
                    if keep:
                        self._keep(step, block)
                arrival = self._stream.arrivals[chunk]
                done(int(arrival["offset"]) + int(arrival["size"]))
        except RangeGone as error:
            raise OperationFailed(
                f"retention dropped bytes of {self._stream.reference!r} while they were read; nothing was "
                "changed, retry"
            ) from error
        self._next_chunk = max(self._next_chunk, stop)

    def put_in_place(self, take_from_worker: Callable[[], object], *, force: bool = False) -> None:
        """Catches up and replaces the old outputs with the new ones; the old ones are renamed (`~1`).

        Arrays that earlier reprocessings have replaced are deleted: `dropped`.

        `take_from_worker` asks the worker to release the stream. Raises StoreLocked if the stream is not
        released within 30 s, and, unless `force`, RowsWouldBeLost if the new outputs lack rows that the old
        ones have (`lost_rows`). Then nothing is changed.
        """
        reference = self._stream.reference
        for _ in range(_CATCH_UPS):
            self.run()
        with self._locked_stream(take_from_worker) as archive:
            committed = self._committed()
            length = committed.outputs.get(reference)
            if length is None or length.uid != archive.uid:
                raise OperationFailed(
                    f"{reference!r} has no checkpoint yet; let the worker make one, a few seconds after its "
                    "first chunk, and try again"
                )
            if self._stream.uid != archive.uid or length.chunks < self._next_chunk:
                raise OperationFailed(f"{reference!r} was recreated or truncated meanwhile; retry")
            archive.resume(length, database_id=self._database_id)
            self.run()
            made = {f"{reference}:{name}": writer.snapshot() for name, writer in self._writers.items()}
            if not force:
                self._require_no_loss(committed, made)
            self._store.sync()  # a commit must not name directories that a power failure can remove
            self._checkpoints.commit(
                positions={},
                streams={reference: self._checkpoint(committed, made, archive.uid)},
                chunk_keys={},
                window=0,
            )
            for name, writer in self._writers.items():
                writer.mark_committed(made[f"{reference}:{name}"])
            # While they are locked, so that no other process uses them.
            earlier = self._store.replaced(reference)
            self._put_in_place(made)
            self.set_aside = sorted(self._store.replaced(reference).keys() - earlier.keys())
            self._store.sync()  # first the renamed directories are durable, then older ones go
            for output, length in made.items():
                if self._store.array_uid(output) == length.uid:
                    for each in (output, output + REBUILT):
                        self.dropped += self._store.drop_superseded(each)
            for writer in self._writers.values():
                writer.close()

    def _checkpoint(
        self, committed: StreamCheckpoint, made: Mapping[str, OutputLength], archive: bytes
    ) -> StreamCheckpoint:
        change = pipeline_change(self._policy, chunk=self._first_chunk)
        return replace(
            committed,
            states=self.steps.states(),
            outputs={**committed.outputs, **made},
            history=committed.history.of_stream(archive).reprocessed(change),
        )

    def _require_no_loss(self, committed: StreamCheckpoint, made: Mapping[str, OutputLength]) -> None:
        losses = lost_rows(
            self._store,
            self._stream.reference,
            self._policy,
            committed=committed,
            made=made,
            states=self.steps.states(),
            has_failures=bool(self.failed),
            kept_from_ns=None if self.archive_begins_ns is None else self._kept_from_ns(),
        )
        if not losses:
            return
        reference = self._stream.reference
        cause = ""
        if self.failed:
            cause = "".join(f"; step {step!r} failed: {error}" for step, error in self.failed.items())
        elif self.archive_begins_ns is not None:
            cause = (
                f"; retention has dropped the bytes of {reference} before byte {self._stream.start}, from "
                "which they would be recomputed"
            )
        raise RowsWouldBeLost(
            f"reprocessing {reference} would lose {', '.join(map(str, losses))}{cause}. The old outputs "
            f"stay; the new ones are next to them, as …{REBUILT}. --force replaces the old ones anyway"
        )

    def _kept_from_ns(self) -> int:
        """The time from which on the retention of the policy keeps rows."""
        hours = self._policy.retention.array_hours
        return _FIRST_NS if hours is None else self._clock_ns() - int(hours * _NS_PER_HOUR)

    def _put_in_place(self, outputs: Mapping[str, OutputLength]) -> None:
        for output, length in outputs.items():
            if ":" in output:
                self._store.put_rebuilt_in_place(output, length.uid)

    def _finish_earlier_one(self) -> None:
        """A reprocessing that was killed after its commit left current outputs under the name of the new
        ones.
        """
        committed = self._committed().outputs
        if any(
            self._store.is_rebuilt(output, each.uid) for output, each in committed.items() if ":" in output
        ):
            with self._locked_stream(lambda: None):
                self._put_in_place(committed)

    def _committed(self) -> StreamCheckpoint:
        return self._checkpoints.stream(self._stream.reference) or StreamCheckpoint()

    def _locked_stream(self, take_from_worker: Callable[[], object]) -> StreamWriter:
        give_up_at_s = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            take_from_worker()
            try:
                return self._store.stream_writer(self._stream.reference, attrs=self._stream.attrs)
            except StoreLocked:
                if time.monotonic() > give_up_at_s:
                    raise
                time.sleep(_LOCK_AGAIN_S)

    def _keep(self, step: str, block: Block) -> None:
        try:
            self._append(step, block)
        except (WindvaneError, OSError, MemoryError):
            raise
        except Exception as error:  # as in the worker: rows that no array can store affect only their output
            self._failed(step, error)

    def _append(self, step: str, block: Block) -> None:
        writer = self._writers.get(step)
        if writer is None or (writer.dtype, writer.row_shape) != (block.rows.dtype, block.rows.shape[1:]):
            if writer is not None:
                writer.close()
            writer = self._store.array_writer(
                f"{self._stream.reference}:{step}{REBUILT}",
                dtype=block.rows.dtype,
                row_shape=block.rows.shape[1:],
                attrs={"stream": self._stream.reference, **block.attrs},
                rate_hz=block.rate_hz,
            )
            committed = self._committed().outputs.get(f"{self._stream.reference}:{step}")
            if committed is not None and committed.uid == writer.uid:
                writer.close()
                raise OperationFailed(
                    f"another `windvane reprocess` has made {writer.reference} just now; try again"
                )
            try:
                writer.resume(None, database_id=self._database_id)
            except CheckpointMissing:  # left by an earlier run, under another checkpoint database
                writer.start_over(database_id=self._database_id)
            self._writers[step] = writer
        writer.append(block.rows, block.row_times_ns)

    def _failed(self, step: str, error: Exception) -> None:
        self.failed[step] = str(error) or repr(error)
