"""The text of a table: its encoding, how its lines end, and its first lines."""

import codecs
from dataclasses import dataclass

from ...errors import InputInvalid
from .chunks import MAX_LINE_BYTES, READ_BYTES, Read

_LOOKED_AT_BYTES = 64 * 1024
_LEAST_NULS = 0.02
"""Share of NUL bytes from which on their order is looked at: in UTF-16, each ASCII character has one."""


class Remembering:
    """The bytes of a pipe, and the same once more."""

    def __init__(self, read: Read) -> None:
        self._source = read
        self._blocks: list[bytes] = []

    def read(self, size: int) -> bytes:
        """The next bytes, which are remembered."""
        block = self._source(size)
        self._blocks.append(block)
        return block

    def again(self, size: int) -> bytes:
        """From the beginning: what is remembered, which is then forgotten, and what comes after it."""
        return self._blocks.pop(0) if self._blocks else self._source(size)


@dataclass(frozen=True, slots=True)
class Sample:
    """The first lines of a table, with their ends."""

    lines: list[str]
    line_end: bytes
    """LF, also of CRLF; or CR, as old Macintosh programs write it."""


def sample_of(read: Read, *, is_encoding_given: bool) -> Sample:
    """The whole lines of the first read, and of further ones until there are names and a row.

    Raises InputInvalid for UTF-16 or UTF-32 without a mark, unless `is_encoding_given`.
    """
    data, is_ended = b"", False
    while not is_ended and len(data) <= MAX_LINE_BYTES and not _has_a_row(data):
        block = read(READ_BYTES)
        is_ended = not block
        data += block
    if not is_encoding_given and (likely := _encoding_of_nuls(data[:_LOOKED_AT_BYTES])):
        raise InputInvalid(f"it has many NUL bytes, as {likely} without a mark has; give --encoding {likely}")
    line_end = _line_end(data)
    whole = data if is_ended else data[: data.rfind(line_end) + 1]
    text = (whole or data).decode("utf-8-sig", "surrogateescape")
    end = line_end.decode()
    return Sample([f"{line}{end}" for line in text.removesuffix(end).split(end)], line_end)


def _line_end(data: bytes) -> bytes:
    """CR if a line ends in it and none in LF; a CR in a quoted cell ends no line."""
    outside_quotes = data.split(b'"')[::2]
    return b"\r" if b"\n" not in data and any(b"\r" in piece for piece in outside_quotes) else b"\n"


def _encoding_of_nuls(data: bytes) -> str:
    """The encoding that puts its NUL bytes as `data` does; "" if there are few, or in no such order."""
    nuls = data.count(0)
    if nuls < 2 or nuls < len(data) * _LEAST_NULS:
        return ""
    order = "be" if data[0] == 0 else "le"
    if nuls > len(data) * 0.6:
        return f"utf-32-{order}"
    odd = data[1::2].count(0)
    if odd >= 0.9 * nuls and (b"\n\0" in data or b"\n" not in data):
        return "utf-16-le"
    if odd <= 0.1 * nuls and (b"\0\n" in data or b"\n" not in data):
        return "utf-16-be"
    return ""


def _has_a_row(data: bytes) -> bool:
    filled = [line for line in data.split(b"\n")[:-1] if line.strip()]
    return len(filled) > (2 if data.startswith((b"sep=", b"\xef\xbb\xbfsep=")) else 1)


def reading_of(data: bytes) -> Read:
    """A reader of `data`, which it gives at once."""
    pieces = [data]
    return lambda _: pieces.pop() if pieces else b""


def as_utf8(read: Read, encoding: str | None) -> Read:
    """`read`, whose bytes are of `encoding`; by default UTF-8, or UTF-16 if they begin with its mark."""
    decoder: codecs.IncrementalDecoder | None = None
    is_first = True

    def reading(size: int) -> bytes:
        nonlocal decoder, is_first
        while True:
            block = read(size)
            if is_first:
                is_first = False
                is_utf16 = block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
                chosen = encoding or ("utf-16" if is_utf16 else None)
                decoder = None if chosen is None else codecs.getincrementaldecoder(chosen)()
            if decoder is None:
                return block
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                raise InputInvalid(f"it is not {error.encoding}: {error.reason}; give --encoding") from None
            if text or not block:
                return text.encode()

    return reading
