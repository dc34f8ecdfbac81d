"""The connections of an HTTP listener: how many there may be, and how long each may take for what.

    silent, or half a header      `header_timeout_s`, then 408
    between requests              `idle_timeout_s`
    body                          `body_idle_timeout_s` without a byte, or slower than the floor, then 408
    answer                        `send_timeout_s` in which the client takes nothing

aiohttp limits only the time between requests. `ConnectionGuard` is between the socket and aiohttp's protocol:
it counts bytes, and looks at each connection once a second. A client that keeps up the floor may take as long
as its upload needs. Time in which the server itself does not read is not counted. WebSockets have heartbeats.
"""

import array
import asyncio
import fcntl
import termios
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from ..config import HttpSettings
from ..errors import BodyTooSlow
from .event_counters import EventCounters
from .instrumentation import Count, Event, Reading

LOOK_S = 1.0
ANSWER_S = 10.0
"""A handler whose body is too slow has this long to answer; then the connection is cut."""

CROWDED_HEADER_S = 1.0
"""When there are too many connections, one that takes longer than this for its header makes room."""

_BACKLOG = 1024
_TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_FULL_BODY = (
    b'{"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "The server has as '
    b"many connections as http.max_connections and http.max_connections_per_address allow. Close those that "
    b'you do not use, then try again."}'
)
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL_BODY), _FULL_BODY)
)

Factory: TypeAlias = Callable[[], asyncio.Protocol]


class HttpConnectionRejected(Event, frozen=True):
    """A connection was over a limit, and no other one made room for it; it was answered 503."""

    counts = (Count("rejected_total", "windvane_http_connections_rejected", "HTTP connections over a limit"),)


class HttpConnectionTimedOut(Event, frozen=True):
    """A connection took too long, or was idle and made room for another (`crowded`); it was closed."""

    counts = (
        Count(
            "timeouts_by_kind",
            "windvane_http_timeouts",
            "HTTP connections that took too long",
            labels={"kind": "kind"},
        ),
    )

    kind: str


class ConnectionGuard(EventCounters):
    """Guards the connections of one listener.

    `limits_addresses`: connections are also counted by the client's address, which those of a Unix socket do
    not have. When there are too many, one that waits makes room for the new one: the longest idle, else one
    whose header is late. If there is none, the new one is answered 503.
    """

    events = (HttpConnectionRejected, HttpConnectionTimedOut)
    readings = (
        Reading(
            "gauge", "windvane_http_connections", "Open HTTP connections", lambda guard: guard.connections
        ),
    )
    rejected_total: int
    timeouts_by_kind: Counter[str]

    def __init__(self, settings: HttpSettings, *, limits_addresses: bool) -> None:
        super().__init__()
        self.settings = settings
        self._limits_addresses = limits_addresses
        self._connections: dict[object, _Connection] = {}  # by aiohttp's protocol
        self._by_address: Counter[str] = Counter()

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    async def serve_tcp(self, runner: web.AppRunner, host: str, port: int) -> None:
        """Sets up `runner` and listens. Raises OSError if the address cannot be bound."""
        loop = asyncio.get_running_loop()
        await self._serve(
            runner, f"http://{host}:{port}", lambda new: loop.create_server(new, host, port, backlog=_BACKLOG)
        )

    async def serve_unix(self, runner: web.AppRunner, path: Path) -> None:
        """Sets up `runner` and listens on a Unix socket. Raises OSError if it cannot be bound."""
        loop = asyncio.get_running_loop()
        await self._serve(
            runner, f"unix:{path}", lambda new: loop.create_unix_server(new, str(path), backlog=_BACKLOG)
        )

    async def _serve(
        self, runner: web.AppRunner, name: str, listen: Callable[[Factory], Awaitable[asyncio.Server]]
    ) -> None:
        runner.app.middlewares.insert(0, self._noting())
        runner.app.cleanup_ctx.append(self._sweeping)
        await runner.setup()
        await _GuardedSite(runner, self, name, listen).start()

    def admit(self, connection: "_Connection") -> bool:
        """Counts a new connection in, if there is room or another makes room."""
        settings = self.settings
        full = len(self._connections) >= settings.max_connections
        address = connection.address if self._limits_addresses else ""
        crowded = bool(address) and self._by_address[address] >= settings.max_connections_per_address
        if (full or crowded) and not self._make_room(address if crowded else None):
            self.count(HttpConnectionRejected())
            return False
        self._connections[connection.protocol] = connection
        self._by_address[connection.address] += 1
        return True

    def left(self, connection: "_Connection") -> None:
        """Counts a connection out."""
        if self._connections.pop(connection.protocol, None) is not None:
            self._by_address[connection.address] -= 1
            if not self._by_address[connection.address]:
                del self._by_address[connection.address]

    def _make_room(self, address: str | None) -> bool:
        now_s = asyncio.get_running_loop().time()
        waiting = [
            connection
            for connection in self._connections.values()
            if (address is None or connection.address == address) and connection.can_make_room(now_s)
        ]
        if not waiting:
            return False
        leaving = min(waiting, key=lambda each: (each.header_began_s is not None, each.waits_since_s))
        self.count(HttpConnectionTimedOut("crowded"))
        self.left(leaving)
        leaving.close()
        return True

    def _noting(self) -> Callable[..., Awaitable[web.StreamResponse]]:
        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            """Tells the connection which request is being answered."""
            connection = self._connections.get(request.protocol)
            if connection is None:
                return await handler(request)
            connection.begin(request)
            try:
                return await handler(request)
            finally:
                connection.end()

        return note

    async def _sweeping(self, _app: web.Application) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(self._sweep())
        yield
        sweeper.cancel()
        with suppress(asyncio.CancelledError):
            await sweeper

    async def _sweep(self) -> None:
        settings = self.settings
        shortest_s = min(
            settings.header_timeout_s,
            settings.idle_timeout_s,
            settings.body_idle_timeout_s,
            settings.body_timeout_s,
            settings.send_timeout_s,
        )
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(LOOK_S, shortest_s / 4))
            now_s = loop.time()
            for connection in list(self._connections.values()):
                kind = connection.look(now_s)
                if kind is not None:
                    self.count(HttpConnectionTimedOut(kind))


