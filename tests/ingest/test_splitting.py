"""Chunks too large for one message: their parts make up the chunk, and a resent part is recognized."""

import asyncio
from collections.abc import Sequence

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.discard import DiscardProducer
from windvane.bus.interface import Buffer, Durability
from windvane.bus.messages.chunks import ChunkMessage, decode_chunk
from windvane.errors import BusUnavailable, ChunkRejected
from windvane.ingest.splitting import Part, part_id, publish_chunk, require_fitting, split_events

EVENTS = st.lists(
    st.tuples(
        st.integers(0, 1 << 40), st.dictionaries(st.text(max_size=5), st.binary(max_size=300), max_size=3)
    ),
    max_size=60,
)


def packed(events: Sequence[tuple[int, object]]) -> list[bytes]:
    return [msgpack.packb(event) for event in events]


@given(EVENTS, st.integers(1, 2000))
def test_the_parts_are_the_payload_and_as_few_as_fit(
    events: list[tuple[int, dict[str, bytes]]], max_bytes: int
) -> None:
    pieces = packed(events)
    payload = b"".join(pieces)
    if any(len(piece) > max_bytes for piece in pieces):
        with pytest.raises(ChunkRejected, match=r"an event has \d+ bytes") as rejected:
            list(split_events(payload, max_bytes=max_bytes))
        assert rejected.value.code == "event-too-large"
        return
    parts = list(split_events(memoryview(payload), max_bytes=max_bytes))
    assert b"".join(payload[part.start : part.stop] for part in parts) == payload
    assert sum(part.events for part in parts) == len(pieces)
    assert all(part.stop - part.start <= max_bytes for part in parts)
    at = 0
    for part in parts:
        own, at = pieces[at : at + part.events], at + part.events
        assert payload[part.start : part.stop] == b"".join(own)
        if at < len(pieces):
            assert len(b"".join(own)) + len(pieces[at]) > max_bytes


class KeepingProducer(DiscardProducer):
    """Keeps what was published, and holds or fails it as told."""

    max_message_bytes = 4096

    def __init__(self) -> None:
        super().__init__({"policy": [0]})
        self.messages: list[tuple[bytes, bytes]] = []
        self.futures: list[asyncio.Future[int]] = []

    def publish(
        self, topic: str, key: bytes, *value: Buffer, durability: Durability = "fsync"
    ) -> asyncio.Future[int]:
        message = b"".join(value)
        assert len(key) + len(message) <= self.max_message_bytes
        self.messages.append((key, message))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


def chunk(chunk_id: bytes | None = b"c1", tag: str = "some.tag") -> ChunkMessage:
    return ChunkMessage(tag=tag, sender="s" * 50, chunk_id=chunk_id, received_ns=1, events=0, payload=b"")


@pytest.mark.parametrize("tag", ["t", "t" * 200])
@pytest.mark.parametrize("chunk_id", [None, b"", b"id", b"i" * 128])
async def test_every_part_fits_with_its_envelope_and_has_its_own_id(chunk_id: bytes | None, tag: str) -> None:
    producer = KeepingProducer()
    pieces = packed([(number, {"m": b"x" * (number % 700)}) for number in range(500)])
    payload = b"".join(pieces)
    publish_chunk(producer, "policy", chunk(chunk_id, tag), payload, durability="fsync")
    parts = [decode_chunk(message) for _, message in producer.messages]
    assert len(parts) > 10
    assert b"".join(part.payload for part in parts) == payload
    assert sum(part.events for part in parts) == len(pieces)
    assert {key for key, _ in producer.messages} == {tag.encode()}
    ids = [part.chunk_id for part in parts]
    if chunk_id is None:
        assert set(ids) == {None}
    else:
        assert len(set(ids)) == len(parts)
    again = KeepingProducer()
    publish_chunk(again, "policy", chunk(chunk_id, tag), payload, durability="fsync")
    assert again.messages == producer.messages


async def test_a_chunk_that_fits_is_one_message_with_its_own_id() -> None:
    producer = KeepingProducer()
    publish_chunk(producer, "policy", chunk(), b"".join(packed([(1, {})])), durability="fsync")
    assert [decode_chunk(message).chunk_id for _, message in producer.messages] == [b"c1"]


async def test_it_is_durable_when_all_its_parts_are() -> None:
    producer = KeepingProducer()
    payload = b"".join(packed([(number, {"m": b"x" * 1000}) for number in range(12)]))
    durable = publish_chunk(producer, "policy", chunk(), payload, durability="fsync")
    *others, last = producer.futures
    last.set_result(7)
    for future in others[:-1]:
        future.set_result(0)
    await asyncio.sleep(0)
    assert not durable.done()
    others[-1].set_result(0)
    assert await durable == 7


async def test_one_part_that_fails_fails_the_chunk_once_all_have_ended() -> None:
    producer = KeepingProducer()
    payload = b"".join(packed([(number, {"m": b"x" * 1000}) for number in range(12)]))
    durable = publish_chunk(producer, "policy", chunk(), payload, durability="fsync")
    first, *others = producer.futures
    first.set_exception(BusUnavailable("away"))
    await asyncio.sleep(0)
    assert not durable.done()
    for future in others:
        future.set_result(0)
    with pytest.raises(BusUnavailable, match="away"):
        await durable


async def test_an_event_that_fits_into_no_message_is_rejected_before_anything_is_published() -> None:
    producer = KeepingProducer()
    payload = b"".join(packed([(1, {}), (2, {"m": b"x" * 5000}), (3, {})]))
    with pytest.raises(ChunkRejected, match=r"kafka\.max_message_bytes"):
        require_fitting(producer, chunk(), payload)
    with pytest.raises(ChunkRejected):
        publish_chunk(producer, "policy", chunk(), payload, durability="fsync")
    assert producer.messages == []


def test_another_limit_makes_other_ids() -> None:
    assert part_id(b"c", Part(0, 10, 1)) != part_id(b"c", Part(0, 20, 2))
