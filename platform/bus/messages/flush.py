"""The flush message: tells the worker to release the events of a stream that it holds up to a given time.

It is published among the stream's chunks, under the same key, so that a replay of the log meets it at the
same position. It is a chunk without events (`schemas/chunk.avsc`), so other consumers of the topic, and
workers that do not know flush messages, store nothing for it. Its chunk ID has the time:

    sender    windvane:flush
    chunk_id  until:1790000000000000000    event time in ns since the epoch, UTC
    events    0, and an empty payload
"""

import asyncio
import time
from collections.abc import Iterable

import msgspec

from ..interface import Producer
from .chunks import ChunkMessage, encode_chunk

FLUSH_SENDER = "windvane:flush"
"""No real sender has this name: the senders of chunks are addresses."""
_UNTIL = b"until:"
MAX_NS = 2**63 - 1
"""The latest time: releases all held events."""


def flush_message(tag: str, until_ns: int, *, published_ns: int) -> ChunkMessage:
    """The message for the stream `tag`, published at `published_ns` (ns since the epoch, UTC)."""
    return ChunkMessage(
        tag=tag,
        sender=FLUSH_SENDER,
        chunk_id=_UNTIL + str(until_ns).encode(),
        received_ns=published_ns,
        events=0,
        payload=b"",
    )


def flushed_until_ns(chunk: ChunkMessage) -> int | None:
    """The time of a flush message, None for a chunk.

    >>> flushed_until_ns(flush_message("t", -5, published_ns=0))
    -5
    """
    if chunk.sender != FLUSH_SENDER or chunk.events or chunk.payload or not chunk.chunk_id:
        return None
    if not chunk.chunk_id.startswith(_UNTIL):
        return None
    try:
        until_ns = int(chunk.chunk_id.removeprefix(_UNTIL))
    except ValueError:
        return None
    return until_ns if -MAX_NS - 1 <= until_ns <= MAX_NS else None


class Flush(msgspec.Struct, frozen=True):
    """A request to release a stream's held events up to `until_ns` (event time); `policy` is its topic."""

    policy: str
    tag: str
    until_ns: int


async def publish_flushes(producer: Producer, flushes: Iterable[Flush]) -> None:
    """Publish a message for each; all are durable on return. Raises BusUnavailable if one may not be."""
    await asyncio.gather(
        *(
            producer.publish(
                each.policy,
                each.tag.encode(),
                *encode_chunk(flush_message(each.tag, each.until_ns, published_ns=time.time_ns())),
            )
            for each in flushes
        )
    )