class _GuardedSite(web.BaseSite):
    """A listener whose connections are guarded."""

    def __init__(
        self,
        runner: web.AppRunner,
        guard: ConnectionGuard,
        name: str,
        listen: Callable[[Factory], Awaitable[asyncio.Server]],
    ) -> None:
        super().__init__(runner)
        self._guard = guard
        self._name = name
        self._listen = listen

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        await super().start()
        server = self._runner.server
        assert server is not None
        self._server = await self._listen(lambda: _Connection(self._guard, server()))


class _Connection(asyncio.Protocol):
    """Hands everything on to aiohttp's protocol, and knows what the connection waits for.

    `header_began_s`: when the first byte of a header came that is not complete; None otherwise.
    `waits_since_s`: when the connection was made, or the last request ended.
    """

    def __init__(self, guard: ConnectionGuard, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.address = ""
        self.header_began_s: float | None = None
        self.waits_since_s = 0.0
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_admitted = False
        self._requests = 0
        self._request: web.Request | None = None
        self._received_s = 0.0
        self._clock_s = 0.0  # of the body: since when it is counted
        self._looked_s = 0.0
        self._told_s: float | None = None
        self._unsent: tuple[int, float] = (0, 0.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self.waits_since_s = self._looked_s = self._loop.time()
        self._is_admitted = self._guard.admit(self)
        if self._is_admitted:
            self.protocol.connection_made(transport)
        else:
            self._transport.write(_FULL)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._guard.left(self)
        if self._is_admitted:
            self.protocol.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._is_admitted:
            return
        self._received_s = self._loop.time()
        if self._request is None and self.header_began_s is None:
            self.header_began_s = self._received_s
        self.protocol.data_received(data)

    def eof_received(self) -> bool | None:
        return self.protocol.eof_received() if self._is_admitted else None

    def pause_writing(self) -> None:
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        self.protocol.resume_writing()

    def begin(self, request: web.Request) -> None:
        """The header of `request` is complete, and its handler is about to run."""
        self._request, self.header_began_s, self._told_s = request, None, None
        self._requests += 1
        self._clock_s = self._received_s = self._loop.time()

    def end(self) -> None:
        """The handler has answered; the answer may still be on its way."""
        self._request = None
        self.waits_since_s = self._loop.time()

    def close(self) -> None:
        """Ends the connection, with an answer if a header had begun."""
        assert self._transport is not None
        if self.header_began_s is not None or not self._requests:
            self._transport.write(_TIMED_OUT)
        self._transport.close()

    def can_make_room(self, now_s: float) -> bool:
        """Whether the connection waits for a request, which nothing of the server's depends on."""
        if self._request is not None or self._unsent_bytes():
            return False
        return self.header_began_s is None or now_s - self.header_began_s > CROWDED_HEADER_S

    def look(self, now_s: float) -> str | None:
        """Ends what takes too long; the kind of it, or None."""
        settings = self._guard.settings
        passed_s, self._looked_s = now_s - self._looked_s, now_s
        if self._request is not None and not self._request.content.is_eof():
            return self._look_at_body(self._request, now_s, passed_s)
        unsent = self._unsent_bytes()
        if unsent:
            if self._request is None:
                self.waits_since_s = now_s
            if unsent != self._unsent[0]:
                self._unsent = unsent, now_s
            elif now_s - self._unsent[1] > settings.send_timeout_s:
                assert self._transport is not None
                self._transport.abort()
                return "send"
            return None
        self._unsent = 0, now_s
        if self._request is not None:
            return None
        if self.header_began_s is not None or not self._requests:
            began_s = self.header_began_s if self.header_began_s is not None else self.waits_since_s
            if now_s - began_s <= settings.header_timeout_s:
                return None
            self.close()
            return "header"
        if now_s - self.waits_since_s <= settings.idle_timeout_s:
            return None
        self.close()
        return "idle"

    def _look_at_body(self, request: web.Request, now_s: float, passed_s: float) -> str | None:
        settings = self._guard.settings
        assert self._transport is not None
        if self._told_s is not None:
            if now_s - self._told_s > ANSWER_S:
                self._transport.abort()
            return None
        if not self._transport.is_reading():  # the server has enough to do: no time of the client's
            self._clock_s += passed_s
            self._received_s = now_s
            return None
        size_bytes = request.content.total_bytes
        taken_s = now_s - self._clock_s
        if (
            now_s - self._received_s <= settings.body_idle_timeout_s
            and taken_s <= settings.body_timeout_s + size_bytes / settings.body_bytes_per_s
        ):
            return None
        self._told_s = now_s
        request.content.set_exception(
            BodyTooSlow(
                f"{size_bytes} bytes of the body came in {taken_s:.3g} s, which is too slow; send it again, "
                "in smaller pieces if the network is slow"
            )
        )
        return "body"

    def _unsent_bytes(self) -> int:
        """What the client has not taken yet: of the transport's buffer and of the kernel's."""
        assert self._transport is not None
        unsent = self._transport.get_write_buffer_size()
        socket: Any = self._transport.get_extra_info("socket")
        in_kernel = array.array("i", [0])
        with suppress(OSError, AttributeError, ValueError):
            fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, in_kernel)
        return unsent + in_kernel[0]
