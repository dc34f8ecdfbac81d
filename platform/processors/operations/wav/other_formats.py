"""Detects files of other kinds by their first bytes. Pure functions over the bytes of one event.

Signatures of 26 bits and more are sufficient. That of MPEG audio and AAC has 11 bits, which quiet sound often
contains: there a second frame must follow the first one. Only for layer III (MP3) it is enough that
all fields of the frame's header are valid: six of 65,536 values of a first sample can begin one.

Sources: the formats' specifications; ISO/IEC 11172-3 and 13818-3 (headers of MPEG audio), 13818-7 (ADTS).
"""

from __future__ import annotations

import codecs

LOOKED_AT_BYTES = 4096
"""Bytes of an event that are examined: more than a frame of MPEG audio."""

_SIGNATURES = (
    b"PK\3\4",  # zip
    b"PK\5\6",
    b"\x89PNG",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",  # zstd
    b"7z\xbc\xaf\x27\x1c",
    b"\x04\x22\x4d\x18",  # LZ4
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\x30\x26\xb2\x75",  # ASF: WMA
    b"\x89HDF",
    b"\x93NUMPY",
    b"\x7fELF",
    b"%PDF",
    b"FORM",  # AIFF
    b"fLaC",
    b"OggS",
)
_LEAST_TEXT_BYTES = 4
_SAMPLES_A_FRAME = {(3, 1): 1152, (3, 2): 1152, (3, 3): 384, (2, 1): 576, (2, 2): 1152, (2, 3): 384}
_KBITS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)


def is_other_kind(event: bytes) -> bool:
    """Whether the first bytes of an event say that it is text, or a file of a kind that is not a WAVE."""
    if event.startswith(_SIGNATURES) or event[4:8] == b"ftyp":
        return True
    if event[:3] == b"\x1f\x8b\x08" and event[3:4] < b"\x20":  # gzip, whose other flags are reserved
        return True
    if event[:3] == b"\xff\xd8\xff" and event[3:4] >= b"\xc0":  # JPEG, and the marker of a segment
        return True
    return _is_mpeg_audio(event) or _is_text(event)


def _is_mpeg_audio(event: bytes) -> bool:
    size = _frame_bytes(event[:7])
    if size is None:
        return False
    behind = event[size : size + 7]
    is_layer_3 = event[1] & 0b110 == 0b010
    return is_layer_3 or (_frame_bytes(behind) is not None and behind[:2] == event[:2])


def _frame_bytes(head: bytes) -> int | None:
    """The length of a frame of MPEG audio by its header; None if the header is invalid."""
    if len(head) < 7 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    if head[1] & 0xF6 == 0xF0:  # ADTS
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        return size if size > 7 and head[2] >> 2 & 15 < 13 else None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, bits, is_padded = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or rate in (0, 15) or bits == 3 or head[3] & 3 == 2:
        return None
    kind = (3 if version == 3 else 2, layer)
    rate_hz = _RATES_HZ[bits] >> {3: 0, 2: 1, 0: 2}[version]
    slot = 4 if layer == 3 else 1
    return (_SAMPLES_A_FRAME[kind] // 8 * _KBITS[kind][rate - 1] * 1000 // rate_hz // slot + is_padded) * slot


def _is_text(event: bytes) -> bool:
    """Whether the examined bytes are UTF-8 without device control characters."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(event)
    except UnicodeDecodeError:
        return False
    return len(event) >= _LEAST_TEXT_BYTES and all(
        each.isprintable() or each in "\t\n\r\ufeff" for each in text
    )
