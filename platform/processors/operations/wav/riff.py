"""The format of WAVE files: starts of files, chunks, layouts of samples.

Pure functions over bytes. "Not enough bytes" is a normal result: None.

Sources: Microsoft and IBM, "Multimedia Programming Interface and Data Specifications 1.0" (RIFF, WAVE), 1991;
Microsoft, "Multiple channel audio data and WAVE files" (WAVE_FORMAT_EXTENSIBLE), 2007; EBU Tech 3306 (RF64),
2009; ITU-R BS.2088 (BW64), 2019.
"""

from __future__ import annotations

import struct
from enum import Enum, auto
from typing import Any

from ....errors import OperationFailed
from ..pcm import SampleFormat

FORMS = (b"RIFF", b"RF64", b"BW64")
FILE_START_BYTES = 12
CERTAIN_START_BYTES = 20
CHUNK_HEAD_BYTES = 8
FORMAT_BYTES = 40
"""Bytes of a format chunk that are read."""

UNKNOWN_SIZES = (0, 0xFFFF_FFFF)
"""Sizes without meaning: of a writer that could not seek back to fill them in."""

_FORMAT_SIZES = (16, 18, 40)
_LEADING = (b"JUNK", b"junk", b"bext", b"ds64", b"LIST", b"fact", b"PAD ", b"FLLR", b"iXML", b"id3 ", b"ID3 ")
_OTHERS = (
    b"fmt. data list axml chna ubxt cue. plst adtl labl note ltxt smpl inst PEAK DISP acid strc afsp "
    b"cart levl umid minf elm1 regn DGDA _PMX aXML qlty mext link guan wamd r64m SMED LGWV ovwf slnt "
    b"wavl SAUR MD5. tlst "
)
_KNOWN = frozenset((*_LEADING, *(name.replace(b".", b" ") for name in _OTHERS.split())))
_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")
"""Tags that taggers append to files of any kind, outside of chunks."""

_PCM, _IEEE_FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_CODES = {_PCM: {1: "|u1", 2: "<i2", 3: "<i3", 4: "<i4"}, _IEEE_FLOAT: {4: "<f4", 8: "<f8"}}
# The last 14 bytes of KSDATAFORMAT_SUBTYPE_*; the first two are the format's code.
_SUBTYPE_TAIL = bytes.fromhex("000000001000800000aa00389b71")

Layout = tuple[SampleFormat, float, int]
"""How samples lie, their rate in Hz, and the bits that carry a value: the same for all files of a stream."""


def begins_file(data: bytes, *, certain: bool = False) -> bool | None:
    """Whether `data` begins with `RIFF….WAVE`, or with RF64 or BW64; None if it is too short to say.

    If `certain`, the head of a chunk that files begin with has to follow: 20 bytes, 16 of them fixed, which
    samples do not have by chance.
    """
    if not any(form.startswith(data[:4]) for form in FORMS) or not b"WAVE".startswith(data[8:12]):
        return False
    if not certain:
        return True if len(data) >= FILE_START_BYTES else None
    name, size = data[12:16], data[16:CERTAIN_START_BYTES]
    is_whole = len(size) == 4
    if b"fmt ".startswith(name) and (not is_whole or int.from_bytes(size, "little") in _FORMAT_SIZES):
        return True if is_whole else None
    if any(each.startswith(name) for each in _LEADING) and (not is_whole or size[3] == 0):
        return True if is_whole else None
    return False


def straddles(before: bytes, behind: bytes) -> bool:
    """Whether a file begins in `before`, with its signature in both."""
    joined = before + behind[:CERTAIN_START_BYTES]
    return any(begins_file(joined[at:], certain=True) for at in range(len(before)))


def is_chunk_name(name: bytes) -> bool:
    """Whether these are four printable characters, as names of chunks are."""
    return len(name) == 4 and all(0x20 <= each < 0x7F for each in name)


