"""Finds what a row of a data array came from, by a replay of the stream's archive."""

from collections.abc import Callable
from typing import Any

import google_crc32c
import numpy as np

from ....errors import ArrayNotFound, OperationFailed, RangeGone
from ....store.catalog.policy import Step
from ....store.databases.checkpoint_records import StreamCheckpoint
from ....store.interface import CHUNK_ID_BYTES, PART_OF_CHUNK, ArrayReader, StoreEngine, StreamReader
from ....store.row_origin import ByteSpan, ChunkOrigin, PolicyOrigin, RowOrigin, StepOrigin
from ..pipeline.archive import rfc3339
from ..pipeline.event_times import timed_events
from .row_replay import KnownPolicies, ReplayedRows, RowReplay, first_event, same_rows
from .row_trace import Range, Traced

MAX_CHUNKS = 100
TRAINED = "trained_model"

_NOT_RECORDED = "senders are recorded since this stream was first processed by a version that does so"


def find_origin(
    store: StoreEngine,
    reference: str,
    row: int,
    committed: StreamCheckpoint | None,
    policies: KnownPolicies,
    *,
    each_chunk: Callable[[int], object] = lambda _: None,
) -> RowOrigin:
    """What the row came from; `each_chunk` is called with the bytes that are processed so far.

    Only rows that the last checkpoint covers have an origin. Raises ArrayNotFound, RangeGone if the row or
    the beginning of the stream was dropped, IndexError for a row that there is not, OperationFailed if the
    row cannot be found.
    """
    stream, _, step = reference.partition(":")
    committed = committed or StreamCheckpoint()
    with (
        store.array(reference) as array,
        RowReplay(store, stream, committed, policies, wanted=[step]) as replay,
    ):
        _require_row(array, row, committed)
        found: RowOrigin | None = None
        several = len(replay.changes) > 1
        for rows in replay.rows(each_chunk):
            if rows.step != step or not rows.first <= row < rows.first + len(rows.block.rows):
                continue
            found = origin_of(replay, array, rows, row)
            if found.is_equal or not several:
                break
    if found is None:
        raise OperationFailed(
            f"the archive of {stream} gives no row {row} of {reference}: a chunk failed when it was "
            "processed first, or now"
        )
    return found


def _require_row(array: ArrayReader, row: int, committed: StreamCheckpoint) -> None:
    length = committed.outputs.get(array.reference)
    if length is None or length.uid != array.uid:
        raise ArrayNotFound(f"{array.reference} is in no checkpoint yet; try again in a few seconds")
    if not 0 <= row < length.length:
        raise IndexError(
            f"{array.reference} has no row {row}: the last checkpoint covers {length.length} rows"
        )
    if row < array.start:
        raise RangeGone(f"row {row} was dropped; the first that is kept is row {array.start}")


def origin_of(replay: RowReplay, array: ArrayReader, rows: ReplayedRows, row: int) -> RowOrigin:
    """The origin of a row among those that the replay has just given."""
    traced = replay.trace.trace(rows.step, rows.block.first + row - rows.first)
    stream = replay.stream
    direct, everything = _spans(replay, traced)
    chunks, total = _chunks_of(replay, direct)
    one = rows.part(row, row + 1)
    is_equal = same_rows(array, one) == (1, 0, None)
    time_ns = int(array.times_ns[row])
    change = replay.change
    steps = {step.name: step for step in replay.policy.pipeline}
    return RowOrigin(
        array=array.reference,
        row=row,
        time=rfc3339(time_ns),
        time_ns=time_ns,
        stream=stream.reference,
        bytes=everything,
        direct=direct,
        because=traced.widened,
        notes=traced.notes,
        chunks=chunks,
        chunks_total=total,
        sender_note=_NOT_RECORDED if any(each.sender is None for each in chunks) else None,
        policy=PolicyOrigin(
            reference=replay.policy.reference,
            revision=replay.revision,
            digest=change.digest.hex(),
            since_chunk=change.chunk,
        ),
        steps=[
            _step_origin(steps[name], change.versions.get(name), replay.trace.describe(name))
            for name in traced.steps
        ],
        is_equal=is_equal,
        difference=None if is_equal else _difference(replay, array, one, steps, traced, chunks),
    )


def _step_origin(step: Step, version: str | None, depends_on: str) -> StepOrigin:
    return StepOrigin(step.name, step.operation, version, dict(step.parameters), depends_on)


