"""Hostile peers, and a well-behaved neighbour that must get its acks."""

import asyncio
import gzip
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import msgpack

from tests.ingest.forward.forward_site import Peer

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Address = tuple[str, int]
Attack = Callable[[Address], Awaitable[None]]
MIB = 1 << 20
BOMB_BYTES = 1 << 30
DEEP = 100_000
EVENT = msgpack.packb([1_790_000_000, {"message": "hello"}])


@dataclass
class Neighbour:
    """Sends one small chunk after the other, each when the last is acked."""

    latencies_s: list[float] = field(default_factory=list)

    @property
    def worst_s(self) -> float:
        return max(self.latencies_s)

    async def send_until(self, address: Address, done: asyncio.Event, *, shared_key: bytes | None) -> None:
        reader, writer = await asyncio.open_connection(*address)
        if shared_key is not None:
            assert (await Peer(reader, writer).shake_hands(shared_key))[1] is True
        while not done.is_set() or not self.latencies_s:
            chunk_id = f"{len(self.latencies_s)}"
            began = time.monotonic()
            writer.write(msgpack.packb(["t", EVENT, {"size": 1, "chunk": chunk_id}]))
            expected = msgpack.packb({"ack": chunk_id})
            assert await reader.readexactly(len(expected)) == expected
            self.latencies_s.append(time.monotonic() - began)
        writer.close()


@asynccontextmanager
async def attacked_by(
    attack: Attack, address: Address, *, peers: int, shared_key: bytes | None = None
) -> AsyncIterator[Neighbour]:
    """`peers` attack concurrently while a neighbour sends; the block starts when all attacks have ended."""
    neighbour, done = Neighbour(), asyncio.Event()
    sending = asyncio.ensure_future(neighbour.send_until(address, done, shared_key=shared_key))
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(attack(address) for _ in range(peers)))
    finally:
        done.set()
        await sending
    yield neighbour


async def send_and_wait_for_the_end(address: Address, *pieces: bytes, times: int = 1) -> bytes:
    """Sends as much as the gateway accepts; returns the bytes received until the gateway closed the
    connection.
    """
    reader, writer = await asyncio.open_connection(*address)
    reading = asyncio.ensure_future(reader.read())
    with suppress(ConnectionError):
        for _ in range(times):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
    with suppress(ConnectionError):
        return await reading
    return b""


def bomb(compression: str) -> Attack:
    """A payload of about a megabyte that unpacks to a gibibyte; it is rejected, and acked."""
    piece = bytes(16 * MIB)
    packed = gzip.compress(piece) if compression == "gzip" else zstd.compress(piece)
    payload = packed * (BOMB_BYTES // len(piece))
    message = msgpack.packb(["t", payload, {"compressed": compression, "chunk": "bomb"}])
    ack: bytes = msgpack.packb({"ack": "bomb"})

    async def attack(address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(message)
        assert await reader.readexactly(len(ack)) == ack
        writer.close()

    return attack


def nesting(head: bytes, inner: bytes) -> Attack:
    """100,000 levels of arrays, or of maps."""

    async def attack(address: Address) -> None:
        assert await send_and_wait_for_the_end(address, head + inner * DEEP) == b""

    return attack


def announcement(head: bytes, *, behind: bytes = b"", times: int = 1) -> Attack:
    """A header that announces gigabytes, and the data after it until the gateway closes the connection."""

    async def attack(address: Address) -> None:
        assert await send_and_wait_for_the_end(address, head, *[behind] * bool(behind), times=times) == b""

    return attack


def silence(beginning: bytes) -> Attack:
    """The first bytes of a message, and nothing more, like a peer whose machine has failed."""

    async def attack(address: Address) -> None:
        assert await send_and_wait_for_the_end(address, beginning) == b""

    return attack


def endless_handshake(beginning: bytes) -> Attack:
    """A PING that is never complete."""

    async def attack(address: Address) -> None:
        assert (await send_and_wait_for_the_end(address, beginning)).startswith(b"\x92\xa4HELO")

    return attack


def dripping(message: bytes) -> Attack:
    """A byte, and after a while the next."""

    async def attack(address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        reading = asyncio.ensure_future(reader.read())
        for at in range(len(message)):
            if reading.done():
                break
            with suppress(ConnectionError):
                writer.write(message[at : at + 1])
                await writer.drain()
            await asyncio.sleep(0.2)
        with suppress(ConnectionError):
            assert await reading == b""
        writer.close()

    return attack


def rejected_chunk(payload: bytes, **option: str) -> Attack:
    """A chunk with valid framing and invalid content: acked, and stored as a dead letter."""
    message = msgpack.packb(["t", payload, {"chunk": "bad", **option}])
    ack: bytes = msgpack.packb({"ack": "bad"})

    async def attack(address: Address) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(message)
        assert await reader.readexactly(len(ack)) == ack
        writer.close()

    return attack


async def never_reading(address: Address) -> None:
    """Sends chunks and never reads their acks, until it is disconnected."""
    reader, writer = await asyncio.open_connection(*address)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    one: bytes = msgpack.packb(["t", EVENT, {"size": 1, "chunk": "c" * 200}])
    with suppress(ConnectionError, TimeoutError):
        while True:
            writer.write(one * 1000)
            await writer.drain()
    writer.close()
