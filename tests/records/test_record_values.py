"""Each kind of value by each protocol into each format: stored exactly, or rejected with a reason.

`TABLE` is what users read in docs/policies.md. The test sends every value through the real inputs, gateway
and worker, reads the archives, reprocesses them, and writes the table again from what it finds.
"""

import io
import math
import struct
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import msgspec
from windvane.bus import open_bus
from windvane.commands.sources.chunks import Losses
from windvane.commands.sources.csv_table import TableOptions, open_table
from windvane.commands.sources.records import jsonl_chunks
from windvane.errors import ChunkRejected
from windvane.ingest.bodies.formats import BodyFormat
from windvane.ingest.chunk import IncomingChunk, PostedBody
from windvane.ingest.forward.framing import MessageReader
from windvane.processors.worker.pipeline.archive import decode_events, parse_json_lines
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.records.events import EventTime
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase

from tests.ingest.test_policies import House
from tests.processors.worker.test_worker import Home

TABLE = """\
| value of the field | forward, HTTP msgpack | HTTP JSON, `send` jsonl | `send` csv | `raw` archives |
| --- | --- | --- | --- | --- |
| NaN | NaN | NaN | "NaN" | rejected: no bytes |
| Infinity | Infinity | Infinity | "Infinity" | rejected: no bytes |
| -Infinity | -Infinity | -Infinity | "-Infinity" | rejected: no bytes |
| -0.0 | -0.0 | -0.0 | -0.0 | rejected: no bytes |
| -0 | — | -0.0 | -0.0 | rejected: no bytes |
| 2^63 | 9223372036854775808 | 9223372036854775808 | 9223372036854775808 | rejected: no bytes |
| 2^64 | — | "18446744073709551616" | "18446744073709551616" | the same |
| 1e400 | — | "1e400" | "1e400" | the same |
| 1e-400 | — | "1e-400" | "1e-400" | the same |
| text | "grün" | "grün" | "grün" | the same |
| empty text | "" | "" | nil | the same |
| bytes ff 00 | bytes ff 00 | — | — | the same |
| half a surrogate pair | bytes ed a0 80 | bytes ed a0 80 | — | the same |
| EventTime | EventTime 1790000000.000000007 | — | — | rejected: no bytes |
| empty map | {} | {} | — | rejected: no bytes |
| empty array | [] | [] | — | rejected: no bytes |
| nested | {"a": [1, {"b": nil}]} | {"a": [1, {"b": nil}]} | — | rejected: no bytes |
| nested 300 deep | 300 arrays | 300 arrays | — | rejected: no bytes |
| nested 1,100 deep | rejected: deeper than 800 levels | rejected: deeper than 800 levels | — | the same |
| key twice | 2 | 2 | — | rejected: no bytes |
| keys 1 and text 1 | {1: "a", "1": "b"} | — | — | rejected: no bytes |
| a map as a key | rejected: cannot be decoded | — | — | the same |
"""

NS = 1_790_000_000_000_000_007
AT = msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 7))


class Value(NamedTuple):
    """What is sent: the record in msgpack and in JSON, a cell of a table. None: it cannot be written so."""

    packed: bytes | None
    json: bytes | None
    cell: bytes | None = None


def of(value: Any, text: str | None = None, cell: str | None = None) -> Value:
    json = None if text is None else b'{"v": %s}' % text.encode()
    return Value(msgpack.packb({"v": value}), json, None if cell is None else cell.encode())


