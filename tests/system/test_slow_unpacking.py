"""Chunks that take long to unpack: a real gateway bounds them, and a concurrent client gets its acks.

What is asserted is work, not time, so that no busy machine breaks it: the CPU seconds that the gateway spends
between two acks of the neighbour.
"""

import asyncio
import gzip
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing

import msgpack
import pytest
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.processes import Running, windvane
from tests.system.hostile_peers import EVENT

pytestmark = pytest.mark.alone

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Figure = Callable[[str], None]
MIB = 1 << 20
ATTACKERS = 4
MAX_CPU_S = 1.0
"""Between two acks of the neighbour. An attack's chunk takes up to 5 s of CPU, and there are four at a time:
a neighbour that waited for one of them would see all that."""
NEIGHBOUR_EVENTS = 40_000
"""More than is unpacked on the event loop: the neighbour needs a thread too."""
EMPTIES = 8 * MIB - 20


def slow_deflate() -> bytes:
    """One gzip member of blocks that each have a new Huffman code and no data."""
    packer = zlib.compressobj(9, wbits=31)
    text = bytes(range(256))
    return (
        packer.compress(EVENT)
        + b"".join(
            packer.compress(EVENT * 2 + msgpack.packb([1, {"m": text}])) + packer.flush(zlib.Z_FULL_FLUSH)
            for _ in range(14_000)
        )
        + packer.flush()
    )


ATTACKS: dict[str, tuple[str, Callable[[], bytes], str | None]] = {
    "24 MiB of zstd skippable frames": (
        "zstd",
        lambda: b"\x50\x2a\x4d\x18\0\0\0\0" * (3 * MIB),
        "too-many-members",
    ),
    "100,000 zstd frames of one event": ("zstd", lambda: zstd.compress(EVENT) * 100_000, None),
    "100,001 zstd frames of one event": ("zstd", lambda: zstd.compress(EVENT) * 100_001, "too-many-members"),
    "100,000 gzip members of one event": ("gzip", lambda: gzip.compress(EVENT) * 100_000, None),
    "14,000 blocks with a Huffman code each": ("gzip", slow_deflate, None),
    "8 MiB of empty arrays in 8 KB of gzip": (
        "gzip",
        lambda: gzip.compress(b"\x92\x00\xdd" + struct.pack(">I", EMPTIES) + b"\x90" * EMPTIES),
        "too-large-decoded",
    ),
    "1,000,000 events in 8 KB of gzip, without their number": (
        "gzip",
        lambda: gzip.compress(b"\x92\x00\x80" * 1_000_000),
        None,
    ),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway over a bus that discards its input: only the gateway is measured."""
    home = tmp_path_factory.mktemp("slow") / "home"
    home.mkdir()
    for policy, tag in (("hostile", "hostile.*"), ("neighbour", "neighbour")):
        created = windvane(home, "policy", "create", policy, "--tag", tag)
        assert created.returncode == 0, created.stderr.decode()
    with Running("gateway", home, "--bus", "discard:") as running:
        yield running


async def send(gateway: Running, compression: str, payload: bytes, number: int, chunk_id: str) -> None:
    # Each under a tag of its own: chunks of one tag wait for each other anyway.
    message = msgpack.packb([f"hostile.{number}", payload, {"compressed": compression, "chunk": chunk_id}])
    ack = msgpack.packb({"ack": chunk_id})
    reader, writer = await asyncio.open_connection(*gateway.forward)
    writer.write(message)
    assert await reader.readexactly(len(ack)) == ack
    writer.close()


async def acked_during(gateway: Running, attacks: "asyncio.Future[list[None]]", name: str) -> list[float]:
    """A neighbour at another address, one compressed chunk after the other until the attacks have ended.

    Returns the CPU time of the gateway between successive acks.
    """
    reader, writer = await asyncio.open_connection(*gateway.forward, local_addr=("127.0.0.2", 0))
    payload = gzip.compress(EVENT * NEIGHBOUR_EVENTS)
    taken_s: list[float] = []
    before_s = gateway.cpu_s()
    while not attacks.done() or not taken_s:
        chunk_id = f"{name} {len(taken_s)}"
        option = {"size": NEIGHBOUR_EVENTS, "compressed": "gzip", "chunk": chunk_id}
        writer.write(msgpack.packb(["neighbour", payload, option]))
        expected = msgpack.packb({"ack": chunk_id})
        assert await reader.readexactly(len(expected)) == expected
        now_s = gateway.cpu_s()
        taken_s.append(now_s - before_s)
        before_s = now_s
    writer.close()
    return taken_s


@pytest.mark.parametrize("name", ATTACKS)
async def test_slow_chunks_are_bounded_and_a_neighbour_is_acked_meanwhile(
    gateway: Running, name: str, figure: Figure
) -> None:
    compression, make, code = ATTACKS[name]
    payload = make()
    began_s = gateway.cpu_s()
    async with asyncio.timeout(300):
        attacks = asyncio.gather(
            *(send(gateway, compression, payload, number, f"{name} {number}") for number in range(ATTACKERS))
        )
        taken_s = await acked_during(gateway, attacks, name)
        await attacks
    all_s = gateway.cpu_s() - began_s
    figure(
        f"{ATTACKERS} × {name} ({len(payload) / 1e6:.2g} MB): {all_s:.2g} s of the gateway's CPU; a "
        f"neighbour was acked {len(taken_s)} times, at most {max(taken_s):.2g} s of it apart "
        f"(bound {MAX_CPU_S:g})"
    )
    assert max(taken_s) < MAX_CPU_S
    with closing(SqlDeadLetters(gateway.home / "dead-letters.sqlite")) as letters:
        found = {letter.code for letter in letters.list() if letter.tag != "neighbour"}
        assert code is None or code in found
        assert "malformed" not in found
