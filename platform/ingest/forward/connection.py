"""The forward protocol on one connection: handshake, messages, window, acks, patience."""

import asyncio
from collections.abc import Callable
from typing import cast

from ...errors import BusUnavailable, ChunkRefused, FramingError
from ...records.tag_names import stream_name
from ..chunk import IncomingChunk, charge, origin
from ..dead_letter_queue import NOT_ACKED
from ..gateway import Gateway
from ..security.settings import ForwardSecurity
from .acks import WithheldAcks, encode_ack
from .framing import Message, MessageReader
from .handshake import Admitted, ServerHandshake
from .json_events import FIRST_BYTES, JsonReader, encode_json_ack

_FAREWELL_S = 0.1
_RESTING_BYTES = 4096  # who sent less since the last look gives back the memory it does not need

# Why a connection is not read; it is read again when no reason is left.
_WINDOW, _MEMORY, _WRITES, _ENDING, _WORK, _TURN = 1, 2, 4, 8, 16, 32

MESSAGES_A_TURN = 256
"""So many messages of a connection are taken in before others have a turn. A message of four bytes costs as
much time as one of a kilobyte, and a buffer holds 32,000 of them."""


class ForwardConnection(asyncio.BufferedProtocol):
    """One forwarder's connection.

    Bytes are received in place: the socket writes into the reader's buffer, payloads are slices of it.
    It stops reading while more than `connection_window_bytes` of this connection, or more than the
    gateway's budget in all, are not durable yet; while the budget has no room for the rest of a large
    message; while the forwarder does not read its acks; and while a large chunk of it is unpacked or looked
    through, one at a time. Acks may overtake each other, as the protocol allows. Some time after one was
    withheld the connection is closed, once all else that was taken in is decided; see `acks`.

    With `security` nothing is read as a message before the handshake; with `takes_json` the first byte may
    choose JSON. `identity` is who the listener found it to be.
    """

    def __init__(
        self,
        gateway: Gateway,
        connections: "set[ForwardConnection]",
        *,
        security: ForwardSecurity | None = None,
        identity: str | None = None,
        takes_json: bool = True,
    ) -> None:
        self.identity = identity
        self._gateway = gateway
        self._connections = connections
        self._security = security
        self._takes_json = takes_json
        self._reader: MessageReader | JsonReader = MessageReader(
            max_message_bytes=gateway.settings.max_message_bytes
        )
        self._encode_ack = encode_ack
        self._transport: asyncio.Transport | None = None
        self._sender = "?"
        self._handshake: ServerHandshake | None = None
        self._admitted: Admitted | None = None
        self._beginning: Callable[[], bool] | None = self._choose_format
        self._in_flight_bytes = 0
        self._in_flight_chunks = 0
        self._held_back = 0
        self._ending = False  # close once all that was submitted is decided
        self._withheld = WithheldAcks()
        self._incomplete_bytes = 0  # what the gateway's budget for receiving knows of
        self._wanted_bytes = 0
        self._received_bytes = 0
        self._completed = False  # a message, since the last look
        self._looked_at_bytes = 0
        self._heard_s = self._began_s = self._stuck_s = self._lively_s = asyncio.get_running_loop().time()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A forwarder connected."""
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._sender = peer[0] if peer else "local"
        self._connections.add(self)
        self._gateway.telemetry.connection_opened()
        if self._security is not None:
            self._handshake = ServerHandshake(self._security, address=self._sender)
            self._beginning = self._shake_hands
            self._transport.write(self._handshake.hello())

    def connection_lost(self, exc: Exception | None) -> None:
        """The forwarder left; what it had sent is still decided, nobody waits for the acks."""
        self._transport = None
        if self._beginning is not None:
            # A method of its own would keep it, and its buffer, until Python looks for cycles.
            self._beginning = _nothing_more
        self._connections.discard(self)
        self._withheld.forget()
        self._gateway.receiving.forget(self)
        self._gateway.telemetry.connection_closed()
        self._lost.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._reader.received(nbytes)
        self._received_bytes += nbytes
        if self._transport is not None:
            self._take_in()

    @property
    def _hostname(self) -> str | None:
        return None if self._admitted is None else self._admitted.hostname

    @property
    def _origin(self) -> str:
        return origin(self._sender, self.identity, self._hostname)

    @property
    def _full(self) -> bool:
        return (
            self._in_flight_bytes >= self._gateway.settings.connection_window_bytes
            or self._gateway.over_budget
        )

    def _take_in(self) -> None:
        """Up to the bounds: what has been received and does not fit stays in the reader."""
        if self._held_back & _ENDING or (self._beginning is not None and not self._beginning()):
            return
        taken = 0
        try:
            for message in self._reader.messages():
                self._submit(message)
                self._completed = True
                taken += 1
                if self._full:
                    self._pause()
                if taken == MESSAGES_A_TURN:
                    self._hold_back(_TURN)
                    asyncio.get_running_loop().call_soon(self._go_on, _TURN)
                if self._held_back:
                    return
        except FramingError as error:
            self._give_up(error)
            return
        if self._transport is None:
            return  # it was cut off, and what was whole before is taken
        incomplete = self._reader.settle()
        if incomplete != self._incomplete_bytes:
            self._ask_for_room(incomplete)
        if self._reader.has_more:
            self._hold_back(_TURN)
            asyncio.get_running_loop().call_soon(self._go_on, _TURN)

    def eof_received(self) -> bool:
        """The forwarder sends no more, and may still wait for acks (not so over TLS)."""
        if self._transport is None:
            return False
        if self._transport.get_extra_info("ssl_object") is not None:
            return False
        self._close_when_decided()
        return True

    def pause_writing(self) -> None:
        """The forwarder does not read its acks: nothing more is taken from it, lest they pile up."""
        self._stuck_s = asyncio.get_running_loop().time()
        self._hold_back(_WRITES)

    def resume_writing(self) -> None:
        """It has read them."""
        self._go_on(_WRITES)

    async def drain(self) -> None:
        """Reads no more, waits until all that was taken in is decided and acked, and closes."""
        self.end()
        await self._lost

    def end(self) -> None:
        """Reads no more, and closes when all that was taken in is decided and acked."""
        self._hold_back(_ENDING)
        self._close_when_decided()

    def refuse(self, detail: str, *, cause: str, name: str = "") -> None:
        """It is not let in: nothing of it is taken, and it is closed. See `handshake_failed`."""
        self._gateway.telemetry.handshake_failed(sender=self._sender, cause=cause, detail=detail, name=name)
        self._beginning = self._ignore
        # The client is to read why before it sees the end: some look at the end first.
        asyncio.get_running_loop().call_later(_FAREWELL_S, self.end)

    def recheck(self, security: ForwardSecurity | None) -> None:
        """The secrets have changed: who would not be let in any more has to come again."""
        if self._admitted is None or not self._admitted.still_holds(security, self._sender):
            self.end()

    def look(self, now_s: float) -> None:
        """The sweeper passes: ends what takes too long, and gives back memory of what rests."""
        if self._transport is None:
            return
        settings = self._gateway.settings
        came = self._received_bytes - self._looked_at_bytes
        self._looked_at_bytes = self._received_bytes
        if self._ending:
            if not self._in_flight_chunks and now_s - self._heard_s > settings.handshake_timeout_s:
                self._transport.abort()  # it does not read what it is told
            return
        if self._handshake is not None:
            if now_s - self._heard_s > settings.handshake_timeout_s:
                self._time_out("handshake", settings.handshake_timeout_s)
            return
        if self._held_back & _WRITES and now_s - self._stuck_s > settings.message_timeout_s:
            self._time_out("reading its acks", settings.message_timeout_s)
            self._transport.abort()
            return
        if came or self._held_back or self._in_flight_chunks:
            self._heard_s = now_s
        elif now_s - self._heard_s > settings.idle_timeout_s:
            self.end()
            return
        if came >= _RESTING_BYTES or self._held_back:
            self._lively_s = now_s
        if self._completed or self._held_back or not self._reader.pending_bytes:
            self._completed = False
            self._began_s = now_s
        elif (
            self._incomplete_bytes
            and self._gateway.receiving.is_short
            and now_s - self._lively_s > settings.handshake_timeout_s
        ):
            # It holds memory that others wait for, and does not go on.
            self._time_out("message that others waited behind", settings.handshake_timeout_s)
            return
        else:
            allowed_s = settings.message_timeout_s + self._reader.pending_bytes / settings.message_bytes_per_s
            if now_s - self._began_s > allowed_s:
                self._time_out("message", allowed_s)
                return
        if came < _RESTING_BYTES and not self._reader.knows_the_end:
            self._reader.compact()

    def _time_out(self, what: str, seconds: float) -> None:
        self._gateway.telemetry.timed_out(what=what, sender=self._origin, seconds=seconds)
        self.end()

    def _close_when_decided(self) -> None:
        if not self._ending:
            self._ending = True
            self._heard_s = asyncio.get_running_loop().time()
        # After an end of file what was received before it may still wait for room.
        more_to_take = self._held_back & (_WINDOW | _MEMORY | _WORK | _TURN) and not self._held_back & _ENDING
        if self._transport is not None and not self._in_flight_chunks and not more_to_take:
            self._transport.close()

    def _choose_format(self) -> bool:
        """The first byte of an open connection says whether it speaks msgpack or JSON."""
        if not self._reader.pending_bytes:
            return False
        self._beginning = None
        if self._takes_json and self._reader.pending[0] in FIRST_BYTES:
            limit = self._gateway.settings.max_message_bytes
            self._reader = JsonReader(self._reader.pending, max_message_bytes=limit)
            self._encode_ack = encode_json_ack
        return True

    def _shake_hands(self) -> bool:
        """True once the client is admitted and has sent more than its PING."""
        assert self._handshake is not None
        assert self._transport is not None
        assert isinstance(self._reader, MessageReader)
        verdict = self._handshake.receive(self._reader.pending)
        if verdict is None:
            return False
        self._reader.consume(verdict.consumed)
        self._transport.write(verdict.pong)
        if verdict.admitted is None:
            self.refuse(verdict.detail, cause=verdict.cause, name=verdict.name)
            return False
        self._admitted = verdict.admitted
        # A user says more than a certificate, which says more than a hostname that anybody can claim.
        if verdict.admitted.user is not None or self.identity is None:
            self.identity = verdict.admitted.identity
        self._handshake = self._beginning = None
        return bool(self._reader.pending_bytes)

    def _ignore(self) -> bool:
        self._reader = MessageReader(max_message_bytes=self._gateway.settings.max_message_bytes)
        return False

    def _submit(self, message: Message) -> None:
        tag = stream_name(message.tag)
        chunk = IncomingChunk(
            sender=self._sender,
            tag=tag,
            payload=message.payload,
            events=message.events,
            size_hint=message.size_hint,
            chunk_id=message.chunk,
            compression=message.compression,
            signal=message.signal,
            is_run=message.is_run,
            identity=self.identity,
            hostname=self._hostname,
        )
        decision = self._gateway.submit(chunk)
        size = charge(message.payload, message.chunk)
        self._in_flight_bytes += size
        self._in_flight_chunks += 1
        chunk_id = message.chunk

        def placed() -> None:
            nonlocal size
            if self._gateway.is_held(decision):
                # It waits for its policy's rate: as if it filled the window, so that the sender waits too.
                more = max(0, self._gateway.settings.connection_window_bytes - size)
                size += more
                self._in_flight_bytes += more
                self._pause()
            self._go_on(_WORK)

        def decided(future: asyncio.Future[None]) -> None:
            self._in_flight_bytes -= size
            self._in_flight_chunks -= 1
            error = future.exception()
            acked = error is None or (isinstance(error, ChunkRefused) and error.code not in NOT_ACKED)
            if chunk_id is not None and self._transport is not None:
                if acked:
                    self._transport.write(self._encode_ack(chunk_id))
                elif error is not None:
                    self._withheld.withhold(error, self.end)
            elif chunk_id is None and isinstance(error, BusUnavailable):
                self._gateway.telemetry.lost(origin=self._origin, tag=tag, error=error)
            if (
                self._held_back & _WINDOW
                and self._in_flight_bytes < self._gateway.settings.connection_window_bytes // 2
            ):
                self._resume()
            if self._ending:
                self._close_when_decided()

        if self._gateway.after_decision(decision, placed):
            self._hold_back(_WORK)
        else:
            placed()
        decision.add_done_callback(decided)

    def _pause(self) -> None:
        if self._held_back & _WINDOW:
            return
        self._hold_back(_WINDOW)
        if self._gateway.over_budget:
            self._gateway.when_room(self._resume)

    def _resume(self) -> None:
        if not self._held_back & _WINDOW or self._held_back & _ENDING:
            return
        if self._gateway.over_budget:
            self._gateway.when_room(self._resume)
        elif self._in_flight_bytes < self._gateway.settings.connection_window_bytes:
            self._go_on(_WINDOW)

    def _ask_for_room(self, incomplete: int) -> None:
        receiving = self._gateway.receiving
        if not receiving.ask(self, incomplete):
            self._reader.compact()
            incomplete = self._reader.settle()
            if not receiving.ask(self, incomplete):
                self._wanted_bytes = incomplete
                self._hold_back(_MEMORY)
                return
        self._incomplete_bytes = incomplete

    def admitted(self) -> None:
        """There is room for the rest of the message."""
        self._incomplete_bytes = self._wanted_bytes
        self._go_on(_MEMORY)

    def _hold_back(self, reason: int) -> None:
        if not self._held_back and self._transport is not None:
            self._transport.pause_reading()
        self._held_back |= reason

    def _go_on(self, reason: int) -> None:
        if self._held_back & reason:
            self._held_back &= ~reason
            if not self._held_back:
                self._take_in()
            if not self._held_back and self._transport is not None:
                self._transport.resume_reading()
                if self._ending:
                    self._close_when_decided()

    def _give_up(self, error: FramingError) -> None:
        """Nothing says where the next message begins: keep what came, and close this connection alone."""
        self._gateway.keep_broken_bytes(self._reader.pending, sender=self._sender, reason=str(error))
        self.end()


def _nothing_more() -> bool:
    return False
