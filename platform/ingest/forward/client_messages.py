"""The messages of a forward client: events, and chunks in PackedForward mode (forward protocol v1)."""

import base64
import secrets
import struct
from typing import Any

import msgpack

NS_PER_S = 1_000_000_000


def pack_event(time_ns: int, record: Any) -> bytes:
    """One `[EventTime, record]`; the payload of a chunk is a sequence of these.

    Raises ValueError for a time that EventTime, which counts seconds in 32 bits, cannot represent.
    """
    seconds, nanoseconds = divmod(time_ns, NS_PER_S)
    if not 0 <= seconds < 2**32:
        raise ValueError(f"{time_ns} ns is not a valid event time; must be between 1970 and 2106")
    packed: bytes = msgpack.packb(record)
    return struct.pack(">BBBII", 0x92, 0xD7, 0, seconds, nanoseconds) + packed


def new_chunk_id() -> str:
    """A chunk ID as forwarders make them: 24 characters of base64."""
    return base64.b64encode(secrets.token_bytes(16)).decode()


def frame_chunk(tag: str, *, payload_bytes: int, events: int, chunk_id: str) -> tuple[bytes, bytes]:
    """The bytes before and after the payload in `[tag, payload, {"chunk": ID, "size": events}]`."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_array_header(3)
    packer.pack(tag)
    return packer.bytes() + _bin_header(payload_bytes), msgpack.packb({"chunk": chunk_id, "size": events})


def _bin_header(size: int) -> bytes:
    if size < 2**8:
        return struct.pack(">BB", 0xC4, size)
    if size < 2**16:
        return struct.pack(">BH", 0xC5, size)
    if size < 2**32:
        return struct.pack(">BI", 0xC6, size)
    raise ValueError(f"a chunk of {size} bytes exceeds the 4 GiB of the protocol; send smaller chunks")
