"""From what a door took in to the payload: decompressed, and made of events where it was a posted body."""

import asyncio
from functools import partial

from ..errors import ChunkRefused
from .chunk import IncomingChunk
from .http_formats import events_of
from .off_loop import THREADS, OffLoop
from .payload import decompress

AT_ONCE_BYTES = 256 * 1024
"""So much is unpacked on the event loop; more takes longer than a turn of it should."""
_AT_ONCE_COMPRESSED_BYTES = 32 * 1024
_AT_ONCE_BODY_BYTES = 16 * 1024
_SIGNALS = {1: "metrics", 2: "traces", 3: "profiles"}


def unpack(chunk: IncomingChunk, *, max_bytes: int, max_text_bytes: int) -> bytes | bytearray | memoryview:
    """The payload of a chunk, which may have `max_bytes`. Raises ChunkRefused.

    Memory: the payload, twice while it is put together; of a body also `max_text_bytes` of text.
    """
    body = chunk.body
    if body is None:
        if chunk.compression == "text":
            return chunk.payload
        return decompress(chunk.payload, chunk.compression, max_bytes=min(max_bytes, max_text_bytes))
    data: bytes | bytearray | memoryview = memoryview(body.data)
    if body.compression != "text":
        data = decompress(data, body.compression, max_bytes=max_text_bytes)
    return events_of(data, body.format, arrived_ns=body.arrived_ns, max_bytes=max_text_bytes)


def unpack_at_once(
    chunk: IncomingChunk, *, max_bytes: int, max_text_bytes: int
) -> bytes | bytearray | memoryview | None:
    """As `unpack`, where that is little work; None where it is for a thread."""
    body = chunk.body
    if body is not None:
        is_little = body.compression == "text" and len(body.data) <= _AT_ONCE_BODY_BYTES
        return unpack(chunk, max_bytes=max_bytes, max_text_bytes=max_text_bytes) if is_little else None
    if chunk.compression == "text":
        return chunk.payload
    if len(chunk.payload) > _AT_ONCE_COMPRESSED_BYTES:
        return None
    try:
        return unpack(chunk, max_bytes=min(max_bytes, AT_ONCE_BYTES), max_text_bytes=max_text_bytes)
    except ChunkRefused as refusal:
        # How much it unpacks to is only known by doing it: what was done is done again in the thread.
        if refusal.code == "too-large" and min(max_bytes, max_text_bytes) > AT_ONCE_BYTES:
            return None
        raise


def check_signal(chunk: IncomingChunk) -> None:
    """Raises ChunkRefused where the chunk carries no events."""
    if chunk.signal:
        what = _SIGNALS.get(chunk.signal, f"signal {chunk.signal}")
        raise ChunkRefused("not-logs", f"the chunk carries {what}, no events; send logs only")


class Unpacker:
    """Unpacks large chunks in threads.

    Memory: `limit_bytes` of payloads that came of it and are not decided yet, and those that are being made,
    one a thread.
    """

    def __init__(self, off_loop: OffLoop, *, limit_bytes: int) -> None:
        self._off_loop = off_loop
        self._limit_bytes = limit_bytes
        self._undecided_bytes = 0
        self._one_a_thread = asyncio.Semaphore(THREADS)
        self._room = asyncio.Event()
        self._room.set()

    async def unpack(
        self, chunk: IncomingChunk, decided: asyncio.Future[None], *, max_bytes: int, max_text_bytes: int
    ) -> bytes | bytearray | memoryview:
        """As the function `unpack`; the payload counts until `decided` is done."""
        async with self._one_a_thread:
            await self._room.wait()
            work = partial(unpack, chunk, max_bytes=max_bytes, max_text_bytes=max_text_bytes)
            payload = await self._off_loop.in_thread(work)
            self._change(len(payload))
        decided.add_done_callback(lambda _: self._change(-len(payload)))
        return payload

    def _change(self, size: int) -> None:
        self._undecided_bytes += size
        if self._undecided_bytes < self._limit_bytes:
            self._room.set()
        else:
            self._room.clear()
