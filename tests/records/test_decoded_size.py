"""What msgpack decodes to is known from its bytes: never less than it is, and close where it counts."""

import gc
import os
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.processors.worker.pipeline.archive import decode_events
from windvane.records import decoded_size
from windvane.records.decoded_size import (
    bound_bytes,
    is_surely_within,
    measured_bytes,
    measuring,
    most_bytes,
    slices,
)

pytestmark = pytest.mark.slow

UNLIMITED = 1 << 60
MIB = 1 << 20

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.just(bytes(70_000))
    | st.builds(msgpack.ExtType, st.integers(1, 100), st.binary(max_size=300))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=40)
        | st.dictionaries(st.text(max_size=3) | st.integers(-(2**63), 2**63), inner, max_size=40)
    ),
    max_leaves=60,
)
events = st.lists(
    st.tuples(st.integers(0, 2**32), values).map(list).map(msgpack.packb), min_size=1, max_size=12
)


def naive(value: Any) -> int:
    """The sizes that `decoded_size` says, of a value as msgpack's own encoder writes it."""
    match value:
        case None | bool():
            return 8
        case int():
            return 8 if -5 <= value < 128 else 40
        case float():
            return 40
        case str() | bytes():
            content = value.encode() if isinstance(value, str) else value
            return 8 + (48 + len(content) if len(content) > 1 or isinstance(value, bytes) else 0)
        case msgpack.ExtType(_, data):
            return 8 + 80 + 48 + len(data)
        case list():
            return 8 + 64 + sum(map(naive, value))
        case dict():
            own = 64 if not value else 224 - 16 * min(len(value), 5) + 40 * max(0, len(value) - 5)
            if len(value) > 15:  # the head has a length of its own
                own = 224 - 16 + 40 * len(value)
            return 8 + own + sum(naive(key) + naive(inner) for key, inner in value.items())
    raise TypeError(value)


@settings(max_examples=60, deadline=None)
@given(events, st.sampled_from([16, 1024, 16_384]))
def test_it_is_that_of_a_naive_walk_however_the_payload_is_looked_at(chunk: list[bytes], window: int) -> None:
    payload = b"".join(chunk)
    expected = 64 * len(chunk) + sum(
        naive(list(msgpack.unpackb(event, strict_map_key=False))) for event in chunk
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded_size, "_WINDOW_BYTES", window)
        for heads in (1, 64):  # by windows, or head by head
            patch.setattr(decoded_size, "_HEADS_A_LOOK", heads)
            patch.setattr(decoded_size, "_FAR_APART_BYTES", UNLIMITED if heads == 1 else 4096)
            assert measured_bytes(payload, len(chunk), limit_bytes=UNLIMITED) == expected


@settings(max_examples=60, deadline=None)
@given(events)
def test_both_bounds_are_bounds(chunk: list[bytes]) -> None:
    payload = memoryview(b"".join(chunk))
    measured = measured_bytes(payload, len(chunk), limit_bytes=UNLIMITED)
    assert measured <= bound_bytes(payload, len(chunk))
    # Large dicts are taken to be a little larger than they are.
    assert measured <= most_bytes(len(payload), len(chunk)) * 1.2
    assert is_surely_within(payload, len(chunk), limit_bytes=measured) in (True, False)


def record_of(fields: int) -> dict[str, str]:
    return {f"field_{i}": f"a value of {i}" for i in range(fields)}


PAYLOADS = {
    "empty arrays": (b"\x92\x00\xdd" + struct.pack(">I", MIB) + b"\x90" * MIB, 1),
    "empty maps": (b"\x92\x00\xdd" + struct.pack(">I", MIB) + b"\x80" * MIB, 1),
    "maps of one": (b"\x92\x00\xdd" + struct.pack(">I", MIB // 3) + b"\x81\x00\x00" * (MIB // 3), 1),
    "tiny events": (msgpack.packb([1_790_000_000, {"k": 1.2345}]) * 50_000, 50_000),
    "records": (msgpack.packb([1_790_000_000, record_of(12)]) * 5000, 5000),
    "large maps": (msgpack.packb([1, {i: float(i) for i in range(1000)}]) * 50, 50),
    "binary": (msgpack.packb([1, os.urandom(32_768)]) * 64, 64),
    "integers": (msgpack.packb([1, list(range(1000, 60_000))]) * 10, 10),
    "extensions": (b"\x92\x00\xdd" + struct.pack(">I", MIB // 4) + b"\xd5\x05ab" * (MIB // 4), 1),
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_it_is_what_decoding_takes(name: str) -> None:
    payload, count = PAYLOADS[name]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = [*decode_events(payload).slices()]
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    measured = measured_bytes(payload, count, limit_bytes=UNLIMITED)
    assert kept
    assert 0.85 * taken <= measured <= 1.7 * taken + 100_000


DENSE = {
    "maps of eleven": b"\x8b" + bytes(byte for key in range(11) for byte in (key, 0)),
    "maps of one": b"\x81\x00\x00",
    "long maps of short keys": b"\xde\x00\x80" + bytes(byte for key in range(128) for byte in (key, 0)),
    "empty arrays": b"\x90",
    "negative numbers": b"\xe1",
    "extensions": b"\xd5\x05ab",
}


@pytest.mark.parametrize("name", DENSE)
def test_the_bounds_hold_for_what_is_dearest(name: str) -> None:
    count = MIB // len(DENSE[name])
    payload = b"\x92\x00\xdd" + struct.pack(">I", count) + DENSE[name] * count
    measured = measured_bytes(payload, 1, limit_bytes=UNLIMITED)
    assert measured <= bound_bytes(payload, 1)
    assert measured <= most_bytes(len(payload), 1)


def test_it_stops_where_the_limit_is_passed_and_rests_on_the_way() -> None:
    payload, count = PAYLOADS["empty arrays"]
    steps = measuring(payload, count, limit_bytes=10 * MIB)
    rests = 0
    try:
        while True:
            next(steps)
            rests += 1
    except StopIteration as end:
        found = end.value
    assert found > 10 * MIB
    assert 1 < rests < 20, "of the 64 windows that there are"


@settings(max_examples=60, deadline=None)
@given(events, st.integers(1, 200_000), st.integers(1, 5))
def test_slices_are_bounded_and_are_the_whole(chunk: list[bytes], limit: int, most: int) -> None:
    payload = b"".join(chunk)
    cut = list(slices(payload, limit_bytes=limit, max_events=most))
    assert b"".join(payload[begin:end] for begin, end, _ in cut) == payload
    assert sum(count for _, _, count in cut) == len(chunk)
    for begin, end, count in cut:
        assert 1 <= count <= most
        assert count == 1 or most_bytes(end - begin, count) <= limit
