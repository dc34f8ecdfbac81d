"""A real gateway under attack: its memory stays below a bound that is named, and others are served."""

import asyncio
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ingest.forward.forward_site import write_security
from tests.processes import Running, wait_until, windvane
from tests.system.hostile_peers import (
    DEEP,
    MIB,
    Attack,
    Neighbour,
    announcement,
    attacked_by,
    bomb,
    dripping,
    endless_handshake,
    nesting,
    never_reading,
    rejected_chunk,
    silence,
)

pytestmark = pytest.mark.alone

Figure = Callable[[str], None]
# 64 MiB of pending chunks, 64 MiB of rejected input that is being stored, 128 MiB of one message whose end is
# found by walking (`MessageReader`), and 64 MiB of freed memory that the gateway keeps for reuse.
MAX_GROWTH_BYTES = 320 * MIB
IMPATIENT = {
    "WINDVANE_GATEWAY_MESSAGE_TIMEOUT_S": "2",
    "WINDVANE_GATEWAY_HANDSHAKE_TIMEOUT_S": "1",
    "WINDVANE_GATEWAY_IDLE_TIMEOUT_S": "3",
    "WINDVANE_GATEWAY_MESSAGE_BYTES_PER_S": "1048576",
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway over the embedded bus, with timeouts of seconds instead of minutes."""
    home = tmp_path_factory.mktemp("hostile") / "home"
    with impatient_gateway(home) as running:
        yield running


def impatient_gateway(home: Path) -> Running:
    home.mkdir(exist_ok=True)
    created = windvane(home, "policy", "create", "t")
    assert created.returncode == 0, created.stderr.decode()
    return Running("gateway", home, environ=IMPATIENT)


def reset_peak(gateway: Running) -> int:
    """Resets VmHWM to the current memory; returns that value."""
    Path(f"/proc/{gateway.pid}/clear_refs").write_text("5")
    return gateway.peak_bytes()


def check_growth(gateway: Running, name: str, before: int, neighbour: Neighbour, figure: Figure) -> None:
    grown = max(0, gateway.peak_bytes() - before)
    figure(
        f"{name}: peak memory {before / MIB:.0f} + {grown / MIB:.0f} MiB (bound {MAX_GROWTH_BYTES // MIB}); "
        f"neighbour acked {len(neighbour.latencies_s)} times, at worst in {neighbour.worst_s * 1e3:.0f} ms"
    )
    assert grown < MAX_GROWTH_BYTES


EMPTY_ARRAYS = gzip.compress(b"\x92\x00\xdd\x00\x7f\xff\x00" + b"\x90" * 0x7FFF00)
SKIPPABLE = b"\x50\x2a\x4d\x18\0\0\0\0" * (3 * MIB)
ANNOUNCED = b"\x92\xa1t\xdd\xff\xff\xff\xff"
ATTACKS: dict[str, tuple[int, Callable[[], Attack]]] = {
    "gzip bombs of 1 GiB": (8, lambda: bomb("gzip")),
    "zstd bombs of 1 GiB": (8, lambda: bomb("zstd")),
    "arrays nested 100,000 deep": (20, lambda: nesting(b"\x92\xa1t\x91\x92\x00", b"\x91")),
    "maps nested 100,000 deep": (20, lambda: nesting(b"\x93\xa1t\x00", b"\x81\xa1a")),
    "events nested 100,000 deep": (20, lambda: rejected_chunk(b"\x92\x00" + b"\x91" * DEEP)),
    "8 MiB of empty arrays, zipped": (20, lambda: rejected_chunk(EMPTY_ARRAYS, compressed="gzip")),
    "24 MiB of skippable frames": (4, lambda: rejected_chunk(SKIPPABLE, compressed="zstd")),
    "array32 of 2^32 - 1": (100, lambda: announcement(b"\xdd\xff\xff\xff\xff\xa1t\xa0")),
    "2^32 - 1 entries, and they do come": (
        4,
        lambda: announcement(ANNOUNCED, behind=b"\x92\x00\x80" * 100_000, times=150),
    ),
    "a map of 2^32 - 1 in a record": (8, lambda: silence(b"\x93\xa1t\x00\xdf\xff\xff\xff\xff")),
    "bin of 4 GiB": (100, lambda: announcement(b"\x92\xa1t\xc6\xff\xff\xff\xff")),
    "ext of 4 GiB in a record": (100, lambda: silence(b"\x93\xa1t\x00\xc9\xff\xff\xff\xfe\x05")),
    "half a message, then silence": (200, lambda: silence(b"\x93\xa1t\xc6\x01\xe0\x00\x00" + bytes(8192))),
    "a connection, then silence": (500, lambda: silence(b"")),
    "one byte at a time": (200, lambda: dripping(b"\x93\xa1t\xc5\x10\x00" + bytes(4096))),
    "acks that are never read": (2, lambda: never_reading),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_memory_is_bounded_and_others_are_served(gateway: Running, name: str, figure: Figure) -> None:
    peers, make = ATTACKS[name]
    before = reset_peak(gateway)
    async with attacked_by(make(), gateway.forward, peers=peers) as neighbour:
        check_growth(gateway, f"{peers} × {name}", before, neighbour, figure)
    await asyncio.to_thread(
        wait_until, lambda: gateway.status()["connections"] == 0, "the attackers are let go", timeout_s=30
    )


async def test_endless_handshakes_are_ended(tmp_path: Path, figure: Figure) -> None:
    home = tmp_path / "home"
    home.mkdir()
    write_security(home, 'shared_key = "k3y"')
    with impatient_gateway(home) as gateway:
        for name, beginning in (
            ("no PING", b""),
            ("a PING of 4 KiB of which nothing comes", b"\x96\xa4PING\xda\x10\x00"),
        ):
            before = reset_peak(gateway)
            attack = endless_handshake(beginning)
            async with attacked_by(attack, gateway.forward, peers=300, shared_key=b"k3y") as neighbour:
                check_growth(gateway, f"300 × {name}", before, neighbour, figure)
