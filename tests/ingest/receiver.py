"""A receiver of the forward protocol that a test tells, message by message, what to do."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgpack

TIMEOUT_S = 30.0  # only ends a test that hangs


@dataclass
class Message:
    connection: int
    tag: bytes
    payload: bytes
    chunk_id: bytes
    size: int


@dataclass
class Receiver:
    """Takes PackedForward messages; `answer` gives what goes back for each: bytes, or None to hang up."""

    answer: Callable[[Message], bytes | None]
    messages: list[Message] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0
    address: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        unpacker = msgpack.Unpacker(raw=True)
        try:
            while received := await reader.read(65536):
                unpacker.feed(received)
                for tag, payload, options in unpacker:
                    message = Message(connection, tag, payload, options[b"chunk"], options[b"size"])
                    self.messages.append(message)
                    self.arrived.set()
                    answer = self.answer(message)
                    if answer is None:
                        return
                    writer.write(answer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def until(self, count: int) -> None:
        while len(self.messages) < count:
            self.arrived.clear()
            await self.arrived.wait()


def ack(message: Message) -> bytes:
    packed: bytes = msgpack.packb({"ack": message.chunk_id.decode()})
    return packed


@asynccontextmanager
async def receiving(
    answer: Callable[[Message], bytes | None] = ack, port: int = 0
) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    receiver.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(TIMEOUT_S):
        try:
            yield receiver
        finally:
            server.close()
