"""examples/consumer.py against a real Kafka, while the worker that publishes is killed again and again."""

import csv
import io
import json
import socket
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from windvane.lab import connect

from tests.kafka_broker import KafkaBroker
from tests.processes import Running, wait_until, windvane

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "consumer.py"
STREAMS = ["park.t1", "park.t2"]
SAMPLES = 40_000
EVENTS = 600
CHUNKS = 5  # of each stream, each time
POLICIES = """
[[policy]]
reference = "park"
tags = ["park.*"]
format = "raw"

[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy.pipeline]]
operation = "features"
window = 640
publish = true

[[policy]]
reference = "power"
encoding = "avro"
schema = '{"type": "record", "name": "Power", "fields": [{"name": "kw", "type": "double"}]}'
"""


class KafkaSite:
    """A home on the broker, with the data that the test sends to it."""

    def __init__(self, kafka: KafkaBroker, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.prefix = f"{kafka.prefix()}."
        self.servers = kafka.bootstrap
        (self.home / "windvane.toml").write_text(
            f'bus = "kafka://{kafka.bootstrap}"\n[kafka]\ntopic_prefix = "{self.prefix}"\n'
            "session_timeout_s = 2.0\n"
        )
        (self.home / "park.toml").write_text(POLICIES)
        assert windvane(self.home, "apply", str(self.home / "park.toml")).returncode == 0

    def send(self, gateway: Running, *, part: int, parts: int) -> None:
        """A part of each stream, in chunks; on return all of them are acked."""
        with socket.create_connection(gateway.forward, timeout=60) as connection:
            for stream in STREAMS:
                samples = np.random.default_rng(ord(stream[-1])).normal(0, 1000, SAMPLES).astype("<i2")
                for piece in np.array_split(np.array_split(samples, parts)[part], CHUNKS):
                    self._send(connection, stream, [{"message": piece.tobytes()}])
            for numbers in np.array_split(np.array_split(np.arange(EVENTS), parts)[part], CHUNKS):
                self._send(connection, "power", [{"kw": float(number)} for number in numbers])

    @staticmethod
    def _send(connection: socket.socket, tag: str, records: list[Any]) -> None:
        events = b"".join(msgpack.packb([1_790_000_000, record]) for record in records)
        connection.sendall(msgpack.packb([tag, events, {"chunk": uuid.uuid4().hex}]))
        assert "ack" in msgpack.unpackb(connection.recv(4096))

    def consume(self, topic: str, *options: str) -> subprocess.CompletedProcess[str]:
        """What the example prints; it has nothing of Windvane but a schema."""
        schema = self.home / "topic.avsc"
        schema.write_bytes(windvane(self.home, "topics", "schema", topic).stdout)
        command = [sys.executable, str(EXAMPLE), "--servers", self.servers, "--schema", str(schema)]
        command += ["--topic", self.prefix + topic, *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)


def published(worker: Running, count: int) -> None:
    wait_until(lambda: worker.status()["published_total"] >= count, f"{count} results on the bus")


@pytest.fixture
def site(kafka: KafkaBroker, tmp_path: Path) -> KafkaSite:
    return KafkaSite(kafka, tmp_path)


def test_each_row_and_record_comes_once_though_worker_and_broker_are_killed(
    site: KafkaSite, kafka: KafkaBroker
) -> None:
    never = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "1e9"}
    often = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "0.2"}
    with Running("gateway", site.home) as gateway:
        worker = Running("worker", site.home, environ=never)
        worker.start()
        site.send(gateway, part=0, parts=3)
        # The records, and rows of both streams: whichever the worker comes to first.
        published(worker, EVENTS // 3 + 2 * (SAMPLES // 3 // 640) - 2)
        worker.kill()  # before any checkpoint: all of it is republished
        worker = Running("worker", site.home, environ=often)
        worker.start()
        site.send(gateway, part=1, parts=3)
        published(worker, 300)
        kafka.kill()  # while checkpoints wait for it, or not
        kafka.start()
        worker.kill()
        site.send(gateway, part=2, parts=3)
        with Running("worker", site.home, environ=often) as worker:
            lab = connect(site.home)
            wait_until(
                lambda: (
                    sum(len(lab.arrays[f"{s}:features"]) for s in STREAMS) == 2 * (SAMPLES // 640)
                    and lab.streams["power"].events == EVENTS
                ),
                "the end of the streams",
            )
            # From here on nothing is in flight: what is stored was published before a checkpoint.

    rows = 2 * (SAMPLES // 640)
    done = site.consume("park..rows.features", "--csv", "--count", str(rows))
    assert f"{rows} printed" in done.stderr
    assert "missing" not in done.stderr
    assert int(done.stderr.rpartition("printed, ")[2].split()[0]) > 0, "the kill has repeated some"
    found: dict[str, list[dict[str, Any]]] = {}
    for line in csv.DictReader(io.StringIO(done.stdout)):
        found.setdefault(line["stream"], []).append(line)
    for stream in STREAMS:
        array = lab.arrays[f"{stream}:features"]
        lines = found[f"{stream}:features"]
        assert [int(line["number"]) for line in lines] == list(range(len(array)))
        columns = list(lines[0])[3:]
        values = np.array([[float(line[column]) for column in columns] for line in lines])
        assert np.array_equal(values, np.asarray(array).astype(float))
        assert "rms" in columns

    done = site.consume("power..records", "--count", str(EVENTS))
    printed = [line.split(" ", 3) for line in done.stdout.splitlines()]
    assert [int(number) for _, number, _, _ in printed] == list(range(EVENTS))
    assert [json.loads(record)["kw"] for *_, record in printed] == list(range(EVENTS))


def test_a_stopped_consumer_resumes_after_its_last_record(site: KafkaSite) -> None:
    with Running("gateway", site.home) as gateway, Running("worker", site.home) as worker:
        site.send(gateway, part=0, parts=2)
        published(worker, EVENTS // 2)
        options = ("--group", site.prefix + "others", "--seen", str(site.home / "seen.json"), "--count")
        first = site.consume("power..records", *options, str(EVENTS // 2)).stdout.splitlines()
        site.send(gateway, part=1, parts=2)
        second = site.consume("power..records", *options, str(EVENTS // 2)).stdout.splitlines()
    numbers = [int(line.split()[1]) for line in first + second]
    assert numbers == list(range(EVENTS))
