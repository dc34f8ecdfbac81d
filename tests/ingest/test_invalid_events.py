"""On every input, an invalid event is rejected alone; the other events are durable and acked."""

import asyncio
import gzip
import struct
from collections.abc import Generator
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import ChunkRejected
from windvane.ingest.bodies.formats import BodyFormat
from windvane.ingest.checks.leading_times import FEW_EVENTS, surely_have_times
from windvane.ingest.checks.payload import count_events
from windvane.ingest.chunk import IncomingChunk, Outcome, PostedBody
from windvane.records.decoded_size import ending
from windvane.records.event_separation import separate_decodable
from windvane.records.events import iterate_events

from tests.ingest.test_policies import NOW_S, House, chunk, event, house  # noqa: F401

MILLISECONDS: bytes = msgpack.packb([NOW_S * 1000, {"n": "bad"}])
GOOD = [event({"n": n}, nanoseconds=n) for n in range(40)]
PAYLOAD = b"".join([*GOOD[:20], MILLISECONDS, *GOOD[20:]])
BAD = {
    "milliseconds": MILLISECONDS,
    "milliseconds as a float": msgpack.packb([NOW_S * 1000.0, {}]),
    "[milliseconds, metadata]": msgpack.packb([[NOW_S * 1000, {}], {}]),
    "nil": msgpack.packb([None, {}]),
    "text": msgpack.packb(["2026-09-21", {}]),
    "NaN": msgpack.packb([float("nan"), {}]),
    "an array of one": b"\x91\x01",
    "an array of three": b"\x93\x01\x80\x80",
    "a map": b"\x80",
    "nested deeper than any decoder goes": b"\x92\x01" + b"\x91" * 1100 + b"\x01",
    "lists nested 801 deep": b"\x92\x01" + b"\x91" * 801 + b"\x01",
    "maps nested 801 deep": b"\x92\x01" + b"\x81\xa1a" * 801 + b"\x01",
    "nested deeper than msgspec goes": b"\x92\x01\x81\xa1a" + b"\x91" * 975 + b"\x01",
    "nested as deep as msgpack goes": b"\x92\x01" + b"\x81\xa1a" * 1022 + b"\x80",
    "nested 5,000 deep": b"\x92\x01" + b"\x81\xa1a" * 5000 + b"\x01",
}


def posted(
    data: bytes, media_type: str = "application/octet-stream", compression: str = "text"
) -> IncomingChunk:
    body = PostedBody(data, compression, BodyFormat(media_type), arrived_ns=1)
    return chunk(b"", body=body, policy="t", outcome=Outcome(), chunk_id=b"id")


DOORS = {
    "PackedForward": lambda: chunk(PAYLOAD, chunk_id=b"id", size_hint=41),
    "PackedForward, a view": lambda: chunk(memoryview(bytearray(b"x" + PAYLOAD))[1:], chunk_id=b"id"),
    "gzip": lambda: chunk(gzip.compress(PAYLOAD), compression="gzip", chunk_id=b"id"),
    "Forward": lambda: chunk(PAYLOAD, events=41, chunk_id=b"id"),
    "Message": lambda: chunk(PAYLOAD, events=41, is_run=True, chunk_id=b"id"),
    "HTTP": lambda: posted(PAYLOAD),
    "HTTP, gzip": lambda: posted(gzip.compress(PAYLOAD), compression="gzip"),
    "HTTP, msgpack": lambda: posted(PAYLOAD, "application/msgpack"),
}


