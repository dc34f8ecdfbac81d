"""A client of the forward protocol: sends chunks with IDs and resends them until they are acked.

`windvane send`, the simulated wind park and the tests use it. It speaks PackedForward with the options
`chunk` and `size` (forward protocol v1, "PackedForward Mode" and "Response Messages"), keeps several chunks
in flight, and after a lost connection resends all unacked chunks in order. Since the ID stays the same, the
receiver can store a chunk once, however often it arrives. Over TCP, TLS or a Unix socket, with the
handshake where the receiver asks for one.
"""

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import msgpack

from ...addresses import parse_address
from ...config import Settings
from ...errors import HandshakeFailed, WindvaneError
from .client_messages import frame_chunk, new_chunk_id, pack_event
from .handshake import ClientCredentials, ClientHandshake

log = logging.getLogger(__name__)

MIB = 1024 * 1024
MAX_ACK_BYTES = 64 * 1024
CONNECT_TIMEOUT_S = 10.0
SOON_LOST_S = 1.0
"""A connection that ends sooner was hardly one: its end is the problem, and not that acks stay away."""
READ_BYTES = 64 * 1024
UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """What a `ForwardClient` has done so far and why it may be waiting."""

    connected: bool
    connections: int
    acked_chunks: int
    acked_events: int
    acked_bytes: int
    resent_chunks: int
    unacked_chunks: int
    unacked_bytes: int
    silent_s: float  # since the last ack, or since something first waited for one; 0.0 when all is acked
    problem: str | None  # why there is no connection
    not_let_in: bool  # the problem is that the receiver and this client do not know each other


@dataclass(slots=True, eq=False)
class _Chunk:
    chunk_id: bytes
    head: bytes
    payload: bytes
    tail: bytes
    events: int
    acked: asyncio.Future[None]
    sent_at_s: float | None = field(default=None)
    sends: int = 0


