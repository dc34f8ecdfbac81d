"""Adopts a stream without a checkpoint: writes one for the content of its files, so that the stream resumes.

Each whole chunk of the archive counts as done. The bus is read from the position that is known for its
partition, or from the beginning of the log; a chunk that is reread is recognized by its arrival record
(`StreamCheckpoint.adopted_chunks`). Chunks that a former checkpoint, or the rest of
it, holds back stay so, unless they were released since and are in the archive. States of operations are
lost with the checkpoint, so the steps start over at the seam; `windvane reprocess` makes their outputs again
without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ...errors import StreamDamaged
from ..databases.checkpoint_records import OutputLength, StreamCheckpoint
from ..databases.interfaces import CheckpointDatabase
from ..files.description import dtype_from_json, read_description
from ..files.rows import row_bytes
from ..interface.arrivals import ARRIVAL, CHUNK_ID_BYTES
from .scrub import Committed, StreamScrub
from .stored_segments import StoredSegments
from .stream_repair import locked_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..databases.stream_order import HeldChunk

_TIME_BYTES = 8
_RECORDS_AT_ONCE = 65_536


class Adopted(NamedTuple):
    """The adopted length; the `cut_bytes` after it are not a whole chunk, and are reread from the bus."""

    outputs: Mapping[str, OutputLength]
    cut_bytes: int


def adopt_stream(
    reference: str, directory: Path, arrays: Mapping[str, Path], checkpoints: CheckpointDatabase
) -> Adopted:
    """Commit a checkpoint of the existing data.

    Raises StreamDamaged if the files must be repaired first, StoreLocked while a worker writes them.
    """
    with locked_output(directory):
        scrub = StreamScrub(directory, reference, Committed(None, b"", is_known=False))
        for file in (scrub.bytes, scrub.arrivals):
            if file.problem is not None:
                raise _needs_repair(reference, f"{file.directory}: {file.problem}")
        chunks, size = _whole_chunks(scrub)
        holes = [*scrub.bytes.holes(size), *scrub.arrivals.holes(chunks * ARRIVAL.itemsize)]
        if holes:
            raise _needs_repair(reference, f"{holes[0].path}: {holes[0].reason}")
        outputs = {reference: OutputLength(scrub.uid, size, chunks)}
        for array, folder in arrays.items():
            if "~" not in array and (length := _rows_of(folder)) is not None:
                outputs[array] = length
        before = checkpoints.stream(reference) or StreamCheckpoint()
        adopted = StreamCheckpoint(
            outputs={**before.outputs, **outputs},
            partition=before.partition,
            alarm_state=before.alarm_state,
            positions=before.positions,
            adopted_chunks=chunks,
            holes=before.holes,
            order=before.order,
            held=_not_archived(before.held, scrub, chunks),
            history=before.history,
        )
        checkpoints.commit(positions={}, streams={reference: adopted}, chunk_keys={}, window=0)
    return Adopted(outputs, scrub.bytes.length - size)


def _not_archived(held: Sequence[HeldChunk], scrub: StreamScrub, chunks: int) -> tuple[HeldChunk, ...]:
    """Those that are not among the first `chunks` of the archive."""
    wanted_ns = list({each.received_ns for each in held})
    first, found = -(-scrub.arrivals.start // ARRIVAL.itemsize), set()
    for at in range(first, chunks if held else first, _RECORDS_AT_ONCE):
        count = min(_RECORDS_AT_ONCE, chunks - at)
        records = np.frombuffer(scrub.arrivals.read(at * ARRIVAL.itemsize, count * ARRIVAL.itemsize), ARRIVAL)
        for record in records[np.isin(records["arrived_ns"], wanted_ns)]:
            size = min(int(record["chunk_id_size"]), CHUNK_ID_BYTES)
            found.add((int(record["arrived_ns"]), bytes(record["chunk_id"])[:size]))
    return tuple(
        each for each in held if (each.received_ns, (each.chunk_id or b"")[:CHUNK_ID_BYTES]) not in found
    )


def _whole_chunks(scrub: StreamScrub) -> tuple[int, int]:
    """How many arrival records from the first on have their bytes, and the end of these bytes."""
    chunks = scrub.arrivals.length // ARRIVAL.itemsize
    first = -(-scrub.arrivals.start // ARRIVAL.itemsize)
    while chunks > first:
        record = np.frombuffer(
            scrub.arrivals.read((chunks - 1) * ARRIVAL.itemsize, ARRIVAL.itemsize), ARRIVAL
        )
        if len(record) and record.tobytes().strip(b"\0"):
            begin, size = int(record[0]["offset"]), int(record[0]["size"])
            if begin + size <= scrub.bytes.length and begin == _end_before(scrub, chunks - 1, begin):
                return chunks, begin + size
        chunks -= 1
    return (0, 0) if first == 0 else (first, scrub.bytes.start)


def _end_before(scrub: StreamScrub, chunk: int, default: int) -> int:
    if chunk == 0:
        return 0
    if (chunk - 1) * ARRIVAL.itemsize < scrub.arrivals.start:
        return default
    raw = scrub.arrivals.read((chunk - 1) * ARRIVAL.itemsize, ARRIVAL.itemsize)
    if len(raw) < ARRIVAL.itemsize:
        return default
    record = np.frombuffer(raw, ARRIVAL)[0]
    return int(record["offset"]) + int(record["size"])


def _rows_of(directory: Path) -> OutputLength | None:
    description = read_description(directory)
    rows, times = StoredSegments(directory / "rows"), StoredSegments(directory / "times")
    if description is None or rows.problem is not None or times.problem is not None:
        return None  # the worker does not open it, and `recover rebuild` recomputes it
    width = row_bytes(dtype_from_json(description["dtype"]), tuple(description["row_shape"]))
    return OutputLength(rows.uid, min(rows.length // width, times.length // _TIME_BYTES))


def _needs_repair(reference: str, cause: str) -> StreamDamaged:
    return StreamDamaged(
        f"{reference} cannot be adopted as it is: {cause}. First run `windvane verify --repair {reference}`"
    )
