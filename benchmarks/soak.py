"""Whether memory, descriptors and threads of every tier stay flat under steady mixed load.

A real `windvane up` takes what an installation takes all day: packed chunks acked one by one, gzip, Forward
and Message mode, HTTP, connections that last and connections that come and go, input that is rejected, a
viewer of the live feed and one who reloads the page. Policies: raw bytes with spectrum and features, a model,
JSON with a schema. Every few seconds the anonymous memory (RssAnon), the descriptors and the threads of each
tier are read. After the warm-up a line is fitted through each (Theil–Sen, so that single peaks count little);
the run fails if memory grows by more than a megabyte in ten minutes, or if descriptors or threads grow.

    python benchmarks/soak.py
    python benchmarks/soak.py --seconds 3600 --json build/soak.json
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import csv
import gzip
import json
import statistics
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgpack
import numpy as np
from rich.table import Table
from scipy.stats import theilslopes

from benchmarks.report import Report, arguments
from tests.processes import Running, windvane

SECONDS = 600.0
SAMPLE_EVERY_S = 3.0
WARM_UP = 0.3
"""Of the time: caches fill, thread pools start, the allocator finds its size."""
LONGEST_WARM_UP_S = 600.0
PERIOD_S = 600.0
MOST_GROWTH_BYTES = 1_000_000.0
"""Of RssAnon in `PERIOD_S`."""
GROWTH_LIMITS = {"descriptors": 1.0, "threads": 2.0}
"""Growth in `PERIOD_S` must be less than this. A pool starts a thread when all others are busy, which may be
late: one such step gives a slope of up to 1.5."""
TIERS = {"gateway": "gateway", "worker": "worker", "web": "web"}
VIEWED = ["park.t0:spectrum", "park.t1:features", "model.m0:model"]
RECONNECT_S = 5.0
SAMPLES = 2048  # int16, of a chunk of a sensor

POLICIES = """
[[policy]]
reference = "park"
tags = ["park.**"]
format = "raw"

[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy.pipeline]]
operation = "spectrum"
length = 512

[[policy.pipeline]]
operation = "features"
window = 1280

[[policy]]
reference = "model"
tags = ["model.**"]
format = "raw"

