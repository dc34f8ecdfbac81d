import io
from typing import Any

import fastavro
import pytest
from fastavro.schema import fingerprint, to_parsing_canonical_form
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.messages.chunks import SCHEMA, ChunkMessage, decode_chunk, encode_chunk
from windvane.errors import EnvelopeInvalid

CHUNKS = st.builds(
    ChunkMessage,
    tag=st.text(max_size=300),
    sender=st.text(max_size=300),
    chunk_id=st.none() | st.binary(max_size=300),
    received_ns=st.integers(-(2**63), 2**63 - 1),
    events=st.integers(0, 2**40),
    payload=st.binary(max_size=3000),
)
CHUNK = ChunkMessage(
    tag="turbine.t07.blade1",
    sender="10.0.0.7",
    chunk_id=b"\x00\xff id\n",
    received_ns=1_790_000_000_123_456_789,
    events=3,
    payload=b"three events",
)


def message_of(chunk: ChunkMessage) -> bytes:
    return b"".join(encode_chunk(chunk))


def naive_crc_64_avro(data: bytes) -> int:
    """The algorithm of the Avro specification, "Schema Fingerprints", bit by bit."""
    empty = 0xC15D213AA4D7A795
    crc = empty
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (empty if crc & 1 else 0)
    return crc


@given(CHUNKS)
def test_a_chunk_survives_encoding_and_decoding(chunk: ChunkMessage) -> None:
    assert decode_chunk(message_of(chunk)) == chunk


@given(CHUNKS)
def test_any_avro_reader_can_read_a_message(chunk: ChunkMessage) -> None:
    message = io.BytesIO(message_of(chunk))
    message.seek(10)
    record: Any = fastavro.schemaless_reader(message, SCHEMA, None)
    assert record == {
        "tag": chunk.tag,
        "sender": chunk.sender,
        "chunk_id": chunk.chunk_id,
        "received_ns": chunk.received_ns,
        "events": chunk.events,
        "payload": chunk.payload,
    }
    assert message.read() == b""


@given(CHUNKS)
def test_a_message_that_any_avro_writer_wrote_can_be_read(chunk: ChunkMessage) -> None:
    body = io.BytesIO()
    fields = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
    fastavro.schemaless_writer(body, SCHEMA, fields)
    assert decode_chunk(message_of(chunk)[:10] + body.getvalue()) == chunk


@given(CHUNKS, st.lists(st.binary(max_size=50), min_size=1))
def test_a_payload_in_pieces_is_their_concatenation(chunk: ChunkMessage, pieces: list[bytes]) -> None:
    message = b"".join(encode_chunk(chunk, *(memoryview(piece) for piece in pieces)))
    assert decode_chunk(message).payload == b"".join(pieces)


def test_the_payload_is_passed_on_without_a_copy() -> None:
    payload = memoryview(bytearray(1 << 20))
    assert encode_chunk(CHUNK, payload)[1] is payload


def test_the_fingerprint_is_the_crc_of_the_canonical_form_little_endian() -> None:
    canonical = to_parsing_canonical_form(SCHEMA)
    found = message_of(CHUNK)[2:10]
    assert found.hex() == fingerprint(canonical, "CRC-64-AVRO")
    assert int.from_bytes(found, "little") == naive_crc_64_avro(canonical.encode())


def test_the_naive_crc_matches_the_values_that_the_avro_project_publishes() -> None:
    assert naive_crc_64_avro(b'"null"') == 7195948357588979594


def test_the_layout_of_a_message() -> None:
    chunk = ChunkMessage(tag="t", sender="s", chunk_id=b"id", received_ns=1, events=2, payload=b"pay")
    assert message_of(chunk)[:2] == b"\xc3\x01"
    # string, string, branch 1 of the union and bytes, long, long, bytes; lengths and longs as zigzag varints
    assert message_of(chunk)[10:] == b"\x02t\x02s\x02\x04id\x02\x04\x06pay"


@pytest.mark.parametrize("stop", range(len(message_of(CHUNK))))
def test_a_message_cut_short_is_invalid(stop: int) -> None:
    with pytest.raises(EnvelopeInvalid):
        decode_chunk(message_of(CHUNK)[:stop])


def test_a_message_with_bytes_left_over_is_invalid() -> None:
    with pytest.raises(EnvelopeInvalid, match="payload of 12 bytes and holds 13"):
        decode_chunk(message_of(CHUNK) + b"!")


def test_a_message_of_another_kind_is_invalid() -> None:
    with pytest.raises(EnvelopeInvalid, match="7b 22"):
        decode_chunk(b'{"json": true}')


def test_a_message_of_another_schema_is_invalid_and_its_fingerprint_named() -> None:
    with pytest.raises(EnvelopeInvalid, match="0102030405060708"):
        decode_chunk(b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08 whatever")


@given(st.binary(max_size=200))
def test_any_body_is_a_chunk_or_invalid(body: bytes) -> None:
    try:
        chunk = decode_chunk(message_of(CHUNK)[:10] + body)
    except EnvelopeInvalid:
        return
    assert decode_chunk(message_of(chunk)) == chunk
