"""What a change of the catalog costs a worker and a gateway that follow 1,000 policies.

Two changes: of a document that is not a policy (an entry of an alarm), and of one policy. For each follower,
the CPU time of one look at the catalog after the change is printed, and the ratio to reading all policies
again, measured in the same run, which is what each change cost before revisions counted per type.

    python benchmarks/catalog_changes.py
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import resource
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any

from windvane.bus import open_bus
from windvane.ingest import policy_book
from windvane.ingest.policy_book import PolicyBook
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.processors.worker.pipeline.catalog_link import CatalogLink
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping

from benchmarks.report import Report, arguments

PIPELINE = [
    {"operation": "pcm", "rate_hz": 25_600},
    {"operation": "spectrum", "length": 2048},
    {"operation": "features"},
]


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def policy_body(number: int, title: str = "") -> dict[str, Any]:
    reference = f"turbine.t{number:04}.gearbox"
    settings = {"reference": reference, "title": title, "format": "raw", "pipeline": PIPELINE}
    return policy_to_mapping(policy_from_mapping(settings))


class Changes:
    """The two changes, made by another connection."""

    def __init__(self, catalog: Catalog, policies: int) -> None:
        self._catalog = catalog
        self._policies = policies
        self._count = 0

    async def unrelated(self) -> None:
        """Change a document that is not a policy."""
        self._count += 1
        await self._catalog.put("alarm", "t:x:01234567:1", body={"n": self._count}, state="raised")

    async def policy(self) -> None:
        """Change one policy."""
        self._count += 1
        body = policy_body(self._count % self._policies, title=f"change {self._count}")
        await self._catalog.put("policy", body["reference"], title=body["title"], body=body)


async def cost_ms(
    look: Callable[[], Awaitable[object]], change: Callable[[], Awaitable[None]] | None
) -> float:
    """CPU time of a look after a change: the median of several."""
    costs = []
    for _ in range(7):
        if change is not None:
            await change()
        await asyncio.sleep(policy_book._MIN_REFRESH_INTERVAL_S)
        began_s = cpu_s()
        await look()
        costs.append((cpu_s() - began_s) * 1000)
    return statistics.median(costs)


async def measure(home: Path, policies: int) -> dict[str, float]:
    url = f"sqlite:///{home / 'catalog.sqlite'}"
    writer = await Catalog.open(url)
    for number in range(policies):
        body = policy_body(number)
        await writer.put("policy", body["reference"], body=body)
    catalog = await Catalog.open(url, copy=home / "policies-in-force.json")
    bus = open_bus("embedded:", home)
    changes = Changes(writer, policies)
    found: dict[str, float] = {}

    link = CatalogLink(catalog)
    await link.refresh()
    found["worker_unrelated_ms"] = await cost_ms(link.refresh, changes.unrelated)
    found["worker_policy_ms"] = await cost_ms(link.refresh, changes.policy)

    async def read_all() -> None:
        link.read_again()
        await link.refresh()

    found["worker_all_ms"] = await cost_ms(read_all, None)
    assert len(link.policies) == policies

    book = PolicyBook(catalog, bus, GatewayTelemetry())
    began_s = cpu_s()
    await book.refresh()
    found["gateway_all_ms"] = (cpu_s() - began_s) * 1000
    found["gateway_unrelated_ms"] = await cost_ms(book.refresh, changes.unrelated)
    found["gateway_policy_ms"] = await cost_ms(book.refresh, changes.policy)
    await bus.close()
    await catalog.close()
    await writer.close()
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--policies", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), options.policies))
    report = Report(f"A change of the catalog, {options.policies} policies")
    for tier in ("worker", "gateway"):
        all_ms = found[f"{tier}_all_ms"]
        for change in ("unrelated", "policy"):
            took_ms = found[f"{tier}_{change}_ms"]
            against = f"reading all policies, {all_ms:.0f} ms"
            report.add(f"{tier}, {change} changed", took_ms, "ms CPU", against, took_ms / all_ms)
    report.finish(options.json)


if __name__ == "__main__":
    main()
