"""A chunk as one message: an Avro record in single-object encoding, readable without a registry.

    C3 01 | fingerprint, 8 bytes | body

as in the Avro specification, "Single-object encoding": the fingerprint is the CRC-64-AVRO of the schema's
parsing canonical form, little endian, and the body is the record `schemas/chunk.avsc` in Avro's binary
encoding. The payload is the record's last field: fastavro encodes and decodes everything before it. The
payload itself follows its length unchanged, so that writing does not copy it.
"""

import io
import json
from importlib.resources import files
from typing import Any

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from ...errors import EnvelopeInvalid
from ..interface import Buffer

MARKER = b"\xc3\x01"
SCHEMA: dict[str, Any] = json.loads(files("windvane.bus").joinpath("schemas/chunk.avsc").read_text())
PREFIX = MARKER + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))
# The binary encoding of a record is the concatenation of its fields, so the record without its last field
# reads and writes what precedes the payload.
# The encoding of `bytes` is a length (a long) and the bytes, so the length is one more field.
_HEAD = fastavro.parse_schema(
    {**SCHEMA, "fields": [*SCHEMA["fields"][:-1], {"name": "payload_bytes", "type": "long"}]}
)


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
    pieces = payload or (chunk.payload,)
    head = io.BytesIO()
    head.write(PREFIX)
    fastavro.schemaless_writer(
        head,
        _HEAD,
        {
            "tag": chunk.tag,
            "sender": chunk.sender,
            "chunk_id": chunk.chunk_id,
            "received_ns": chunk.received_ns,
            "events": chunk.events,
            "payload_bytes": sum(map(len, pieces)),
        },
    )
    return (head.getvalue(), *pieces)


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