VALUES: Mapping[str, Value] = {
    "NaN": of(math.nan, "NaN", "NaN"),
    "Infinity": of(math.inf, "Infinity", "Infinity"),
    "-Infinity": of(-math.inf, "-Infinity", "-Infinity"),
    "-0.0": of(-0.0, "-0.0", "-0.0"),
    "-0": Value(None, b'{"v": -0}', b"-0"),
    "2^63": of(2**63, str(2**63), str(2**63)),
    "2^64": Value(None, b'{"v": %d}' % 2**64, b"%d" % 2**64),
    "1e400": Value(None, b'{"v": 1e400}', b"1e400"),
    "1e-400": Value(None, b'{"v": 1e-400}', b"1e-400"),
    "text": of("grün", '"grün"', "grün"),
    "empty text": of("", '""', ""),
    "bytes ff 00": of(b"\xff\x00"),
    "half a surrogate pair": Value(b"\x81\xa1v\xa3\xed\xa0\x80", b'{"v": "\\ud800"}'),
    "EventTime": of(AT),
    "empty map": of({}, "{}"),
    "empty array": of([], "[]"),
    "nested": of({"a": [1, {"b": None}]}, '{"a": [1, {"b": null}]}'),
    "nested 300 deep": Value(
        b"\x81\xa1v" + b"\x91" * 300 + b"\x01", b'{"v": %s1%s}' % (b"[" * 300, b"]" * 300)
    ),
    "nested 1,100 deep": Value(
        b"\x81\xa1v" + b"\x91" * 1100 + b"\x01", b'{"v": %s1%s}' % (b"[" * 1100, b"]" * 1100)
    ),
    "key twice": Value(b"\x82\xa1v\x01\xa1v\x02", b'{"v": 1, "v": 2}'),
    "keys 1 and text 1": of({1: "a", "1": "b"}),
    "a map as a key": Value(b"\x82\xa1v\x01\x80\x02", None),
}


def shown(value: Any) -> str:
    """A value in the table: exact, and different for different values."""
    match value:
        case EventTime():
            return f"EventTime {value // 10**9}.{value % 10**9:09d}"
        case None:
            return "nil"
        case float():
            return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(
                value, "NaN" if value != value else repr(value)
            )
        case bytes():
            try:
                return f'"{value.decode()}"'
            except UnicodeDecodeError:
                return f"bytes {value.hex(' ')}"
        case list():
            depth, inner = 1, value
            while len(inner) == 1 and isinstance(inner[0], list):
                depth, inner = depth + 1, inner[0]
            return f"{depth} arrays" if depth > 9 else f"[{', '.join(map(shown, value))}]"
        case dict():
            return f"{{{', '.join(f'{shown(key)}: {shown(inner)}' for key, inner in value.items())}}}"
    return repr(value)


def forward(value: Value) -> IncomingChunk | None:
    if value.packed is None:
        return None
    time = msgpack.packb(AT)
    payload = b"\x92" + time + value.packed
    sent = msgpack.packb(["t", payload, {"size": 1}])
    reader = MessageReader(max_message_bytes=1 << 20)
    room = reader.writable()
    room[: len(sent)] = sent
    reader.received(len(sent))
    [message] = reader.messages()
    return IncomingChunk("s", "t", message.payload, events=message.events, **message.options)


def posted(body: bytes | None, media_type: str) -> IncomingChunk | None:
    if body is None:
        return None
    return IncomingChunk("s", "t", b"", body=PostedBody(body, "text", BodyFormat(media_type), arrived_ns=NS))


def jsonl(value: Value) -> IncomingChunk | str | None:
    if value.json is None:
        return None
    losses = Losses()
    batches = jsonl_chunks(io.BytesIO(value.json + b"\n").read, chunk_bytes=1 << 20, losses=losses)
    return of_file([chunk for batch in batches for chunk in batch], losses)


def csv(value: Value) -> IncomingChunk | str | None:
    if value.cell is None:
        return None
    losses = Losses()
    file = io.BytesIO(b"v,w\n%s,1\n" % value.cell)
    table = open_table(file.read, TableOptions(), rewind=lambda: _rewound(file))
    return of_file(
        [chunk for batch in table.chunks(chunk_bytes=1 << 20, losses=losses) for chunk in batch], losses
    )


def _rewound(file: io.BytesIO) -> None:
    file.seek(0)


def of_file(chunks: list[Any], losses: Losses) -> IncomingChunk | str:
    if not chunks:
        return str(losses)
    [chunk] = chunks
    return IncomingChunk("s", "t", chunk.payload, size_hint=chunk.events)


COLUMNS = {
    "forward": forward,
    "HTTP msgpack": lambda value: posted(value.packed, "application/msgpack"),
    "HTTP JSON": lambda value: posted(value.json, "application/json"),
    "`send` jsonl": jsonl,
    "`send` csv": csv,
}
FORMATS: Mapping[str, dict[str, Any]] = {
    "msgpack": {"pipeline": [{"operation": "fields", "fields": ["v"]}]},
    "json": {"pipeline": [{"operation": "fields", "fields": ["v"]}]},
    "raw": {"field": "v", "pipeline": [{"operation": "pcm", "dtype": "uint8", "rate_hz": 1.0}]},
}
_REASONS = {
    "nested deeper than 800": "deeper than 800 levels",
    "cannot be decoded": "cannot be decoded",
    "no field 'v' that is a string or binary": "no bytes",
}


