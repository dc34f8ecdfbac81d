"""Compressed payloads, decompressed in small steps and within bounds.

gzip and zstd come as several members (frames) one behind the other: fluentd writes one for each emit. A
member costs time of its own, whatever is in it (1.4 µs for gzip, 28 µs for zstd), and zstd has frames
that hold nothing at all. So members are bounded as bytes are, and those without content much more tightly.
"""

import re
import sys
import zlib
from collections.abc import Generator
from functools import partial

from ...errors import ChunkRejected

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_MEMBERS = 100_000
"""gzip members or zstd frames of a chunk. One with a single record of 60 bytes takes 80 bytes in gzip: so
many make a chunk of 8 MiB."""
MAX_EMPTY_MEMBERS = 1_000
"""Of these, members without content, zstd's skippable frames among them."""

_MIN_WINDOW_BYTES = 1024
_MAX_WINDOW_BYTES = 256 * 1024
_MAX_PIECE_BYTES = 1 << 20
"""Decompressed in one call: 2 ms of gzip."""
_MEMBERS_A_STEP = 32
_GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, 2.3.1
_SHOWN_BYTES = 8
_PADDING_RUN = re.compile(rb"[\0\r\n]*")  # behind a gzip member
_ZSTD_WINDOW_LOG = 23  # what every decoder is to support (RFC 8878, 3.1.1.1.2), and level 19 uses
_ZSTD_MAX_WINDOW_LOG = 27
_SKIPPABLE_HEAD_BYTES = 8  # RFC 8878, 3.1.2: the magic number 0x184D2A5?, and the size

Payload = bytes | bytearray | memoryview


def decompress(
    payload: Payload, compression: str, *, max_bytes: int, max_members: int = MAX_MEMBERS
) -> bytes:
    """What `decompressing` returns, in one go."""
    steps = decompressing(payload, compression, max_bytes=max_bytes, max_members=max_members)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: bytes = end.value
            return found


def decompressing(
    payload: Payload, compression: str, *, max_bytes: int, max_members: int = MAX_MEMBERS
) -> Generator[None, None, bytes]:
    """What the payload holds, at most `max_bytes` of it in memory; yields every few milliseconds.

    Raises ChunkRejected: "unsupported-compression", "malformed", "too-many-members", or "too-large" if the
    output would exceed `max_bytes`, or if a zstd frame requires a larger window than that (8 MiB are always
    allowed).
    """
    if compression == "gzip":
        return _gunzipping(payload, max_bytes, max_members)
    if compression == "zstd":
        return _unzstding(payload, max_bytes, max_members)
    raise ChunkRejected(
        "unsupported-compression", f"compression {compression!r:.40} is not known; send gzip, zstd or text"
    )


class _Content:
    """What came out so far, within its bounds. A member costs two calls of it: the loop is that hot."""

    def __init__(self, max_bytes: int, max_members: int) -> None:
        self._pieces: list[bytes] = []
        self._max_bytes, self._room_bytes = max_bytes, max_bytes
        self._max_members, self._members, self._empty_members = max_members, 0, 0
        self._member_began_at = max_bytes
        self.next_bytes = min(max_bytes + 1, _MAX_PIECE_BYTES)
        """How many bytes may come next: one over the bound is enough to know."""

    def add(self, piece: bytes) -> None:
        """Takes what came; raises ChunkRejected("too-large")."""
        if not piece:
            return
        self._room_bytes -= len(piece)
        if self._room_bytes < _MAX_PIECE_BYTES:
            self.next_bytes = self._room_bytes + 1
            if self._room_bytes < 0:
                raise ChunkRejected(
                    "too-large",
                    f"the payload unpacks to more than {self._max_bytes} bytes; send smaller chunks",
                )
        self._pieces.append(piece)

    def end_member(self) -> bool:
        """Counts a member; True if it is time to yield. Raises ChunkRejected("too-many-members")."""
        self._members += 1
        if self._room_bytes == self._member_began_at:
            self._empty_members += 1
            if self._empty_members > MAX_EMPTY_MEMBERS:
                raise _too_many_members("compressed members without content", MAX_EMPTY_MEMBERS)
        self._member_began_at = self._room_bytes
        if self._members > self._max_members:
            raise _too_many_members("compressed members", self._max_members)
        return not self._members % _MEMBERS_A_STEP

    def joined(self) -> bytes:
        return b"".join(self._pieces)


def _too_many_members(kind: str, bound: int) -> ChunkRejected:
    return ChunkRejected(
        "too-many-members",
        f"the payload has more than {bound} {kind}; send smaller chunks, or more records in an emit",
    )


