"""How a worker gets through more data streams than the kernel lets it map at once.

A gateway and a worker, one policy whose streams have three arrays each (samples, spectra, features), and one
chunk for each stream, all published before the worker starts; then a second chunk for each. Meanwhile a
neighbour of another policy gets a chunk every second: the age of its checkpoint is against three intervals,
the mappings of the worker against the kernel's limit (vm.max_map_count). The run fails if the worker ends, if
anything is stored twice or not at all, or if the neighbour's checkpoint is late.

    python benchmarks/many_streams.py
    python benchmarks/many_streams.py --streams 100000 --rounds 1 --json build/many_streams.json
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import msgpack
import numpy as np
from windvane.lab import connect

from benchmarks.report import Report, arguments
from tests.processes import Running, windvane

STREAMS, ROUNDS = 10_000, 2
INTERVAL_S = 5.0
LATE_S = 3 * INTERVAL_S
SAMPLES = 64
IN_FLIGHT = 500
DONE_S = 3600.0
POLICIES = f"""
[[policy]]
reference = "many"
tags = ["many.*"]
format = "raw"
partitions = 4
pipeline = [
    {{ operation = "pcm", name = "samples", dtype = "int16", rate_hz = 6400.0 }},
    {{ operation = "spectrum", length = {SAMPLES}, overlap = 0.0 }},
    {{ operation = "features", window = {SAMPLES} }},
]

[[policy]]
reference = "neighbour"
tags = ["neighbour"]
format = "raw"
"""
NEIGHBOUR = b"one second"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS, help=f"{STREAMS} by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of chunks; {ROUNDS} by default")
    given = parser.parse_args()
    report = Report(f"{given.streams} streams with 3 arrays each, {given.rounds} chunks a stream")
    with tempfile.TemporaryDirectory(prefix="windvane-many-streams-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "policies.toml").write_text(POLICIES)
        applied = windvane(home, "apply", str(home / "policies.toml"))
        assert applied.returncode == 0, applied.stderr.decode()
        with Running("gateway", home) as gateway:
            failed = run(report, gateway, given.streams, given.rounds)
    report.finish(given.json)
    if failed:
        raise SystemExit(failed)


def run(report: Report, gateway: Running, streams: int, rounds: int) -> str:
    """Add the figures; give what went wrong, or nothing."""
    worst_age_s, most_mappings, neighbours = 0.0, 0, 1
    send(gateway, [("neighbour", NEIGHBOUR)])
    send(gateway, chunks_of_round(streams, 0))
    interval = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": str(INTERVAL_S)}
    with Running("worker", gateway.home, environ=interval) as worker:
        for number in range(rounds):
            if number:
                send(gateway, chunks_of_round(streams, number))
            began_s = looked_s = time.monotonic()
            done = 0
            while done < streams * (number + 1) + neighbours:
                if time.monotonic() - began_s > DONE_S:
                    return f"after {DONE_S:g} s {done} chunks are done"
                time.sleep(max(0.0, looked_s + 1 - time.monotonic()))
                looked_s = time.monotonic()
                send(gateway, [("neighbour", NEIGHBOUR)])
                neighbours += 1
                status = worker.status()
                row = status["streams_behind"].get("neighbour", status)
                worst_age_s = max(worst_age_s, float(row["checkpoint_age_s"]))
                most_mappings = max(most_mappings, mappings(worker.pid))
                done = int(status["chunks_total"])
            rate = streams / (time.monotonic() - began_s)
            report.add(f"round {number + 1}", rate, "streams/s")
        peak_bytes = worker.peak_bytes()
        if worker.stop():
            return "the worker did not end cleanly"
    limit = int(Path("/proc/sys/vm/max_map_count").read_text())
    report.add("mappings at most", most_mappings, "", f"{limit} of the kernel", most_mappings / limit)
    report.add("neighbour's checkpoint", worst_age_s, "s at most", f"{LATE_S:g} s", worst_age_s / LATE_S)
    report.add("peak memory of the worker", peak_bytes / 1e6, "MB")
    if worst_age_s >= LATE_S:
        return "the neighbour's checkpoint is late"
    return wrongly_stored(gateway.home, streams, rounds, neighbours)


def chunks_of_round(streams: int, number: int) -> Iterator[tuple[str, bytes]]:
    """One chunk of `SAMPLES` samples for each stream."""
    for stream in range(streams):
        yield f"many.{stream}", np.full(SAMPLES, number * 1000 + stream % 1000, "<i2").tobytes()


def send(gateway: Running, chunks: Iterable[tuple[str, bytes]]) -> None:
    """Send (tag, bytes) over one connection, and wait until all are acked."""
    with socket.create_connection(gateway.forward, timeout=60) as peer, peer.makefile("rb") as acks:
        for some in batched(chunks, IN_FLIGHT):
            expected = b""
            for tag, piece in some:
                payload = msgpack.packb([time.time_ns() // 1_000_000_000, {"message": piece}])
                chunk_id = f"{tag} {time.time_ns()}"
                peer.sendall(msgpack.packb([tag, payload, {"chunk": chunk_id}]))
                expected += msgpack.packb({"ack": chunk_id})
            # Acks of different tags may come in another order.
            assert len(acks.read(len(expected))) == len(expected), "the gateway closed the connection"


def batched(chunks: Iterable[tuple[str, bytes]], size: int) -> Iterator[list[tuple[str, bytes]]]:
    """Lists of `size` chunks; the last may be shorter."""
    rest = iter(chunks)
    while some := list(islice(rest, size)):
        yield some


def mappings(pid: int) -> int:
    """How many mappings a process has."""
    with open(f"/proc/{pid}/maps", "rb") as lines:
        return sum(1 for _ in lines)


def wrongly_stored(home: Path, streams: int, rounds: int, neighbours: int) -> str:
    """The first stream whose bytes or rows are not those that were sent, or nothing."""
    context = connect(home)
    if context.streams["neighbour"][:] != NEIGHBOUR * neighbours:
        return "neighbour: not stored once"
    for stream in range(streams):
        reference = f"many.{stream}"
        values = np.repeat([number * 1000 + stream % 1000 for number in range(rounds)], SAMPLES).astype("<i2")
        if context.streams[reference][:] != values.tobytes():
            return f"{reference}: not stored once"
        if not np.array_equal(context.arrays[f"{reference}:samples"][:, 0], values):
            return f"{reference}:samples: not stored once"
        for output in ("spectrum", "features"):
            rows = len(context.arrays[f"{reference}:{output}"])
            if rows != rounds:
                return f"{reference}:{output}: {rows} rows instead of {rounds}"
    return ""


if __name__ == "__main__":
    main()
