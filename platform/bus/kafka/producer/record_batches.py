"""A batch of records in Kafka's format (record batch, version 2), built from the published pieces.

    base offset i64 | length i32 | leader epoch i32 | 2 | crc u32 | attributes i16 | last offset delta i32 |
    base timestamp i64 | max timestamp i64 | producer id i64 | epoch i16 | base sequence i32 | count i32 |
    records: length | 0 | timestamp delta | offset delta | key length, key | value length, value | 0 headers

Numbers in records are zigzag varints; the CRC-32C covers the bytes from the attributes on. See "Message
Format" in the documentation of Apache Kafka. aiokafka's own builder copies each value twice and computes the
CRC without the CPU's instruction for it; for messages of a megabyte that costs more than the rest of a
producer's work.
"""

import struct
import time

import google_crc32c
import numpy as np
from aiokafka.codec import lz4_encode, zstd_encode

from ...interface import Buffer

_HEAD = struct.Struct(">qiib")  # up to the crc
_CRC = struct.Struct(">I")
_BODY = struct.Struct(">hiqqqhii")  # from the attributes up to the records
_AFTER_LENGTH = _HEAD.size - 12 + _CRC.size + _BODY.size
_MAGIC = 2
_ATTRIBUTES = {"none": 0, "lz4": 3, "zstd": 4}
_ONE_NULL = b"\x00"


class RecordBatch:
    """Collects records, then builds the bytes; implements what aiokafka's sender needs of a batch builder.

    All records have the time of the first one. Keeps references to the pieces until the batch is built.
    """

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self._pieces: list[Buffer] = []
        self._count = 0
        self._size = 0
        self._timestamp_ms = 0
        self._producer = (-1, -1, -1)
        self._built: bytes | None = None

    def add(self, key: bytes, value: tuple[Buffer, ...]) -> None:
        """Add a record; its value is the concatenation of the pieces."""
        if not self._count:
            self._timestamp_ms = time.time_ns() // 1_000_000
        value_size = sum(map(len, value))
        head = b"\0\0" + _varint(self._count) + _varint(len(key)) + key + _varint(value_size)
        length = len(head) + value_size + len(_ONE_NULL)
        self._pieces += (_varint(length), head, *(piece for piece in value if len(piece)), _ONE_NULL)
        self._size += length
        self._count += 1

    def record_count(self) -> int:
        """Number of records."""
        return self._count

    def size(self) -> int:
        """Approximate bytes of the records."""
        return self._size

    def closed(self) -> bool:
        """Always true: the sender adds no records."""
        return True

    def close(self) -> None:
        """Does nothing."""

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        if self._built is None:
            pieces = self._pieces
            if self._compression != "none":
                pieces = [_compress(b"".join(pieces), self._compression)]
            body = _BODY.pack(
                _ATTRIBUTES[self._compression],
                self._count - 1,
                self._timestamp_ms,
                self._timestamp_ms,
                *self._producer,
                self._count,
            )
            crc = google_crc32c.value(body)
            for piece in pieces:
                # google_crc32c accepts bytes, and arrays, which need no copy, but no other buffers.
                plain = piece if isinstance(piece, bytes) else np.frombuffer(piece, np.uint8)
                crc = google_crc32c.extend(crc, plain)
            head = _HEAD.pack(0, _AFTER_LENGTH + sum(map(len, pieces)), -1, _MAGIC)
            self._built = b"".join((head, _CRC.pack(crc), body, *pieces))
            self._pieces = []
        return self._built


def _compress(records: bytes, compression: str) -> bytes:
    # The fast levels: aiokafka would use 9 for lz4, which is ten times slower.
    compressed: bytes = lz4_encode(records, 1) if compression == "lz4" else zstd_encode(records, 1)
    return compressed


def _varint(number: int) -> bytes:
    """A non-negative number as a zigzag varint."""
    number <<= 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