class ForwardClient:
    """One connection to a forward port, kept up for as long as the client is open.

    Memory is bounded: `send` waits while `max_unacked_chunks` chunks or `max_unacked_bytes` bytes of payload
    are unacked (one chunk alone may be larger). A chunk whose ack does not come within `ack_timeout_s` is
    resent. If no ack at all arrives in that time, the client reconnects and doubles the timeout, up to
    `max_ack_timeout_s`. Failed connections are retried after 0.2 s, then twice as long, up to 5 s.

    `address` is HOST:PORT or unix:PATH, or a function that returns it, called before every connection, since
    a receiver may restart at another port. `credentials` are for a receiver that asks for a handshake, `tls`
    (see `tls.make_client_context`) for one that speaks TLS; neither is used on a Unix socket.

        async with ForwardClient("127.0.0.1:24224") as client:
            await client.send_events("voice", [(time.time_ns(), {"message": b"..."})])

    Leaving the block without an error waits until all is acked. Cancelling `send` before it returns leaves
    nothing queued; cancelling `drain` leaves the client as it was.
    """

    def __init__(
        self,
        address: str | Callable[[], str],
        *,
        credentials: ClientCredentials | None = None,
        tls: ssl.SSLContext | None = None,
        max_unacked_chunks: int = 256,
        max_unacked_bytes: int = 8 * MIB,
        ack_timeout_s: float = 10.0,
        max_ack_timeout_s: float = 60.0,
        first_backoff_s: float = 0.2,
        max_backoff_s: float = 5.0,
    ) -> None:
        self._address = address if callable(address) else lambda: address
        self._credentials = credentials
        self._tls = tls
        self._max_unacked_chunks = max_unacked_chunks
        self._max_unacked_bytes = max_unacked_bytes
        self._first_ack_timeout_s = self._ack_timeout_s = ack_timeout_s
        self._max_ack_timeout_s = max_ack_timeout_s
        self._first_backoff_s = first_backoff_s
        self._max_backoff_s = max_backoff_s
        self._unacked: dict[bytes, _Chunk] = {}
        self._unacked_bytes = 0
        self._to_send: deque[_Chunk] = deque()
        self._something_to_send = asyncio.Event()
        self._ack_came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._failure: BaseException | None = None
        self._connected = False
        self._problem: str | None = None
        self._not_let_in = False
        self._waiting_since_s = 0.0
        self._connections = self._resent_chunks = 0
        self._acked_chunks = self._acked_events = self._acked_bytes = 0

    async def __aenter__(self) -> "ForwardClient":
        self._task = asyncio.create_task(self._keep_connected(), name="forward-client")
        self._task.add_done_callback(self._stopped)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.drain()
        finally:
            await self.close()

    async def send(
        self, tag: str, payload: bytes, *, events: int, chunk_id: str | None = None
    ) -> asyncio.Future[None]:
        """Queue one chunk; returns, once there was room for it, a future that is done when it is acked.

        `payload` is the concatenation of `events` events as `pack_event` gives them.
        """
        while self._unacked and (
            len(self._unacked) >= self._max_unacked_chunks
            or self._unacked_bytes + len(payload) > self._max_unacked_bytes
        ):
            await self._until_ack()
        self._raise_failure()
        name = chunk_id if chunk_id is not None else new_chunk_id()
        head, tail = frame_chunk(tag, payload_bytes=len(payload), events=events, chunk_id=name)
        loop = asyncio.get_running_loop()
        chunk = _Chunk(
            chunk_id=name.encode(),
            head=head,
            payload=payload,
            tail=tail,
            events=events,
            acked=loop.create_future(),
        )
        if chunk.chunk_id in self._unacked:
            raise ValueError(f"a chunk with the id {name!r} waits for its ack already; give each its own")
        if not self._unacked:
            self._waiting_since_s = loop.time()
        self._unacked[chunk.chunk_id] = chunk
        self._unacked_bytes += len(payload)
        self._to_send.append(chunk)
        self._something_to_send.set()
        return chunk.acked

    async def send_events(self, tag: str, events: Iterable[tuple[int, Any]]) -> asyncio.Future[None]:
        """Queue one chunk of (time in ns since the epoch, record) pairs; as `send`."""
        packed = [pack_event(time_ns, record) for time_ns, record in events]
        return await self.send(tag, b"".join(packed), events=len(packed))

    async def drain(self) -> None:
        """Wait until all that was sent is acked."""
        while self._unacked:
            await self._until_ack()
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        """Close the connection at once; the futures of what is unacked are cancelled."""
        # A cancellation that meets the end of a task group is lost in Python 3.11; the loop looks itself.
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for chunk in self._unacked.values():
            chunk.acked.cancel()
        self._unacked.clear()
        self._unacked_bytes = 0

    def statistics(self) -> ClientStatistics:
        """Counts since the client was opened."""
        silent_s = asyncio.get_running_loop().time() - self._waiting_since_s if self._unacked else 0.0
        return ClientStatistics(
            connected=self._connected,
            connections=self._connections,
            acked_chunks=self._acked_chunks,
            acked_events=self._acked_events,
            acked_bytes=self._acked_bytes,
            resent_chunks=self._resent_chunks,
            unacked_chunks=len(self._unacked),
            unacked_bytes=self._unacked_bytes,
            silent_s=silent_s,
            problem=self._problem,
            not_let_in=self._not_let_in,
        )

    async def _until_ack(self) -> None:
        self._raise_failure()
        self._ack_came.clear()
        await self._ack_came.wait()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._task is None or self._task.done():
            raise RuntimeError("the client is not open; use it in `async with ForwardClient(...)`")

    def _stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            self._failure = task.exception()
        self._ack_came.set()

    async def _keep_connected(self) -> None:
        backoff_s = self._first_backoff_s
        while not self._closing:
            address = self._address()
            if not address.startswith(UNIX):
                parse_address(address)
            acked_before = self._acked_chunks
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    reader, writer, received = await self._connect(address)
            except TimeoutError:
                self._not_let_in, self._problem = False, f"{address} does not answer"
            except (HandshakeFailed, ssl.SSLCertVerificationError) as error:
                said = error.verify_message if isinstance(error, ssl.SSLError) else str(error)
                self._not_let_in, self._problem = True, f"{address}: {said}"
            except ConnectionRefusedError:
                self._not_let_in, self._problem = False, f"{address}: connection refused"
            except (OSError, EOFError) as error:
                why = getattr(error, "strerror", None) or str(error)
                self._not_let_in, self._problem = False, f"cannot connect to {address}: {why}"
            else:
                self._connected, self._not_let_in, self._problem = True, False, None
                self._connections += 1
                connected_at_s = asyncio.get_running_loop().time()
                try:
                    await self._converse(reader, writer, received)
                except* _SilentReceiver as group:
                    log.debug("%s: %s", address, group.exceptions[0])
                except* HandshakeFailed as group:
                    self._not_let_in, self._problem = True, f"{address}: {group.exceptions[0]}"
                except* (OSError, EOFError) as group:
                    lost = f"connection to {address} lost: {group.exceptions[0]}"
                    log.debug("%s", lost)
                    # A receiver that withholds an ack closes some time later: no trouble of the connection.
                    lasted_s = asyncio.get_running_loop().time() - connected_at_s
                    self._problem = lost if lasted_s < SOON_LOST_S else None
                finally:
                    self._connected = False
                    writer.transport.abort()
            if self._acked_chunks > acked_before:
                backoff_s = self._first_backoff_s
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, self._max_backoff_s)

    async def _connect(self, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        """A connection over which chunks may be sent, and what came on it already."""
        if address.startswith(UNIX):
            return *await asyncio.open_unix_connection(address.removeprefix(UNIX), limit=READ_BYTES), b""
        host, port = parse_address(address)
        reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES, ssl=self._tls)
        if self._credentials is None:
            return reader, writer, b""
        handshake = ClientHandshake(self._credentials)
        try:
            while not handshake.done:
                received = await reader.read(READ_BYTES)
                if not received:
                    raise HandshakeFailed("the receiver ended the handshake")
                writer.write(handshake.receive(received))
        except BaseException:
            writer.transport.abort()
            raise
        return reader, writer, handshake.left_over()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, received: bytes
    ) -> None:
        for chunk in self._unacked.values():
            chunk.sent_at_s = None
        self._to_send = deque(self._unacked.values())
        self._something_to_send.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_chunks(writer))
            tasks.create_task(self._read_acks(reader, received))
            tasks.create_task(self._watch_acks())

    async def _write_chunks(self, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._to_send:
                chunk = self._to_send.popleft()
                if chunk.chunk_id not in self._unacked:
                    continue
                self._resent_chunks += chunk.sends > 0
                chunk.sends += 1
                chunk.sent_at_s = loop.time()
                writer.writelines((chunk.head, chunk.payload, chunk.tail))
                await writer.drain()
            self._something_to_send.clear()
            await self._something_to_send.wait()

    async def _read_acks(self, reader: asyncio.StreamReader, received: bytes) -> None:
        unpacker = msgpack.Unpacker(raw=True, strict_map_key=False, max_buffer_size=MAX_ACK_BYTES)
        while received := received or await reader.read(READ_BYTES):
            try:
                unpacker.feed(received)
                received = b""
                for answer in unpacker:
                    self._take_answer(answer)
            except (ValueError, TypeError, msgpack.BufferFull, msgpack.UnpackException) as error:
                raise NoReceiverError(
                    f"the answer is not msgpack ({error}); is this a forward port?"
                ) from None
        raise EOFError("the other end closed it")

    def _take_answer(self, answer: Any) -> None:
        if isinstance(answer, list) and answer[:1] == [b"HELO"]:
            raise HandshakeFailed("the receiver asks for a shared key, which this client does not have")
        if not (isinstance(answer, dict) and isinstance(answer.get(b"ack"), bytes)):
            raise NoReceiverError(f"the answer {answer!r:.80} is not an ack; is this a forward port?")
        chunk = self._unacked.pop(answer[b"ack"], None)
        if chunk is None:
            return  # the second ack of a chunk that was sent twice
        self._unacked_bytes -= len(chunk.payload)
        self._acked_chunks += 1
        self._acked_events += chunk.events
        self._acked_bytes += len(chunk.payload)
        self._ack_timeout_s = self._first_ack_timeout_s
        self._waiting_since_s = asyncio.get_running_loop().time()
        if not chunk.acked.done():
            chunk.acked.set_result(None)
        self._ack_came.set()

    async def _watch_acks(self) -> None:
        loop = asyncio.get_running_loop()
        connected_at_s = loop.time()
        while True:
            await asyncio.sleep(self._ack_timeout_s / 4)
            before_s = loop.time() - self._ack_timeout_s
            late = [c for c in self._unacked.values() if c.sent_at_s is not None and c.sent_at_s < before_s]
            if not late:
                continue
            if max(self._waiting_since_s, connected_at_s) < before_s:
                timeout_s = self._ack_timeout_s
                self._ack_timeout_s = min(2 * timeout_s, self._max_ack_timeout_s)
                raise _SilentReceiver(f"no ack within {timeout_s:.3g} s; reconnecting")
            for chunk in late:
                chunk.sent_at_s = None
                self._to_send.append(chunk)
            self._something_to_send.set()


class _SilentReceiver(Exception):
    """Acks stay away: no fault of the connection, but a new one may help where the old is half dead."""


def local_address(settings: Settings, address: str) -> str:
    """Where this user reaches the home's gateway without credentials.

    `address`, the gateway's forward port; its Unix socket where the port asks for a handshake or speaks TLS.
    """
    guarded = settings.forward_security_file.exists() or settings.gateway.tls_cert_file is not None
    if guarded and settings.forward_socket.is_socket():
        return f"{UNIX}{settings.forward_socket}"
    return address


class NoReceiverError(WindvaneError, ConnectionError):
    """The peer does not behave like a receiver; the client closes the connection and reconnects."""