[[policy.pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 6400.0

[[policy.pipeline]]
operation = "features"
window = 1280

[[policy.pipeline]]
operation = "model"
estimator = "river.anomaly.HalfSpaceTrees"

[[policy]]
reference = "logs"
tags = ["logs.**"]
format = "json"

[policy.schema]
type = "record"
name = "Line"
fields = [{name = "level", type = "string"}, {name = "message", type = "string"}, {name = "n", type = "long"}]
"""


@dataclass(slots=True)
class Sample:
    """What one tier holds at one moment."""

    at_s: float
    anonymous_bytes: int
    descriptors: int
    threads: int


class Load:
    """All senders and viewers; each runs until it is cancelled, and counts what was done."""

    def __init__(self, site: Running) -> None:
        self.counts: Counter[str] = Counter()
        self._site = site
        self._web = site.ready["web"]
        self._number = 0
        source = np.random.default_rng(1)
        self._signal = [source.normal(0, 2000, SAMPLES).astype("<i2").tobytes() for _ in range(8)]

    def everything(self) -> list[Awaitable[None]]:
        """The whole mix: about 60 chunks a second."""
        sensors = [self._keep_sending(f"park.t{n}", 0.1, self._packed) for n in range(3)]
        return [
            *sensors,
            self._keep_sending("park.t3", 0.2, self._gzipped),
            self._keep_sending("model.m0", 0.2, self._packed),
            self._keep_sending("logs.app", 0.2, self._forward_mode),
            self._keep_sending("logs.one", 0.1, self._message_mode),
            self._keep_sending("logs.bad", 0.5, self._invalid),
            self._come_and_go("logs.visitor", 0.2),
            self._ask_for_entry(1.0),
            self._probe(1.0),
            self._post(0.2),
            self._look_at_pages(5.0),
            self._view(None),
            self._view(10.0),
        ]

    def _events(self, count: int, record: Callable[[int], dict[str, object]]) -> Iterator[bytes]:
        for number in range(count):
            at = msgpack.ExtType(0, struct.pack(">II", int(time.time()), number))
            yield msgpack.packb([at, record(number)])

    def _piece(self, _number: int) -> dict[str, object]:
        return {"message": self._signal[self._number % len(self._signal)][: SAMPLES // 2]}

    def _line(self, number: int) -> dict[str, object]:
        return {"level": "info", "message": f"line {self._number} {number}", "n": number}

    def _packed(self, tag: str, chunk: str) -> bytes:
        events = b"".join(self._events(4, self._piece))
        return bytes(msgpack.packb([tag, events, {"chunk": chunk, "size": 4}]))

    def _gzipped(self, tag: str, chunk: str) -> bytes:
        events = gzip.compress(b"".join(self._events(4, self._piece)), 1)
        return bytes(msgpack.packb([tag, events, {"chunk": chunk, "compressed": "gzip"}]))

    def _forward_mode(self, tag: str, chunk: str) -> bytes:
        head = msgpack.packb(tag)
        entries = b"".join(self._events(20, self._line))
        return b"".join([b"\x93", head, b"\xdc\x00\x14", entries, msgpack.packb({"chunk": chunk})])

    def _message_mode(self, tag: str, chunk: str) -> bytes:
        return bytes(msgpack.packb([tag, int(time.time()), self._line(0), {"chunk": chunk}]))

    def _invalid(self, tag: str, chunk: str) -> bytes:
        events = b"".join(self._events(2, lambda number: {"no level": number}))
        return bytes(msgpack.packb([tag, events, {"chunk": chunk}]))

    def _next_chunk_id(self) -> str:
        self._number += 1
        return f"soak-{self._number:020}"

    async def _send(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], message: bytes, chunk: str
    ) -> None:
        reader, writer = streams
        writer.write(message)
        await writer.drain()
        expected = msgpack.packb({"ack": chunk})
        assert await reader.readexactly(len(expected)) == expected

    async def _keep_sending(self, tag: str, pause_s: float, make: Callable[[str, str], bytes]) -> None:
        """One connection that lasts, one chunk in flight."""
        streams = await asyncio.open_connection(*self._site.forward)
        try:
            while True:
                chunk = self._next_chunk_id()
                await self._send(streams, make(tag, chunk), chunk)
                self.counts[f"{make.__name__.strip('_')} chunks acked"] += 1
                await asyncio.sleep(pause_s)
        finally:
            streams[1].close()

    async def _come_and_go(self, tag: str, pause_s: float) -> None:
        """As fluentd does without keepalive: a connection for each flush."""
        while True:
            streams = await asyncio.open_connection(*self._site.forward)
            chunk = self._next_chunk_id()
            try:
                await self._send(streams, self._forward_mode(tag, chunk), chunk)
            finally:
                streams[1].close()
            self.counts["connections that sent one chunk"] += 1
            await asyncio.sleep(pause_s)

    async def _ask_for_entry(self, pause_s: float) -> None:
        """Tags that no policy takes, sent by a client that does not wait for the ack."""
        while True:
            _, writer = await asyncio.open_connection(*self._site.forward)
            chunk = self._next_chunk_id()
            writer.write(self._message_mode(f"stranger.{self._number % 50}", chunk))
            await writer.drain()
            await asyncio.sleep(pause_s)
            writer.transport.abort()
            self.counts["chunks without a policy"] += 1

    async def _probe(self, pause_s: float) -> None:
        """As fluentd's TCP heartbeat does: a connection with nothing in it, then one with broken bytes."""
        while True:
            for content in (b"", b"\xc1 is not a message"):
                _, writer = await asyncio.open_connection(*self._site.forward)
                writer.write(content)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            self.counts["empty and broken connections"] += 2
            await asyncio.sleep(pause_s)

    async def _post(self, pause_s: float) -> None:
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession() as session:
            while True:
                headers["Idempotency-Key"] = self._next_chunk_id()
                body = json.dumps([self._line(number) for number in range(10)])
                address = f"{self._web}/ingest/logs?reference=logs.http"
                async with session.post(address, data=body, headers=headers) as answer:
                    assert answer.status == 204, await answer.text()
                self.counts["HTTP bodies stored"] += 1
                await asyncio.sleep(pause_s)

    async def _look_at_pages(self, pause_s: float) -> None:
        while True:
            async with aiohttp.ClientSession() as session:
                for page in ("status", "health", "streams", "arrays", "policies"):
                    async with session.get(f"{self._web}/api/v1/{page}") as answer:
                        await answer.read()
                        assert answer.status == 200, f"{page}: {answer.status}"
                        self.counts["pages read"] += 1
            await asyncio.sleep(pause_s)

    async def _view(self, leave_after_s: float | None) -> None:
        """A viewer of three arrays; one who leaves comes back a moment later."""
        while True:
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{self._web}/api/v1/live") as live,
            ):
                for number, array in enumerate(VIEWED):
                    await live.send_json({"op": "subscribe", "id": number, "array": array})
                with suppress(TimeoutError):
                    async with asyncio.timeout(leave_after_s):
                        async for message in live:
                            kind = "frames" if message.type is aiohttp.WSMsgType.BINARY else "messages"
                            self.counts[f"live {kind}"] += 1
            if leave_after_s is not None:
                self.counts["viewers that left"] += 1
            await asyncio.sleep(RECONNECT_S)


def look(pid: int, at_s: float) -> Sample:
    """What the kernel says about a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Sample(
        at_s,
        anonymous_bytes=int(status["RssAnon"].split()[0]) * 1024,
        descriptors=len(list(Path(f"/proc/{pid}/fd").iterdir())),
        threads=int(status["Threads"]),
    )


def tiers_of(pid: int) -> dict[str, int]:
    """The process ids of the tiers below `up`, and its own."""
    found = {"up": pid}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        found[TIERS[arguments[arguments.index(b"windvane.cli") + 1].decode()]] = int(child)
    return found


def growth(samples: Sequence[Sample], of: Callable[[Sample], int]) -> float:
    """Growth in `PERIOD_S` along the Theil–Sen line."""
    slope = theilslopes([of(sample) for sample in samples], [sample.at_s for sample in samples]).slope
    return float(slope) * PERIOD_S


async def load_and_look(site: Running, seconds: float) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """Samples of each tier while the load runs."""
    load = Load(site)
    tiers = tiers_of(site.pid)
    samples: dict[str, list[Sample]] = {tier: [] for tier in tiers}
    running = [asyncio.ensure_future(each) for each in load.everything()]
    began_s = time.monotonic()
    try:
        while (at_s := time.monotonic() - began_s) < seconds:
            for tier, pid in tiers.items():
                samples[tier].append(look(pid, at_s))
            done, _ = await asyncio.wait(running, timeout=SAMPLE_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()  # a sender that ends has failed
    finally:
        for each in running:
            each.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return samples, load.counts


def write_samples(path: Path, samples: dict[str, list[Sample]]) -> None:
    """Every sample, for plots."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tier", "at_s", "anonymous_bytes", "descriptors", "threads"])
        for tier, of_tier in samples.items():
            for each in of_tier:
                rows.writerow(
                    [tier, round(each.at_s, 1), each.anonymous_bytes, each.descriptors, each.threads]
                )


