"""How fast chunks go through a real Kafka, against aiokafka alone with the same messages.

A broker is started here (`make kafka` brings it). 1 MiB PackedForward chunks of 200-byte records:

- gateway → Kafka, acked by the broker, against aiokafka producing the same messages in a process of its own,
  and against what Fluent Bit reaches into Kafka (0.17 M events/s on such a machine, one record a message);
- gateway → Kafka → worker → store, against aiokafka producing and consuming them at the same time.

Each figure is the median of three runs, taken in turns. On a machine with few cores the broker, the sender
and what is measured share them; CPU seconds say what each costs.

    python benchmarks/kafka.py [--seconds 4] [--connections 4] [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import json
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from windvane.bus.messages.chunks import ChunkMessage, encode_chunk
from windvane.lab import connect

from benchmarks.report import Report, arguments
from benchmarks.sender import Senders, Target
from benchmarks.traffic import TAG, Traffic, packed
from deploy.kafka.local.broker import LocalBroker
from tests.processes import Running, wait_until, windvane

FLUENT_BIT_EVENTS_PER_S = 0.17e6
IN_FLIGHT_BYTES = 32 << 20
BATCH_BYTES = 2 << 20
RUNS = 3
END = b"end"


@dataclass(frozen=True, slots=True)
class Rate:
    """What one run reached."""

    events_per_s: float
    cpu_s_per_million: float


def main() -> None:
    """Runs all modes and prints the table."""
    parser = arguments(__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each run sends (default: 4)")
    parser.add_argument(
        "--connections", type=int, default=4, help="of forwarders to the gateway (default: 4)"
    )
    parser.add_argument("--peer", nargs=4, metavar=("MODE", "BOOTSTRAP", "TOPIC", "SECONDS"), help="internal")
    options = parser.parse_args()
    chunk = packed(acked=True)
    if options.peer:
        mode, bootstrap, topic, seconds = options.peer
        print(json.dumps(uvloop.run(peer(mode, bootstrap, topic, float(seconds), chunk))))
        return
    report = Report("Kafka: 1 MiB chunks of 200-byte records")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        broker = LocalBroker(
            Path(folder).absolute() / "broker", properties={"log.retention.bytes": str(1 << 30)}
        )
        broker.start()
        try:
            run_all(report, Path(folder).absolute(), broker, chunk, options.seconds, options.connections)
        finally:
            broker.stop()
    report.finish(options.json)


def run_all(
    report: Report, folder: Path, broker: LocalBroker, chunk: Traffic, seconds: float, connections: int
) -> None:
    """Both ways, each next to its peer."""
    bus = ["--bus", f"kafka://{broker.bootstrap}"]
    home = folder / "home"
    created = windvane(home, "policy", "create", TAG, "--format", "msgpack")
    if created.returncode:
        raise RuntimeError(created.stderr.decode())
    into, through, alone, alone_through = [], [], [], []
    with Running("gateway", home, *bus) as gateway:
        send(gateway, chunk, 1.0, connections)  # Java warms up
        run_peer("produce", broker.bootstrap, 1.0)
        for _ in range(RUNS):
            alone.append(run_peer("produce", broker.bootstrap, seconds))
            into.append(send(gateway, chunk, seconds, connections))
        with Running("worker", home, *bus) as worker:
            wait_until(
                lambda: stored_events(home) == gateway.status()["events_total"], "caught up", timeout_s=600
            )
            for _ in range(RUNS):
                alone_through.append(run_peer("both", broker.bootstrap, seconds))
                through.append(send_through(gateway, worker, chunk, seconds, connections))
        peak_bytes = gateway.peak_bytes()
    add(report, "gateway → Kafka", chunk, into, alone)
    rate = statistics.median(each.events_per_s for each in into)
    report.add(
        "gateway → Kafka, against Fluent Bit",
        rate,
        "events/s",
        f"Fluent Bit → Kafka {FLUENT_BIT_EVENTS_PER_S:,.0f} events/s",
        rate / FLUENT_BIT_EVENTS_PER_S,
    )
    add(report, "gateway → Kafka → worker → store", chunk, through, alone_through)
    report.add("gateway, peak memory", peak_bytes / 1e6, "MB")


def add(report: Report, name: str, chunk: Traffic, ours: Sequence[Rate], theirs: Sequence[Rate]) -> None:
    """Events, bytes and CPU seconds against those of aiokafka alone."""
    rate, limit = (statistics.median(each.events_per_s for each in rates) for rates in (ours, theirs))
    cpu, peer_cpu = (statistics.median(each.cpu_s_per_million for each in rates) for rates in (ours, theirs))
    per_event = len(chunk.payload) / chunk.events
    report.add(f"{name}: events", rate, "events/s", f"aiokafka alone {limit:,.0f} events/s", rate / limit)
    report.add(
        f"{name}: bytes",
        rate * per_event / 1e6,
        "MB/s",
        f"aiokafka alone {limit * per_event / 1e6:,.0f} MB/s",
        rate / limit,
    )
    report.add(
        f"{name}: CPU", cpu, "s per million events", f"aiokafka alone {peer_cpu:.3g} s", cpu / peer_cpu
    )


def send(gateway: Running, chunk: Traffic, seconds: float, connections: int) -> Rate:
    """Each connection has one chunk in flight, and sends the next when it is acked."""
    cpu_before_s = gateway.cpu_s()
    with Senders(Target(*gateway.forward), chunk, connections) as senders:
        sent = senders.send(seconds)
    elapsed_s = time.monotonic() - sent.started_s
    events = sum(sent.writes) * chunk.events
    return Rate(events / elapsed_s, (gateway.cpu_s() - cpu_before_s) / events * 1e6)


def stored_events(home: Path) -> int:
    """What the worker has put into the data stream."""
    context = connect(home)
    return context.streams[TAG].events if TAG in context.streams else 0


def send_through(gateway: Running, worker: Running, chunk: Traffic, seconds: float, connections: int) -> Rate:
    """Sends for `seconds`, until the worker has stored all of it."""
    before, cpu_before = stored_events(gateway.home), gateway.cpu_s() + worker.cpu_s()
    began = time.perf_counter()
    taken = gateway.status()["events_total"]
    send(gateway, chunk, seconds, connections)
    total = gateway.status()["events_total"] - taken
    wait_until(lambda: stored_events(gateway.home) >= before + total, "all is stored", timeout_s=600)
    elapsed = time.perf_counter() - began
    return Rate(total / elapsed, (gateway.cpu_s() + worker.cpu_s() - cpu_before) / total * 1e6)


def run_peer(mode: str, bootstrap: str, seconds: float) -> Rate:
    """aiokafka alone, producing in one process and with "both" consuming in another."""
    topic = f"peer-{uuid.uuid4().hex[:8]}"
    asyncio.run(make_topic(bootstrap, topic))
    modes = ["produce", "consume"] if mode == "both" else ["produce"]
    peers = [
        subprocess.Popen(
            [sys.executable, __file__, "--peer", each, bootstrap, topic, str(seconds)], stdout=subprocess.PIPE
        )
        for each in modes
    ]
    answers = [json.loads(each.communicate()[0]) for each in peers]
    elapsed = answers[-1]["ended_s"] - answers[0]["began_s"]
    events = answers[0]["events"]
    return Rate(events / elapsed, sum(answer["cpu_s"] for answer in answers) / events * 1e6)


async def make_topic(bootstrap: str, topic: str) -> None:
    """As our own topics are: one partition, large messages."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": str(9 << 20)})])
    await admin.close()


