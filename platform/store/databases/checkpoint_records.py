"""What a checkpoint consists of: positions, operation states, output lengths, held chunks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import msgspec

from .stream_history import StreamHistory
from .stream_order import HeldChunk, StreamOrder

Partition: TypeAlias = tuple[str, int]
"""A topic of the bus, and the number of one of its partitions."""

UNKNOWN_LOG = ""
"""The log of positions that were committed before logs had identities."""

AT_BEGINNING = -1
"""Instead of a position: the partition may be read, and nothing of it was committed yet."""


class StreamPosition(NamedTuple):
    """Every message of the stream below `next_offset` of this partition of this log is part of the stream."""

    log: str
    topic: str
    partition: int
    next_offset: int


class Hole(NamedTuple):
    """Messages [`first`, `resume_at`) of a partition that are gone, which an operator chose to go past."""

    log: str
    topic: str
    partition: int
    first: int
    resume_at: int


@dataclass(frozen=True, slots=True)
class OutputLength:
    """The length of an output at the checkpoint.

    `uid` tells the output from another of the same reference made before or after it; `length` counts bytes
    of a data stream, rows of a data array; `chunks` the arrivals of a data stream, 0 for arrays.
    """

    uid: bytes
    length: int
    chunks: int = 0


@dataclass(frozen=True, slots=True)
class StreamCheckpoint:
    """The state of one data stream: operation states by step name, output lengths by reference.

    `partition` is the one that brought the last chunk: its owner writes the stream. `positions` say which
    messages are part of the stream; a partition that is missing stands for its committed position.
    `adopted_chunks` counts the chunks of the archive that were adopted without a checkpoint: if one of them
    is reread, its arrival record identifies it. `holes` are the messages that the stream may lack.
    `alarm_state` is the state of the stream's alarms. `alarms` are messages that are sent with this
    checkpoint: a commit puts them into the outbox, not into the row of the stream, so what is read back has
    none. `held` are the chunks that wait to be put in order, and `order` is what is known of that: None for a
    stream that was never looked at for it. `history` has its senders and pipelines.
    """

    states: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Mapping[str, OutputLength] = field(default_factory=dict)
    partition: Partition | None = None
    alarm_state: bytes | None = None
    alarms: tuple[bytes, ...] = ()
    positions: tuple[StreamPosition, ...] = ()
    adopted_chunks: int = 0
    holes: tuple[Hole, ...] = ()
    order: StreamOrder | None = None
    held: tuple[HeldChunk, ...] = ()
    history: StreamHistory = field(default_factory=StreamHistory)


@dataclass(frozen=True, slots=True)
class Taken:
    """A partition as its new owner finds it.

    `position` is the offset of the next message to read, None if none was committed for this log;
    `chunk_keys` those of the chunks last seen, oldest first; `epoch` is what the owner's commits must name;
    `before` the name of the owner before. `other_logs` are the logs of this partition's former positions. If
    the partition was added to a topic that was read before, `added_to` has the numbers of the partitions that
    come first, until `CheckpointDatabase.open_added`.
    """

    position: int | None
    chunk_keys: Sequence[bytes]
    epoch: int
    before: str | None
    other_logs: Sequence[str] = ()
    added_to: frozenset[int] = frozenset()


# msgspec writes dict and dataclass; any other Mapping goes through dict.
encode_checkpoint = msgspec.msgpack.Encoder(enc_hook=dict).encode
decode_checkpoint = msgspec.msgpack.Decoder(StreamCheckpoint).decode