def padding_before_chunk(data: bytes, *, odd: bool) -> int | None:
    """How many bytes of padding, 0 or 1, precede the next chunk of a header; None if too short to say.

    Padding is due behind a chunk of odd size. Some writers leave it out, others write it elsewhere too.
    """
    if not data or (len(data) < 5 and (odd or data[0] == 0)):
        return None
    if data[:4] in _KNOWN:
        return 0
    if (odd or data[0] == 0) and data[1:5] in _KNOWN:
        return 1
    return int(odd and not is_chunk_name(data[:4]))


class Follows(Enum):
    """What follows samples, or a chunk that follows them."""

    FILE = auto()
    CHUNK = auto()
    PADDING = auto()
    """Zeros or blanks, or the tag of a tagger: nothing is lost with it."""
    TEXT = auto()
    """Four printable characters, as files of other kinds begin with them."""
    OTHER = auto()


def what_follows(
    data: bytes, *, odd: bool, left: int, only_known: bool, final: bool
) -> tuple[Follows, int] | None:
    """What `data` begins with, and how many bytes of padding precede it; None if too short to say.

    Args:
        data: the bytes; 13 are enough.
        odd: whether a byte of padding is due.
        left: bytes that the file has from here on by its RIFF size, -1 if that is not known. Chunks of
            unknown names are believed only within, and zeros that it counts are not padding.
        only_known: whether all but files and chunks of known names are `OTHER`.
        final: whether the file has no more than `data`.
    """
    pads = (0, 1) if odd else (0,)
    for pad in pads:
        rest = data[pad:]
        known = _known(rest, tags=not only_known)
        if known is not None:
            return known, pad
        if rest and final and _may_be_known(rest, tags=not only_known):
            return Follows.PADDING, 0  # the head of a chunk that was cut short
        if not final and _may_be_known(rest, tags=not only_known):
            return None
    return _unknown(data, pads, left=left, only_known=only_known, final=final)


def _known(data: bytes, *, tags: bool) -> Follows | None:
    if begins_file(data):
        return Follows.FILE
    if data[:4] in _KNOWN and len(data) >= CHUNK_HEAD_BYTES:
        return Follows.CHUNK
    if tags and data[:4] not in _KNOWN and data.startswith(_TAGS):
        return Follows.PADDING
    return None


def _may_be_known(data: bytes, *, tags: bool) -> bool:
    """Whether more bytes could make it a file, a known chunk or a tag."""
    if begins_file(data) is None or any(each.startswith(data[:4]) for each in _KNOWN):
        return True
    return tags and any(tag.startswith(data) for tag in _TAGS)


def _unknown(
    data: bytes, pads: tuple[int, ...], *, left: int, only_known: bool, final: bool
) -> tuple[Follows, int] | None:
    if only_known:
        return Follows.OTHER, 0
    head = data[:CHUNK_HEAD_BYTES]
    is_blank = head.strip(b"\0\t\n\r ") == b""
    is_text = any(data[pad:] and all(map(_is_text, data[pad : pad + 4])) for pad in pads)
    if len(data) < CHUNK_HEAD_BYTES + len(pads) - 1 and not final and (is_blank or is_text):
        return None
    if is_blank and left < CHUNK_HEAD_BYTES:
        return Follows.PADDING, 0
    for pad in pads:
        name, size = data[pad : pad + 4], int.from_bytes(data[pad + 4 : pad + 8], "little")
        if is_chunk_name(name) and len(data) >= pad + CHUNK_HEAD_BYTES and pad + 8 + size <= left:
            return Follows.CHUNK, pad
    return (Follows.TEXT if is_text and not is_blank else Follows.OTHER), 0