def _difference(
    replay: RowReplay,
    array: ArrayReader,
    one: ReplayedRows,
    steps: dict[str, Step],
    traced: Traced,
    chunks: list[ChunkOrigin],
) -> str:
    """How the row that was computed differs from the stored one, and the likely cause."""
    stored_ns, time_ns = int(array.times_ns[one.first]), int(one.block.row_times_ns[0])
    if stored_ns != time_ns:
        what = f"computed again it has the time {rfc3339(time_ns)}, not {rfc3339(stored_ns)}"
    else:
        what = f"computed again it is {_shown(one.block.rows[0])}, not {_shown(array[one.first])}"
    trained = [name for name in traced.steps if steps[name].operation == TRAINED]
    damaged = [str(each.number) for each in chunks if not each.is_intact]
    if damaged:
        command = f"`windvane verify {replay.stream.reference}`"
        cause = f"the archive of chunk {', '.join(damaged)} is damaged: {command}"
    elif trained:
        cause = f"{trained[0]!r} used a model that was trained meanwhile, which is not computed again"
    elif replay.failed:
        cause = "; ".join(f"step {name!r} fails now: {error}" for name, error in replay.failed.items())
    else:
        cause = "the row was damaged, or another version of an operation computed it"
    return f"{what}; {cause}"


def _shown(row: Any) -> str:
    flat = np.atleast_1d(row).ravel()
    text = ", ".join(str(each) for each in flat[:4].tolist())
    return f"[{text}{', …' if len(flat) > 4 else ''}]"


def _spans(replay: RowReplay, traced: Traced) -> tuple[ByteSpan, ByteSpan]:
    """The bytes of what was traced: what the row was computed from, and all that it depends on."""
    stream, format = replay.stream, replay.policy.format
    if traced.source == "events":
        return _event_bytes(stream, format, traced.direct), _event_bytes(stream, format, traced.all)
    first = replay.first_byte
    return (
        ByteSpan(max(traced.direct.start, first), traced.direct.stop),
        ByteSpan(max(traced.all.start, first), traced.all.stop),
    )


def _event_bytes(stream: StreamReader, format: str, events: Range) -> ByteSpan:
    start, _ = _bytes_of_event(stream, format, max(events.start, 0))
    _, stop = _bytes_of_event(stream, format, events.stop - 1)
    return ByteSpan(start, stop)


def _bytes_of_event(stream: StreamReader, format: str, event: int) -> tuple[int, int]:
    """Where an event lies in the stream; its whole chunk if its events cannot be separated."""
    arrivals = stream.arrivals
    chunk = chunk_of_event(arrivals, event)
    offset, size = int(arrivals[chunk]["offset"]), int(arrivals[chunk]["size"])
    first = first_event(arrivals, chunk)
    data = stream.read(offset, size)
    if format == "json":
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
    else:
        found = timed_events(data)
        ends = found.ends if found is not None else np.empty(0, np.int64)
    at = event - first
    if len(ends) != int(arrivals[chunk]["events_total"]) - first or not 0 <= at < len(ends):
        return offset, offset + size
    return offset + (int(ends[at - 1]) if at else 0), offset + int(ends[at])


def chunk_of_event(arrivals: Any, event: int) -> int:
    """The chunk that has the event with this number."""
    low, high = arrivals.start, len(arrivals) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if int(arrivals[middle]["events_total"]) > event else (middle + 1, high)
    return int(low)


def chunk_of_byte(arrivals: Any, offset: int) -> int:
    """The last chunk that begins at or before this byte, and has bytes."""
    low, high = arrivals.start, len(arrivals) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(arrivals[middle]["offset"]) <= offset else (low, middle - 1)
    return int(low)


def _chunks_of(replay: RowReplay, span: ByteSpan) -> tuple[list[ChunkOrigin], int]:
    """The chunks of these bytes, at most the last `MAX_CHUNKS`, and how many there are.

    A chunk of which the last events were released together with those of another is recorded right before
    it, without bytes of its own.
    """
    arrivals = replay.stream.arrivals
    first = chunk_of_byte(arrivals, max(span.start, replay.stream.start))
    last = chunk_of_byte(arrivals, span.stop - 1)
    while first > arrivals.start and not int(arrivals[first - 1]["size"]):
        first -= 1
    numbers = range(first, last + 1)
    return [_chunk(replay, number) for number in numbers[-MAX_CHUNKS:]], len(numbers)


def _chunk(replay: RowReplay, number: int) -> ChunkOrigin:
    arrival = replay.stream.arrivals[number]
    offset, size = int(arrival["offset"]), int(arrival["size"])
    id = bytes(arrival["chunk_id"])[: min(int(arrival["chunk_id_size"]), CHUNK_ID_BYTES)]
    history = replay.committed.history.of_stream(replay.stream.uid)
    return ChunkOrigin(
        number=number,
        id=None if not id or id == PART_OF_CHUNK else shown_id(id),
        is_part=id == PART_OF_CHUNK,
        arrived=rfc3339(int(arrival["arrived_ns"])),
        sender=history.sender(number),
        offset=offset,
        size=size,
        is_intact=google_crc32c.value(replay.stream.read(offset, size)) == int(arrival["crc32c"]),
    )


def shown_id(id: bytes) -> str:
    """A chunk ID as text: as it is if it is printable ASCII, as those of fluentd are; else in hexadecimal."""
    return id.decode() if id.isascii() and id.decode().isprintable() else f"0x{id.hex()}"
