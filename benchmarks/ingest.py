"""How fast the gateway takes events in, against what the machine can do, and what others reach.

A real gateway process for each mode is sent log records of 200 bytes over loopback TCP, by another process
whose bytes are made beforehand. "acked" modes have one chunk in flight on each connection. For each mode

- events/s, as a ratio to the mode's limit, measured in turns with it (`LIMITS` describes them);
- the same against the aim, and against what Fluent Bit and fluentd reached;
- CPU seconds of the gateway for a million events, and how busy it and the senders were, in cores: if neither
  was, on a machine with other load, events per CPU second say more than events/s;
- the largest resident set of the gateway.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --modes 'message*,tls-1' --seconds 9 --json build/ingest.json
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch

import trustme
from rich.table import Table

from benchmarks import limits, traffic
from benchmarks.report import Report, arguments
from benchmarks.sender import Senders, Target
from benchmarks.traffic import SCHEMA, TAG, Traffic
from tests.processes import Running, wait_until, windvane

ROUNDS = 3
MEMORY_AIM_BYTES = 200e6
BUSY = 0.85
"""Of a core: who is busier than that is what the rate hangs on."""
_SHARED_KEY = b"the key of the benchmark's senders"

# What the peers reached, receiving into nothing, one connection, log records of 204 bytes, on a machine of
# two cores of this kind: Fluent Bit 5.1 (in_forward to out_null) and fluentd 1.19 (in_forward to null). They
# were measured when Windvane was designed, not in this run: read the ratios as one digit.
FLUENT_BIT = {
    "packed": 1.35e6,
    "gzip": 1.10e6,
    "packed-acked": 1.12e6,  # the better of 0.85 and 1.12
    "tls": 0.21e6,
    "forward": 0.67e6,
    "message": 0.36e6,
    "message-acked": 5.5e3,
}
FLUENTD = {
    "packed": 0.19e6,
    "gzip": 0.15e6,
    "packed-acked": 0.18e6,
    "forward": 0.22e6,
    "message": 0.10e6,
    "message-acked": 3.6e3,
}


@dataclass(frozen=True, slots=True)
class Mode:
    """One way to send."""

    kind: str
    """Its name without the number of connections."""
    connections: int
    make: Callable[..., Traffic]
    limit: str
    aim: float | None = None
    """Events/s on one core."""
    aim_of_limit: float | None = None
    acked: bool = False
    bus: str = "discard:"
    schema: bool = False
    tls: bool = False

    @property
    def name(self) -> str:
        """As `--modes` takes it."""
        return f"{self.kind}-{self.connections}"


MODES = [
    Mode("packed", 1, traffic.packed, "walking", aim=3e6, aim_of_limit=0.5),
    Mode("packed", 4, traffic.packed, "walking", aim=4e6, aim_of_limit=0.5),
    Mode("packed", 100, traffic.packed, "walking"),
    Mode("packed-acked", 1, traffic.packed, "walking", acked=True),
    Mode("packed-acked", 4, traffic.packed, "walking", acked=True),
    Mode("packed-acked", 100, traffic.packed, "walking", acked=True),
    Mode("gzip", 1, traffic.gzipped, "gunzip + walk", aim=2e6),
    Mode("gzip", 4, traffic.gzipped, "gunzip + walk", aim=2e6),
    Mode("gzip-by-emit", 1, traffic.gzipped_by_emit, "gunzip each + walk"),
    Mode("zstd", 1, traffic.zstandard, "unzstd + walk", aim=2e6),
    Mode("zstd", 4, traffic.zstandard, "unzstd + walk", aim=2e6),
    Mode("tls", 1, traffic.packed, "bare TLS", aim=1e6, tls=True),
    Mode("tls", 4, traffic.packed, "bare TLS", aim=1e6, tls=True),
    Mode("tls-acked", 1, traffic.packed, "bare TLS", tls=True, acked=True),
    Mode("forward", 1, traffic.forward, "walking", aim=2e6),
    Mode("forward", 4, traffic.forward, "walking", aim=2e6),
    Mode("forward-acked", 1, traffic.forward, "walking", acked=True),
    Mode("message", 1, traffic.message, "unpacking", aim=0.5e6),
    Mode("message", 4, traffic.message, "unpacking", aim=0.5e6),
    Mode("message", 100, traffic.message, "unpacking", aim=0.5e6),
    Mode("message-with-option", 1, traffic.message_with_option, "unpacking"),
    Mode("message-acked", 1, traffic.message, "bare echo", aim_of_limit=0.8, acked=True),
    Mode("message-acked", 100, traffic.message, "bare echo", aim_of_limit=0.8, acked=True),
    Mode("message-durable", 1, traffic.message, "bare acks", acked=True, bus="embedded:"),
    Mode("message-durable", 100, traffic.message, "bare acks", acked=True, bus="embedded:"),
    Mode("schema", 1, traffic.packed, "msgspec", aim=1e6, schema=True),
    Mode("schema", 4, traffic.packed, "msgspec", aim=1e6, schema=True),
    Mode("disk-acked", 1, traffic.packed, "disk", aim_of_limit=0.8, acked=True, bus="embedded:"),
    Mode("disk-acked", 4, traffic.packed, "disk", aim_of_limit=0.8, acked=True, bus="embedded:"),
    Mode("disk-acked", 100, traffic.packed, "disk", aim_of_limit=0.8, acked=True, bus="embedded:"),
]

LIMITS = {
    "walking": "msgpack.Unpacker.skip over the payload, event by event",
    "gunzip + walk": "zlib in one call, and walking what comes out",
    "gunzip each + walk": "zlib, one call for each member, and walking what comes out",
    "unzstd + walk": "zstd in one call, and walking what comes out",
    "bare TLS": "a process that reads the same bytes from a blocking TLS 1.3 socket and throws them away",
    "unpacking": "msgpack.Unpacker, iterated over the messages",
    "bare echo": "uvloop alone, that sends back the bytes that it reads",
    "bare acks": "uvloop alone, that acks whatever it reads, unread: fewer bytes than the echo",
    "msgspec": "msgspec, the payload decoded in one call into structs of the eight fields",
    "disk": "a loop of os.write of 4 MiB and os.fdatasync in the same folder",
}
_CPU_LIMITS: dict[str, Callable[[Traffic], float]] = {
    "walking": limits.walking,
    "gunzip + walk": limits.gunzipping,
    "gunzip each + walk": limits.gunzipping_by_emit,
    "unzstd + walk": limits.unzstding,
    "unpacking": limits.unpacking,
    "msgspec": limits.decoding,
}


@dataclass(slots=True)
class Measured:
    """The rounds of one mode; figures are medians over them."""

    rates: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    gateway_cpu_s: list[float] = field(default_factory=list)  # for a million events
    gateway_busy: list[float] = field(default_factory=list)
    senders_busy: list[float] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)  # of each connection, all rounds together
    peak_bytes: int = 0

    @property
    def bound_by(self) -> str:
        """What the rate hung on: at whom to look first."""
        if statistics.median(self.gateway_busy) >= BUSY:
            return "gateway"
        return "senders" if statistics.median(self.senders_busy) >= BUSY else "neither"


def main() -> None:
    """Runs the requested modes, and prints the table."""
    options = _options()
    report = Report(f"Ingest: log records of {traffic.RECORD_BYTES} bytes")
    table = _new_table()
    used: dict[str, str] = {}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        site = Site(Path(folder).absolute())
        for mode in options.modes:
            payload = mode.make(acked=mode.acked)
            found = measure(site, mode, payload, options.seconds)
            add_figures(report, table, mode, payload, found)
            used[mode.limit] = LIMITS[mode.limit]
    report.finish(options.json, table=table)
    for name, text in used.items():
        print(f"{name}: {text}")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each mode is sent (default: 4)")
    parser.add_argument(
        "--modes",
        type=modes_named,
        default=MODES,
        metavar="NAME,…",
        help=f"which ones, * stands for any characters (default: all): {', '.join(m.name for m in MODES)}",
    )
    return parser.parse_args()


def modes_named(text: str) -> list[Mode]:
    """What `--modes` means: names, kinds and patterns, between commas. Raises ArgumentTypeError."""
    found: list[Mode] = []
    for pattern in text.split(","):
        chosen = [mode for mode in MODES if fnmatch(mode.name, pattern) or mode.kind == pattern]
        if not chosen:
            raise argparse.ArgumentTypeError(f"no mode is called {pattern!r}; --help names them")
        found += [mode for mode in chosen if mode not in found]
    return found


class Site:
    """Where gateways run: a folder, and what TLS and the handshake need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        issued = authority.issue_cert("127.0.0.1")
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(self.certificate, append=True)
        issued.private_key_pem.write_to_path(self.key)

    @contextmanager
    def gateway(self, mode: Mode) -> Iterator[Running]:
        """A gateway with one policy, that keeps the events unchanged."""
        home = self.folder / mode.name
        home.mkdir()
        policy = home / "policy.toml"
        lines = ["[[policy]]", f'reference = "{TAG}"', 'format = "msgpack"']
        if mode.schema:
            (home / "schema.avsc").write_text(json.dumps(SCHEMA))
            lines.append('schema = "schema.avsc"')
        policy.write_text("\n".join(lines) + "\n")
        environ = {}
        if mode.tls:
            environ["WINDVANE_GATEWAY_TLS_CERT_FILE"] = str(self.certificate)
            environ["WINDVANE_GATEWAY_TLS_KEY_FILE"] = str(self.key)
            secrets = home / "forward-security.toml"
            secrets.touch(mode=0o600)
            secrets.write_text(f'shared_key = "{_SHARED_KEY.decode()}"\n')
        applied = windvane(home, "apply", str(policy))
        if applied.returncode:
            raise RuntimeError(applied.stderr.decode())
        with Running("gateway", home, "--bus", mode.bus, environ=environ) as gateway:
            yield gateway


