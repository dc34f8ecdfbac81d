"""A chunk as one message: an Avro record in single-object encoding, readable without a registry.

    C3 01 | fingerprint, 8 bytes | body

as in the Avro specification, "Single-object encoding": the fingerprint is the CRC-64-AVRO of the schema's
parsing canonical form, little endian, and the body is the record `schemas/chunk.avsc` in Avro's binary
encoding. The payload is the record's last field: it follows its length unchanged, so that writing does not
copy it. fastavro decodes everything before it. `encode_chunk` writes it without fastavro, which takes twice
as long to look at the schema and the record as to encode it: a gateway writes 10,000 heads a second.
"""

import io
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ...errors import EnvelopeInvalid
from ..interface import Buffer

MARKER = b"\xc3\x01"
SCHEMA: dict[str, Any] = json.loads(files("windvane.bus").joinpath("schemas/chunk.avsc").read_text())


def prefix_of(schema: Mapping[str, Any]) -> bytes:
    """The first ten bytes of every message in `schema`: marker, and CRC-64-AVRO of its canonical form."""
    return MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(dict(schema)), "CRC-64-AVRO"))


PREFIX = prefix_of(SCHEMA)
# The binary encoding of a record is the concatenation of its fields, so the record without its last field
# reads what precedes the payload.
# The encoding of `bytes` is a length (a long) and the bytes, so the length is one more field.
_HEAD = fastavro.parse_schema(
    {**SCHEMA, "fields": [*SCHEMA["fields"][:-1], {"name": "payload_bytes", "type": "long"}]}
)
_NULL, _BYTES = b"\0", b"\2"  # the branches of the union of a chunk ID


class ChunkMessage(msgspec.Struct, frozen=True):
    """The events of one tag that arrived together; `schemas/chunk.avsc` documents the fields."""

    tag: str
    sender: str
    chunk_id: bytes | None
    received_ns: int
    events: int
    payload: bytes


def encode_chunk(chunk: ChunkMessage, *payload: Buffer) -> tuple[Buffer, ...]:
    """Buffers whose concatenation is the message.

    If given, the pieces of `payload` replace `chunk.payload`; they are passed on without a copy.
    """
    pieces, chunk_id = payload or (chunk.payload,), chunk.chunk_id
    head = (
        _begin(chunk.tag, chunk.sender)
        + (_NULL if chunk_id is None else _BYTES + encode_long(len(chunk_id)) + chunk_id)
        + encode_long(chunk.received_ns)
        + encode_long(chunk.events)
        + encode_long(sum(map(len, pieces)))
    )
    return (head, *pieces)


def encode_long(number: int) -> bytes:
    """A long in Avro's binary encoding: zigzag, then seven bits a byte, the lowest ones first."""
    rest, encoded = number << 1 ^ number >> 63, []
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


@lru_cache(maxsize=4096)
def _begin(tag: str, sender: str) -> bytes:
    """What the messages of a tag and sender have in common."""
    texts = (tag.encode(), sender.encode())
    return PREFIX + b"".join(encode_long(len(text)) + text for text in texts)


def decode_chunk(message: bytes) -> ChunkMessage:
    """The chunk of a message. Raises `EnvelopeInvalid` if the message is not a valid chunk."""
    if message[:2] != MARKER:
        raise EnvelopeInvalid(
            f"a message begins with {message[:2].hex(' ') or 'nothing'}, not with c3 01: it is not in Avro "
            "single-object encoding; does another program publish to this topic?"
        )
    if message[:10] != PREFIX:
        raise EnvelopeInvalid(
            f"a message has the schema fingerprint {message[2:10].hex()}, this version knows only "
            f"{PREFIX[2:].hex()}; update Windvane, or find the program that publishes it"
        )
    body = io.BytesIO(message)
    body.seek(len(PREFIX))
    try:
        head: Any = fastavro.schemaless_reader(body, _HEAD, None)
        size = head.pop("payload_bytes")
    # fastavro raises whatever error its decoder meets: EOFError, IndexError, UnicodeDecodeError, …
    except Exception as error:
        raise EnvelopeInvalid(f"a message has a broken Avro body: {error!r}") from error
    payload = message[body.tell() :]
    if len(payload) != size:
        raise EnvelopeInvalid(f"a message announces a payload of {size} bytes and holds {len(payload)}")
    return ChunkMessage(payload=payload, **head)
