"""The guarantees of `durability`: "written" waits for no disk, and survives a killed process."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from windvane.bus import open_bus
from windvane.bus.embedded import group_commit
from windvane.bus.embedded.segment_log import LogWriter, create_log, segment_path
from windvane.bus.interface import Bus
from windvane.errors import BusUnavailable
from windvane.testing.bus import Assignments, receive

from tests.bus.embedded.test_segment_log import failing_fdatasync
from tests.processes import END_S


async def test_a_written_message_is_acked_before_any_fdatasync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    bus = open_bus("embedded:", tmp_path)
    await bus.ensure_topic("t", partitions=1)
    producer = bus.producer()
    await producer.publish("t", b"k", b"opens the log")
    monkeypatch.setattr(group_commit, "SYNC_DELAY_S", 3600)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", synced.append)
        assert await producer.publish("t", b"k", b"one", durability="written") == 1
        assert synced == []
    assert await producer.publish("t", b"k", b"two") == 2  # syncs the other one too
    assert await contents(bus, 3) == [b"opens the log", b"one", b"two"]
    await bus.close()


async def test_a_written_message_is_read_soon_without_a_following_message(tmp_path: Path) -> None:
    bus = open_bus("embedded:", tmp_path)
    await bus.ensure_topic("t", partitions=1)
    await bus.producer().publish("t", b"k", b"one", durability="written")
    assert await contents(bus, 1) == [b"one"]
    await bus.close()


async def contents(bus: Bus, count: int) -> list[bytes]:
    consumer = bus.consumer("g", Assignments())
    consumer.subscribe(["t"])
    return [message.value for message in await receive(consumer, count)]


async def test_order_is_that_of_publishing_for_mixed_durabilities(tmp_path: Path) -> None:
    bus = open_bus("embedded:", tmp_path)
    await bus.ensure_topic("t", partitions=1)
    producer = bus.producer()
    offsets = await asyncio.gather(
        *(
            producer.publish("t", b"k", bytes([i]), durability="written" if i % 3 else "fsync")
            for i in range(50)
        )
    )
    assert offsets == list(range(50))
    await bus.close()


async def test_closing_the_bus_makes_written_messages_durable(tmp_path: Path) -> None:
    bus = open_bus("embedded:", tmp_path)
    await bus.ensure_topic("t", partitions=1)
    await bus.producer().publish("t", b"k", b"one", durability="written")
    await bus.close()
    again = open_bus("embedded:", tmp_path)
    assert await contents(again, 1) == [b"one"]
    await again.close()


WRITES_AND_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from windvane.bus import open_bus
from windvane.bus.embedded import group_commit

async def main():
    group_commit.SYNC_DELAY_S = 3600
    bus = open_bus("embedded:", Path(sys.argv[1]))
    await bus.ensure_topic("t", partitions=1)
    producer = bus.producer()
    for i in range(20):
        await producer.publish("t", b"k", b"%d" % i, durability="written")
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.system
async def test_written_messages_survive_the_kill_of_their_process(tmp_path: Path) -> None:
    died = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITES_AND_DIES, str(tmp_path))
    assert await asyncio.wait_for(died.wait(), END_S) == -9
    bus = open_bus("embedded:", tmp_path)
    assert await bus.producer().publish("t", b"k", b"next") == 20
    assert await contents(bus, 21) == [b"%d" % i for i in range(20)] + [b"next"]
    await bus.close()


def test_a_failed_fdatasync_drops_messages_that_waited_for_it_and_keeps_written_ones(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    create_log(directory)
    log = LogWriter(directory)
    assert log.write([(b"k", [b"promised"])]) == 0
    with failing_fdatasync(segment_path(directory, 0)), pytest.raises(BusUnavailable, match="fdatasync"):
        log.append([(b"k", [b"waits for the disk"])])
    log.close()
    again = LogWriter(directory)
    assert again.next_offset == 1
    again.close()
