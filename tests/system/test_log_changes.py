"""The effects of a change of partitions, of the bus or of a topic on acked chunks, on a real Kafka."""

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import msgpack
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from windvane.lab import connect

from tests.kafka_broker import KafkaBroker
from tests.processes import Running, wait_until, windvane
from tests.system.disturbance import FAST_CHECKPOINTS

TAGS = [f"park.t{number}" for number in range(8)]
EMBEDDED = {"WINDVANE_BUS": "embedded:", **FAST_CHECKPOINTS}


def apply_policy(home: Path, *, partitions: int) -> None:
    home.mkdir(exist_ok=True)
    (home / "park.toml").write_text(
        f'[[policy]]\nreference = "park"\ntags = ["park.**"]\nformat = "raw"\npartitions = {partitions}\n'
    )
    applied = windvane(home, "apply", str(home / "park.toml"))
    assert applied.returncode == 0, applied.stderr.decode()


def kafka_environment(kafka: KafkaBroker, prefix: str) -> dict[str, str]:
    return {
        "WINDVANE_BUS": f"kafka://{kafka.bootstrap}",
        "WINDVANE_KAFKA_TOPIC_PREFIX": prefix,
        "WINDVANE_KAFKA_SESSION_TIMEOUT_S": "3",
        **FAST_CHECKPOINTS,
    }


def send(gateway: Running, tag: str, name: str) -> None:
    """One event, `name`, as a chunk with that ID; returns once it is acknowledged."""
    payload: bytes = msgpack.packb([1_790_000_000, {"message": f"{name}\n".encode()}])
    with socket.create_connection(gateway.forward, timeout=60) as peer:
        peer.sendall(msgpack.packb([tag, payload, {"size": 1, "chunk": f"{tag} {name}"}]))
        expected = msgpack.packb({"ack": f"{tag} {name}"})
        assert peer.recv(len(expected), socket.MSG_WAITALL) == expected


def send_all(gateway: Running, names: Iterable[str]) -> int:
    """To each tag; how many were acknowledged."""
    count = 0
    for name in names:
        for tag in TAGS:
            send(gateway, tag, name)
            count += 1
    return count


def stored(home: Path) -> dict[str, list[str]]:
    """The names that each stream holds, in order."""
    context = connect(home)
    return {tag: context.streams[tag][:].decode().split() for tag in TAGS if tag in context.streams}


def wait_until_stored(home: Path, last: str) -> None:
    def all_have_it() -> bool:
        found = stored(home)
        return all(found.get(tag, [""])[-1:] == [last] for tag in TAGS)

    wait_until(all_have_it, f"{last} is stored in each stream")


def report(home: Path, acked: int) -> None:
    names = stored(home)
    total = sum(map(len, names.values()))
    print(f"{acked} acknowledged, {total} stored, {sum(len(set(each)) for each in names.values())} different")


def numbered(first: int, stop: int) -> list[str]:
    return [f"e{number:03}" for number in range(first, stop)]


def test_partitions_added_between_a_chunk_and_its_repetition_store_it_once(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    apply_policy(home, partitions=2)
    environ = kafka_environment(kafka, f"{kafka.prefix()}.")
    with (
        Running("worker", home, environ=environ),
        Running("gateway", home, environ=environ, instance="a") as first,
    ):
        acked = send_all(first, ["repeated"])
        wait_until_stored(home, "repeated")
        apply_policy(home, partitions=8)
        # Another gateway, which does not remember them; it makes the partitions before it is ready.
        with Running("gateway", home, environ=environ, instance="b") as second:
            send_all(second, ["repeated"])
            acked += send_all(second, ["last"])
            wait_until_stored(home, "last")
    report(home, acked)
    assert stored(home) == {tag: ["repeated", "last"] for tag in TAGS}


def test_a_tags_old_partition_is_worked_off_before_its_new_one_is_begun(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    apply_policy(home, partitions=2)
    environ = kafka_environment(kafka, f"{kafka.prefix()}.")
    first, before, after = numbered(0, 1), numbered(1, 30), numbered(30, 60)
    with Running("gateway", home, environ=environ, instance="a") as gateway:
        with Running("worker", home, environ=environ):  # it records which partitions are old
            acked = send_all(gateway, first)
            wait_until_stored(home, first[-1])
        acked += send_all(gateway, before)
    apply_policy(home, partitions=8)
    with Running("gateway", home, environ=environ, instance="b") as gateway:
        acked += send_all(gateway, after)
        with Running("worker", home, environ=environ):
            wait_until(lambda: sum(map(len, stored(home).values())) >= acked, "all is stored")
    report(home, acked)
    assert stored(home) == {tag: [*first, *before, *after] for tag in TAGS}


def test_embedded_then_kafka_then_embedded_over_one_home_stores_every_acked_event_once(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    apply_policy(home, partitions=2)
    on_kafka = kafka_environment(kafka, f"{kafka.prefix()}.")
    acked = 0
    runs = [(EMBEDDED, numbered(0, 20)), (on_kafka, numbered(20, 50)), (EMBEDDED, numbered(50, 75))]
    for environ, names in runs:
        with Running("gateway", home, environ=environ) as gateway, Running("worker", home, environ=environ):
            acked += send_all(gateway, names)
            wait_until_stored(home, names[-1])
    report(home, acked)
    assert stored(home) == {tag: numbered(0, 75) for tag in TAGS}


def stop_outside_of_a_transaction(worker: Running) -> None:
    """SIGSTOP at a moment at which it has no lock that others would wait for."""
    while True:
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            for name in ("catalog.sqlite", "checkpoints.sqlite"):
                with closing(sqlite3.connect(worker.home / name, timeout=0.2)) as database:
                    database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            os.kill(worker.pid, signal.SIGCONT)
        else:
            return


@pytest.mark.parametrize("count", [5, 40], ids=["shorter", "longer"])
@pytest.mark.parametrize("worker_runs", [False, True], ids=["worker stopped", "worker running"])
def test_a_recreated_topic_stores_all_that_was_acked_before_and_after(
    kafka: KafkaBroker, tmp_path: Path, count: int, worker_runs: bool
) -> None:
    home = tmp_path / "home"
    apply_policy(home, partitions=2)
    prefix = f"{kafka.prefix()}."
    environ = kafka_environment(kafka, prefix)
    names = numbered(0, 20 + count)
    worker = Running("worker", home, environ=environ)
    worker.start()
    try:
        with Running("gateway", home, environ=environ) as gateway:
            acked = send_all(gateway, names[:20])
        wait_until_stored(home, names[19])
        if worker_runs:
            os.kill(worker.pid, signal.SIGSTOP)  # so that it cannot see that the topic is missing
        else:
            assert worker.stop() == 0
        asyncio.run(delete(kafka, f"{prefix}park"))
        with Running("gateway", home, environ=environ) as gateway:
            acked += send_all(gateway, names[20:])
            if worker_runs:
                os.kill(worker.pid, signal.SIGCONT)
            else:
                worker.start()
            wait_until_stored(home, names[-1])
    finally:
        worker.end()
    report(home, acked)
    assert stored(home) == {tag: names for tag in TAGS}


async def delete(kafka: KafkaBroker, topic: str) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await client.start()
    try:
        await client.delete_topics([topic])
        while topic in await client.list_topics():
            await asyncio.sleep(0.05)
    finally:
        await client.close()