@pytest.mark.parametrize("door", DOORS)
async def test_the_others_are_durable_and_a_retry_stores_nothing_twice(door: str, house: House) -> None:  # noqa: F811
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    await gateway.submit(DOORS[door]())
    await gateway.submit(DOORS[door]())
    [stored] = await house.chunks("t")
    assert (stored.payload, stored.events, stored.chunk_id) == (b"".join(GOOD), 40, b"id")
    [letter] = house.kept()
    assert (letter.code, letter.payload, letter.times) == ("invalid-event", MILLISECONDS, 1)
    assert "1 of 41 events cannot be stored: event 20: an event's time is 1790000000000" in letter.reason
    assert gateway.telemetry.events_total == 40


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("good", [GOOD[:2], GOOD], ids=["few", "many"])
async def test_whatever_is_wrong_with_it(house: House, what: str, good: list[bytes]) -> None:  # noqa: F811
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    outcome = Outcome()
    await gateway.submit(chunk(b"".join([good[0], BAD[what], *good[1:]]), outcome=outcome))
    [stored] = await house.chunks("t")
    assert stored.payload == b"".join(good)
    [letter] = house.kept()
    assert (letter.code, letter.payload) == ("invalid-event", BAD[what])
    assert (outcome.stored_events, outcome.rejected_events) == (len(good), 1)
    assert letter.reason == outcome.reason


DEEP = {levels: b"\x92\x01" + b"\x81\xa1a" * levels + b"\x01" for levels in (800, 975, 1022, 5000)}


@pytest.mark.parametrize("levels", DEEP)
@pytest.mark.parametrize("good", [GOOD[:2], GOOD], ids=["few", "many"])
@pytest.mark.parametrize("known", ["counted", "hinted", "unknown", "body", "records"])
async def test_an_event_nested_too_deeply_costs_itself_alone(
    house: House,  # noqa: F811
    levels: int,
    good: list[bytes],
    known: str,
) -> None:
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    events = [good[0], DEEP[levels], *good[1:], DEEP[levels]]
    payload = b"".join(events)
    media_type = "application/msgpack"
    match known:
        case "counted":
            sent = chunk(payload, events=len(events))
        case "hinted":
            sent = chunk(payload, size_hint=len(events))
        case "unknown":
            sent = chunk(payload)
        case "body":
            sent = posted(struct.pack(">BH", 0xDC, len(events)) + payload, media_type)
        case _:
            records = [b"\x81\xa1n\x01", DEEP[levels][2:], *[b"\x81\xa1n\x02"] * 3]
            sent = posted(b"\x95" + b"".join(records), media_type)
    await gateway.submit(sent)
    [stored] = await house.chunks("t")
    invalid = 0 if levels == 800 else 1 if known == "records" else 2
    assert stored.events == (5 if known == "records" else len(events)) - invalid
    assert [letter.code for letter in house.kept()] == ["invalid-event"] * bool(invalid)
    for letter in house.kept():
        assert "event 1: is nested deeper than 800 levels" in letter.reason


async def test_a_chunk_of_invalid_events_alone_is_rejected_whole(house: House) -> None:  # noqa: F811
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    with pytest.raises(ChunkRejected, match="2 of 2 events cannot be stored") as rejected:
        await gateway.submit(chunk(MILLISECONDS * 2, chunk_id=b"id"))
    assert rejected.value.code == "invalid-event"
    [letter] = house.kept()
    assert (letter.payload, letter.chunk_id) == (MILLISECONDS * 2, b"id")
    assert not await house.chunks("t")


async def test_a_policy_may_reject_the_whole_chunk_for_an_invalid_event(house: House) -> None:  # noqa: F811
    await house.policy("t", tags=["t"], invalid_records="refuse")
    gateway = await house.gateway()
    with pytest.raises(ChunkRejected, match="1 of 41 events cannot be stored"):
        await gateway.submit(chunk(PAYLOAD))
    assert [letter.payload for letter in house.kept()] == [PAYLOAD]


@pytest.mark.parametrize("names", [{"message": b"x"}, "bare", b"bare"])
async def test_a_raw_policy_takes_the_records_that_have_its_field(house: House, names: Any) -> None:  # noqa: F811
    await house.policy("t", tags=["t"], format="raw")
    gateway = await house.gateway()
    good = [event(names, nanoseconds=n) for n in range(20)]
    other, number = event({"other": "x"}), event({"message": 7})
    await gateway.submit(chunk(b"".join([*good[:5], other, *good[5:], number])))
    await gateway.submit(chunk(event({b"message": "a key typed bin"})))
    assert [stored.events for stored in await house.chunks("t")] == [20, 1]
    [letter] = house.kept()
    assert letter.payload == other + number
    assert "event 5: has no field 'message' that is a string or binary" in letter.reason


