"""The bytes of a record in a segment: pure functions over buffers.

    byte      what (little endian)
    0 to 3    length: how many bytes follow byte 7
    4 to 7    CRC32C of those bytes
    8 to 15   offset of the record in its partition
    16 to 19  length of the key, k
    20        key
    20 + k    value, up to the end

A record has no mark at its end: the next one follows at once. A file's zeros (a hole that a crash left) are
no record, since a length is never under 12.
"""

import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np

from ..interface import Buffer

HEADER_BYTES = 20
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Bound on key and value together; what a damaged length can make a reader ask for is bounded with it."""

_LENGTH_CRC = struct.Struct("<II")
_OFFSET_KEY = struct.Struct("<QI")
_HEADER = struct.Struct("<IIQI")
# Below this, joining the pieces of a message costs less than a checksum call and an iovec for each.
_JOIN_BYTES = 16 * 1024
_MAX_PIECES = 16


class RecordDamagedError(Exception):
    """The bytes at this place are no record: `str()` says why."""


def frame(messages: Sequence[tuple[bytes, Sequence[Buffer]]], first_offset: int) -> list[Buffer]:
    """Buffers whose concatenation is the records of `messages` (key, value in pieces), offsets rising by one.

    Large values are handed on as they are, small ones are joined with their neighbours.
    """
    buffers: list[Buffer] = []
    run: list[bytes] = []
    for offset, (key, value) in enumerate(messages, first_offset):
        start = _OFFSET_KEY.pack(offset, len(key)) + key
        if len(value) > _MAX_PIECES or sum(map(len, value)) <= _JOIN_BYTES:
            body = b"".join((start, *value))
            run += (_LENGTH_CRC.pack(len(body), google_crc32c.value(body)), body)
        else:
            crc, length = google_crc32c.value(start), len(start)
            for piece in value:
                crc = _extend(crc, piece)
                length += len(piece)
            run += (_LENGTH_CRC.pack(length, crc), start)
            buffers.append(b"".join(run))
            run.clear()
            buffers += value
    if run:
        buffers.append(b"".join(run))
    return buffers


def record_end(data: bytes, start: int, offset: int) -> int | None:
    """Where the record with `offset` that begins at `data[start]` ends, once checked; None: `data` ends
    before it does.

    Raises `RecordDamagedError` as soon as the bytes that are there cannot be that record.
    """
    if len(data) - start < HEADER_BYTES:
        return None
    length, crc, found, key_length = _HEADER.unpack_from(data, start)
    if not 12 <= length <= 12 + MAX_MESSAGE_BYTES:
        raise RecordDamagedError(f"its length is {length}")
    end: int = start + 8 + length
    if len(data) < end:
        return None
    if length <= _JOIN_BYTES:
        actual = google_crc32c.value(data[start + 8 : end])
    else:
        actual = _extend(0, memoryview(data)[start + 8 : end])
    if actual != crc:
        raise RecordDamagedError(f"its checksum is {crc:08x} and its bytes have {actual:08x}")
    if found != offset:
        raise RecordDamagedError(f"it has offset {found} where {offset} is due")
    if key_length > length - 12:
        raise RecordDamagedError(f"its key of {key_length} bytes is longer than the record")
    return end


def record_bytes(data: bytes, start: int = 0) -> int | None:
    """How long the record at `data[start]` says it is, unchecked; None: not even its header is there.

    Raises `RecordDamagedError` for a length that no record has.
    """
    if len(data) - start < HEADER_BYTES:
        return None
    length: int = _LENGTH_CRC.unpack_from(data, start)[0]
    if not 12 <= length <= 12 + MAX_MESSAGE_BYTES:
        raise RecordDamagedError(f"its length is {length}")
    return 8 + length


def record_at(data: bytes, start: int, offset: int) -> int | None:
    """How long the record with `offset` that should begin at `data[start]` says it is, otherwise unchecked.

    None: not even its header is there. Raises `RecordDamagedError` for another offset, or for a length that
    no record has.
    """
    whole = record_bytes(data, start)
    if whole is not None and (found := _HEADER.unpack_from(data, start)[2]) != offset:
        raise RecordDamagedError(f"it has offset {found} where {offset} is due")
    return whole


def key_and_value(data: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Key and value of the record between `start` and `end`, which `record_end` has checked."""
    value = start + HEADER_BYTES + _HEADER.unpack_from(data, start)[3]
    return data[start + HEADER_BYTES : value], data[value:end]


def _extend(crc: int, piece: Buffer) -> int:
    # google_crc32c takes only objects without a release function: bytes, and arrays, which cost no copy.
    if len(piece) == 0:
        return crc
    extended: int = google_crc32c.extend(
        crc, piece if type(piece) is bytes else np.frombuffer(piece, np.uint8)
    )
    return extended
