"""What every bus engine must do: `BusConformance`.

A test module subclasses it, or imports it under a name that begins with Test, and gives two fixtures:

    @pytest.fixture
    async def make_bus(tmp_path: Path) -> AsyncIterator[MakeBus]:
        buses: list[Bus] = []

        def make() -> Bus:
            buses.append(open_bus("memory:", tmp_path))
            return buses[-1]

        yield make
        for bus in buses:
            await bus.close()

    @pytest.fixture
    def interference() -> Interference: ...

The fixtures are asynchronous: set `asyncio_mode = "auto"` of pytest-asyncio, or use its own decorator.

Each module tests one part of the interface: publishing, topics, polling, positions, groups, halts.
"""

from .consuming import Assignments, assert_halted, by_partition, poll_until, receive
from .fixtures import Interference, MakeBus
from .groups import GroupConformance
from .halts import HaltConformance
from .polling import PollingConformance
from .positions import PositionConformance
from .publishing import PublishingConformance
from .topics import TopicConformance

__all__ = [
    "Assignments",
    "BusConformance",
    "Interference",
    "MakeBus",
    "assert_halted",
    "by_partition",
    "poll_until",
    "receive",
]


class BusConformance(
    PublishingConformance,
    TopicConformance,
    PollingConformance,
    PositionConformance,
    GroupConformance,
    HaltConformance,
):
    """The promises of `windvane.bus.interface`, each by a test of its own.

    The fixture `make_bus` gives a function that opens one more bus on the same messages; the fixture closes
    all of them. `interference` changes the same messages as retention and operators do.
    """
