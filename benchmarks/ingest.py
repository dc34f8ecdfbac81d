"""How fast the gateway takes chunks in, against what the machine can do at most.

A real gateway process is sent 1 MiB PackedForward chunks of 200-byte records over loopback TCP:

- into a bus that discards, against walking the same bytes with `msgpack.Unpacker.skip` in a loop;
- into the embedded log with fdatasync before each ack, against a bare loop of `os.write` of 4 MiB and
  `os.fdatasync` in the same folder.

    python benchmarks/ingest.py [--seconds 4] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import os
import socket
import statistics
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgpack

from benchmarks.report import Report, arguments
from tests.processes import Running, wait_until, windvane

TAG = "bench"
CHUNK_BYTES = 1 << 20
DISK_WRITE_BYTES = 4 << 20


def main() -> None:
    """Runs all modes and prints the table."""
    parser = arguments(__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each mode is sent (default: 4)")
    options = parser.parse_args()
    report = Report("Ingest: PackedForward, 1 MiB chunks of 200-byte records")
    chunk = Chunk.of_records(200)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        into_nothing(report, Path(folder), chunk, options.seconds)
        onto_disk(report, Path(folder), chunk, options.seconds)
    report.finish(options.json)


def into_nothing(report: Report, folder: Path, chunk: "Chunk", seconds: float) -> None:
    """The bus discards: what parsing, checking and acking cost."""
    modes = [("no ack", 1, False), ("no ack", 4, False), ("1 in flight", 1, True), ("1 in flight", 4, True)]
    with running_gateway(folder / "discard", "discard:") as gateway:
        for name, connections, acked in modes:
            limits: list[float] = []
            rates: list[Rate] = []
            for _ in range(3):
                limits.append(walking_limit(chunk))
                rates.append(send(gateway, chunk, seconds / 3, connections, acked=acked))
            limit = statistics.median(limits)
            add_rates(report, f"discard, {connections} conn, {name}", chunk, rates, limit, "walking")
        report.add(
            "discard, peak memory", gateway.peak_bytes() / 1e6, "MB", "200 MB", gateway.peak_bytes() / 200e6
        )


def onto_disk(report: Report, folder: Path, chunk: "Chunk", seconds: float) -> None:
    """Acked after fdatasync: against the disk."""
    with running_gateway(folder / "embedded", "embedded:") as gateway:
        for connections in (1, 8):
            limits = []
            rates = []
            for _ in range(3):
                limits.append(disk_limit(folder, seconds / 3))
                rates.append(send(gateway, chunk, seconds / 3, connections, acked=True))
            limit = statistics.median(limits) / len(chunk.payload) * chunk.events
            add_rates(
                report,
                f"fdatasync, {connections} conn, 1 in flight",
                chunk,
                rates,
                limit,
                "bare fdatasync loop",
            )
        report.add(
            "fdatasync, peak memory", gateway.peak_bytes() / 1e6, "MB", "200 MB", gateway.peak_bytes() / 200e6
        )


def running_gateway(home: Path, bus: str) -> Running:
    """A gateway with one policy, that keeps the events as they come."""
    created = windvane(home.absolute(), "policy", "create", TAG, "--format", "msgpack")
    if created.returncode:
        raise RuntimeError(created.stderr.decode())
    return Running("gateway", home.absolute(), "--bus", bus)


def add_rates(
    report: Report, name: str, chunk: "Chunk", rates: list["Rate"], limit: float, peer: str
) -> None:
    """Three figures: events/s against the limit, MB/s against the limit, CPU seconds per million events."""
    events_per_s = statistics.median(rate.events_per_s for rate in rates)
    per_event = len(chunk.payload) / chunk.events
    ratio = events_per_s / limit
    report.add(f"{name}: events", events_per_s, "events/s", f"{peer} {limit:,.3g} events/s", ratio)
    report.add(
        f"{name}: bytes",
        events_per_s * per_event / 1e6,
        "MB/s",
        f"{peer} {limit * per_event / 1e6:,.0f} MB/s",
        ratio,
    )
    cpu = statistics.median(rate.cpu_s_per_million for rate in rates)
    report.add(f"{name}: gateway CPU", cpu, "s per million events")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One chunk's payload and the messages that carry it."""

    payload: bytes
    events: int

    @classmethod
    def of_records(cls, record_bytes: int) -> "Chunk":
        """Events as a forwarder makes them of a web server's access log, 1 MiB together."""
        record = {
            "remote": "10.3.17.204",
            "host": "-",
            "user": "-",
            "method": "GET",
            "path": "/api/v1/streams/turbine.t07",
            "code": "200",
            "size": "5316",
            "referer": "https://park.example/",
            "agent": "",
        }
        event = [msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 5)), record]
        record["agent"] = "Mozilla/5.0".ljust(record_bytes - len(msgpack.packb(event)) - 1, ".")
        packed = msgpack.packb(event)
        count = CHUNK_BYTES // len(packed)
        return cls(packed * count, count)

    def head(self) -> bytes:
        """The forward message up to its option."""
        return (
            b"\x93" + bytes(msgpack.packb(TAG)) + struct.pack(">BI", 0xDB, len(self.payload)) + self.payload
        )

    def option(self, chunk_id: str | None) -> bytes:
        """The rest of it; with `chunk_id` it asks for an ack."""
        option = {"size": self.events} if chunk_id is None else {"size": self.events, "chunk": chunk_id}
        packed: bytes = msgpack.packb(option)
        return packed


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run reached."""

    events_per_s: float
    cpu_s_per_million: float


def send(gateway: Running, chunk: Chunk, seconds: float, connections: int, *, acked: bool) -> Rate:
    """Sends for `seconds` over several connections, and waits until the gateway has taken all of it."""
    before = gateway.status()["events_total"]
    cpu_before = gateway.cpu_s()
    started = time.perf_counter()
    with ThreadPoolExecutor(connections) as threads:
        sent = sum(
            threads.map(
                lambda _: _send_on_one(gateway.forward, chunk, seconds, acked=acked), range(connections)
            )
        )
    total = sent * chunk.events
    wait_until(lambda: gateway.status()["events_total"] >= before + total, "the gateway has taken all events")
    elapsed = time.perf_counter() - started
    return Rate(total / elapsed, (gateway.cpu_s() - cpu_before) / total * 1e6)


def _send_on_one(address: tuple[str, int], chunk: Chunk, seconds: float, *, acked: bool) -> int:
    """How many chunks it sent; with `acked` each is acked before the next."""
    sent = 0
    with socket.create_connection(address) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.perf_counter() + seconds
        head = chunk.head()
        plain = head + chunk.option(None)
        while time.perf_counter() < deadline:
            if not acked:
                connection.sendall(plain)
            else:
                chunk_id = os.urandom(12).hex()
                connection.sendall(head)
                connection.sendall(chunk.option(chunk_id))
                ack = b""
                while not ack.endswith(chunk_id.encode()):
                    piece = connection.recv(4096)
                    if not piece:
                        raise ConnectionError("the gateway closed the connection")
                    ack += piece
            sent += 1
    return sent


def walking_limit(chunk: Chunk) -> float:
    """Events/s of `Unpacker.skip` over the payload: the best of many walks, as limits go."""
    best = float("inf")
    for _ in range(60):
        started = time.perf_counter()
        unpacker = msgpack.Unpacker(max_buffer_size=2 * CHUNK_BYTES)
        unpacker.feed(chunk.payload)
        skip = unpacker.skip
        try:
            while True:
                skip()
        except msgpack.OutOfData:
            pass
        best = min(best, time.perf_counter() - started)
    return chunk.events / best


def disk_limit(folder: Path, seconds: float) -> float:
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


if __name__ == "__main__":
    main()
