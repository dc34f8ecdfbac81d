"""The forward protocol on one connection: handshake, messages, acks, end."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from ...errors import BusUnavailable, ChunkRejected, FramingError
from ...records.tag_names import stream_name
from ...rejections import WITHHELD
from ..chunk import IncomingChunk, origin
from ..gateway import Gateway
from ..instrumentation import ChunkLost, HandshakeFailed, PeerTimedOut
from ..security.settings import ForwardSecurity
from ..submission import Submission
from .acks import WithheldAcks, encode_ack
from .flow_control import ENDING, TEMPORARY, WORK, WRITES, FlowControl
from .framing import MessageReader
from .handshake import Admitted, ServerHandshake
from .json_events import FIRST_BYTES, JsonReader, encode_json_ack
from .message import Message
from .timeouts import State, Timeouts

_FAREWELL_S = 0.1

MESSAGES_A_TURN = 256
"""So many messages of a connection are taken in before others have a turn. A message of four bytes costs as
much time as one of a kilobyte, and a buffer holds 32,000 of them."""


class ForwardConnection(asyncio.BufferedProtocol):
    """One forwarder's connection.

    Bytes are received in place: the socket writes into the reader's buffer, payloads are slices of it.
    `FlowControl` says when it is read. Acks may overtake each other, as the protocol allows; those of one
    read are one write. Some time after one was withheld the connection is closed, once all else that was
    taken in is decided; see `acks`.

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
        settings = gateway.settings
        self.identity = identity
        self._gateway = gateway
        self._connections = connections
        self._security = security
        self._takes_json = takes_json
        self._reader: MessageReader | JsonReader = MessageReader(max_message_bytes=settings.max_message_bytes)
        self._encode_ack = encode_ack
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._sender = "?"
        self._hostname: str | None = None
        self._handshake: ServerHandshake | None = None
        self._admitted: Admitted | None = None
        self._beginning: Callable[[], bool] | None = self._choose_format
        self._flow = FlowControl(
            gateway.budget, window_bytes=settings.connection_window_bytes, take_in=self._take_in
        )
        self._timeouts = Timeouts(settings, now_s=self._loop.time())
        self._is_taking_in = False
        self._acks: list[bytes] = []
        self._is_ack_write_due = False
        self._is_ending = False  # close once all that was submitted is decided
        self._withheld = WithheldAcks()
        self._lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A forwarder connected."""
        self._transport = self._flow.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._sender = peer[0] if peer else "local"
        self._connections.add(self)
        self._gateway.telemetry.connection_opened()
        if self._security is not None:
            self._handshake = ServerHandshake(self._security, address=self._sender)
            self._beginning = self._shake_hands
            self._transport.write(self._handshake.hello())

    def connection_lost(self, exc: Exception | None) -> None:
        """The forwarder left; what it had sent is still decided, without acks."""
        self._transport = None
        if self._beginning is not None:
            # A method of its own would keep it, and its buffer, until Python looks for cycles.
            self._beginning = _nothing_more
        self._acks.clear()
        self._connections.discard(self)
        self._withheld.forget()
        self._flow.close()
        self._gateway.telemetry.connection_closed()
        self._lost.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        return self._reader.writable()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._reader.received(nbytes)
        self._timeouts.received_bytes += nbytes
        if self._transport is not None:
            self._take_in()

    @property
    def _origin(self) -> str:
        return origin(self._sender, self.identity, self._hostname)

    def _take_in(self) -> None:
        """Up to the bounds: what has been received and does not fit stays in the reader."""
        if self._flow.reasons & ENDING or (self._beginning is not None and not self._beginning()):
            return
        self._is_taking_in = True
        try:
            self._submit_messages()
        except FramingError as error:
            # Nothing says where the next message begins: keep what came, and close this connection alone.
            self._write_acks()
            self._gateway.keep_broken_bytes(self._reader.pending, sender=self._sender, reason=str(error))
            self.end()
            return
        finally:
            self._is_taking_in = False
        if self._acks:
            self._write_acks()
        if self._is_ending:
            self._close_when_decided()

    def _submit_messages(self) -> None:
        flow, taken = self._flow, 0
        for message in self._reader.messages():
            self._submit(message)
            taken += 1
            flow.pause_if_full()
            if taken == MESSAGES_A_TURN:
                flow.yield_turn()
            if flow.reasons:
                break
        if taken:
            self._timeouts.has_completed = True
        if flow.reasons or self._transport is None:
            return  # it was cut off, and what was whole before is taken
        incomplete_bytes = self._reader.settle()
        if incomplete_bytes != flow.incomplete_bytes:
            flow.ask_for_room(self._reader, incomplete_bytes)
        if self._reader.has_more:
            flow.yield_turn()

    def _submit(self, message: Message) -> None:
        submission = self._gateway.submit(
            IncomingChunk(
                sender=self._sender,
                tag=stream_name(message.tag),
                payload=message.payload,
                events=message.events,
                is_run=message.is_run,
                identity=self.identity,
                hostname=self._hostname,
                **message.options,
            )
        )
        if submission.is_ended:
            self._answer(submission)
            return
        self._flow.add(submission.window_bytes)
        if not submission.is_decided:
            self._flow.pause(WORK)
            submission.when_decided(partial(self._decided, submission))
        elif submission.waits_for_rate:
            self._fill_window(submission)
        submission.add_done_callback(self._ended)

    def _decided(self, submission: Submission) -> None:
        if submission.waits_for_rate:
            self._fill_window(submission)
        self._flow.resume(WORK)

    def _fill_window(self, submission: Submission) -> None:
        """It waits for its policy's rate: as if it filled the window, so that the sender waits too."""
        more_bytes = max(0, self._flow.window_bytes - submission.window_bytes)
        submission.window_bytes += more_bytes
        self._flow.grow(more_bytes)

    def _ended(self, submission: Submission) -> None:
        self._flow.remove(submission.window_bytes)
        self._answer(submission)
        self._flow.resume_window()
        if self._is_ending and not self._is_taking_in:
            self._close_when_decided()

    def _answer(self, submission: Submission) -> None:
        """An ack, if the forwarder waits for one and the chunk is durable, here or in the dead letters."""
        chunk, error = submission.chunk, submission.exception()
        if chunk.chunk_id is None:
            if isinstance(error, BusUnavailable):
                self._gateway.telemetry.emit(ChunkLost(origin=self._origin, tag=chunk.tag, reason=str(error)))
        elif self._transport is None:
            return
        elif error is None or (isinstance(error, ChunkRejected) and error.code not in WITHHELD):
            self._acks.append(self._encode_ack(chunk.chunk_id))
            if not self._is_taking_in:
                self._write_acks_soon()
        else:
            self._withheld.withhold(error, self.end)

    def _write_acks_soon(self) -> None:
        """Chunks become durable in groups: the acks of a group are one write."""
        if not self._flow.in_flight_chunks:
            self._write_acks()
        elif not self._is_ack_write_due:
            self._is_ack_write_due = True
            self._loop.call_soon(self._write_acks)

    def _write_acks(self) -> None:
        self._is_ack_write_due = False
        acks, transport = self._acks, self._transport
        if acks and transport is not None:
            self._acks = []
            transport.write(acks[0] if len(acks) == 1 else b"".join(acks))

    def eof_received(self) -> bool:
        """The forwarder sends no more, and may still wait for acks (not so over TLS)."""
        if self._transport is None:
            return False
        if self._transport.get_extra_info("ssl_object") is not None:
            return False
        self._close_when_decided()
        return True

    def pause_writing(self) -> None:
        """The forwarder does not read its acks: stops reading from it, so that they do not accumulate."""
        self._timeouts.write_paused(self._loop.time())
        self._flow.pause(WRITES)

    def resume_writing(self) -> None:
        """It has read them."""
        self._flow.resume(WRITES)

    async def drain(self) -> None:
        """Reads no more, waits until all that was taken in is decided and acked, and closes."""
        self.end()
        await self._lost

    def end(self) -> None:
        """Reads no more, and closes when all that was taken in is decided and acked."""
        self._flow.pause(ENDING)
        self._close_when_decided()

    def _close_when_decided(self) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._timeouts.end_begun(self._loop.time())
        # After an end of file what was received before it may still wait for room.
        reasons = self._flow.reasons
        more_to_take = reasons & TEMPORARY and not reasons & ENDING
        if self._transport is not None and not self._flow.in_flight_chunks and not more_to_take:
            self._write_acks()
            self._transport.close()

    def reject(self, detail: str, *, cause: str, name: str = "") -> None:
        """Takes nothing from the peer, and closes the connection. See `HandshakeFailed`."""
        self._gateway.telemetry.emit(
            HandshakeFailed(sender=self._sender, cause=cause, detail=detail, name=name)
        )
        self._beginning = self._ignore
        # The client is to read why before it sees the end: some look at the end first.
        self._loop.call_later(_FAREWELL_S, self.end)

    def recheck(self, security: ForwardSecurity | None) -> None:
        """The secrets have changed: ends the connection if its client would not be admitted now."""
        if self._admitted is None or not self._admitted.still_holds(security, self._sender):
            self.end()

    def look(self, now_s: float) -> None:
        """The sweeper passes: ends what takes too long, and gives back memory of a connection at rest."""
        if self._transport is None:
            return
        flow = self._flow
        overdue = self._timeouts.look(
            now_s,
            State(
                is_ending=self._is_ending,
                is_shaking_hands=self._handshake is not None,
                is_paused=bool(flow.reasons),
                is_write_paused=bool(flow.reasons & WRITES),
                blocks_others=flow.blocks_others,
                in_flight_chunks=flow.in_flight_chunks,
                pending_bytes=self._reader.pending_bytes,
            ),
        )
        if overdue is not None:
            if overdue.what:
                self._gateway.telemetry.emit(
                    PeerTimedOut(kind=overdue.what, sender=self._origin, timeout_s=overdue.limit_s)
                )
            transport = self._transport
            self.end()
            if overdue.must_abort:
                transport.abort()
        elif self._handshake is None and self._timeouts.is_resting and not self._reader.knows_the_end:
            self._reader.compact()

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
            self.reject(verdict.detail, cause=verdict.cause, name=verdict.name)
            return False
        self._admitted = verdict.admitted
        self._hostname = verdict.admitted.hostname
        # A user says more than a certificate, which says more than a hostname that any client can claim.
        if verdict.admitted.user is not None or self.identity is None:
            self.identity = verdict.admitted.identity
        self._handshake = self._beginning = None
        return bool(self._reader.pending_bytes)

    def _ignore(self) -> bool:
        self._reader = MessageReader(max_message_bytes=self._gateway.settings.max_message_bytes)
        return False


def _nothing_more() -> bool:
    return False
