"""A failing policy in a worker with another policy: the checkpoints of the other one stay on time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.processors.operations.base.registry import set_user_operations
from windvane.store.catalog.catalog import Catalog
from windvane.store.files.data_stream_writer import DataStreamWriter
from windvane.store.files.store import Store

from tests.processors.operations.test_user_operations import write
from tests.processors.worker.test_worker import PCM, Home
from tests.waiting import until

pytestmark = pytest.mark.slow

Figure = Callable[[str], None]
INTERVAL_S = 3.0
LATE_S = 3 * INTERVAL_S
ROUND_S = 0.1
SLOW = """
import threading
import time
from windvane.processors.block import Block
from windvane.processors.operation import Operation, operation

@operation("slow")
class Slow(Operation):
    "Takes its time with every block."

    input = "samples"
    output = "values"

    def process(self, block):
        {body}
        return Block(block.rows.astype(float), block.first, block.times, block.rate_hz)

    def state(self):
        return None

    def restore(self, state):
        pass
"""
STEPS = [PCM, {"operation": "slow", "name": "slow"}]
SLEEPS = SLOW.format(body="time.sleep(5)")
COMPUTES = SLOW.format(
    body="""end = time.monotonic() + 3
        while time.monotonic() < end:
            sum(range(100))"""
)
NEVER_RETURNS = SLOW.format(body="threading.Event().wait()")
PANICS = SLOW.format(
    body="""class PanicException(BaseException):
            pass
        raise [PanicException("index out of bounds"), KeyboardInterrupt(), SystemExit(3), MemoryError()][
            int(block.first) // 100 % 4
        ]"""
)


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    (tmp_path / "operations").mkdir(mode=0o700)
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield Home(tmp_path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()
    set_user_operations({})


class Neighbour:
    """A stream of another policy, with a chunk every 0.1 s."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.sent = 0
        self.worst_age_s = 0.0

    @property
    def age(self) -> str:
        """For the figures."""
        return f"the neighbour's checkpoint is at most {self.worst_age_s:.1f} s old (bound {LATE_S:g})"

    async def continues(self, *, checkpoints: int, until: Callable[[], bool] = lambda: True) -> None:
        """Sends until this many checkpoints were made and `until` holds; records the age of the checkpoint
        meanwhile.
        """
        made, before = 0, self.home.telemetry.checkpoint_ns
        async with asyncio.timeout(100):
            while made < checkpoints or not until():
                await self.home.publish("calm", b"\1\2" * 50, tag="n")
                self.sent += 1
                await asyncio.sleep(ROUND_S)
                status = self.home.telemetry.status()
                row = status.streams_behind.get("n", status)
                self.worst_age_s = max(self.worst_age_s, row.checkpoint_age_s)
                if self.home.telemetry.checkpoint_ns != before:
                    made, before = made + 1, self.home.telemetry.checkpoint_ns


async def calm(home: Home) -> Neighbour:
    await home.policy("calm", tags=["n"], format="raw", partitions=1, pipeline=[PCM])
    return Neighbour(home)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [(SLEEPS, "sleeps 5 s a block"), (COMPUTES, "computes 3 s a block"), (NEVER_RETURNS, "never returns")],
)
async def test_a_slow_step_delays_its_own_stream_alone(
    home: Home, operation: str, kind: str, figure: Figure
) -> None:
    write(home.path / "operations" / "slow.py", operation)
    await home.policy("slow", tags=["s.*"], format="raw", partitions=2, pipeline=STEPS)
    await home.policy("same", tags=["q"], format="raw", partitions=1, pipeline=[PCM])
    neighbour = await calm(home)
    for _ in range(3):
        for stream in range(4):
            await home.publish("slow", bytes(200), tag=f"s.{stream}")
    await home.publish("calm", b"\1\2", tag="n")
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        await neighbour.continues(checkpoints=4)
        behind = home.telemetry.status().streams_behind
        named = [row.behind for name, row in behind.items() if name.startswith("s.") and row.behind]
        assert any(each.step == "slow" for each in named), behind
        assert sum(row.lag_chunks for name, row in behind.items() if name.startswith("s.")) > 0
        assert home.telemetry.lag_messages > 0
        began_s = time.monotonic()
    took_s = time.monotonic() - began_s
    figure(f"a step that {kind}: {neighbour.age}; the worker stops in {took_s:.1f} s (bound 10)")
    assert neighbour.worst_age_s < LATE_S
    assert took_s < 10
    assert home.store.stream("n").chunks >= neighbour.sent
    assert home.letters.list() == []