def judge(samples: dict[str, list[Sample]], seconds: float, report: Report) -> tuple[Table, list[str]]:
    """The table, and what grew too much."""
    table = Table()
    for column in ("tier", "RssAnon after warm-up", "at the end", "growth in 10 min"):
        table.add_column(column, justify="left" if column == "tier" else "right")
    for column in ("descriptors", "growth in 10 min", "threads", "growth in 10 min"):
        table.add_column(column, justify="right")
    warm_s = min(seconds * WARM_UP, LONGEST_WARM_UP_S)
    failures = []
    for tier, of_tier in samples.items():
        warm = [sample for sample in of_tier if sample.at_s >= warm_s]
        memory = growth(warm, lambda sample: sample.anonymous_bytes)
        descriptors = growth(warm, lambda sample: sample.descriptors)
        threads = growth(warm, lambda sample: sample.threads)
        first, last = (
            statistics.median(sample.anonymous_bytes for sample in part) / 1e6
            for part in (warm[:5], warm[-5:])
        )
        table.add_row(
            tier,
            f"{first:.1f} MB",
            f"{last:.1f} MB",
            f"{memory / 1e6:+.2f} MB",
            str(warm[-1].descriptors),
            f"{descriptors:+.1f}",
            str(warm[-1].threads),
            f"{threads:+.1f}",
        )
        report.add(f"{tier}, RssAnon in 10 min", memory / 1e6, "MB", "1 MB", memory / MOST_GROWTH_BYTES)
        report.add(f"{tier}, descriptors in 10 min", descriptors, "descriptors")
        report.add(f"{tier}, threads in 10 min", threads, "threads")
        if memory > MOST_GROWTH_BYTES:
            failures.append(f"{tier}: RssAnon grows by {memory / 1e6:.2f} MB in 10 minutes, allowed is 1 MB")
        for what, value in (("descriptors", descriptors), ("threads", threads)):
            if value >= GROWTH_LIMITS[what]:
                failures.append(
                    f"{tier}: {what} grow by {value:.1f} in 10 minutes (limit {GROWTH_LIMITS[what]:g})"
                )
    return table, failures


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"how long; {SECONDS:g} by default")
    parser.add_argument("--samples", type=Path, metavar="FILE", help="write every sample as CSV")
    given = parser.parse_args()
    report = Report(f"Soak of {given.seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="windvane-soak-") as folder, ExitStack() as stack:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "policies.toml").write_text(POLICIES)
        applied = windvane(home, "apply", str(home / "policies.toml"))
        assert applied.returncode == 0, applied.stderr.decode()
        site = stack.enter_context(Running("up", home))
        samples, counts = asyncio.run(load_and_look(site, given.seconds))
        if given.samples is not None:
            write_samples(given.samples, samples)
    for name, count in sorted(counts.items()):
        report.add(name, count, "")
    table, failures = judge(samples, given.seconds, report)
    for name, count in sorted(counts.items()):
        print(f"{count:>8}  {name}")
    report.finish(given.json, table=table)
    for failure in failures:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
