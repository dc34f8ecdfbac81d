"""Forwarders in a process of their own: they write what was made beforehand, and wait for acks where asked.

The gateway is to be the one that is busy. So a write is a megabyte where no ack is waited for, all of it is C
(the kernel's copy, OpenSSL's cipher), and the process says how much CPU time it took itself.
"""

import multiprocessing
import os
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

from windvane.ingest.forward.handshake import ClientCredentials, ClientHandshake

from benchmarks.traffic import ACK_HEAD, CHUNK_ID_BYTES, Traffic


@dataclass(frozen=True, slots=True)
class Target:
    """The address to send to, and its credentials."""

    host: str
    port: int
    ca: Path | None = None
    """The authority of the gateway's certificate: TLS 1.3 is spoken."""
    shared_key: bytes | None = None
    echoes: bool = False
    """Whether it answers with what it was sent, instead of an ack."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one round took."""

    writes: list[int]
    """For each connection."""
    started_s: float
    """On the machine's monotonic clock, which all its processes share."""
    cpu_s: float


class Senders:
    """Open connections in another process; leaving the context closes them."""

    def __init__(self, target: Target, traffic: Traffic, connections: int) -> None:
        """Connects, and does the handshake if the target requires it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, target, traffic, connections), daemon=True
        )
        self._process.start()
        theirs.close()
        self._pipe.recv()

    def send(self, seconds: float) -> Sent:
        """All connections write for so long, and no write is left half done."""
        self._pipe.send(seconds)
        sent: Sent = self._pipe.recv()
        return sent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join(timeout=10)


def _serve(pipe: Connection, target: Target, traffic: Traffic, count: int) -> None:
    connections = [_connect(target) for _ in range(count)]
    send = partial(_send_acked, echoes=target.echoes) if traffic.acked else _send
    with ThreadPoolExecutor(count) as threads:
        pipe.send("connected")
        while True:
            try:
                seconds = pipe.recv()
            except EOFError:
                break
            cpu_s, started_s = time.process_time(), time.monotonic()
            deadline_s = started_s + seconds
            writes = list(threads.map(send, connections, repeat(traffic), repeat(deadline_s)))
            pipe.send(Sent(writes, started_s, time.process_time() - cpu_s))
    for connection in connections:
        connection.close()


def _connect(target: Target) -> socket.socket:
    connection = socket.create_connection((target.host, target.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if target.ca is not None:
        context = ssl.create_default_context(cafile=target.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        connection = context.wrap_socket(connection, server_hostname=target.host)
    if target.shared_key is not None:
        credentials = ClientCredentials(hostname="bench-sender", shared_key=target.shared_key)
        handshake = ClientHandshake(credentials)
        while not handshake.done:
            connection.sendall(handshake.receive(_received(connection, 4096)))
    return connection


def _received(connection: socket.socket, most: int) -> bytes:
    data = connection.recv(most)
    if not data:
        raise ConnectionError("the receiver closed the connection")
    return data


def _send(connection: socket.socket, traffic: Traffic, deadline_s: float) -> int:
    writes = 0
    while not writes or time.monotonic() < deadline_s:
        connection.sendall(traffic.write)
        writes += 1
    return writes


def _send_acked(connection: socket.socket, traffic: Traffic, deadline_s: float, *, echoes: bool) -> int:
    """Each write is answered before the next."""
    write = bytearray(traffic.write)
    whose = os.urandom(6).hex().encode()
    writes = 0
    while not writes or time.monotonic() < deadline_s:
        chunk_id = b"%s%012d" % (whose, writes)
        write[-CHUNK_ID_BYTES:] = chunk_id
        connection.sendall(write)
        wanted, answer = write if echoes else ACK_HEAD + chunk_id, b""
        while len(answer) < len(wanted):
            answer += _received(connection, 4096)
        if answer != wanted:
            raise RuntimeError(f"{chunk_id!r} was sent, and {answer!r} came back")
        writes += 1
    return writes
