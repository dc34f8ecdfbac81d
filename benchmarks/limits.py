"""What the machine can do at most, for each kind of traffic: the bare loop without a gateway around it."""

import asyncio
import gzip
import multiprocessing
import os
import socket
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import msgpack
import msgspec
import uvloop
from windvane.ingest.security.tls import make_server_context

from benchmarks.traffic import (
    ACK_HEAD,
    CHUNK_BYTES,
    CHUNK_ID_BYTES,
    EVENTS_PER_EMIT,
    RECORD_BYTES,
    Traffic,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DISK_WRITE_BYTES = 4 << 20
_RECEIVE_BYTES = 256 * 1024
_LEAST_S = 0.2


def walking(traffic: Traffic) -> float:
    """Events/s of `msgpack.Unpacker.skip` over the payload, event by event."""
    return _best(lambda: _walk(traffic.payload), traffic.events)


def gunzipping(traffic: Traffic) -> float:
    """Events/s of gzip at level 6 undone by zlib in one call, and walked."""
    compressed = gzip.compress(traffic.payload, 6)
    return _best(lambda: _walk(zlib.decompress(compressed, wbits=31)), traffic.events)


def gunzipping_by_emit(traffic: Traffic) -> float:
    """The same where the events of each emit are a gzip member of their own."""
    emit_bytes = EVENTS_PER_EMIT * RECORD_BYTES
    payload = traffic.payload
    members = [gzip.compress(payload[i : i + emit_bytes], 6) for i in range(0, len(payload), emit_bytes)]
    return _best(
        lambda: _walk(b"".join([zlib.decompress(member, wbits=31) for member in members])), traffic.events
    )


def unzstding(traffic: Traffic) -> float:
    """Events/s of zstd undone in one call, and walked."""
    compressed = zstd.compress(traffic.payload)
    return _best(lambda: _walk(zstd.decompress(compressed)), traffic.events)


def unpacking(traffic: Traffic) -> float:
    """Events/s of `msgpack.Unpacker` over the messages as sent: what a receiver in Python does first."""

    def unpack() -> None:
        unpacker = msgpack.Unpacker(max_buffer_size=2 * CHUNK_BYTES)
        unpacker.feed(traffic.write)
        for _ in unpacker:
            pass

    return _best(unpack, traffic.events)


class _Access(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    remote: str
    method: Literal["GET", "POST"]
    path: str
    code: int
    size: int
    referer: str | None
    agent: str
    seconds: float


class _Event(msgspec.Struct, array_like=True, gc=False):
    time: msgspec.Raw
    record: _Access


def decoding(traffic: Traffic) -> float:
    """Events/s of one `msgspec` decode of the payload into structs of the schema's eight fields."""
    array = b"\xdd" + traffic.events.to_bytes(4, "big") + traffic.payload
    decoder = msgspec.msgpack.Decoder(list[_Event])
    return _best(lambda: decoder.decode(array), traffic.events)


def disk(folder: Path, seconds: float) -> float:
    """Bytes/s of a bare loop of `os.write` of 4 MiB and `os.fdatasync`."""
    data = os.urandom(DISK_WRITE_BYTES)
    path = folder / "disk-limit"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        written = 0
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            written += os.write(descriptor, data)
            os.fdatasync(descriptor)
        return written / (time.perf_counter() - started)
    finally:
        os.close(descriptor)
        path.unlink()


@contextmanager
def bare_tls(certificate: Path, key: Path) -> Iterator[int]:
    """The port of a process that receives TLS with blocking reads, and throws away what it reads."""
    with _another_process(_receive_tls, certificate, key) as port:
        yield port


@contextmanager
def bare_acks() -> Iterator[int]:
    """The port of a process that acks whatever comes, unread: uvloop alone, and one write for one read."""
    with _another_process(_answer, _AckAll) as port:
        yield port


@contextmanager
def bare_echo() -> Iterator[int]:
    """The port of a process that sends back the bytes that come: uvloop alone, and one write for one read."""
    with _another_process(_answer, _EchoAll) as port:
        yield port


@contextmanager
def _another_process(target: Callable[..., None], *arguments: object) -> Iterator[int]:
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield pipe.recv()
    finally:
        process.terminate()
        process.join(timeout=10)


def _receive_tls(pipe: Connection, certificate: Path, key: Path) -> None:
    context = make_server_context(certificate, key, None)
    listening = socket.create_server(("127.0.0.1", 0))
    pipe.send(listening.getsockname()[1])

    def receive(accepted: socket.socket) -> None:
        room = bytearray(_RECEIVE_BYTES)
        try:
            with context.wrap_socket(accepted, server_side=True) as connection:
                while connection.recv_into(room):
                    pass
        except (ssl.SSLError, ConnectionError):
            pass  # its sender went away: the round is over

    while True:
        threading.Thread(target=receive, args=(listening.accept()[0],), daemon=True).start()


class _EchoAll(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _AckAll(_EchoAll):
    def data_received(self, data: bytes) -> None:
        self._transport.write(ACK_HEAD + data[-CHUNK_ID_BYTES:])


def _answer(pipe: Connection, protocol: type[asyncio.Protocol]) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


def _walk(payload: bytes) -> None:
    unpacker = msgpack.Unpacker(max_buffer_size=2 * CHUNK_BYTES)
    unpacker.feed(payload)
    skip = unpacker.skip
    try:
        while True:
            skip()
    except msgpack.OutOfData:
        pass


def _best(work: Callable[[], object], events: int) -> float:
    """Events/s of the best of many runs, as limits go."""
    best = float("inf")
    ends = time.perf_counter() + _LEAST_S
    while time.perf_counter() < ends:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return events / best