def _gunzipping(payload: Payload, max_bytes: int, max_members: int) -> Generator[None, None, bytes]:
    content = _Content(max_bytes, max_members)
    new_member, size = partial(zlib.decompressobj, wbits=31), len(payload)
    member = new_member()
    position, window_bytes = 0, _MIN_WINDOW_BYTES
    is_inside = False
    try:
        while position < size:
            window = payload[position : position + window_bytes]
            content.add(member.decompress(window, content.next_bytes))
            # What follows a member's end is copied out by zlib: small windows at its start keep a payload
            # of many tiny members linear.
            if member.eof:
                position += len(window) - len(member.unused_data)
                is_inside = False
                if content.end_member():
                    yield
                if position < size and payload[position] != _GZIP_MAGIC[0]:
                    position = _without_padding(payload, position)
                member, window_bytes = new_member(), _MIN_WINDOW_BYTES
            else:
                position += len(window) - len(member.unconsumed_tail)
                is_inside = True
                yield
                window_bytes = min(2 * window_bytes, _MAX_WINDOW_BYTES)
    except zlib.error as error:
        raise ChunkRejected("malformed", _gzip_fault(payload, position, error)) from error
    while is_inside:  # all of it was read, and some may be left to come out
        rest = member.decompress(b"", content.next_bytes)
        content.add(rest)
        is_inside = not member.eof
        if is_inside and not rest:
            raise ChunkRejected("malformed", "the gzip payload is cut off; check the sender")
        yield
    return content.joined()


def _garbage(payload: Payload, position: int) -> str:
    size = len(payload) - position
    bytes_are = (
        "1 byte behind the gzip member is" if size == 1 else f"{size} bytes behind the gzip member are"
    )
    begin = bytes(payload[position : position + _SHOWN_BYTES]).hex(" ")
    return f"{bytes_are} neither gzip nor padding (from byte {position}: {begin}); check the sender"


def _gzip_fault(payload: Payload, position: int, error: zlib.error) -> str:
    """Why zlib could not read the bytes from `position` on."""
    is_at_begin = "incorrect header check" in str(error)
    if is_at_begin and position:
        return _garbage(payload, position)
    if is_at_begin:
        begin = bytes(payload[:_SHOWN_BYTES]).hex(" ")
        return f"the payload is not gzip: it begins with {begin}, gzip with 1f 8b; check the sender"
    if "incorrect data check" in str(error):
        what = "its checksum (CRC-32) does not match its content"
    elif "incorrect length check" in str(error):
        what = "its length field does not match its content"
    else:
        what = str(error).rpartition(": ")[2]
    return f"the gzip payload is damaged: {what}; check the sender"


def _without_padding(payload: Payload, position: int) -> int:
    """Where the next member begins, or the end: as gunzip does it, which pads to blocks of a tape with zeros.

    Line breaks are what an editor, `echo` or a shell's `$(…)` leaves behind.
    Raises ChunkRejected("malformed") if something else is there.
    """
    padding = _PADDING_RUN.match(payload, position)
    assert padding is not None
    position = padding.end()
    if position < len(payload) and payload[position] != _GZIP_MAGIC[0]:
        raise ChunkRejected("malformed", _garbage(payload, position))
    return position


def _unzstding(payload: Payload, max_bytes: int, max_members: int) -> Generator[None, None, bytes]:
    # A frame says how large a window its decoder must keep, up to 2 GiB: that is memory too.
    window_log = min(max(max_bytes.bit_length(), _ZSTD_WINDOW_LOG), _ZSTD_MAX_WINDOW_LOG)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    content = _Content(max_bytes, max_members)
    position = 0
    try:
        while position < len(payload):
            if (skipped := _skippable_bytes(payload, position)) is not None:
                position += skipped
                if content.end_member():
                    yield
                continue
            frame = zstd.ZstdDecompressor(options=options)
            window_bytes = _MIN_WINDOW_BYTES
            while not frame.eof:
                window: Payload = b""
                if frame.needs_input:
                    if position >= len(payload):
                        raise _cut_off()
                    window = payload[position : position + window_bytes]
                    position += len(window)
                    window_bytes = min(2 * window_bytes, _MAX_WINDOW_BYTES)
                content.add(frame.decompress(window, content.next_bytes))
                if not frame.eof:
                    yield
            position -= len(frame.unused_data)
            if content.end_member():
                yield
    except zstd.ZstdError as error:
        if "memory" in str(error):
            raise ChunkRejected(
                "too-large",
                f"the zstd payload asks for a window of more than {1 << window_log} bytes; "
                "compress at a lower level",
            ) from error
        raise ChunkRejected(
            "malformed", f"the payload is not valid zstd: {error}; check the sender"
        ) from error
    if position > len(payload):
        raise _cut_off()
    return content.joined()


def _skippable_bytes(payload: Payload, position: int) -> int | None:
    """The size in bytes of the skippable frame at `position`; None if another frame begins there."""
    head = bytes(payload[position : position + _SKIPPABLE_HEAD_BYTES])
    if len(head) < _SKIPPABLE_HEAD_BYTES or head[1:4] != b"\x2a\x4d\x18" or head[0] & 0xF0 != 0x50:
        return None
    return _SKIPPABLE_HEAD_BYTES + int.from_bytes(head[4:], "little")


def _cut_off() -> ChunkRejected:
    return ChunkRejected("malformed", "the zstd payload is cut off; check the sender")
