"""A chunk's payload: unpacked from its compression, checked, and its events counted."""

import struct
import sys
import zlib

import msgpack

from ..errors import ChunkRefused

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_MIN_WINDOW_BYTES = 1024
_MAX_WINDOW_BYTES = 1 << 20
_ZSTD_WINDOW_LOG = 23  # what every decoder is to support (RFC 8878, 3.1.1.1.2), and level 19 uses
_ZSTD_MAX_WINDOW_LOG = 27


def count_events(payload: bytes | bytearray | memoryview, size_hint: int | None = None) -> int:
    """The number of events, all of them checked to be well-formed msgpack.

    `size_hint` is the option `size`: where it is right, one call into C walks all events; where it is
    absent or wrong (it is only a hint) they are walked one by one. Raises ChunkRefused("malformed") with
    the index of the first event that is not well-formed, or where the first is no `[time, record]`; whether
    all of them are is the business of whoever decodes them.
    """
    if len(payload) and not begins_with_pair(payload):
        raise ChunkRefused(
            "malformed", "the payload does not begin with an event [time, record]; check the sender"
        )
    count, walker = 0, None
    if size_hint and 0 < size_hint <= len(payload):
        walker = _walk_as_one_array(payload, size_hint)
    if walker is None:
        walker = _new_walker(payload)
        walker.feed(payload)
        walked_before = 0
    else:
        count, walked_before = size_hint or 0, _ARRAY32_BYTES
    skip, tell = walker.skip, walker.tell
    start = tell()
    try:
        while True:
            start = tell()
            skip()
            count += 1
    except msgpack.OutOfData:
        pass
    except ValueError as error:
        reason = str(error) or type(error).__name__
        raise ChunkRefused(
            "malformed", f"event {count} is not well-formed ({reason}); check the sender"
        ) from error
    if start - walked_before != len(payload):
        raise ChunkRefused(
            "malformed", f"the payload of {len(payload)} bytes ends inside event {count}; check the sender"
        )
    return count


_ARRAY32_BYTES = 5


def _walk_as_one_array(payload: bytes | bytearray | memoryview, count: int) -> "msgpack.Unpacker | None":
    """A walker behind the first `count` events; None where there are fewer, or one is broken."""
    walker = _new_walker(payload)
    walker.feed(struct.pack(">BI", 0xDD, count))
    walker.feed(payload)
    try:
        walker.skip()
    except (msgpack.OutOfData, ValueError):
        return None
    return walker


def _new_walker(payload: bytes | bytearray | memoryview) -> msgpack.Unpacker:
    size = len(payload) + _ARRAY32_BYTES
    return msgpack.Unpacker(read_size=size, max_buffer_size=size)


def begins_with_pair(payload: bytes | bytearray | memoryview) -> bool:
    """Whether the first event is an array of two, as every event is; `payload` is not empty."""
    head = payload[0]
    return (
        head == 0x92
        or (head == 0xDC and payload[1:3] == b"\0\2")
        or (head == 0xDD and payload[1:5] == b"\0\0\0\2")
    )


def decompress(payload: bytes | bytearray | memoryview, compression: str, *, max_bytes: int) -> bytes:
    """What the payload holds, at most `max_bytes` of it in memory.

    gzip and zstd come as several members (frames) one behind the other: fluentd writes one per emit. Raises
    ChunkRefused: "unsupported-compression", "malformed", or "too-large" where more than `max_bytes` would
    come out, or where a zstd frame asks for a window of more than that (8 MiB are always allowed).
    """
    if compression == "gzip":
        return _gunzip(payload, max_bytes)
    if compression == "zstd":
        return _unzstd(payload, max_bytes)
    raise ChunkRefused(
        "unsupported-compression", f"compression {compression!r:.40} is not known; send gzip, zstd or text"
    )


def _gunzip(payload: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    room = max_bytes
    member = zlib.decompressobj(wbits=31)
    position, window_bytes = 0, _MIN_WINDOW_BYTES
    try:
        while position < len(payload):
            window = payload[position : position + window_bytes]
            piece = member.decompress(window, room + 1)
            if len(piece) > room or member.unconsumed_tail:
                raise _unpacks_to_more(max_bytes)
            pieces.append(piece)
            room -= len(piece)
            # What follows a member's end is copied out by zlib: small windows at its start keep a payload
            # of a million tiny members linear.
            position += len(window) - len(member.unused_data)
            if member.eof:
                member, window_bytes = zlib.decompressobj(wbits=31), _MIN_WINDOW_BYTES
            else:
                window_bytes = min(2 * window_bytes, _MAX_WINDOW_BYTES)
    except zlib.error as error:
        raise ChunkRefused("malformed", f"the payload is no gzip: {error}; check the sender") from error
    if window_bytes != _MIN_WINDOW_BYTES:
        raise ChunkRefused("malformed", "the gzip payload is cut off; check the sender")
    return b"".join(pieces)


def _unzstd(payload: bytes | bytearray | memoryview, max_bytes: int) -> bytes:
    # A frame says how large a window its decoder must keep, up to 2 GiB: that is memory too.
    window_log = min(max(max_bytes.bit_length(), _ZSTD_WINDOW_LOG), _ZSTD_MAX_WINDOW_LOG)
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    pieces: list[bytes] = []
    room = max_bytes
    frame = zstd.ZstdDecompressor(options=options)
    position, window_bytes = 0, _MIN_WINDOW_BYTES
    try:
        while position < len(payload):
            window = payload[position : position + window_bytes]
            piece = frame.decompress(window, room + 1)
            if len(piece) > room:
                raise _unpacks_to_more(max_bytes)
            pieces.append(piece)
            room -= len(piece)
            position += len(window)
            if frame.eof:
                position -= len(frame.unused_data)
                frame, window_bytes = zstd.ZstdDecompressor(options=options), _MIN_WINDOW_BYTES
            else:
                window_bytes = min(2 * window_bytes, _MAX_WINDOW_BYTES)
    except zstd.ZstdError as error:
        if "memory" in str(error):
            raise ChunkRefused(
                "too-large",
                f"the zstd payload asks for a window of more than {1 << window_log} bytes; "
                "compress at a lower level",
            ) from error
        raise ChunkRefused("malformed", f"the payload is no zstd: {error}; check the sender") from error
    if window_bytes != _MIN_WINDOW_BYTES:
        raise ChunkRefused("malformed", "the zstd payload is cut off; check the sender")
    return b"".join(pieces)


def _unpacks_to_more(max_bytes: int) -> ChunkRefused:
    return ChunkRefused(
        "too-large", f"the payload unpacks to more than {max_bytes} bytes; send smaller chunks"
    )
