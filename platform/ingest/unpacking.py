"""Unpacks a received chunk to its payload: decompresses it, converts a posted body to events, and measures
its decoded size.

`unpacking` does all of this in small steps. Small chunks are unpacked at once on the event loop; the others
go to the threads of `OffLoop`, where senders take turns.
"""

import asyncio
from collections.abc import Collection, Generator
from functools import partial

import msgspec

from ..errors import ChunkRejected
from ..records.decoded_size import measuring
from .bodies.body_events import BodyBounds
from .bodies.decompression import MAX_MEMBERS, decompress, decompressing
from .bodies.formats import Payload, events_of, making_events
from .bodies.metrics import events_of_metrics
from .chunk import IncomingChunk
from .limits.off_loop import OffLoop
from .submission import Submission

AT_ONCE_BYTES = 256 * 1024
"""So much is unpacked on the event loop; more takes longer than a turn of it should."""
_AT_ONCE_COMPRESSED_BYTES = 32 * 1024
_AT_ONCE_MEMBERS = {"gzip": 256, "zstd": 16}
_AT_ONCE_BODY_BYTES = 16 * 1024
LOGS, METRICS = 0, 1  # `fluent_signal`
_SIGNALS = {LOGS: "logs", METRICS: "metrics", 2: "traces", 3: "profiles"}


class Bounds(msgspec.Struct, frozen=True):
    """How large a payload may be."""

    payload_bytes: int
    """What the policy takes."""
    text_bytes: int
    """Of anything that is decompressed."""
    events: int
    decoded_bytes: int
    """Of memory, of what is decoded to become events."""


def unpacking(chunk: IncomingChunk, bounds: Bounds) -> Generator[None, None, Payload]:
    """The payload of a chunk; yields every few milliseconds. Raises ChunkRejected.

    Memory: the payload, twice while it is put together; of a body also `text_bytes` of text.
    """
    body = chunk.body
    if body is None:
        payload: Payload = chunk.payload
        if chunk.compression != "text":
            max_bytes = min(bounds.payload_bytes, bounds.text_bytes)
            payload = yield from decompressing(payload, chunk.compression, max_bytes=max_bytes)
        if chunk.signal == METRICS:
            payload = yield from events_of_metrics(
                payload,
                BodyBounds(bounds.payload_bytes, bounds.events),
                decoded_bytes=bounds.decoded_bytes,
            )
        return payload
    data: Payload = memoryview(body.data)
    if body.compression != "text":
        data = yield from decompressing(data, body.compression, max_bytes=bounds.text_bytes)
    return (
        yield from making_events(
            data,
            body.format,
            arrived_ns=body.arrived_ns,
            max_bytes=min(bounds.payload_bytes, bounds.text_bytes),
            max_events=bounds.events,
        )
    )


def unpack_at_once(chunk: IncomingChunk, bounds: Bounds) -> Payload | None:
    """Returns what `unpacking` returns if that is little work; None if the work is for a thread."""
    body = chunk.body
    max_bytes = min(bounds.payload_bytes, bounds.text_bytes)
    if body is not None:
        if body.compression != "text" or len(body.data) > _AT_ONCE_BODY_BYTES:
            return None
        return events_of(
            memoryview(body.data),
            body.format,
            arrived_ns=body.arrived_ns,
            max_bytes=max_bytes,
            max_events=bounds.events,
        )
    if chunk.signal == METRICS:
        return None
    if chunk.compression == "text":
        return chunk.payload
    if len(chunk.payload) > _AT_ONCE_COMPRESSED_BYTES:
        return None
    try:
        return decompress(
            chunk.payload,
            chunk.compression,
            max_bytes=min(max_bytes, AT_ONCE_BYTES),
            max_members=_AT_ONCE_MEMBERS.get(chunk.compression, MAX_MEMBERS),
        )
    except ChunkRejected as rejection:
        # How much it unpacks to is only known by doing it: what was done is done again in the thread.
        if rejection.code == "too-many-members" or (
            rejection.code == "too-large" and max_bytes > AT_ONCE_BYTES
        ):
            return None
        raise


def check_signal(chunk: IncomingChunk, signals: Collection[str]) -> None:
    """Raises ChunkRejected if the `signals` of a policy do not include the signal of the chunk."""
    if _SIGNALS.get(chunk.signal) in signals:
        return
    if chunk.signal == METRICS:
        raise ChunkRejected(
            "not-logs",
            "the chunk carries metrics, which its policy does not take; send them under a tag of their own, "
            'to a policy with signals = ["metrics"]. They are acked, and this is a sample of the first',
        )
    if chunk.signal:
        what = _SIGNALS.get(chunk.signal, f"signal {chunk.signal}")
        raise ChunkRejected(
            "not-logs",
            f"the chunk carries {what}, no events; send logs and metrics only. It is acked, and this is a "
            "sample of the first",
        )
    raise ChunkRejected("not-metrics", 'the chunk carries logs; add "logs" to the signals of its policy')


class Unpacker:
    """Unpacks large chunks in threads, and measures what those decode to that could be over a limit.

    Memory: `limit_bytes` of payloads that came of it and are not decided yet, and those that are being made,
    one a thread.
    """

    def __init__(self, off_loop: OffLoop, *, limit_bytes: int) -> None:
        self._off_loop = off_loop
        self._limit_bytes = limit_bytes
        self._undecided_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    async def unpack(self, submission: Submission, bounds: Bounds) -> Payload:
        """As `unpacking`; the payload counts until the end of the submission."""
        payload = await self._off_loop.in_thread(
            partial(unpacking, submission.chunk, bounds), who=submission.chunk.who, ready=self._room.wait
        )
        size = len(payload)
        self._change(size)
        submission.add_done_callback(lambda _: self._change(-size))
        return payload

    async def decoded_bytes(
        self, chunk: IncomingChunk, payload: Payload, events: int, *, limit_bytes: int
    ) -> int:
        """What the payload of well-formed events decodes to; over the limit, any figure above it."""
        work = partial(measuring, payload, events, limit_bytes=limit_bytes)
        return await self._off_loop.in_thread(work, who=chunk.who)

    def _change(self, size: int) -> None:
        self._undecided_bytes += size
        if self._undecided_bytes < self._limit_bytes:
            self._room.set()
        else:
            self._room.clear()