async def test_the_backlog_of_a_slow_stream_is_processed_once_by_the_next_worker(home: Home) -> None:
    write(home.path / "operations" / "slow.py", SLOW.format(body="time.sleep(0.7)"))
    await home.policy("slow", tags=["s.*"], format="raw", partitions=1, pipeline=STEPS)
    pieces = [np.full(100, n, "<i2").tobytes() for n in range(12)]
    for piece in pieces:
        await home.publish("slow", piece, tag="s.late")
    async with home.working(checkpoint_interval_s=0.3):
        async with asyncio.timeout(60):
            while home.telemetry.chunks_total < 3:
                await asyncio.sleep(0.01)
    write(home.path / "operations" / "slow.py", SLOW.format(body="pass"))
    async with home.working():
        async with asyncio.timeout(60):
            while home.store.stream("s.late").chunks < len(pieces):
                await asyncio.sleep(0.01)
    assert home.stream("s.late") == b"".join(pieces)
    assert home.store.array("s.late:slow")[:].tobytes() == np.repeat(np.arange(12.0), 100).tobytes()


async def test_a_stream_falls_behind_within_its_backlog_and_then_its_partition_waits(home: Home) -> None:
    write(home.path / "operations" / "slow.py", SLOW.format(body="time.sleep(0.05)"))
    await home.policy("slow", tags=["*"], format="raw", partitions=1, pipeline=STEPS)
    for number in range(80):
        await home.publish("slow", np.full(4000, number, "<i2").tobytes(), tag="s")
    await home.publish("slow", b"\1\2", tag="other")
    most = 0
    async with home.working(checkpoint_interval_s=0.2, stream_backlog_bytes=50_000, poll_bytes=20_000):
        async with asyncio.timeout(60):
            while home.telemetry.chunks_total < 81:
                owned = list(home.worker._owned)
                most = max([most, *(partition.queued_bytes for partition in owned)])
                await asyncio.sleep(0.005)
    assert most < 50_000 + 2 * 20_000, "the backlog, and what one poll brings"
    assert home.store.stream("s").chunks == 80
    assert home.stream("other") == b"\1\2"


async def test_many_json_events_delay_no_other_stream(home: Home, figure: Figure) -> None:
    await home.policy("json", tags=["j"], format="json", partitions=1, pipeline=[{"operation": "fields"}])
    neighbour = await calm(home)
    events = ([1_790_000_000, {"v": float(n), "name": "x" * 20}] for n in range(40_000))
    payload = b"".join(msgpack.packb(event) for event in events)
    for _ in range(6):
        await home.publish("json", *range(40_000), tag="j", payload=payload)
    await home.publish("calm", b"\1\2", tag="n")
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        await neighbour.continues(checkpoints=2, until=lambda: _chunks(home, "j") == 6)
    figure(f"6 chunks of 40,000 JSON events: {neighbour.age}")
    assert neighbour.worst_age_s < LATE_S


def _chunks(home: Home, stream: str) -> int:
    return home.store.stream(stream).chunks if stream in home.store.streams() else 0


async def test_any_exception_of_a_step_affects_only_that_chunk_and_step(home: Home, figure: Figure) -> None:
    write(home.path / "operations" / "slow.py", PANICS)
    await home.policy("panic", tags=["s"], format="raw", partitions=1, pipeline=STEPS)
    neighbour = await calm(home)
    for number in range(8):
        await home.publish("panic", np.full(100, number, "<i2").tobytes(), tag="s")
    await home.publish("calm", b"\1\2", tag="n")
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        await neighbour.continues(checkpoints=2, until=lambda: _chunks(home, "s") == 8)
        assert not home.telemetry.health.listed()
    letters = home.letters.list()
    said = " ".join(letter.reason for letter in letters)
    assert {letter.code for letter in letters} == {"step-failed"}
    assert all(word in said for word in ("PanicException", "KeyboardInterrupt", "exit(3)", "MemoryError"))
    assert len(home.store.array("s:samples")) == 800
    figure(f"steps that raise BaseExceptions: {neighbour.age}")
    assert neighbour.worst_age_s < LATE_S


