"""The broker that the tests start: it is there when it says so, and keeps what it has over a SIGKILL."""

import subprocess
import sys
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.kafka.local import broker as local_broker
from tests.kafka_broker import KafkaBroker
from tests.processes import started


async def test_it_takes_messages_as_soon_as_it_is_ready_and_keeps_them_over_a_kill(
    kafka: KafkaBroker,
) -> None:
    topic = kafka.prefix()
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    for round_ in range(2):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, enable_idempotence=True)
        await producer.start()
        assert (await producer.send_and_wait(topic, b"%d" % round_)).offset == round_
        await producer.stop()
        if not round_:
            kafka.kill()
            kafka.start()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    assert [(await consumer.getone()).value for _ in range(2)] == [b"0", b"1"]
    await consumer.stop()


def test_the_script_writes_its_address_and_ends_with_its_parent(kafka: KafkaBroker, tmp_path: Path) -> None:
    ready = tmp_path / "bootstrap"
    script = [
        sys.executable,
        local_broker.__file__,
        "--data",
        str(tmp_path / "data"),
        "--ready-file",
        str(ready),
    ]
    with started(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        bootstrap = running.stdout.readline()
        assert ready.read_text() == bootstrap
        threads = Path(f"/proc/{running.pid}/task").glob("*/children")
        (server,) = " ".join(thread.read_text() for thread in threads).split()
        running.stdin.close()
        assert running.wait(timeout=60) == 0
    assert not Path("/proc", server).exists()
