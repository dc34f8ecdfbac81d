"""The forward protocol over TCP: a connection, its window, its acks."""

import asyncio
import struct
from typing import cast

from ..config import format_address
from ..errors import ChunkRefused, FramingError
from .framing import Message, MessageReader
from .gateway import NO_POLICY, Gateway, IncomingChunk, charge

_ACK = b"\x81\xa3ack"


class ForwardConnection(asyncio.BufferedProtocol):
    """One forwarder's connection.

    Bytes are received in place: the socket writes into the reader's buffer, payloads are slices of it.
    It stops reading while more than `connection_window_bytes` of this connection, or more than the
    gateway's budget in all, are not durable yet. Acks may overtake each other, as the protocol allows.
    """

    def __init__(self, gateway: Gateway, connections: "set[ForwardConnection]") -> None:
        self._gateway = gateway
        self._connections = connections
        self._reader = MessageReader(max_message_bytes=gateway.settings.max_message_bytes)
        self._transport: asyncio.Transport | None = None
        self._sender = "?"
        self._in_flight_bytes = 0
        self._in_flight_chunks = 0
        self._paused = False
        self._taking = True  # what was received may still be submitted
        self._ending = False  # close once all that was submitted is decided
        self._acks_stuck = False
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A forwarder connected."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._sender = peer[0] if peer else "local"
        self._connections.add(self)
        self._gateway.telemetry.connection_opened()

    def connection_lost(self, exc: Exception | None) -> None:
        """The forwarder left; what it had sent is still decided, nobody waits for the acks."""
        self._transport = None
        self._connections.discard(self)
        self._gateway.telemetry.connection_closed()
        self._lost.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._reader.received(nbytes)
        self._take_messages()

    def pause_writing(self) -> None:
        """The forwarder does not read its acks: take no more from it until it does."""
        self._acks_stuck = True
        self._pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._acks_stuck = False
        self._resume()

    @property
    def _full(self) -> bool:
        return (
            self._acks_stuck
            or self._in_flight_bytes >= self._gateway.settings.connection_window_bytes
            or self._gateway.over_budget
        )

    def _take_messages(self) -> None:
        """Up to the bounds: what has been received and does not fit stays in the reader."""
        try:
            for message in self._reader.messages():
                self._submit(message)
                if self._full:
                    self._pause()
                    return
        except FramingError as error:
            self._give_up(error)

    def eof_received(self) -> bool:
        """The forwarder sends no more, and may still wait for acks."""
        self._close_when_decided()
        return True

    async def drain(self) -> None:
        """Reads no more, waits until all that was taken in is decided and acked, and closes."""
        self._stop_taking()
        await self._lost

    def _stop_taking(self) -> None:
        self._taking = False
        self._pause()
        self._close_when_decided()

    def _close_when_decided(self) -> None:
        self._ending = True
        more_to_take = self._taking and self._paused
        if self._transport is not None and not self._in_flight_chunks and not more_to_take:
            self._transport.close()

    def _submit(self, message: Message) -> None:
        try:
            tag = message.tag.decode()
        except UnicodeDecodeError:
            tag = message.tag.decode(errors="backslashreplace")
        chunk = IncomingChunk(
            sender=self._sender,
            tag=tag,
            payload=message.payload,
            events=message.events,
            size_hint=message.size_hint,
            chunk_id=message.chunk,
            compression=message.compression,
            signal=message.signal,
        )
        size = charge(message.payload)
        self._in_flight_bytes += size
        self._in_flight_chunks += 1
        chunk_id = message.chunk

        def decided(future: asyncio.Future[None]) -> None:
            self._in_flight_bytes -= size
            self._in_flight_chunks -= 1
            error = future.exception()
            acked = error is None or (isinstance(error, ChunkRefused) and error.code != NO_POLICY)
            if acked and chunk_id is not None and self._transport is not None:
                self._transport.write(encode_ack(chunk_id))
            if self._paused and self._in_flight_bytes < self._gateway.settings.connection_window_bytes // 2:
                self._resume()
            if self._ending:
                self._close_when_decided()

        self._gateway.submit(chunk).add_done_callback(decided)

    def _pause(self) -> None:
        if self._paused or self._transport is None:
            return
        self._paused = True
        self._transport.pause_reading()
        if self._gateway.over_budget:
            self._gateway.when_room(self._resume)

    def _resume(self) -> None:
        if not self._paused or not self._taking or self._transport is None:
            return
        if self._gateway.over_budget:
            self._gateway.when_room(self._resume)
        elif not self._full:
            self._paused = False
            self._take_messages()
            if not self._paused:
                self._transport.resume_reading()
                if self._ending:
                    self._close_when_decided()

    def _give_up(self, error: FramingError) -> None:
        """Nothing says where the next message begins: keep what came, and close this connection alone."""
        self._gateway.keep_broken_bytes(self._reader.pending, sender=self._sender, reason=str(error))
        self._stop_taking()


def encode_ack(chunk: bytes) -> bytes:
    """`{"ack": chunk}` with the value typed str, byte for byte what came: forwarders compare it so."""
    size = len(chunk)
    if size < 32:
        head = bytes([0xA0 | size])
    elif size < 256:
        head = bytes([0xD9, size])
    else:
        head = struct.pack(">BH", 0xDA, size) if size < 65536 else struct.pack(">BI", 0xDB, size)
    return _ACK + head + chunk


class ForwardServer:
    """Listens for forwarders."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._connections: set[ForwardConnection] = set()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> str:
        """Starts to listen; gives back the `host:port` that was bound (port 0 picks a free one)."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ForwardConnection(self._gateway, self._connections), host, port, backlog=1024
        )
        bound_host, bound_port, *_ = self._server.sockets[0].getsockname()
        return format_address(bound_host, bound_port)

    async def close(self, *, timeout_s: float) -> None:
        """Takes no new connection, acks what was taken in, and closes; waits `timeout_s` at most.

        What is not durable by then is not acked, so it stays with its sender.
        """
        if self._server is not None:
            self._server.close()
        if self._connections:
            await asyncio.wait(
                [asyncio.ensure_future(connection.drain()) for connection in self._connections],
                timeout=timeout_s,
            )
