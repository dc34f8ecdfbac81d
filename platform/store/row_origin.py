"""What a row of a data array came from, as `windvane explain` and the API answer it."""

from typing import Any

from msgspec import Struct


class ByteSpan(Struct, frozen=True):
    """Bytes `start` to, not including, `stop` of the data stream."""

    start: int
    stop: int


class ChunkOrigin(Struct, frozen=True):
    """A chunk as it arrived.

    `number` counts the chunks of the stream from 0. `id` is the chunk ID that the sender gave, or null;
    `is_part` says that the events are a part of a chunk, of which a later entry has the ID. `arrived` is
    RFC 3339. `sender` is null if it is not known: see `sender_note` of the answer. `is_intact` says whether
    the bytes have the checksum that was stored when they arrived.
    """

    number: int
    id: str | None
    is_part: bool
    arrived: str
    sender: str | None
    offset: int
    size: int
    is_intact: bool


class PolicyOrigin(Struct, frozen=True):
    """The policy by which the row was computed.

    `revision` is the first one that has this format and this pipeline; null if the catalog no longer keeps
    it. `digest` identifies them, in hexadecimal. `since_chunk` is the first chunk that was processed by it.
    """

    reference: str
    revision: int | None
    digest: str
    since_chunk: int


class StepOrigin(Struct, frozen=True):
    """A step that the row came through.

    `version` is that of the operation: of Windvane, or the hash of its file; null if the row was computed
    before versions were recorded. `depends_on` says how far back it looks.
    """

    name: str
    operation: str
    version: str | None
    parameters: dict[str, Any]
    depends_on: str


class RowOrigin(Struct, frozen=True):
    """Where a row came from.

    `time` is its event time (RFC 3339), `time_ns` the same in ns since the epoch. `direct` are the bytes that
    it was computed from; `bytes` are all bytes that it depends on, which is more if a step keeps what it has
    seen: `because` says which steps do. A change of any byte outside of `bytes` does not change the row.
    `notes` has what else has an influence, by step. `chunks` are those of `direct`, at most the last 100 of
    `chunks_total`.

    The row was computed again from these bytes; `is_equal` says whether that gave the stored row, bit by bit.
    If not, `difference` says how it differs, and what could be the cause.
    """

    array: str
    row: int
    time: str
    time_ns: int
    stream: str
    bytes: ByteSpan
    direct: ByteSpan
    because: dict[str, str]
    notes: dict[str, str]
    chunks: list[ChunkOrigin]
    chunks_total: int
    sender_note: str | None
    policy: PolicyOrigin
    steps: list[StepOrigin]
    is_equal: bool
    difference: str | None
