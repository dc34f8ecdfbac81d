"""How evenly a gateway serves 100 connections of which some are greedy, and what ten thousand that rest cost.

A real gateway process over the embedded log. The modest have one small chunk in flight; the greedy have 64
that are fifty times as large. The figures are chunks acked per connection, against the median of its kind in
the same run, and the peak memory of the gateway, against a gigabyte.

    python benchmarks/fairness.py
    python benchmarks/fairness.py --greedy 0,1,10,50 --acked 200 --json build/fairness.json
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import statistics
import tempfile

import msgpack

from benchmarks.report import Report, arguments
from tests.many_senders import Sender, resting_connections, send_together
from tests.processes import Running, wait_until, windvane

CONNECTIONS = 100
MODEST_EVENTS, GREEDY_EVENTS, GREEDY_IN_FLIGHT = 20, 1000, 64
MEMORY_LIMIT_BYTES = 1e9
EVENT: bytes = msgpack.packb([1_790_000_000, {"message": "x" * 180}])


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--greedy", default="0,1,10", metavar="N,N", help="how many of the 100 are greedy")
    parser.add_argument("--acked", type=int, default=100, help="chunks of the median modest connection")
    parser.add_argument("--resting", type=int, default=10_000, help="connections that rest")
    given = parser.parse_args()
    report = Report("Fairness and rest")
    with tempfile.TemporaryDirectory(prefix="windvane-fairness-") as folder:
        home = Path(folder) / "home"
        home.mkdir()
        created = windvane(home, "policy", "create", "t")
        assert created.returncode == 0, created.stderr.decode()
        with Running("gateway", home) as gateway:
            rest(report, gateway, given.resting)
            for greedy in map(int, given.greedy.split(",")):
                share(report, gateway, greedy, enough=given.acked)
    report.finish(given.json)


def rest(report: Report, gateway: Running, count: int) -> None:
    before = gateway.peak_bytes()
    first = msgpack.packb(["t", EVENT, {"chunk": "c"}])
    ack = msgpack.packb({"ack": "c"})
    with resting_connections(gateway.forward, count, first=first, ack=ack) as count:
        wait_until(lambda: gateway.status()["connections"] == count, "all are open")
        peak = gateway.peak_bytes()
    report.add(f"{count} resting", peak / 1e6, "MB peak", "1 GB", peak / MEMORY_LIMIT_BYTES)
    report.add(f"{count} resting, each", (peak - before) / count / 1024, "KiB")


def share(report: Report, gateway: Running, greedy: int, *, enough: int) -> None:
    modest = [
        Sender(f"modest {greedy} {n}", "t", EVENT * MODEST_EVENTS, in_flight=1)
        for n in range(CONNECTIONS - greedy)
    ]
    large = [
        Sender(f"greedy {greedy} {n}", "t", EVENT * GREEDY_EVENTS, in_flight=GREEDY_IN_FLIGHT)
        for n in range(greedy)
    ]

    def median_has_enough() -> bool:
        return statistics.median(sender.acked for sender in modest) >= enough

    asyncio.run(send_together([*modest, *large], gateway.forward, enough=median_has_enough))
    name = f"{greedy} greedy"
    acked = sorted(sender.acked for sender in modest)
    median = statistics.median(acked)
    for which, value in (("min", acked[0]), ("max", acked[-1])):
        report.add(f"{name}, modest {which}", value, "chunks", f"median {median:.0f}", value / median)
    if large:
        takes = sorted(sender.acked for sender in large)
        middle = statistics.median(takes)
        for which, value in (("min", takes[0]), ("max", takes[-1])):
            report.add(f"{name}, greedy {which}", value, "chunks", f"median {middle:.0f}", value / middle)


if __name__ == "__main__":
    main()