def measure(site: Site, mode: Mode, payload: Traffic, seconds: float) -> Measured:
    """Sends in rounds, in turns with what the limit is; `seconds` in all."""
    found = Measured(writes=[0] * mode.connections)
    with ExitStack() as stack:
        gateway = stack.enter_context(site.gateway(mode))
        host, port = gateway.forward
        target = Target(host, port, site.ca, _SHARED_KEY) if mode.tls else Target(host, port)
        senders = stack.enter_context(Senders(target, payload, mode.connections))
        limit = _limit(stack, site, mode, payload)
        for _ in range(ROUNDS):
            found.limits.append(limit(seconds / ROUNDS))
            _round(gateway, senders, payload, seconds / ROUNDS, found)
        found.peak_bytes = gateway.peak_bytes()
        rejected = gateway.status()["refused_total"]
        if rejected:
            raise RuntimeError(f"{mode.name}: {rejected} chunks were rejected, so its speed means nothing")
    return found


def _round(gateway: Running, senders: Senders, payload: Traffic, seconds: float, found: Measured) -> None:
    before, cpu_before_s = gateway.status()["events_total"], gateway.cpu_s()
    sent = senders.send(seconds)
    events = sum(sent.writes) * payload.events
    wait_until(
        lambda: gateway.status()["events_total"] >= before + events, "the gateway has taken all events"
    )
    elapsed_s = time.monotonic() - sent.started_s
    cpu_s = gateway.cpu_s() - cpu_before_s
    found.rates.append(events / elapsed_s)
    found.gateway_cpu_s.append(cpu_s / events * 1e6)
    found.gateway_busy.append(cpu_s / elapsed_s)
    found.senders_busy.append(sent.cpu_s / elapsed_s)
    found.writes = [
        all_of_it + of_round for all_of_it, of_round in zip(found.writes, sent.writes, strict=True)
    ]


