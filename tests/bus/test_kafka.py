"""The Kafka bus on a real broker: the conformance suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from windvane.bus import Bus, open_bus
from windvane.config import KafkaSettings

from tests.bus.conformance import BusConformance, MakeBus
from tests.kafka_broker import KafkaBroker


@pytest.fixture
async def make_bus(kafka: KafkaBroker, tmp_path: Path) -> AsyncIterator[MakeBus]:
    settings = KafkaSettings(topic_prefix=f"{kafka.prefix()}.", session_timeout_s=2.0)
    buses: list[Bus] = []

    def make() -> Bus:
        buses.append(open_bus(f"kafka://{kafka.bootstrap}", tmp_path, settings))
        return buses[-1]

    yield make
    for bus in buses:
        await bus.close()


class TestKafka(BusConformance):
    pass
