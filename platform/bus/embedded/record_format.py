"""The bytes of a record in a segment: pure functions over buffers.

    byte      what (little endian)
    0 to 3    length: how many bytes follow byte 7
    4 to 7    CRC32C of those bytes
    8 to 15   offset of the record in its partition
    16 to 19  length of the key, k
    20        key
    20 + k    value, up to the end

A record has no end mark: the next one follows directly. Zeros in a file (a hole that a crash left) are not a
valid record, since a length is at least 12.
"""

import struct
from collections.abc import Sequence

import google_crc32c
import numpy as np

from ..interface import Buffer

HEADER_BYTES = 20
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
"""Bound on key and value together; it also bounds what a damaged length can make a reader allocate."""

_LENGTH_CRC = struct.Struct("<II")
_OFFSET_KEY = struct.Struct("<QI")
_HEADER = struct.Struct("<IIQI")
# Below this size, joining the pieces of a message costs less than a checksum call and an iovec for each.
_JOIN_BYTES = 16 * 1024
_MAX_PIECES = 16


class RecordDamagedError(Exception):
    """The bytes at this position are not a valid record: `str()` gives the reason."""


def frame(messages: Sequence[tuple[bytes, Sequence[Buffer]]], first_offset: int) -> list[Buffer]:
    """Buffers whose concatenation is the records of `messages` (key, value in pieces), offsets rising by one.

    Large values are passed on without a copy; small ones are joined with their neighbours.
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
    """The end of the record with `offset` that begins at `data[start]`, after checking it; None if `data`
    ends before the record does.

    Raises `RecordDamagedError` as soon as the available bytes cannot be that record.
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
        raise RecordDamagedError(f"it has offset {found} instead of {offset}")
    if key_length > length - 12:
        raise RecordDamagedError(f"its key of {key_length} bytes is longer than the record")
    return end


def record_bytes(data: bytes, start: int = 0) -> int | None:
    """The length that the record at `data[start]` declares, unchecked; None if its header is incomplete.

    Raises `RecordDamagedError` for an impossible length.
    """
    if len(data) - start < HEADER_BYTES:
        return None
    length: int = _LENGTH_CRC.unpack_from(data, start)[0]
    if not 12 <= length <= 12 + MAX_MESSAGE_BYTES:
        raise RecordDamagedError(f"its length is {length}")
    return 8 + length


def record_at(data: bytes, start: int, offset: int) -> int | None:
    """The length that the record at `data[start]` declares; checks only that it has `offset`.

    None if its header is incomplete. Raises `RecordDamagedError` for another offset or an impossible length.
    """
    whole = record_bytes(data, start)
    if whole is not None and (found := _HEADER.unpack_from(data, start)[2]) != offset:
        raise RecordDamagedError(f"it has offset {found} instead of {offset}")
    return whole


def key_and_value(data: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Key and value of the record between `start` and `end`, which `record_end` has checked."""
    value = start + HEADER_BYTES + _HEADER.unpack_from(data, start)[3]
    return data[start + HEADER_BYTES : value], data[value:end]


def _extend(crc: int, piece: Buffer) -> int:
    # google_crc32c accepts only objects without a release function: bytes, and arrays, which need no copy.
    if len(piece) == 0:
        return crc
    extended: int = google_crc32c.extend(
        crc, piece if type(piece) is bytes else np.frombuffer(piece, np.uint8)
    )
    return extended