def completes_frame(
    data: bytes,
    *,
    missing: int,
    odd: bool,
    follows: tuple[Follows, int] | None,
    ends_event: bool,
    ends_file: bool,
    riff_ends: bool,
) -> bool:
    """Whether the bytes behind the samples are the rest of a frame that a size which is too small has cut.

    They are if the event ends with them, or a file or a chunk begins right behind. A byte of padding that is
    0 is not one of them, unless the RIFF size ends before it too.

    Args:
        data: the bytes behind the samples, 12 more than `missing` if they have come.
        missing: bytes that the frame lacks, at least 1.
        odd: whether a byte of padding is due.
        follows: what `what_follows` returns for `data`.
        ends_event: whether an event ends with the last of the missing bytes.
        ends_file: whether an event behind them begins a file.
        riff_ends: whether the file ends with the samples by its RIFF size.
    """
    if len(data) < missing or follows in ((Follows.FILE, 0), (Follows.CHUNK, 0)):
        return False
    if missing == 1 and odd and data[0] == 0 and not riff_ends:
        return False
    if ends_file or _known(data[missing:], tags=False) is not None:
        return True
    heads = (data[pad:] for pad in ((0, 1) if odd else (0,)))
    if any(head and _may_be_known(head, tags=False) for head in heads):
        return False  # possibly the head of a chunk, which an event cuts
    return ends_event and (follows is None or follows[0] is not Follows.CHUNK)


def _is_text(byte: int) -> bool:
    return 0x20 <= byte < 0x7F or byte in b"\t\n\r"


def parse_format(chunk: bytes) -> Layout:
    """The layout of samples by the body of a format chunk; OperationFailed if they cannot be read.

    A size of the frame that contradicts channels and bits is not believed. Only 17 to 24 bits in 32 are, as
    some writers have them, unless the bytes per second are those of 24.
    """
    if len(chunk) < 16:
        raise OperationFailed(
            f"The WAVE file's format chunk has {len(chunk)} bytes instead of 16; write the file again."
        )
    code, channels, rate_hz, byte_rate, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and chunk[26:40] == _SUBTYPE_TAIL:
        (code,) = struct.unpack_from("<H", chunk, 24)
    by_bits = (bits + 7) // 8
    sample_bytes, rest = divmod(frame_bytes, channels) if channels else (0, 0)
    codes = _CODES.get(code, {})
    is_24_in_32 = code == _PCM and by_bits == 3 and sample_bytes == 4 and byte_rate != rate_hz * channels * 3
    if rest or not is_24_in_32:
        sample_bytes = by_bits
    if not channels or sample_bytes not in codes or rate_hz == 0:
        raise OperationFailed(
            f"The WAVE file has samples that cannot be read (format {code:#06x}, {channels} channels, {bits} "
            f"bits, {frame_bytes} bytes a frame, {rate_hz} Hz): write PCM of 8, 16, 24 or 32 bits, or float "
            "of 32 or 64."
        )
    return SampleFormat(codes[sample_bytes], channels), float(rate_hz), bits


def said_by(name: bytes, body: bytes) -> dict[str, Any]:
    """The properties of a file that a format chunk or a ds64 chunk defines."""
    if name == b"fmt ":
        return {"layout": parse_format(body)}
    if len(body) < 16:
        return {}
    riff_bytes, data_bytes = (int.from_bytes(body[at : at + 8], "little") for at in (0, 8))
    unknown = (0, 2**64 - 1)
    return {
        "riff_bytes": None if riff_bytes in unknown else riff_bytes,
        "data_bytes": None if data_bytes in unknown else data_bytes,
    }


def not_a_file(head: bytes) -> str:
    """The reason why bytes that begin so are rejected."""
    return (
        f"The bytes {head!r} are not the start of a WAVE file (RIFF….WAVE): send whole "
        f'files under this tag, or use "pcm" for samples without a header.'
    )


def said(layout: Layout) -> str:
    """The layout in words."""
    form, rate_hz, bits = layout
    return f"{form.channels} channels of {bits} bits ({form.code[1:]}) at {rate_hz:g} Hz"