async def test_more_streams_than_may_be_mapped_are_slow_and_never_fatal(home: Home, figure: Figure) -> None:
    """A bound of 400 mappings stands for the kernel's 65,530: 8,000 streams are then 25 of them."""
    count = 300
    await home.policy("many", tags=["m.*"], format="raw", partitions=2, pipeline=[PCM])
    neighbour = await calm(home)
    for round_ in range(2):
        for number in range(count):
            await home.publish("many", np.full(10, round_, "<i2").tobytes(), tag=f"m.{number}")
    await home.publish("calm", b"\1\2", tag="n")
    most = 0
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        streams = home.worker._streams
        streams.mappings.max_mappings = 400

        def is_done() -> bool:
            nonlocal most
            most = max(most, streams.mappings.total)
            return home.telemetry.chunks_total >= 2 * count + neighbour.sent

        await neighbour.continues(checkpoints=2, until=is_done)
    figure(f"{count} streams under a bound of 400 mappings: at most {most} mapped, {neighbour.age}")
    assert most <= 400 + 16
    assert neighbour.worst_age_s < LATE_S
    expected = np.repeat(np.arange(2, dtype="<i2"), 10).tobytes()
    assert all(home.stream(f"m.{number}") == expected for number in range(count))


async def test_a_damaged_stream_stops_alone_and_resumes_when_it_is_restored(
    home: Home, figure: Figure
) -> None:
    await home.policy("p", tags=["t.*"], format="raw", partitions=1, pipeline=[PCM])
    neighbour = await calm(home)
    for stream in ("t.a", "t.b"):
        await home.publish("p", bytes(200), tag=stream)
    async with home.working():
        await home.until_stored(2)
    [segment] = (home.store.root / "t.a" / "stream" / "bytes").glob("*.seg")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:50])
    for stream in ("t.a", "t.b"):
        await home.publish("p", b"\1" * 200, tag=stream)
    await home.publish("calm", b"\1\2", tag="n")
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        await neighbour.continues(checkpoints=3, until=lambda: _chunks(home, "t.b") == 2)
        row = home.telemetry.status().streams_behind["t.a"]
        assert row.behind is not None
        assert "t.a" in row.behind.reason
        [trouble] = home.telemetry.health.listed()
        assert trouble.code == "io-error"
        assert segment.read_bytes() == whole[:50], "what is left of it is untouched"
        segment.write_bytes(whole)
        await neighbour.continues(checkpoints=1, until=lambda: _chunks(home, "t.a") == 2)
    assert home.stream("t.a") == home.stream("t.b") == bytes(200) + b"\1" * 200
    figure(f"a damaged stream: {neighbour.age}")
    assert neighbour.worst_age_s < LATE_S


async def test_a_disk_that_is_slow_to_drop_data_delays_no_neighbour(
    home: Home, figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All chunks here arrive in 1970: retention drops as soon as there is a segment."""
    home.store = Store(home.path / "store", segment_bytes=4096)
    drop_before, drops = DataStreamWriter.drop_before, []

    def drop_slowly(writer: DataStreamWriter, offset: int) -> None:
        time.sleep(2)
        drops.append(writer.reference)
        drop_before(writer, offset)

    monkeypatch.setattr(DataStreamWriter, "drop_before", drop_slowly)
    retention = {"stream_hours": 1.0}
    await home.policy("kept", tags=["k.*"], format="raw", partitions=2, retention=retention)
    neighbour = await calm(home)
    async with home.working(checkpoint_interval_s=INTERVAL_S):
        for stream in range(20):
            await home.publish("kept", bytes(9000), tag=f"k.{stream}")
        await neighbour.continues(checkpoints=4, until=lambda: len(drops) >= 4)
        await until(lambda: home.store.stream("n").chunks >= neighbour.sent)
    figure(f"dropping takes 2 s a stream: {neighbour.age}")
    assert neighbour.worst_age_s < LATE_S
