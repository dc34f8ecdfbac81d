"""Many connections of one process to one gateway: those that rest, those that are greedy, and the others."""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import msgpack

Address = tuple[str, int]
_RESERVED_DESCRIPTORS = 200
_ADDRESSES = 16  # of loopback, since the ports of one run out


@contextmanager
def resting_connections(address: Address, count: int, *, first: bytes, ack: bytes) -> Iterator[int]:
    """Opens `count` connections, or as many as the limit of open files allows, that each were acked once.

    Gives how many they are; they are closed at the end.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard - _RESERVED_DESCRIPTORS)
    peers: list[socket.socket] = []
    try:
        for number in range(count):
            source = (f"127.0.0.{2 + number % _ADDRESSES}", 0)
            peers.append(socket.create_connection(address, timeout=30, source_address=source))
            peers[-1].sendall(first)
        for peer in peers:
            assert peer.recv(len(ack), socket.MSG_WAITALL) == ack
        yield count
    finally:
        for peer in peers:
            peer.close()


@dataclass
class Sender:
    """One connection that sends the same chunk under new ids, with so many of them in flight."""

    name: str
    tag: str
    payload: bytes
    in_flight: int
    acked: int = 0

    async def send(self, address: Address, *, enough: Callable[[], bool]) -> None:
        """Sends until there is enough, or until it is cancelled."""
        reader, writer = await asyncio.open_connection(*address)
        unpacker = msgpack.Unpacker()
        sent = 0
        try:
            while not enough():
                while sent - self.acked < self.in_flight:
                    chunk_id = f"{self.name} {sent}"
                    writer.write(msgpack.packb([self.tag, self.payload, {"chunk": chunk_id}]))
                    sent += 1
                # A greedy sender must read while it cannot write.
                writing = asyncio.ensure_future(writer.drain())
                unpacker.feed(await reader.read(65536))
                self.acked += sum(1 for _ in unpacker)
                await writing
        finally:
            writer.transport.abort()


async def send_together(senders: list[Sender], address: Address, *, enough: Callable[[], bool]) -> None:
    """All of them at once; ends when there is enough."""
    sending = [asyncio.ensure_future(sender.send(address, enough=enough)) for sender in senders]
    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
    for each in sending:
        each.cancel()
    for each in sending:
        with suppress(asyncio.CancelledError):
            await each
