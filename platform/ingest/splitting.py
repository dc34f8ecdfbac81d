"""Chunks that are larger than a message of the bus may be: cut at event boundaries.

The parts are messages of the same key, so they stay together and in order; their payloads, concatenated, are
the payload of the chunk. Each part has its own ID, derived from the ID of the chunk: when the chunk is
resent, the gateway recognizes each part that is already stored.
"""

import asyncio
from collections.abc import Iterator
from typing import NamedTuple

import msgpack
import msgspec

from ..bus.interface import Durability, Producer
from ..bus.messages.chunks import ChunkMessage, encode_chunk
from ..errors import ChunkRejected
from ..records.events import ID_ONLY_PREFIX

_ENVELOPE_BYTES = 160
"""Upper bound of the envelope without its texts, and of a part's ID without the chunk's ID."""


class Part(NamedTuple):
    """Some events of a payload that follow one another: bytes `start` to `stop`."""

    start: int
    stop: int
    events: int


def split_events(payload: bytes | bytearray | memoryview, *, max_bytes: int) -> Iterator[Part]:
    """Cut a payload of well-formed events into parts of at most `max_bytes`, as few as go in order.

    Raises `ChunkRejected` if a single event is larger.
    """
    size = max(len(payload), 1)
    walker = msgpack.Unpacker(read_size=size, max_buffer_size=size)
    walker.feed(payload)
    start = boundary = events = 0
    while boundary < len(payload):
        walker.skip()
        stop = walker.tell()
        if stop - boundary > max_bytes:
            raise ChunkRejected(
                "event-too-large",
                f"an event has {stop - boundary} bytes, the bus takes {max_bytes} in one message; send "
                "smaller events, or raise kafka.max_message_bytes",
            )
        if stop - start > max_bytes:
            yield Part(start, boundary, events)
            start, events = boundary, 0
        boundary = stop
        events += 1
    yield Part(start, boundary, events)


def part_id(chunk_id: bytes | None, part: Part) -> bytes | None:
    """What a part is known by: the chunk's id and which of its bytes.

    Where the limit was changed between two tries the parts differ, and so do their ids.
    """
    return None if chunk_id is None else b"%b:%d-%d" % (chunk_id, part.start, part.stop)


def require_fitting(
    producer: Producer, message: ChunkMessage, payload: bytes | bytearray | memoryview
) -> None:
    """Raises `ChunkRejected` if an event of the payload does not fit into a message."""
    max_bytes = _max_payload_bytes(producer, message)
    if len(payload) > max_bytes:
        for _ in split_events(payload, max_bytes=max_bytes):
            pass


def publish_chunk(
    producer: Producer,
    topic: str,
    message: ChunkMessage,
    payload: bytes | bytearray | memoryview,
    *,
    durability: Durability,
    content_key: bytes | None = None,
) -> asyncio.Future[int]:
    """Publishes a chunk, in parts if it is too large; done when all parts are durable.

    `content_key` identifies the payload of a chunk without an ID. Its parts are identified by this key and
    their position, since two parts of one chunk may be equal.
    `payload` replaces the payload of the message. The result is the offset of the last part. Fails as
    `Producer.publish` does if any part failed; raises `ChunkRejected` like `require_fitting`.
    """
    key = message.tag.encode()
    max_bytes = _max_payload_bytes(producer, message)
    if len(payload) <= max_bytes:
        return producer.publish(topic, key, *encode_chunk(message, payload), durability=durability)
    view = memoryview(payload)
    parts = list(split_events(view, max_bytes=max_bytes))
    whole = message.chunk_id if content_key is None else ID_ONLY_PREFIX + content_key
    return _last_of(
        [
            producer.publish(
                topic,
                key,
                *encode_chunk(
                    msgspec.structs.replace(message, chunk_id=part_id(whole, part), events=part.events),
                    view[part.start : part.stop],
                ),
                durability=durability,
            )
            for part in parts
        ]
    )


def _max_payload_bytes(producer: Producer, message: ChunkMessage) -> int:
    """What fits in addition to the key and the envelope: a character has up to four bytes in UTF-8."""
    texts = 4 * (2 * len(message.tag) + len(message.sender)) + len(message.chunk_id or b"")
    return producer.max_message_bytes - texts - _ENVELOPE_BYTES


def _last_of(published: list[asyncio.Future[int]]) -> asyncio.Future[int]:
    """A future of the last one's result, once all have ended."""
    together: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    unfinished = len(published)

    def one_ended(_: asyncio.Future[int]) -> None:
        nonlocal unfinished
        unfinished -= 1
        if unfinished or together.done():
            return
        error = next(filter(None, (each.exception() for each in published)), None)
        if error is None:
            together.set_result(published[-1].result())
        else:
            together.set_exception(error)

    for each in published:
        each.add_done_callback(one_ended)
    return together
