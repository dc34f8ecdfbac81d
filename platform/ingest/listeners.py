"""Where forwarders knock: TCP and TLS, a Unix socket, UDP heartbeats; and the sweeper that watches them."""

import asyncio
import os
import pwd
import socket
import ssl
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from ..config import format_address
from ..errors import ConfigInvalid
from .forward import ForwardConnection
from .gateway import Gateway
from .security import ForwardSecurity, SecurityFile
from .tls import TlsFiles, certificate_name

LOOK_S = 1.0
_BACKLOG = 1024
_TLS_GOODBYE_S = 5.0
_HEARTBEAT_ANSWER = b"\0"
_MAX_HEARTBEAT_BYTES = 128


class ForwardServer:
    """Listens for forwarders on all doors, and ends what takes too long.

    Each connection meets what is in force when it comes: secrets and certificates may change meanwhile.
    """

    def __init__(
        self, gateway: Gateway, *, security: SecurityFile | None = None, tls: TlsFiles | None = None
    ) -> None:
        self._gateway = gateway
        self._security = security
        self._tls = tls
        self._connections: set[ForwardConnection] = set()
        self._servers: list[asyncio.Server] = []
        self._listening: list[socket.socket] = []  # where TLS is spoken
        self._heartbeat: asyncio.DatagramTransport | None = None
        self._socket: Path | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def listen(self, host: str, port: int, *, shares_port: bool = False) -> str:
        """Opens the TCP port; gives back the `host:port` that was bound (port 0 picks a free one).

        With `shares_port` other processes of this user may open the same one with it: the kernel gives each
        connection to one of them (SO_REUSEPORT).
        """
        loop = asyncio.get_running_loop()
        if self._tls is None:
            server = await loop.create_server(
                self._open_connection, host, port, backlog=_BACKLOG, reuse_port=shares_port
            )
            self._servers.append(server)
            bound_host, bound_port, *_ = server.sockets[0].getsockname()
        else:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, _, _, _, address in found:
                listening = socket.create_server(
                    address, family=family, backlog=_BACKLOG, reuse_port=shares_port
                )
                listening.setblocking(False)
                self._listening.append(listening)
                loop.add_reader(listening, self._accept, listening)
            bound_host, bound_port, *_ = self._listening[0].getsockname()
        self._watch()
        return format_address(bound_host, bound_port)

    async def listen_on_socket(self, path: Path, *, mode: int) -> None:
        """Opens a Unix socket. Who may open the file may send: the kernel says who it is."""
        if path.exists() and not path.is_socket():
            raise ConfigInvalid(f"gateway.forward_socket: {path} exists and is no socket; name another path")
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
            _Heartbeat, local_addr=(host, port), reuse_port=shares_port
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
                self._gateway.telemetry.settings_broken(
                    ConfigInvalid(
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
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._open_connection,
                accepted,
                ssl=self._tls.current,
                ssl_handshake_timeout=self._gateway.settings.handshake_timeout_s,
                ssl_shutdown_timeout=_TLS_GOODBYE_S,
            )
        except OSError as error:
            self._gateway.telemetry.handshake_failed(sender=sender, detail=f"TLS: {_tls_reason(error)}")

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
            if self._security is not None and self._security.refresh():
                for connection in self._from_the_network():
                    connection.recheck(self._secrets)
            if self._tls is not None and self._tls.refresh() and self._tls.authorities_changed:
                for connection in self._from_the_network():
                    connection.end()

    def _from_the_network(self) -> list[ForwardConnection]:
        return [each for each in self._connections if not isinstance(each, _LocalConnection)]


class _CertifiedConnection(ForwardConnection):
    """A connection over TLS whose peer has shown a certificate, and goes by the name in it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.identity = certificate_name(transport.get_extra_info("peercert"))
        super().connection_made(transport)
        if self.identity is None:
            self.refuse("TLS: its certificate has no common name, and no other")


class _LocalConnection(ForwardConnection):
    """A connection over the Unix socket: `unix:` and the name of the user at the other end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.identity = _local_user(transport.get_extra_info("socket").fileno())
        super().connection_made(transport)


class _Heartbeat(asyncio.DatagramProtocol):
    """One byte for each datagram: never more than came, so that nobody can be flooded with it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if 0 < len(data) <= _MAX_HEARTBEAT_BYTES:
            self._transport.sendto(_HEARTBEAT_ANSWER, addr)

    def error_received(self, exc: Exception) -> None:
        """An answer that cannot be delivered is nobody's trouble."""


def _local_user(descriptor: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as peer:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user_id, _ = struct.unpack("3i", credentials)
    with suppress(KeyError):
        return f"unix:{pwd.getpwuid(user_id).pw_name}"
    return f"unix:{user_id}"


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({error.verify_message})"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