async def peer(mode: str, bootstrap: str, topic: str, seconds: float, chunk: Traffic) -> dict[str, float]:
    """One process of aiokafka; times are of the monotonic clock, which all processes share."""
    if mode == "consume":
        return await consume(bootstrap, topic)
    return await produce(bootstrap, topic, seconds, chunk)


async def produce(bootstrap: str, topic: str, seconds: float, chunk: Traffic) -> dict[str, float]:
    """As many messages in flight as our producer has, with its settings; from the first one on."""
    message = ChunkMessage(
        tag=TAG,
        sender="127.0.0.1",
        chunk_id=b"x" * 24,
        received_ns=0,
        events=chunk.events,
        payload=chunk.payload,
    )
    value = b"".join(encode_chunk(message))
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap,
        enable_idempotence=True,
        acks="all",
        max_batch_size=BATCH_BYTES,
        max_request_size=64 << 20,
    )
    await producer.start()
    await producer.send_and_wait(topic, value, key=TAG.encode())
    slots = asyncio.Semaphore(IN_FLIGHT_BYTES // len(value))
    began_s, cpu_before_s = time.perf_counter(), time.process_time()
    sent = 0
    while time.perf_counter() < began_s + seconds:
        await slots.acquire()
        future = await producer.send(topic, value, key=TAG.encode())
        future.add_done_callback(lambda _: slots.release())
        sent += 1
    await producer.send_and_wait(topic, END)
    ended_s, cpu_s = time.perf_counter(), time.process_time() - cpu_before_s
    await producer.stop()
    return {"events": sent * chunk.events, "began_s": began_s, "ended_s": ended_s, "cpu_s": cpu_s}


async def consume(bootstrap: str, topic: str) -> dict[str, float]:
    """Reads to the end that `produce` sets, as fast as it comes."""
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        auto_offset_reset="earliest",
        fetch_max_bytes=16 << 20,
        max_partition_fetch_bytes=4 << 20,
    )
    await consumer.start()
    cpu_before_s = time.process_time()
    is_ended = False
    while not is_ended:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            is_ended = records[-1].value == END
    ended_s, cpu_s = time.perf_counter(), time.process_time() - cpu_before_s
    await consumer.stop()
    return {"ended_s": ended_s, "cpu_s": cpu_s}


if __name__ == "__main__":
    main()
