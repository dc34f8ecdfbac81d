"""What the tests of the suite share: the types of their fixtures, names, and numbered messages."""

import itertools
from collections.abc import Callable
from typing import Protocol

import pytest

from ...bus import Bus

MakeBus = Callable[[], Bus]
"""Opens one more bus on the same messages."""

_numbers = itertools.count()


class Interference(Protocol):
    """What retention and operators do to topics, by the means of the engine.

    An engine without retention lets `trim` call `pytest.skip`.
    """

    async def trim(self, topic: str, before: int) -> None:
        """Retention drops the messages of partition 0 before the offset."""

    async def delete(self, topic: str) -> None:
        """Delete the topic, with all its messages."""


class ConformanceFixtures:
    """A topic and a group of each test's own; every test of the suite runs on an event loop."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def topic(self) -> str:
        return f"topic-{next(_numbers)}"

    @pytest.fixture
    def group(self) -> str:
        return f"group-{next(_numbers)}"


async def publish_numbers(bus: Bus, topic: str, numbers: range) -> None:
    """Publish the numbers as messages with the same key, one after the other."""
    producer = bus.producer()
    for number in numbers:
        await producer.publish(topic, b"k", b"%d" % number)
    await producer.close()
