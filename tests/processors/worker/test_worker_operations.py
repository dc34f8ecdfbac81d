"""User-defined operations in a running worker: edited, broken, missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.processors.operations.base.registry import set_user_operations
from windvane.store.catalog.catalog import Catalog

from tests.processors.operations.test_user_operations import write
from tests.processors.worker.test_worker import PCM, Home
from tests.waiting import until

SUM = """
import numpy as np
from windvane.processors.block import Block
from windvane.processors.operation import Operation, operation

@operation("total")
class Total(Operation):
    "The running sum of all samples."

    input = "samples"
    output = "values"

    def __init__(self):
        self._sum = 0.0

    def process(self, block):
        sums = self._sum + FACTOR * np.cumsum(block.rows.astype(float), axis=0)
        self._sum = sums[-1]
        return Block(sums, block.first, block.times, block.rate_hz)

    def state(self):
        return self._sum

    def restore(self, state):
        self._sum = state
"""
POLICY = {"tags": ["t"], "format": "raw", "pipeline": [PCM, {"operation": "total"}]}


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    (tmp_path / "operations").mkdir(mode=0o700)
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()
    set_user_operations({})


def samples(count: int) -> bytes:
    return np.ones(count, "<i2").tobytes()


async def until_files_are_read(home: Home, *, broken: list[str], streams: int) -> None:
    """Waits until the worker has read the operations as they are now."""

    def are_read() -> bool:
        found = list(home.telemetry.status().broken_operations)
        return found == broken and len(home.store.streams()) >= streams

    await until(are_read)


async def test_an_edited_operation_is_loaded_and_the_stream_keeps_its_state(home: Home) -> None:
    file = home.path / "operations" / "total.py"
    write(file, "FACTOR = 1\n" + SUM)
    await home.policy("p", **POLICY)
    await home.publish("p", samples(3))
    async with home.working():
        await home.until_stored(1)
        write(file, "FACTOR = 10\n" + SUM)
        taken = 0
        async with asyncio.timeout(30):
            # The edit is seen between two chunks: until then the old one runs.
            while home.store.array("t:total")[-1, 0] < 13 + taken:
                taken += 1
                await home.publish("p", samples(1))
                await home.until_stored(1 + taken)
    sums = home.store.array("t:total")[:, 0]
    assert sums[:3].tolist() == [1, 2, 3]
    assert set(np.diff(sums)) <= {1.0, 10.0}
    assert np.all(np.diff(np.diff(sums)) >= 0), "the new one never gives way to the old one"


async def test_a_broken_edit_changes_nothing_and_is_reported(home: Home) -> None:
    file = home.path / "operations" / "total.py"
    write(file, "FACTOR = 1\n" + SUM)
    await home.policy("p", **POLICY)
    await home.publish("p", samples(1))
    async with home.working():
        await home.until_stored(1)
        write(file, "FACTOR = \n" + SUM)
        await until_files_are_read(home, broken=["total.py"], streams=1)
        assert "line 1: SyntaxError" in home.telemetry.status().broken_operations["total.py"]
        await home.publish("p", samples(1))
        await home.until_stored(2)
    assert home.store.array("t:total")[:, 0].tolist() == [1, 2]


async def test_exceptions_of_an_operation_become_dead_letters_with_the_traceback(home: Home) -> None:
    write(home.path / "operations" / "total.py", SUM)  # without FACTOR
    await home.policy("p", **POLICY)
    await home.publish("p", samples(5))
    async with home.working():
        await home.until_stored(1)
    [letter] = home.letters.list()
    assert letter.code == "step-failed"
    assert "name 'FACTOR' is not defined" in letter.reason
    assert "total.py" in home.letters.get(letter.id).detail
    assert home.stream() == samples(5)


FRAGILE = """
from windvane.processors.operation import operation

@operation("fragile", input="samples")
def fragile(block):
    if len(block.rows) > 5:
        raise ValueError("too many samples")
    return block.rows * 2.0
