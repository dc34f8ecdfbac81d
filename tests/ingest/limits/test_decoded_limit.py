"""The decoded size of a chunk is limited on every input, with one code and a dead letter."""

import asyncio
import gzip
import struct
from contextlib import closing
from pathlib import Path

import msgpack
import pytest
from windvane.errors import ChunkRejected
from windvane.ingest.bodies.formats import BodyFormat
from windvane.ingest.chunk import IncomingChunk, PostedBody
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.ingest.forward.forward_site import forward_site, packed
from tests.ingest.test_gateway import EVENT
from tests.ingest.test_policies import House, chunk, house  # noqa: F401

MIB = 1 << 20
EMPTIES = 8 * MIB - 20
HUGE = b"\x92\x00\xdd" + struct.pack(">I", EMPTIES) + b"\x90" * EMPTIES
"""One event, 8 MiB of msgpack, 600 MB of Python, 8 KB of gzip."""
SMALL_LIMIT = 1_000_000
SAMPLES = b"\x92\x00\xdd" + struct.pack(">I", 20_000) + b"\x90" * 20_000
TEXT = msgpack.packb([0, {"message": "x" * 20_000}])


def posted(data: bytes, media_type: str, compression: str = "text") -> IncomingChunk:
    body = PostedBody(data, compression, BodyFormat(media_type), arrived_ns=1)
    return chunk(b"", body=body)


DOORS = {
    "PackedForward": lambda: chunk(HUGE),
    "gzip": lambda: chunk(gzip.compress(HUGE), compression="gzip"),
    "Forward": lambda: chunk(HUGE, events=1),
    "Message": lambda: chunk(HUGE * 2, events=2, is_run=True),
    "HTTP, msgpack events": lambda: posted(HUGE, "application/octet-stream"),
    "HTTP, gzip": lambda: posted(gzip.compress(HUGE), "application/octet-stream", "gzip"),
    "HTTP, JSON": lambda: posted(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}", "application/json"),
}


@pytest.mark.parametrize("door", DOORS)
async def test_a_chunk_that_decodes_to_too_much_is_a_dead_letter(door: str, house: House) -> None:  # noqa: F811
    await house.policy("t", limits={"chunk_bytes": 32 * MIB})
    gateway = await house.gateway()
    given = DOORS[door]()
    expected = {"HTTP, JSON": "malformed"}.get(door, "too-large-decoded")  # a JSON record has 1 MiB at most
    with pytest.raises(ChunkRejected) as rejected:
        await gateway.submit(given)
    assert rejected.value.code == expected
    letters = house.kept()
    assert {letter.code for letter in letters} == {expected}
    assert sum(letter.times for letter in letters) == (2 if given.is_run else 1)
    await gateway.submit(chunk())
    assert [message.payload for message in await house.chunks("t")] == [EVENT]


async def test_the_limit_is_that_of_the_policy_and_is_about_what_is_decoded(house: House) -> None:  # noqa: F811
    await house.policy("t", limits={"decoded_bytes": SMALL_LIMIT})
    gateway = await house.gateway()
    await gateway.submit(chunk(TEXT))
    with pytest.raises(ChunkRejected, match=r"more than 1000000 bytes .*raise limits\.decoded_bytes"):
        await gateway.submit(chunk(SAMPLES))
    await house.policy("t", limits={"decoded_bytes": 2 * SMALL_LIMIT})
    await gateway.submit(chunk(SAMPLES))
    assert [message.payload for message in await house.chunks("t")] == [TEXT, SAMPLES]


async def test_chunks_of_a_tag_keep_their_order_around_one_that_is_measured(house: House) -> None:  # noqa: F811
    await house.policy("t", limits={"decoded_bytes": SMALL_LIMIT})
    gateway = await house.gateway()
    values = msgpack.packb([0, {"a": [1.5] * 15_000, "b": b"\x85" * 20_000}])
    decisions = [gateway.submit(chunk(values)), gateway.submit(chunk(SAMPLES)), gateway.submit(chunk())]
    ended = await asyncio.gather(*decisions, return_exceptions=True)
    assert [type(end) for end in ended] == [type(None), ChunkRejected, type(None)]
    assert [message.payload for message in await house.chunks("t")] == [values, EVENT]


async def test_a_sender_gets_its_ack_for_what_is_in_the_dead_letters(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site, site.connected() as peer:
        await peer.send(packed("t", gzip.compress(HUGE), compressed="gzip", chunk="huge"))
        assert await peer.value() == {b"ack": b"huge"}
    with closing(SqlDeadLetters(next(tmp_path.rglob("dead-letters.sqlite")))) as letters:
        [letter] = letters.list()
        assert letter.code == "too-large-decoded"


@pytest.mark.parametrize("media_type", ["application/json", "application/msgpack"])
async def test_a_body_of_too_many_records_is_not_made_into_events_to_its_end(
    media_type: str,
    house: House,  # noqa: F811
) -> None:
    await house.policy("t", limits={"events_per_chunk": 1000})
    gateway = await house.gateway()
    record = b"{}\n" if media_type == "application/json" else b"\x80"
    with pytest.raises(ChunkRejected, match="more than 1000 events") as rejected:
        await gateway.submit(posted(record * 1001, media_type))
    assert rejected.value.code == "too-many-events"
    await gateway.submit(posted(record * 1000, media_type))
    assert [message.events for message in await house.chunks("t")] == [1000]