def why(reason: str) -> str:
    """A rejection in the table."""
    for part, short in _REASONS.items():
        if part in reason:
            return f"rejected: {short}"
    return f"rejected: {reason}"


async def test_every_value_by_every_entry_in_every_format(tmp_path: Path) -> None:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    home, house = Home(tmp_path, bus, bus.producer(), catalog), House(tmp_path, bus, catalog)
    for format, more in FORMATS.items():
        await home.policy(format, tags=[f"{format}.**"], format=format, **more)
    gateway = await house.gateway()
    found: dict[tuple[str, str, str], str] = {}
    sent: dict[str, tuple[str, str, str]] = {}
    for number, (name, value) in enumerate(VALUES.items()):
        for column, (entry, make) in enumerate(COLUMNS.items()):
            for format in FORMATS:
                chunk = make(value)
                tag, case = f"{format}.v{number}.d{column}", (name, entry, format)
                if chunk is None:
                    found[case] = "—"
                elif isinstance(chunk, str):
                    found[case] = why(chunk)
                else:
                    try:
                        await gateway.submit(msgspec.structs.replace(chunk, tag=tag))
                        sent[tag] = case
                    except ChunkRejected as rejection:
                        found[case] = why(str(rejection))
    async with home.working():
        await home.until_stored(len(sent))
    rejected = {letter.tag: letter for letter in home.letters.list() if letter.code == "not-archived"}
    for tag, case in sent.items():
        found[case] = why(rejected[tag].reason) if tag in rejected else archived(home, tag, case[2])
    stored = [tag for tag in sent if tag not in rejected]
    before = {tag: rows(home, tag) for tag in stored}
    with closing(SqlCheckpointDatabase(tmp_path / "checkpoints.sqlite")) as checkpoints:
        for tag in stored:
            format = sent[tag][2]
            policy = policy_from_mapping({"reference": format, "format": format, **FORMATS[format]})
            with Reprocessing(home.store, tag, policy, checkpoints) as again:
                again.run()
                again.put_in_place(lambda: None)
                assert not again.failed, sent[tag]
    assert {tag: rows(home, tag) for tag in stored} == before
    await gateway.close()
    await catalog.close()
    await bus.close()
    assert table(found) == TABLE


def archived(home: Home, tag: str, format: str) -> str:
    data = home.stream(tag)
    if format == "raw":
        return shown(data)
    events = decode_events(data) if format == "msgpack" else parse_json_lines(data)
    [record] = [record for each in events.slices() for record in each.records]
    return shown(record[b"v"])


def rows(home: Home, tag: str) -> dict[str, tuple[bytes, list[int]]]:
    """All outputs, to the last bit."""
    found = {}
    for reference in home.store.arrays(tag):
        if "~" not in reference:
            with home.store.array(reference) as array:
                found[reference] = (array[:].tobytes(), array.times_ns[:].tolist())
    return found


def table(found: Mapping[tuple[str, str, str], str]) -> str:
    """What was found, as a table; inputs that share a column must have given the same."""
    head = TABLE.splitlines()[:2]
    groups = [["forward", "HTTP msgpack"], ["HTTP JSON", "`send` jsonl"], ["`send` csv"]]
    lines = list(head)
    for name in VALUES:
        cells: list[str] = []
        raw: dict[str, None] = {}
        for entries in groups:
            both = {found[name, entry, format] for entry in entries for format in ("msgpack", "json")}
            cells.append(" / ".join(sorted(both)))
        for entry in [each for each in COLUMNS if found[name, each, "raw"] != "—" and each != "`send` csv"]:
            of_raw = found[name, entry, "raw"]
            if "rejected" not in found[name, entry, "msgpack"]:
                raw["the same" if of_raw == found[name, entry, "msgpack"] else of_raw] = None
        lines.append(f"| {name} | {' | '.join(cells)} | {' / '.join(raw) or 'the same'} |")
    return "\n".join(lines) + "\n"


def test_users_read_the_same_table() -> None:
    assert TABLE in Path("docs/policies.md").read_text()
