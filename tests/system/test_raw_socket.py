"""Input that no client library here sends: TLS, a manual handshake, and bytes in the form of forwarders."""

import gzip
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.ingest.security.tls import make_client_context

from tests.ingest.forward.forward_site import Authority, ping, write_security
from tests.processes import Running
from tests.system.test_real_clients import create, wait_for_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = "A" * 24 + "\n"
TIME = msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 7))


def metadata_events(pieces: list[bytes]) -> list[bytes]:
    return [msgpack.packb([[TIME, {}], {"message": piece}]) for piece in pieces]


def events(pieces: list[bytes]) -> list[bytes]:
    return [msgpack.packb([TIME, {"message": piece}]) for piece in pieces]


def as_msgpack(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def packed_as_str(tag: str, payload: bytes, option: dict[str, Any]) -> bytes:
    """As fluentd: str32 for any content."""
    head = b"\x93" + as_msgpack(tag) + b"\xdb" + struct.pack(">I", len(payload))
    return head + payload + as_msgpack(option)


def zstd_blocks(found: list[bytes]) -> bytes:
    stream = zstd.ZstdCompressor()
    blocks = [stream.compress(event, zstd.ZstdCompressor.FLUSH_BLOCK) for event in found]
    return b"".join(blocks) + stream.flush()


def forward_mode(tag: str, pieces: list[bytes]) -> bytes:
    entries = metadata_events(pieces)
    head = b"\x93" + as_msgpack(tag) + b"\xdc" + struct.pack(">H", len(entries))
    option = b"\xdf\0\0\0\2" + as_msgpack("chunk") + as_msgpack(CHUNK) + as_msgpack("fluent_signal") + b"\0"
    return head + b"".join(entries) + option


MESSAGES: dict[str, Callable[[str, list[bytes]], bytes]] = {
    "fluentd, zstd, a frame for each emit": lambda tag, pieces: packed_as_str(
        tag, b"".join(map(zstd.compress, events(pieces))), {"compressed": "zstd", "chunk": CHUNK}
    ),
    "zstd, a block for each emit": lambda tag, pieces: packed_as_str(
        tag, zstd_blocks(events(pieces)), {"size": len(pieces), "compressed": "zstd", "chunk": CHUNK}
    ),
    "fluentd, gzip, a member for each emit": lambda tag, pieces: packed_as_str(
        tag, b"".join(map(gzip.compress, events(pieces))), {"compressed": "gzip", "chunk": CHUNK}
    ),
    "Fluent Bit, Forward mode of protocol 1.5": forward_mode,
    "4-element Message mode, an ack for the last": lambda tag, pieces: (
        b"".join(msgpack.packb([tag, TIME, {"message": piece}, {}]) for piece in pieces[:-1])
        + msgpack.packb([tag, TIME, {"message": pieces[-1]}, {"chunk": CHUNK}])
    ),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("raw") / "home"
    home.mkdir()
    Authority(home).issue("gateway", "127.0.0.1")
    write_security(home, 'shared_key = "k3y"\n[[user]]\nname = "north"\npassword = "p1"\n')
    (home / "windvane.toml").write_text(
        '[gateway]\ntls_cert_file = "gateway.pem"\ntls_key_file = "gateway.key"\n'
    )
    return home


@pytest.fixture(scope="module")
def site(home: Path) -> Iterator[Running]:
    with Running("up", home) as running:
        yield running


@contextmanager
def authenticated(site: Running) -> Iterator[ssl.SSLSocket]:
    """Connected as fluentd is: TLS 1.2, and the handshake of the protocol."""
    context = make_client_context(ca=site.home / "ca.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(site.forward, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
    ):
        name, options = msgpack.unpackb(peer.recv(4096), raw=True)
        assert name == b"HELO"
        peer.sendall(ping(options, b"k3y", user=b"north", password=b"p1"))
        assert msgpack.unpackb(peer.recv(4096), raw=True)[:2] == [b"PONG", True]
        yield peer


@pytest.mark.parametrize("how", MESSAGES)
def test_over_tls_and_a_handshake_it_is_stored_byte_for_byte(site: Running, speech: Path, how: str) -> None:
    tag = f"raw.{list(MESSAGES).index(how)}"
    create(site, tag)
    content = speech.read_bytes()
    pieces = [content[at : at + 2048] for at in range(0, len(content), 2048)]
    message = MESSAGES[how](tag, pieces)
    # The ack of the first may be lost; but only the last of single events has an ID by which it is
    # recognized.
    tries = 1 if how.startswith("4-element") else 2
    for _ in range(tries):
        with authenticated(site) as peer:
            peer.sendall(message)
            assert peer.recv(4096) == msgpack.packb({"ack": CHUNK})
    wait_for_bytes(site, tag, content)
