"""Excerpts of rejected bytes: decoded if possible, bounded and printable for any bytes."""

import gzip
import json
import struct
import sys
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.store.databases.excerpt import MAX_LINE_CHARACTERS, MAX_LINES, excerpt_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def event(record: object) -> bytes:
    return bytes(msgpack.packb([msgpack.ExtType(0, struct.pack(">II", 1_790_000_000, 7)), record]))


HELLO = event({"message": b"hello", "rpm": 12.5})
HELLO_LINE = {"time": "2026-09-21T14:13:20.000000007Z", "record": {"message": "hello", "rpm": 12.5}}


@pytest.mark.parametrize(
    ("payload", "compression"),
    [
        (HELLO * 2, "text"),
        (gzip.compress(HELLO * 2, mtime=0), "gzip"),
        (gzip.compress(HELLO, mtime=0) + gzip.compress(HELLO, mtime=0), "gzip"),
        (zstd.compress(HELLO) + zstd.compress(HELLO), "zstd"),
    ],
)
def test_events_are_lines_of_json(payload: bytes, compression: str) -> None:
    assert [json.loads(line) for line in excerpt_of(payload, compression=compression)] == [HELLO_LINE] * 2


def test_what_follows_the_last_event_is_explained() -> None:
    first, reason = excerpt_of(HELLO + b"\xc1")
    assert json.loads(first) == HELLO_LINE
    assert "event 1" in reason


def test_binary_values_are_shown_in_hexadecimal_and_long_ones_cut() -> None:
    [line] = excerpt_of(event({"wave": bytes(range(200)), "text": "ü" * 500}))
    record = json.loads(line)["record"]
    assert record["wave"] == f"<200 bytes {bytes(range(32)).hex()}…>"
    assert record["text"] == "ü" * 200 + "… (300 characters more)"


def test_bytes_that_are_not_events_are_text_or_a_dump() -> None:
    assert excerpt_of(b"GET / HTTP/1.1\r\nHost: x") == ["GET / HTTP/1.1", "Host: x"]
    assert excerpt_of(b"\x81\x00\x00 hello") == [
        "00000000  81 00 00 20 68 65 6c 6c 6f" + " " * 23 + "... hello"
    ]
    assert excerpt_of(b"no gzip", compression="gzip")[1:] == ["no gzip"]
    assert excerpt_of(b"") == ["(no bytes)"]


def test_posted_bodies_are_shown_unchanged() -> None:
    assert excerpt_of(b'{"a": 1}\n{"b": 2}', format="application/json") == ['{"a": 1}', '{"b": 2}']
    records = msgpack.packb({"a": 1}) + msgpack.packb([{"b": b"x"}])
    assert excerpt_of(records, format="application/msgpack") == ['{"a":1}', '[{"b":"x"}]']


def test_nothing_reaches_a_terminal_that_it_could_take_for_a_command() -> None:
    [line] = excerpt_of(event({"message": "\x1b[31mred\x1b[0m \u202eturned"}))
    assert line.isprintable()


@pytest.mark.parametrize(
    "payload",
    [
        gzip.compress(bytes(200_000_000)),
        zstd.compress(bytes(200_000_000)),
        gzip.compress(b"") * 500_000,
        HELLO * 500_000,
        b"\x92\x00" + b"\x91" * 10_000_000,
        b"\x92\x00\xdd\xff\xff\xff\xff",
        event(["x" * 60] * 1000),
        b"\n" * 1_000_000,
    ],
    ids=[
        "bomb",
        "zstd bomb",
        "empty members",
        "many events",
        "nesting",
        "huge array",
        "one long event",
        "lines",
    ],
)
def test_hostile_bytes_cost_little_memory_and_few_lines(payload: bytes) -> None:
    tracemalloc.start()
    try:
        for compression in ("text", "gzip", "zstd"):
            lines = excerpt_of(payload, compression=compression)
            assert len(lines) <= MAX_LINES + 2
            assert max(map(len, lines), default=0) <= MAX_LINE_CHARACTERS
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8_000_000


@given(
    payload=st.binary(max_size=400) | st.binary(max_size=60).map(lambda tail: HELLO + tail),
    compression=st.sampled_from(["text", "gzip", "zstd"]),
    format=st.sampled_from(["", "application/json", "application/msgpack"]),
)
def test_any_bytes_give_printable_lines(payload: bytes, compression: str, format: str) -> None:
    lines = excerpt_of(payload, compression=compression, format=format)
    assert all(line.isprintable() for line in lines)
