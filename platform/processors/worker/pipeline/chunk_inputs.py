"""Decodes a chunk for its archive and for the steps, and rejects what cannot be decoded."""

from collections.abc import Collection
from functools import cached_property
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ....bus.messages.chunks import ChunkMessage
from ....errors import OperationFailed
from ....records.decoded_size import DEFAULT_LIMIT_BYTES
from ....records.event_separation import separate_decodable
from ....records.events import check_pairs
from ....store.catalog.policy import Policy
from ...operations.base.block import Block
from .archive import bytes_block, decode_events, json_lines, raw_pieces
from .chunk_events import ChunkEvents, large_chunk_slot


class Rejected(NamedTuple):
    """A chunk, or those of its events, that cannot be archived."""

    chunk: ChunkMessage
    error: Exception


class ChunkInputs:
    """The inputs of the steps for one chunk, each created on first use."""

    def __init__(self, chunk: ChunkMessage, policy: Policy, stream_bytes: int) -> None:
        """`stream_bytes` is the length of the stream's archive before this chunk."""
        self.chunk = chunk
        self._policy = policy
        self._stream_bytes = stream_bytes

    @cached_property
    def events(self) -> ChunkEvents:
        """All events. Raises ChunkRejected if one is not valid."""
        return decode_events(self.chunk.payload, max_event_bytes=_max_event_bytes(self._policy))

    @cached_property
    def record_bytes(self) -> Block:
        """The bytes of the records. Raises OperationFailed if a record has none."""
        pieces = raw_pieces(self.events, self._policy.field)
        return bytes_block(pieces, self.events.times_ns, self._stream_bytes)

    @property
    def event_times(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """The end offset and the time of each event, which raw bytes alone do not contain."""
        if self._policy.format != "raw":
            return None
        times = self.record_bytes.times
        return times.ends, times.times_ns

    @cached_property
    def archived(self) -> bytes | memoryview:
        """The bytes that the policy's format appends to the data stream."""
        match self._policy.format:
            case "raw":
                return self.record_bytes.rows.data
            case "msgpack":
                check_pairs(self.chunk.payload, self.chunk.events)
                return self.chunk.payload
            case "json":
                return json_lines(self.events)


def decode_chunk_inputs(
    chunk: ChunkMessage, policy: Policy, *, stream_bytes: int, sources: Collection[str]
) -> tuple[ChunkInputs | None, list[Rejected]]:
    """Returns the chunk without invalid events, decoded as far as the archive and `sources` need; and what is
    rejected of it.

    The gateway makes only cheap checks, and other programs publish to the bus too. The first is None if no
    valid event is left. Raises MemoryError.
    """
    inputs = ChunkInputs(chunk, policy, stream_bytes)
    if (error := _decode_error(inputs, sources)) is None:
        return inputs, []
    with large_chunk_slot(len(chunk.payload)):
        sifted = separate_decodable(
            chunk.payload,
            raw_field=policy.field if policy.format == "raw" else None,
            max_event_bytes=_max_event_bytes(policy),
        )
    if not sifted.valid_events or not sifted.invalid_events:
        return None, [Rejected(chunk, error)]
    invalid = msgspec.structs.replace(chunk, payload=sifted.invalid, events=sifted.invalid_events)
    reason = OperationFailed(f"{sifted.total} cannot be stored: {sifted.reason}")
    rejected = [Rejected(invalid, reason)]
    valid = msgspec.structs.replace(chunk, payload=sifted.valid, events=sifted.valid_events)
    inputs = ChunkInputs(valid, policy, stream_bytes)
    if (error := _decode_error(inputs, sources)) is not None:
        return None, [*rejected, Rejected(valid, error)]
    return inputs, rejected


def _decode_error(inputs: ChunkInputs, sources: Collection[str]) -> Exception | None:
    try:
        with large_chunk_slot(len(inputs.chunk.payload)):
            if "events" in sources:
                _ = inputs.events  # events that steps cannot decode must not be archived either
            _ = inputs.archived
    except MemoryError:
        raise
    except Exception as error:  # only the chunk can be the cause: it must not be redelivered forever
        return error
    return None


def _max_event_bytes(policy: Policy) -> int:
    """A limit that was lowered after the chunk arrived is ignored."""
    return max(policy.limits.decoded_bytes, DEFAULT_LIMIT_BYTES)
