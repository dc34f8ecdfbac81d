"""Listeners for forwarders (TCP and TLS, a Unix socket, UDP heartbeats), and the sweeper of connections."""

import asyncio
import pwd
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ...addresses import format_address
from ...errors import ConfigInvalid
from ..gateway import Gateway
from ..instrumentation import HandshakeFailed, SettingNotApplied
from ..security.settings import LOCAL_USER, ForwardSecurity, SecurityFile
from ..security.tls import TlsFiles, certificate_name
from .connection import ForwardConnection

LOOK_S = 1.0
_BACKLOG = 1024
_TLS_GOODBYE_S = 5.0
_HEARTBEAT_ANSWER = b"\0"
_MAX_HEARTBEAT_BYTES = 128


class ForwardServer:
    """Listens for forwarders on all sockets, and closes connections that exceed a timeout.

    Each connection uses the secrets and certificates in force when it opens; they may change later. While
    they are unusable, the port is bound and accepts no connections; it opens when they are usable.
    """

    def __init__(
        self, gateway: Gateway, *, security: SecurityFile | None = None, tls: TlsFiles | None = None
    ) -> None:
        self._gateway = gateway
        self._security = security
        self._tls = tls
        self._connections: set[ForwardConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._bound: list[socket.socket] = []  # and shut
        self._said_shut: str | None = None
        self._listening: list[socket.socket] = []  # where TLS is spoken
        self._heartbeat: asyncio.DatagramTransport | None = None
        self._socket: Path | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, *, shares_port: bool = False) -> str:
        """Opens the TCP port; gives back the `host:port` that was bound (port 0 picks a free one).

        With `shares_port` other processes of this user may open the same one with it: the kernel gives each
        connection to one of them (SO_REUSEPORT). Raises OSError.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            self._bound.append(_bound(family, address, shares_port=shares_port))
        bound_host, bound_port, *_ = self._bound[0].getsockname()
        self._watch()
        if (reason := self.why_shut) is None:
            await self._open()
        else:
            self._say_shut(reason)
        return format_address(bound_host, bound_port)

    @property
    def why_shut(self) -> str | None:
        """Why the port may not be opened; None: it may. Once it is open, the handshake says who may not."""
        return (self._security and self._security.why_shut) or (self._tls and self._tls.why_shut) or None

    @property
    def is_open(self) -> bool:
        """Whether the TCP port takes connections."""
        return not self._bound

    async def _open(self) -> None:
        """Listens where the port is bound. Raises OSError."""
        loop = asyncio.get_running_loop()
        while self._bound:
            listening = self._bound[-1]
            if self._tls is None:
                server = await loop.create_server(self._open_connection, sock=listening, backlog=_BACKLOG)
                self._servers.append(server)
            else:
                listening.listen(_BACKLOG)
                self._listening.append(listening)
                loop.add_reader(listening, self._accept, listening)
            self._bound.pop()

    async def listen_on_socket(self, path: Path, *, mode: int) -> None:
        """Opens a Unix socket. Who may open the file may send: the kernel says who it is."""
        if path.exists() and not path.is_socket():
            raise ConfigInvalid(
                f"gateway.forward_socket: {path} exists and is not a socket; set another path"
            )
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(str(path))
            path.chmod(mode)
        except OSError as error:
            listening.close()
            raise ConfigInvalid(f"gateway.forward_socket: {path} cannot be opened: {error}") from error
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: _LocalConnection(self._gateway, self._connections), sock=listening, backlog=_BACKLOG
        )
        self._servers.append(server)
        self._socket = path
        self._watch()

    async def answer_heartbeats(self, host: str, port: int, *, shares_port: bool = False) -> None:
        """Answers UDP datagrams as fluentd does, whose `heartbeat_type udp` asks so. Raises OSError.

        `shares_port` as with `listen`.
        """
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Heartbeat(self), local_addr=(host, port), reuse_port=shares_port
        )
        self._heartbeat = transport

    async def close(self, *, timeout_s: float) -> None:
        """Takes no new connection, acks what was taken in, and closes; waits `timeout_s` at most.

        What is not durable by then is not acked, so it stays with its sender.
        """
        for server in self._servers:
            server.close()
        for listening in self._listening:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        self._listening.clear()
        for bound in self._bound:
            bound.close()
        self._bound.clear()
        if self._heartbeat is not None:
            self._heartbeat.close()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)
        for handshake in self._handshakes:
            handshake.cancel()
        if self._connections:
            await asyncio.wait(
                [asyncio.ensure_future(connection.drain()) for connection in self._connections],
                timeout=timeout_s,
            )
        if self._sweeper is not None:
            self._sweeper.cancel()

    @property
    def _secrets(self) -> ForwardSecurity | None:
        return None if self._security is None else self._security.current

    def _open_connection(self) -> ForwardConnection:
        secrets = self._secrets
        if self._tls is not None and self._tls.asks_for_client_certificate:
            return _CertifiedConnection(self._gateway, self._connections, security=secrets, takes_json=False)
        return ForwardConnection(
            self._gateway, self._connections, security=secrets, takes_json=secrets is None
        )

    def _accept(self, listening: socket.socket) -> None:
        """Peers came where TLS is spoken. (A server of asyncio would keep its first certificate for ever.)"""
        for _ in range(_BACKLOG):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is left: the next may come when some are free again
                self._gateway.telemetry.emit(
                    SettingNotApplied(
                        f"no connection can be accepted: {error.strerror}; raise the open-file limit"
                    )
                )
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(LOOK_S, self._accept_again, listening)
                return
            accepted.setblocking(False)
            handshake = asyncio.get_running_loop().create_task(self._secure(accepted, address[0]))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    def _accept_again(self, listening: socket.socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    async def _secure(self, accepted: socket.socket, sender: str) -> None:
        assert self._tls is not None
        assert self._tls.current is not None, "the port is shut until there is one"
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._open_connection,
                accepted,
                ssl=self._tls.current,
                ssl_handshake_timeout=self._gateway.settings.handshake_timeout_s,
                ssl_shutdown_timeout=_TLS_GOODBYE_S,
            )
        except OSError as error:
            reason = _tls_reason(error)
            self._gateway.telemetry.emit(
                HandshakeFailed(sender=sender, cause=reason, detail=f"TLS: {reason}")
            )

    def _watch(self) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def _sweep(self) -> None:
        """One look at everything each second, or oftener where a time-out is shorter."""
        settings = self._gateway.settings
        shortest_s = min(settings.handshake_timeout_s, settings.message_timeout_s, settings.idle_timeout_s)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(LOOK_S, shortest_s / 4))
            now_s = loop.time()
            for connection in list(self._connections):
                connection.look(now_s)
            # In a thread: a large file takes a second to be read.
            if self._security is not None and await asyncio.to_thread(self._security.refresh):
                for connection in self._from_the_network():
                    connection.recheck(self._secrets)
            if self._tls is not None and self._tls.refresh() and self._tls.authorities_changed:
                for connection in self._from_the_network():
                    connection.end()
            if self._bound:
                await self._open_if_allowed()

    async def _open_if_allowed(self) -> None:
        if (reason := self.why_shut) is not None:
            self._say_shut(reason)
            return
        host, port, *_ = self._bound[0].getsockname()
        address = format_address(host, port)
        try:
            await self._open()
        except OSError as error:
            self._say_shut(f"{address} cannot be opened: {error.strerror or error}")
        else:
            self._said_shut = None
            self._gateway.telemetry.port_opened(address)

    def _say_shut(self, reason: str) -> None:
        if reason != self._said_shut:
            self._said_shut = reason
            self._gateway.telemetry.port_shut(reason)

    def _from_the_network(self) -> list[ForwardConnection]:
        return [each for each in self._connections if not isinstance(each, _LocalConnection)]


class _CertifiedConnection(ForwardConnection):
    """A connection over TLS whose peer has shown a certificate, and goes by the name in it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.identity = certificate_name(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        if self.identity is None or self.identity.startswith(LOCAL_USER):
            detail = "TLS: its certificate has no common name, and no other that could be one"
            self.reject(detail, cause="TLS: no name")


class _LocalConnection(ForwardConnection):
    """A connection over the Unix socket: `unix:` and the name of the user at the other end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.identity = _local_user(transport.get_extra_info("socket"))
        super().connection_made(transport)


class _Heartbeat(asyncio.DatagramProtocol):
    """One byte for each datagram: never more than came, so that no host can be flooded with it.

    None while the port is shut: a sender takes the answer as a sign that it may send.
    """

    def __init__(self, server: ForwardServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if 0 < len(data) <= _MAX_HEARTBEAT_BYTES and self._server.is_open:
            self._transport.sendto(_HEARTBEAT_ANSWER, addr)

    def error_received(self, exc: Exception) -> None:
        """Ignores an answer that cannot be delivered: heartbeats repeat."""


def _bound(family: int, address: Any, *, shares_port: bool) -> socket.socket:
    """A bound socket that does not listen: connections to it fail with ECONNREFUSED. Raises OSError."""
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def _local_user(peer: socket.socket) -> str:
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user_id, _ = struct.unpack("3i", credentials)
    with suppress(KeyError):
        return f"{LOCAL_USER}{pwd.getpwuid(user_id).pw_name}"
    return f"{LOCAL_USER}{user_id}"


_TLS_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS; turn TLS on in the sender",
    "HTTP_REQUEST": "it speaks HTTP without TLS; the web port takes that, and not the forward port",
    "UNKNOWN_PROTOCOL": "it does not speak TLS; turn TLS on in the sender",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        "it shows no certificate, and gateway.tls_client_ca_file asks for one; give the sender its "
        "certificate and key"
    ),
    "TLSV1_ALERT_UNKNOWN_CA": (
        "it does not know the authority of this gateway's certificate; give the sender that authority's file"
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": "it does not accept this gateway's certificate; does the name in it fit?",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": (
        "it does not accept this gateway's certificate; does the name in it fit?"
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "this gateway's certificate has expired; renew it",
}


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason:
        return _TLS_REASONS.get(error.reason) or error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