async def test_what_is_cut_off_by_a_crash_of_the_sender_costs_the_last_event(house: House) -> None:  # noqa: F811
    """A file buffer of fluentd may end within an event after a power cut."""
    await house.policy("t", tags=["t"])
    gateway = await house.gateway()
    await asyncio.gather(*(gateway.submit(chunk(b"".join(GOOD)[:-cut], size_hint=40)) for cut in (1, 5, 9)))
    assert [stored.events for stored in await house.chunks("t")] == [39] * 3
    assert sorted(letter.payload for letter in house.kept()) == sorted(GOOD[-1][:-cut] for cut in (1, 5, 9))


TIMES = [
    lambda s, n: msgpack.packb(msgpack.ExtType(0, struct.pack(">II", s, n))),
    lambda s, n: b"\xc7\x08\x00" + struct.pack(">II", s, n),
    lambda s, n: b"\x92" + msgpack.packb(msgpack.ExtType(0, struct.pack(">II", s, n))) + b"\x80",
    lambda s, n: b"\x92" + msgpack.packb(s) + b"\x80",
    lambda s, n: msgpack.packb(s),
    lambda s, n: b"\xcf" + struct.pack(">Q", s),
    lambda s, n: msgpack.packb(s + 0.5),
]


@pytest.mark.parametrize("time", TIMES)
def test_events_of_one_form_of_time_need_no_look_at_each(time: Any) -> None:
    events = [b"\x92" + time(NOW_S + n, n * 1000) + msgpack.packb({"n": n}) for n in range(100)]
    assert surely_have_times(b"".join(events), 100)
    assert surely_have_times(memoryview(events[0]), 1)
    odd = b"\x92\xcf" + struct.pack(">Q", NOW_S * 1000) + b"\x80"
    assert not surely_have_times(b"".join([*events[:50], odd, *events[50:]]), 101)
    assert not surely_have_times(odd, 1)


times = st.sampled_from(TIMES).flatmap(
    lambda form: st.builds(form, st.integers(2**30, 2**31), st.integers(0, 2**32 - 1))
) | st.builds(msgpack.packb, st.integers(2**40, 2**60) | st.none() | st.floats())
records = st.builds(msgpack.packb, st.dictionaries(st.text(max_size=2), st.binary(max_size=9), max_size=2))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.builds(lambda time, record: b"\x92" + time + record, times, records), max_size=60))
def test_what_surely_has_times_can_be_decoded(events: list[bytes]) -> None:
    payload = b"".join(events)
    assert count_events(payload) == len(events)
    if surely_have_times(payload, len(events)):
        assert len(list(iterate_events(payload))) == len(events)
    sifted = separate_decodable(payload, raw_field=None)
    assert len(list(iterate_events(sifted.valid))) == sifted.valid_events
    assert sifted.valid_events + sifted.invalid_events == len(events)
    for each in events:
        try:
            list(iterate_events(each))
        except ChunkRejected:
            assert each in sifted.invalid
        else:
            assert each in sifted.valid


def test_few_events_are_looked_at_one_by_one() -> None:
    assert not surely_have_times(b"".join(GOOD[:FEW_EVENTS]), FEW_EVENTS)
    assert surely_have_times(b"".join(GOOD[: FEW_EVENTS + 1]), FEW_EVENTS + 1)


values = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=20),
    max_leaves=40,
)


@settings(max_examples=50, deadline=None)
@given(values, st.integers(1, 2000))
def test_where_a_value_ends_is_found_without_a_stack(value: Any, depth: int) -> None:
    packed = b"\x91" * depth + msgpack.packb(value)
    for data, expected in (
        (packed + b"\xc0", len(packed)),
        (packed[:-1], None),
        (b"\x91" * depth + b"\xc1", None),
    ):
        assert result_of(ending(data, 0)) == expected


def result_of(steps: Generator[None, None, int | None]) -> int | None:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: int | None = end.value
            return found
