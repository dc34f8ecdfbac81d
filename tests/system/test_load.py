"""Many connections at one gateway: idle ones cost little, and greedy ones do not starve the others."""

import asyncio
import statistics
from collections.abc import Callable, Iterator

import msgpack
import pytest

from tests.many_senders import Sender, resting_connections, send_together
from tests.processes import Running, wait_until, windvane

pytestmark = pytest.mark.alone

MIB = 1 << 20
RESTING = 10_000
MAX_RESTING_BYTES = 1_000_000_000
EVENT: bytes = msgpack.packb([1_790_000_000, {"message": "x" * 180}])
Figure = Callable[[str], None]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("load") / "home"
    home.mkdir()
    created = windvane(home, "policy", "create", "t")
    assert created.returncode == 0, created.stderr.decode()
    with Running("gateway", home) as running:
        yield running


def test_ten_thousand_connections_that_rest_cost_less_than_a_gigabyte(
    gateway: Running, figure: Figure
) -> None:
    before = gateway.peak_bytes()
    first = msgpack.packb(["t", EVENT, {"chunk": "c"}])
    ack: bytes = msgpack.packb({"ack": "c"})
    with resting_connections(gateway.forward, RESTING, first=first, ack=ack) as count:
        wait_until(lambda: gateway.status()["connections"] == count, f"{count} connections are open")
        peak = gateway.peak_bytes()
        figure(
            f"{count} connections that were acked once and rest: peak memory {peak / MIB:.0f} MiB, "
            f"{(peak - before) / count / 1024:.1f} KiB a connection (bound {MAX_RESTING_BYTES / 1e6:.0f} MB)"
        )
        assert peak < MAX_RESTING_BYTES
        with resting_connections(gateway.forward, 1, first=first, ack=ack):
            pass
    wait_until(lambda: gateway.status()["connections"] == 0, "all have left")


@pytest.mark.parametrize("greedy", [0, 1, 10])
async def test_no_sender_starves_next_to_greedy_ones(gateway: Running, figure: Figure, greedy: int) -> None:
    """Each has one small chunk in flight; the greedy have 64 that are fifty times as large."""
    modest = [Sender(f"modest {n}", "t", EVENT * 20, in_flight=1) for n in range(100 - greedy)]
    large = [Sender(f"greedy {n}", "t", EVENT * 1000, in_flight=64) for n in range(greedy)]
    enough = 20

    def median_has_enough() -> bool:
        return statistics.median(sender.acked for sender in modest) >= enough

    async with asyncio.timeout(120):
        await send_together([*modest, *large], gateway.forward, enough=median_has_enough)
    acked = sorted(sender.acked for sender in modest)
    figure(
        f"{len(modest)} modest senders next to {greedy} greedy: chunks acked min {acked[0]}, "
        f"median {statistics.median(acked):.0f}, max {acked[-1]}"
        + (f"; the greedy {sorted(sender.acked for sender in large)} of 200 kB" if large else "")
    )
    assert acked[0] >= enough // 4
