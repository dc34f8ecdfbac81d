"""How fast chunks are checked against a schema, against walking the same bytes with `msgpack.Unpacker.skip`.

python benchmarks/schema.py [--json FILE]
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import statistics
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgpack
from windvane.ingest.checks.payload import count_events
from windvane.ingest.checks.schema import EventCheck
from windvane.store.catalog.policy_schema import parse_schema

from benchmarks.report import Report, arguments
from benchmarks.traffic import FIRST_SECOND, SCHEMA

EVENTS = 6000
NOW_S = FIRST_SECOND
NOW_NS = NOW_S * 10**9
TYPES: dict[str, Any] = {field["name"]: field["type"] for field in SCHEMA["fields"]}


def schema(**types: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Access", "fields": [{"name": n, "type": t} for n, t in types.items()]}


def events(**changes: Any) -> list[bytes]:
    found = []
    for i in range(EVENTS):
        record = {
            "remote": "10.3.17.204",
            "method": "GET",
            "path": f"/api/v1/turbines/{i}",
            "code": 200,
            "size": 1000 + i,
            "referer": None,
            "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "seconds": 0.25,
            **changes,
        }
        found.append(msgpack.packb([msgpack.ExtType(0, struct.pack(">II", NOW_S, i)), record]))
    return found


def rates(check: Callable[[], object], peer: Callable[[], object]) -> tuple[float, float]:
    """Events a CPU second of both, in turns, so that what else the machine does meets both alike: medians."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(40):
        for function, found in zip((check, peer), seconds, strict=True):
            began = time.process_time()
            function()
            found.append(time.process_time() - began)
    of_check, of_peer = (EVENTS / statistics.median(found) for found in seconds)
    return of_check, of_peer


def walk(payload: bytes) -> None:
    walker = msgpack.Unpacker(read_size=len(payload) + 5, max_buffer_size=len(payload) + 5)
    walker.feed(struct.pack(">BI", 0xDD, EVENTS))
    walker.feed(payload)
    walker.skip()


def count_and_check(check: EventCheck, payload: bytes) -> None:
    check.sift(payload, count_events(payload, EVENTS), now_ns=NOW_NS)


def add(report: Report, name: str, function: Callable[[], object], chunk: bytes) -> None:
    found, limit = rates(function, partial(walk, chunk))
    report.add(name, found, "events/CPU s", f"skip-walking {limit:,.3g}", found / limit)


def main() -> None:
    options = arguments(__doc__.split("\n")[0] if __doc__ else None).parse_args()
    good = events()
    payload = b"".join(good)
    with_bytes = b"".join(events(agent=b"\xff" * 70))
    one_bad = b"".join([*good[:-1], *events(code=9)[:1]])
    all_bad = b"".join(events(code=9))
    report = Report(f"Schema of eight fields, chunks of {EVENTS} records of {len(payload) // EVENTS} bytes")
    compiled = EventCheck(parse_schema(schema(**TYPES)))
    of_bytes = EventCheck(parse_schema(schema(**{**TYPES, "agent": "bytes"})))
    bounded = EventCheck(parse_schema(schema(**TYPES)), max_age_s=60)
    for name, check, chunk, invalid in [
        ("all valid", compiled, payload, 0),
        ("all valid, time within bounds", bounded, payload, 0),
        ("all valid, a field of bytes", of_bytes, with_bytes, 0),
        ("one record invalid", compiled, one_bad, 1),
        ("all records invalid", compiled, all_bad, EVENTS),
        ("bounds of time, no schema", EventCheck(None, max_age_s=60), payload, 0),
    ]:
        sifted = check.sift(chunk, EVENTS, now_ns=NOW_NS)
        if (0 if sifted is None else sifted.invalid_events) != invalid:
            raise RuntimeError(f"{name}: the check is wrong, so its speed says nothing: {sifted}")
        add(report, name, partial(check.sift, chunk, EVENTS, now_ns=NOW_NS), chunk)
    add(
        report,
        "all valid, counted too, as in the gateway",
        partial(count_and_check, compiled, payload),
        payload,
    )
    report.finish(options.json)


if __name__ == "__main__":
    main()
