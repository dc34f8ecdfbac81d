"""A gateway with its forward ports in the test's own process, and a peer that writes arbitrary bytes."""

import asyncio
import hashlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import trustme
from windvane.bus import open_bus
from windvane.config import GatewaySettings, Settings
from windvane.ingest.chunk import IncomingChunk
from windvane.ingest.forward.listeners import ForwardServer
from windvane.ingest.gateway import Gateway
from windvane.ingest.policy_book import PolicyBook
from windvane.ingest.security.settings import SecurityFile
from windvane.ingest.security.tls import TlsFiles
from windvane.ingest.submission import Submission
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.waiting import until

EVENT: bytes = msgpack.packb(
    [msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 7)), {"message": b"hello"}]
)
TIMEOUT_S = 20.0  # only ends a test that hangs


class RecordingGateway(Gateway):
    """A gateway that records the chunks that its listeners submit."""

    chunks: list[IncomingChunk]

    def submit(self, chunk: IncomingChunk) -> Submission:
        self.chunks.append(chunk)
        return super().submit(chunk)


@dataclass
class ForwardSite:
    """What a test looks at."""

    home: Path
    gateway: RecordingGateway
    server: ForwardServer
    telemetry: GatewayTelemetry
    host: str = ""
    port: int = 0
    chunks: list[IncomingChunk] = field(default_factory=list)

    @asynccontextmanager
    async def connected(self, **how: Any) -> AsyncIterator["Peer"]:
        """A connection of the test's own."""
        if "path" in how:
            reader, writer = await asyncio.open_unix_connection(**how)
        else:
            reader, writer = await asyncio.open_connection(self.host, self.port, **how)
        peer = Peer(reader, writer)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                yield peer
        finally:
            writer.transport.abort()

    async def until(self, holds: Any) -> None:
        """Waits for something that the gateway does by itself."""
        await until(holds, timeout_s=TIMEOUT_S)


@dataclass
class Peer:
    """The sending end of one connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def value(self) -> Any:
        """The next msgpack value that the gateway wrote."""
        unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
        while True:
            piece = await self.reader.read(1)
            if not piece:
                raise EOFError("the gateway closed the connection")
            unpacker.feed(piece)
            with suppress(msgpack.OutOfData):
                return unpacker.unpack()

    async def acked(self, message: bytes) -> Any:
        """Sends a message, and gives the id that was acked."""
        await self.send(message)
        return (await self.value())[b"ack"]

    async def closed(self) -> bytes:
        """What still came until the gateway closed the connection."""
        with suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def shake_hands(
        self,
        key: bytes,
        *,
        hostname: bytes = b"sender",
        salt: bytes = bytes(range(0x80, 0x90)),
        user: bytes = b"",
        password: bytes = b"",
    ) -> Any:
        """As Fluent Bit does it: the salt is not UTF-8, and typed str. Returns PONG."""
        _, options = await self.value()
        await self.send(ping(options, key, hostname=hostname, salt=salt, user=user, password=password))
        return await self.value()


def ping(
    options: dict[bytes, Any],
    key: bytes,
    *,
    hostname: bytes = b"sender",
    salt: bytes = bytes(range(0x80, 0x90)),
    user: bytes = b"",
    password: bytes = b"",
) -> bytes:
    """A PING by the protocol's words, made without the code that is tested."""
    proof = hashlib.sha512(salt + hostname + options[b"nonce"] + key).hexdigest().encode()
    login = hashlib.sha512(options[b"auth"] + user + password).hexdigest().encode() if user else b""
    parts = [b"PING", hostname, salt, proof, user, login]
    return b"\x96" + b"".join(b"\xd9" + bytes([len(part)]) + part for part in parts)


def packed(tag: str, payload: bytes, **option: Any) -> bytes:
    return bytes(msgpack.packb([tag, payload, *([option] if option else [])]))


@asynccontextmanager
async def forward_site(
    home: Path,
    *,
    security: str | None = None,
    tls: bool = False,
    host: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[ForwardSite]:
    """Listens on a free port, with a policy for `t`; `security` is what forward-security.toml holds."""
    at = Settings(home=home, gateway=GatewaySettings(**settings))
    if security is not None:
        write_security(home, security)
    telemetry = GatewayTelemetry()
    catalog = await Catalog.open(at.catalog_url)
    await catalog.put("policy", "t", body=policy_to_mapping(policy_from_mapping({"reference": "t"})))
    bus = open_bus("discard:", home)
    policies = PolicyBook(catalog, bus, telemetry)
    await policies.refresh()
    gateway = RecordingGateway(
        producer=bus.producer(),
        policies=policies,
        dead_letters=SqlDeadLetters(at.dead_letter_file),
        telemetry=telemetry,
        settings=at.gateway,
    )
    gateway.chunks = []
    server = ForwardServer(
        gateway,
        security=SecurityFile(
            at.forward_security_file,
            on_broken=partial(telemetry.file_broken, "secrets"),
            on_repaired=partial(telemetry.file_repaired, "secrets"),
        ),
        tls=TlsFiles.of(
            at,
            on_broken=partial(telemetry.file_broken, "certificates"),
            on_repaired=partial(telemetry.file_repaired, "certificates"),
        )
        if tls
        else None,
    )
    site = ForwardSite(home, gateway, server, telemetry, chunks=gateway.chunks)
    bound, _, port = (await server.listen(host, 0)).rpartition(":")
    site.host, site.port = bound.strip("[]"), int(port)
    try:
        yield site
    finally:
        await server.close(timeout_s=5)
        await gateway.close()
        await bus.close()
        await catalog.close()


def write_security(home: Path, text: str) -> None:
    path = home / "forward-security.toml"
    path.touch(0o600)
    path.chmod(0o600)
    path.write_text(text)


class Authority:
    """A new certificate authority for a test; its certificates are valid for a day."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._authority = trustme.CA()
        self.ca = home / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, *identities: str, common_name: str | None = None) -> tuple[Path, Path]:
        """A certificate and its key."""
        issued = self._authority.issue_cert(*identities, common_name=common_name)
        cert, key = self.home / f"{name}.pem", self.home / f"{name}.key"
        key.write_bytes(issued.private_key_pem.bytes())
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        return cert, key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