def _limit(stack: ExitStack, site: Site, mode: Mode, payload: Traffic) -> Callable[[float], float]:
    """What gives the mode's limit in events/s, when it is given so many seconds."""
    if mode.limit == "disk":
        event_bytes = len(payload.payload) / payload.events
        return lambda seconds: limits.disk(site.folder, seconds) / event_bytes
    if mode.limit in _CPU_LIMITS:
        return lambda _: _CPU_LIMITS[mode.limit](payload)
    if mode.limit == "bare TLS":
        port = stack.enter_context(limits.bare_tls(site.certificate, site.key))
        payload = mode.make(acked=False)
        target = Target("127.0.0.1", port, ca=site.ca)
    elif mode.limit == "bare echo":
        target = Target("127.0.0.1", stack.enter_context(limits.bare_echo()), echoes=True)
    else:
        target = Target("127.0.0.1", stack.enter_context(limits.bare_acks()))
    senders = stack.enter_context(Senders(target, payload, mode.connections))

    def send(seconds: float) -> float:
        sent = senders.send(seconds)
        return sum(sent.writes) * payload.events / (time.monotonic() - sent.started_s)

    return send


def _new_table() -> Table:
    table = Table(
        "mode", "M events/s", "MB/s", "limit", "of limit", "of aim", "× Fluent Bit", "× fluentd",
        "CPU s/M", "M/CPU s", "gateway busy", "senders busy", "bound by", "peak MB", "slowest conn.",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def add_figures(report: Report, table: Table, mode: Mode, payload: Traffic, found: Measured) -> None:
    """The figures of one mode, each with a name for the JSON, and its row."""
    rate, limit = statistics.median(found.rates), statistics.median(found.limits)
    bytes_per_s = rate * len(payload.payload) / payload.events
    cpu_s = statistics.median(found.gateway_cpu_s)
    name = mode.name
    report.add(f"{name}: events", rate, "events/s", f"{mode.limit} {limit:,.3g} events/s", rate / limit)
    report.add(f"{name}: bytes", bytes_per_s / 1e6, "MB/s")
    aims = []
    if mode.aim is not None:
        aims.append(rate / mode.aim)
        report.add(f"{name}: aim", rate, "events/s", f"aim {mode.aim:,.3g} events/s", aims[-1])
    if mode.aim_of_limit is not None:
        aims.append(rate / limit / mode.aim_of_limit)
        against = f"aim {mode.aim_of_limit} of {mode.limit}"
        report.add(f"{name}: aim of the limit", rate / limit, "of the limit", against, aims[-1])
    times: list[str] = []
    for peer, reached in (("Fluent Bit 5.1", FLUENT_BIT), ("fluentd 1.19", FLUENTD)):
        if mode.kind in reached and mode.bus == "discard:":
            theirs = reached[mode.kind]
            report.add(
                f"{name}: against {peer}",
                rate,
                "events/s",
                f"{peer} {theirs:,.3g} events/s, one connection, measured elsewhere",
                rate / theirs,
            )
            times.append(f"{rate / theirs:.1f}")
        else:
            times.append("")
    gateway_busy, senders_busy = statistics.median(found.gateway_busy), statistics.median(found.senders_busy)
    report.add(f"{name}: gateway CPU", cpu_s, "s per million events")
    of_one_core = None if mode.aim is None else 1e6 / cpu_s / mode.aim
    against_aim = None if mode.aim is None else f"aim {mode.aim:,.3g} events/s on one core"
    report.add(f"{name}: events a CPU second", 1e6 / cpu_s, "events/s", against_aim, of_one_core)
    report.add(f"{name}: gateway busy", gateway_busy, "cores")
    report.add(f"{name}: senders busy", senders_busy, "cores")
    report.add(
        f"{name}: peak memory", found.peak_bytes / 1e6, "MB", "200 MB", found.peak_bytes / MEMORY_AIM_BYTES
    )
    slowest = ""
    if mode.connections > 1 and mode.acked:  # elsewhere it says as much of the kernel's buffers
        share = min(found.writes) / statistics.mean(found.writes)
        report.add(f"{name}: slowest connection", share, "of the mean")
        slowest = f"{share:.2f}"
    table.add_row(
        name, f"{rate / 1e6:,.3g}", f"{bytes_per_s / 1e6:,.0f}", f"{mode.limit} {limit / 1e6:,.3g}",
        f"{rate / limit:.2f}", f"{min(aims):.2f}" if aims else "", *times, f"{cpu_s:.3g}", f"{1 / cpu_s:.3g}",
        f"{gateway_busy:.2f}", f"{senders_busy:.2f}", found.bound_by, f"{found.peak_bytes / 1e6:.0f}",
        slowest,
    )  # fmt: skip


if __name__ == "__main__":
    main()
