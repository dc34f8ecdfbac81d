"""A real worker over the worst chunks that a bus can hold: its peak memory is below that of the docs."""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgpack
import pytest
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store

from tests.processes import Running, wait_until, windvane

pytestmark = pytest.mark.alone

Figure = Callable[[str], None]
MIB = 1 << 20
MAX_GROWTH_BYTES = 2 * 384 * MIB
"""docs/architecture.md: 384 MiB for each of two threads."""
INTERVAL_S = 5.0
LATE_S = 3 * INTERVAL_S
"""Three intervals of checkpoints."""
POLICY = """
[[policy]]
reference = "{reference}"
tags = ["{reference}", "{reference}.*"]
format = "{format}"
limits = {{ decoded_bytes = {decoded_bytes}, events_per_chunk = 10000000 }}
pipeline = [{{ operation = "fields" }}]
"""
ANY = 2**34


def one_event(inner: bytes, count: int) -> bytes:
    return b"\x92\x00\x81\xa7message\xdd" + struct.pack(">I", count) + inner * count


TINY = msgpack.packb([1_790_000_000, {"k": 1.5}])
WORST: dict[str, tuple[str, bytes]] = {
    "one event of 3.6 M empty arrays": ("json", one_event(b"\x90", 3_600_000)),
    "one event of 1.1 M maps": ("json", one_event(b"\x81\x00\x00", 1_100_000)),
    "one event of 8 MiB of zeros": ("json", msgpack.packb([1, {"message": bytes(8 * MIB - 64)}])),
    "8 MiB that JSON escapes": ("json", msgpack.packb([1, {"message": "\x01" * (8 * MIB - 64)}])),
    "1 M empty events": ("msgpack", b"\x92\x00\x80" * 1_000_000),
    "4 MiB of tiny events": ("msgpack", TINY * (4 * MIB // len(TINY))),
}
OLD = {
    "8 MiB of empty arrays": ("json", one_event(b"\x90", 8 * MIB - 64)),
    "2 M empty events": ("msgpack", b"\x92\x00\x80" * 2_000_000),
}
"""Chunks that a gateway accepted under a higher limit, or that another program published."""


def apply(home: Path, decoded_bytes: int) -> None:
    text = "".join(
        POLICY.format(reference=name, format=name, decoded_bytes=decoded_bytes)
        for name in ("json", "msgpack")
    )
    file = home.with_name("policies.toml")
    file.write_text(text)
    applied = windvane(home, "apply", str(file))
    assert applied.returncode == 0, applied.stderr.decode()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    home = tmp_path / "home"
    home.mkdir()
    apply(home, ANY)
    created = windvane(home, "policy", "create", "neighbour", "--format", "json")
    assert created.returncode == 0, created.stderr.decode()
    with Running("gateway", home) as running:
        yield running


async def acked(gateway: Running, tag: str, payload: bytes, chunk_id: str) -> None:
    reader, writer = await asyncio.open_connection(*gateway.forward)
    writer.write(msgpack.packb([tag, payload, {"chunk": chunk_id}]))
    expected = msgpack.packb({"ack": chunk_id})
    assert await reader.readexactly(len(expected)) == expected
    writer.close()


async def test_the_worst_chunks_take_no_more_than_the_docs_say(gateway: Running, figure: Figure) -> None:
    home = gateway.home
    async with asyncio.timeout(400):
        for number, (name, (format, payload)) in enumerate({**OLD, **WORST}.items()):
            await acked(gateway, f"{format}.{number}", payload, name)
        apply(home, 256 * MIB)
        await acked(gateway, "neighbour", TINY, "first")
        interval = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": str(INTERVAL_S)}
        with Running("worker", home, environ=interval) as worker:
            before = worker.peak_bytes()
            await acked(gateway, "neighbour", TINY * 2, "second")
            ages_s: list[float] = []

            def is_done() -> bool:
                status = worker.status()
                row = status["streams_behind"].get("neighbour", status)
                ages_s.append(float(row["checkpoint_age_s"]))
                done = status["chunks_total"] + len(dead(home)) >= len({**OLD, **WORST}) + 2
                return bool(done and status["lag_messages"] == 0)

            await asyncio.to_thread(wait_until, is_done, "all is worked on", timeout_s=300)
            grown = worker.peak_bytes() - before
            figure(
                f"{len(WORST)} of the worst chunks and {len(OLD)} worse ones: peak memory of the worker "
                f"{before / MIB:.0f} + {grown / MIB:.0f} MiB (bound {MAX_GROWTH_BYTES // MIB}); the "
                f"neighbour's checkpoint is at most {max(ages_s):.1f} s old (bound {LATE_S:g})"
            )
            await acked(gateway, "neighbour", TINY * 3, "third")
            await asyncio.to_thread(
                wait_until, lambda: neighbour_lines(home) == 6, "the neighbour's are stored"
            )
    assert grown < MAX_GROWTH_BYTES
    assert max(ages_s) < LATE_S
    assert [(letter.code, letter.tag) for letter in dead(home)] == [("not-archived", "json.0")]


def dead(home: Path) -> list:  # type: ignore[type-arg]
    with closing(SqlDeadLetters(home / "dead-letters.sqlite")) as letters:
        return letters.list(limit=1000)


def neighbour_lines(home: Path) -> int:
    stream = Store(home / "store").stream("neighbour")
    return sum(1 for line in stream.read(0, stream.size).splitlines() if json.loads(line))