"""


async def test_a_step_is_failing_until_it_processes_a_chunk_or_is_removed(home: Home) -> None:
    def failing() -> list[tuple[str, int]]:
        told = home.telemetry.status().failures
        return [(one.step, one.times) for one in told if one.recovered_ns is None]

    write(home.path / "operations" / "fragile.py", FRAGILE)
    policy = {**POLICY, "pipeline": [PCM, {"operation": "fragile"}]}
    await home.policy("p", **policy)
    await home.publish("p", samples(9))
    await home.publish("p", samples(9))
    async with home.working():
        await home.until_stored(2)
        assert failing() == [("fragile", 2)]
        await home.publish("p", samples(5))
        await home.until_stored(3)
        assert failing() == []
        assert [one.step for one in home.telemetry.status().failures] == ["fragile"]
        await home.publish("p", samples(9))
        await home.until_stored(4)
        assert failing() == [("fragile", 3)]
        await home.policy("p", **{**policy, "pipeline": [PCM]})
        await home.publish("p", samples(5))
        await home.until_stored(5)
        assert failing() == []


HOSTILE = """
import dataclasses
import numpy as np
from windvane.processors.operation import Operation, operation

class Panic(BaseException):
    "As the PanicException of extension modules in Rust is."

@operation("total")
class Total(Operation):
    input = "samples"
    output = "values"

    def process(self, block):
        return dataclasses.replace(block, rows=block.rows * 2.0, columns=())
"""


@pytest.mark.parametrize(
    ("method", "codes"),
    [
        ("    def counts(self):\n        return {}['no such']\n", set()),
        ("    def counts(self):\n        return 7\n", set()),
        ("    def counts(self):\n        return {'a': 'many'}\n", set()),
        ("    def state(self):\n        raise RuntimeError('no state')\n", set()),
        ("    def state(self):\n        return lambda: 1\n", set()),
        ("    def restore(self, state):\n        raise RuntimeError('no state')\n", set()),
        ("    def process(self, block):\n        return block.rows * 2.0\n", {"step-failed"}),
        ("    def process(self, block):\n        raise SystemExit(3)\n", {"step-failed"}),
        ("    def process(self, block):\n        block.rows[:] = 0\n        return block\n", {"step-failed"}),
        ("    def __init__(self):\n        raise KeyError('x')\n", {"step-failed"}),
        ("    def __init__(self):\n        raise Panic\n", {"step-failed"}),
        ("    def counts(self):\n        raise Panic\n", set()),
        ("    def state(self):\n        raise Panic\n", set()),
        ("    def state(self):\n        raise MemoryError\n", set()),
        ("    def restore(self, state):\n        raise Panic\n", set()),
        ("    def restore(self, state):\n        raise KeyboardInterrupt\n", set()),
    ],
)
async def test_an_operation_that_violates_its_contract_stops_neither_other_steps_nor_the_worker(
    home: Home, method: str, codes: set[str]
) -> None:
    write(home.path / "operations" / "total.py", HOSTILE + method)
    smooth = {"operation": "filter", "name": "smooth", "cutoff_hz": 10.0}
    after = {**smooth, "name": "after", "input": "smooth"}
    pipeline = [PCM, smooth, {"operation": "total", "input": "smooth"}, after]
    await home.policy("p", tags=["t"], format="raw", pipeline=pipeline)
    for chunk in (1, 2):
        await home.publish("p", samples(4))
        async with home.working():
            await home.until_stored(1)
            await home.worker.checkpoint()
        assert sum(letter.times for letter in home.letters.list()) == (chunk if codes else 0)
    assert {letter.code for letter in home.letters.list()} == codes
    assert home.stream() == samples(8)
    filtered = home.store.array("t:after")[:, 0]
    assert len(filtered) == 8
    assert np.all(np.diff(filtered) > 0), "what another step wrote into its input is not what it took"


async def test_without_the_file_the_stream_is_archived_and_the_state_kept(home: Home) -> None:
    file = home.path / "operations" / "total.py"
    write(file, "FACTOR = 1\n" + SUM)
    await home.policy("p", **POLICY)
    await home.publish("p", samples(3))
    async with home.working():
        await home.until_stored(1)
    file.unlink()
    await home.publish("p", samples(2))
    async with home.working():
        await home.until_stored(1)
    assert home.stream() == samples(5)
    [letter] = home.letters.list()
    assert '"total" is not known' in letter.reason

    write(file, "FACTOR = 1\n" + SUM)
    await home.publish("p", samples(1))
    async with home.working():
        await home.until_stored(1)
    assert home.store.array("t:total")[:, 0].tolist() == [1, 2, 3, 4]
