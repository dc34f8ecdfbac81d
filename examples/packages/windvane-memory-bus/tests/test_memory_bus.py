"""The memory bus, against what every bus engine promises."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from windvane.bus import Bus, open_bus
from windvane.testing.bus import BusConformance, MakeBus
from windvane_memory_bus import MemoryEngine


class Interference:
    """What retention and operators do to topics, in memory."""

    def __init__(self, home: Path) -> None:
        self._cluster = MemoryEngine.clusters[home, "test"]

    async def trim(self, topic: str, before: int) -> None:
        """Drop the messages of partition 0 before the offset."""
        log = self._cluster.topics[topic].logs[0]
        del log.messages[: before - log.first]
        log.first = before

    async def delete(self, topic: str) -> None:
        """Delete the topic."""
        del self._cluster.topics[topic]
        self._cluster.notify()


class TestMemoryBus(BusConformance):
    """The shipped suite."""

    @pytest.fixture
    async def make_bus(self, tmp_path: Path) -> AsyncIterator[MakeBus]:
        """Opens one more bus on the same messages; closes all of them at the end."""
        buses: list[Bus] = []

        def make() -> Bus:
            buses.append(open_bus("memory:test", tmp_path))
            return buses[-1]

        yield make
        for bus in buses:
            await bus.close()

    @pytest.fixture
    def interference(self, make_bus: MakeBus, tmp_path: Path) -> Interference:
        """Reaches into the messages of the test."""
        make_bus()
        return Interference(tmp_path)
