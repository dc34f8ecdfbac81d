"""Replays stored data streams to the steps of a pipeline."""

from collections.abc import Collection, Iterator

import numpy as np

from ....errors import ChunkRejected, PolicyInvalid, WindvaneError
from ....records.event_separation import separate_decodable
from ....store.catalog.policy import Policy
from ....store.interface import StreamReader
from ...operations.base.block import Block, Events, EventTimes
from ..pipeline.archive import decode_events, parse_json_lines
from ..pipeline.chunk_events import ChunkEvents
from ..pipeline.steps import FailedStep, in_passes


def recorded_inputs(
    stream: StreamReader,
    policy: Policy,
    sources: Collection[str],
    *,
    first_chunk: int,
    stop_chunk: int,
    failed: FailedStep,
) -> Iterator[tuple[int, dict[str, Block | Events]]]:
    """Yields the inputs of the steps for the chunks from `first_chunk` to `stop_chunk`: (chunk, inputs).

    `sources` are the inputs that the steps use. Bytes have the times of their events, or the arrival time of
    the chunk if the stream has no event times. `failed` is called, with the step "events", if events of a
    chunk cannot be decoded; these are left out (for JSON, the whole chunk). Memory: one chunk. Raises
    PolicyInvalid if the stream does not have the inputs, RangeGone if retention has dropped them.
    """
    if "events" in sources and policy.format == "raw":
        raise PolicyInvalid(
            f"a step of policy {policy.reference!r} reads events, and {stream.reference!r} keeps their bytes "
            'only (format = "raw"); events cannot be recovered from bytes'
        )
    for chunk in range(first_chunk, stop_chunk):
        arrival = stream.arrivals[chunk]
        offset, size = int(arrival["offset"]), int(arrival["size"])
        data = stream.read(offset, size)
        given: dict[str, Block | Events] = {}
        if "bytes" in sources and size:
            given["bytes"] = _bytes(stream, data, offset, int(arrival["arrived_ns"]))
        events = None
        if "events" in sources:
            try:
                events = _decoded(data, failed) if policy.format == "msgpack" else parse_json_lines(data)
            except (WindvaneError, ValueError, LookupError, TypeError) as error:
                failed("events", error)
        for each in in_passes(given, events):
            yield chunk, each


def _decoded(data: bytes, failed: FailedStep) -> ChunkEvents:
    """The events of a chunk that can be decoded; the others were archived when no step asked for events."""
    try:
        return decode_events(data)
    except ChunkRejected as error:
        sifted = separate_decodable(data, raw_field=None)
        if not sifted.valid_events or not sifted.invalid_events:
            raise
        failed("events", error)
        return decode_events(sifted.valid)


def _bytes(stream: StreamReader, data: bytes, offset: int, arrived_ns: int) -> Block:
    stop = offset + len(data)
    events = stream.event_times(offset, stop)
    ends, times_ns = events["end"], events["time_ns"]
    if not len(ends) or ends[-1] != stop:
        ends, times_ns = np.array([stop]), np.array([arrived_ns])
    return Block(np.frombuffer(data, np.uint8), offset, EventTimes(ends, times_ns))
