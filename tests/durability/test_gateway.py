"""The gateway's acks: each is sent after the steps that make its chunk durable."""

import asyncio
import errno
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.bus.embedded import group_commit
from windvane.config import Settings
from windvane.ingest.forward.framing import FREE_BYTES, MessageReader

from tests.durability.file_tree import Kind
from tests.durability.power_cut import PowerCut
from tests.durability.recording_disk import RecordingDisk
from tests.ingest.test_gateway import Site, packed, read_ack, running

pytestmark = pytest.mark.slow

SCHEMA = {"type": "record", "name": "event", "fields": [{"name": "message", "type": "string"}]}
EVENT: bytes = msgpack.packb([msgpack.ExtType(0, bytes(8)), {"message": "hello"}])
INVALID: bytes = msgpack.packb([msgpack.ExtType(0, bytes(8)), {"other": 1}])


@pytest.fixture
def disk(tmp_path: Path) -> RecordingDisk:
    (tmp_path / "home").mkdir()
    return RecordingDisk(tmp_path / "home")


@pytest.fixture(autouse=True)
def no_later_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced that no ack waits for."""
    monkeypatch.setattr(group_commit, "SYNC_DELAY_S", 3600)


def acks_in(written: bytes) -> list[str]:
    """The IDs that are acked by what a server writes, or the status of an HTTP answer."""
    if written.startswith(b"\x81\xa3ack"):
        unpacker = msgpack.Unpacker()
        unpacker.feed(written)
        return [str(ack["ack"]) for ack in unpacker]
    return [written[9:12].decode()] if written.startswith(b"HTTP/1.1 ") else []


@asynccontextmanager
async def recorded(disk: RecordingDisk) -> AsyncIterator[Site]:
    """A gateway that has written a chunk and a dead letter already, behind the mark "begun"."""
    disk.waits = lambda path: time.sleep(0.05)  # an ack that waits for nothing is there first
    with disk.recording(), disk.recording_acks(acks_in):
        async with running(Settings(home=disk.root, forward="127.0.0.1:0")) as site:
            await site.policy("t", schema=SCHEMA)
            await site.policy("w", durability="written")
            await site.send(packed("t", EVENT, chunk="opens the log"))
            await site.send(packed("w", EVENT, chunk="opens the other"))
            await site.send(packed("t", b"\xc1", chunk="opens the dead letters"))
            disk.mark("begun")
            yield site
            disk.mark("done")


def steps_of(disk: RecordingDisk) -> list[tuple[Kind, str]]:
    """The steps on the log and the dead letters between the two marks, and the acks."""
    paths = [step.path for step in disk.steps]
    between = disk.steps[paths.index("begun") + 1 : paths.index("done")]
    return [
        (step.kind, step.path)
        for step in between
        if step.kind == "ack"
        or step.path.startswith(("bus/t/", "bus/w/"))
        or step.path == "dead-letters.sqlite"
    ]


def kinds(disk: RecordingDisk) -> list[Kind]:
    return [kind for kind, _ in steps_of(disk)]


async def test_a_chunk_is_durable_before_its_ack(disk: RecordingDisk) -> None:
    async with recorded(disk) as site:
        await site.send(packed("t", EVENT * 3, chunk="one"))
    assert kinds(disk) == ["write", "fdatasync", "store", "ack"]


async def test_a_chunk_is_acked_when_it_is_written_where_its_policy_says_so(
    disk: RecordingDisk,
) -> None:
    async with recorded(disk) as site:
        await site.send(packed("w", EVENT * 3, chunk="one"))
    assert kinds(disk) == ["write", "ack"]


async def test_a_rejected_chunk_is_in_the_dead_letters_before_its_ack(disk: RecordingDisk) -> None:
    async with recorded(disk) as site:
        await site.send(packed("t", b"\xc1" + EVENT, chunk="bad"))
    assert steps_of(disk) == [("commit", "dead-letters.sqlite"), ("ack", "bad")]


async def test_a_chunk_with_bad_events_is_acked_behind_both(disk: RecordingDisk) -> None:
    async with recorded(disk) as site:
        await site.send(packed("t", EVENT + INVALID, chunk="mixed"))
    assert sorted(kinds(disk)[:-1]) == ["commit", "fdatasync", "store", "write"]
    assert steps_of(disk)[-1] == ("ack", "mixed")


async def test_a_repetition_is_acked_behind_the_chunk_itself(disk: RecordingDisk) -> None:
    async with recorded(disk) as site:
        message = packed("t", EVENT * 3, chunk="one")
        await site.send(message, message, message, acks=3)
    assert kinds(disk) == ["write", "fdatasync", "store", "ack", "ack", "ack"]


async def test_a_posted_chunk_is_durable_before_its_answer(disk: RecordingDisk) -> None:
    async with recorded(disk) as site, site.http() as http:
        json = [{"message": "hello"}]
        async with http.post("/ingest/t/t", json=json) as answer:
            assert answer.status < 300, await answer.text()
    assert kinds(disk) == ["write", "fdatasync", "store", "ack"]


async def test_no_ack_comes_while_the_disk_fails_and_the_next_try_is_stored(
    disk: RecordingDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """A chunk that failed is not known: it is not a repetition of itself."""
    async with recorded(disk) as site:
        disk.fails = lambda kind, path: errno.EIO if kind == "fdatasync" and "bus/t" in path else None
        message = packed("t", EVENT * 3, chunk="again")
        async with site.connected() as (reader, writer):
            writer.write(message)
            await _until_failed(caplog)
            disk.fails = lambda kind, path: None
            writer.write(message)
            assert await read_ack(reader) == "again"
        assert [c.chunk_id for c in await site.chunks("t")].count(b"again") == 1
    assert [path for kind, path in steps_of(disk) if kind == "ack"] == ["again"]
    assert kinds(disk)[-3:] == ["fdatasync", "store", "ack"]


async def _until_failed(caplog: pytest.LogCaptureFixture) -> None:
    # The disk fails in a thread. A chunk that is resent before its failure is known shares its outcome.
    async with asyncio.timeout(30):
        while "cannot be published" not in caplog.text:
            await asyncio.sleep(0.005)
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_rejected_chunk_is_not_acked_where_the_dead_letters_cannot_be_written(
    disk: RecordingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from windvane.store.databases.dead_letters import SqlDeadLetters

    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def failing(*_: Any) -> int:
        loop.call_soon_threadsafe(asked.set)
        raise sqlite3.OperationalError("disk I/O error")

    async with recorded(disk) as site:
        with monkeypatch.context() as patched:
            patched.setattr(SqlDeadLetters, "add", failing)
            async with site.connected() as (_, writer):
                writer.write(packed("t", b"\xc1" + EVENT, chunk="bad"))
                async with asyncio.timeout(30):
                    await asked.wait()
                await site.send(packed("t", EVENT, chunk="neighbour"))
        await site.send(packed("t", b"\xc1" + EVENT, chunk="bad"))
    assert [path for kind, path in steps_of(disk) if kind == "ack"] == ["neighbour", "bad"]
    assert [kind for kind, _ in steps_of(disk)][-2:] == ["commit", "ack"]


async def test_every_ack_survives_a_power_cut_right_behind_it(tmp_path: Path, disk: RecordingDisk) -> None:
    payloads = {f"chunk-{n}": msgpack.packb([n, {"message": f"number {n}"}]) for n in range(12)}
    async with recorded(disk) as site:
        for name, payload in payloads.items():
            number = int(name.removeprefix("chunk-"))
            bad = b"\xc1" if number % 4 == 3 else INVALID if number % 4 == 2 else b""
            await site.send(packed("t", payload + bad, chunk=name))
    power_cut = PowerCut(disk.steps)
    checked = 0
    for at, step in enumerate(disk.steps):
        if step.kind == "ack" and step.path in payloads:
            for cut in power_cut.cuts(at + 1, seed=0):
                kept = b"".join(
                    content or b"" for path, content in cut.tree.snapshot().items() if _is_kept_in(path)
                )
                assert payloads[step.path] in kept, cut.how
                checked += 1
    print(f"{checked} states after a power cut: every acked chunk was in the log or the dead letters")


def _is_kept_in(path: str) -> bool:
    return path.startswith("bus/t/") or path == "dead-letters.sqlite"


@pytest.mark.parametrize("came_bytes", [0, 1000, 100_000, 3_000_000])
def test_a_message_is_charged_for_what_came_of_it_not_for_what_it_announces(
    came_bytes: int,
) -> None:
    announced = b"\x93\xa1t\xc6" + (30 * 1024 * 1024).to_bytes(4, "big")
    reader = MessageReader(max_message_bytes=32 * 1024 * 1024)
    incoming = announced + bytes(came_bytes)
    charged = 0
    while incoming:
        room = reader.writable()
        size = min(len(room), len(incoming))
        room[:size] = incoming[:size]
        reader.received(size)
        incoming = incoming[size:]
        assert not list(reader.messages())
        charged = max(charged, reader.settle())
    assert charged <= max(FREE_BYTES, 8 * (came_bytes + len(announced)), 1024 * 1024)
