"""The reorder buffer: what it buffers, what it releases and when, and that a restart changes nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.messages.chunks import ChunkMessage
from windvane.processors.worker.pipeline.buffered_events import (
    CHUNK_OVERHEAD_BYTES,
    EVENT_OVERHEAD_BYTES,
    Released,
)
from windvane.processors.worker.pipeline.event_times import timed_events
from windvane.processors.worker.pipeline.reorder_buffer import ReorderBuffer
from windvane.processors.worker.progress.in_flight import MessagePosition
from windvane.store.interface import PART_OF_CHUNK

REORDER_S = 5
Event = tuple[int, Any]
Flush = int
FIVE_EVENTS_BYTES = CHUNK_OVERHEAD_BYTES + 5 * (EVENT_OVERHEAD_BYTES + 5)


def message(events: Sequence[Event], *, chunk_id: bytes | None = None, received_ns: int = 1) -> ChunkMessage:
    payload = b"".join(msgpack.packb([time, record]) for time, record in events)
    return ChunkMessage("t", "s", chunk_id, received_ns, len(events), payload)


def events_of(released: Iterable[Released]) -> list[Event]:
    """(time in s, record) of all, in order."""
    unpacker = msgpack.Unpacker()
    for each in released:
        found = timed_events(each.message.payload)
        assert found is not None
        assert len(found.ends) == each.message.events, "a message says how many events it has"
        unpacker.feed(each.message.payload)
    return [(time, record) for time, record in unpacker]


def buffer(
    reorder_s: float = REORDER_S, *, is_raw: bool = False, after: ReorderBuffer | None = None, **more: int
) -> ReorderBuffer:
    """Returns a new buffer, or one that continues from the checkpoint of another."""
    return ReorderBuffer(
        reorder_s=reorder_s,
        is_raw=is_raw,
        order=after.order if after is not None else None,
        held=after.held if after is not None else (),
        tag="t",
        **more,
    )


def place(offset: int) -> MessagePosition:
    return MessagePosition("log", "p", 0, offset)


def put(into: ReorderBuffer, what: Sequence[Event] | Flush, offset: int) -> list[Released]:
    if isinstance(what, int):
        return into.flush(what * 1_000_000_000)
    return into.take(message(what, chunk_id=b"c%d" % offset), place(offset))


def seconds(events: Iterable[Event]) -> list[int]:
    return [time for time, _ in events]


def test_chunks_out_of_order_leave_in_order_once_the_watermark_has_passed() -> None:
    held = buffer()
    assert put(held, [(100, "a")], 0) == []
    assert put(held, [(103, "c")], 1) == []
    assert put(held, [(101, "b")], 2) == []
    assert events_of(put(held, [(106, "d")], 3)) == [(100, "a"), (101, "b")]
    assert held.buffered_chunks == 2
    assert events_of(held.release_all()) == [(103, "c"), (106, "d")]
    assert held.late_events == 0


def test_a_chunk_that_overlaps_no_other_is_released_unchanged() -> None:
    held = buffer()
    chunk = message([(100, "a"), (101, "b")], chunk_id=b"id", received_ns=7)
    assert held.take(chunk, place(0)) == []
    [left] = held.take(message([(106, "c")]), place(1))
    assert left.message is chunk


def test_chunks_that_overlap_are_merged_by_event() -> None:
    held = buffer()
    put(held, [(100, "a"), (102, "c"), (104, "e")], 0)
    put(held, [(101, "b"), (103, "d"), (104, "f")], 1)
    [left] = put(held, [(120, "z")], 2)
    assert events_of([left]) == [(100, "a"), (101, "b"), (102, "c"), (103, "d"), (104, "e"), (104, "f")]
    assert left.message.chunk_id == b"c1"
    assert [other.chunk_id for other in left.others] == [b"c0"]


def test_a_chunk_beyond_the_watermark_is_split_only_if_it_overlaps_another() -> None:
    alone = buffer()
    assert put(alone, [(100, "a"), (109, "b")], 0) == []
    assert alone.watermark_ns == 104 * 10**9
    together = buffer()
    put(together, [(100, "a"), (104, "e")], 0)
    [left] = put(together, [(102, "c"), (108, "g")], 1)
    assert events_of([left]) == [(100, "a"), (102, "c")]
    assert left.message.chunk_id == PART_OF_CHUNK
    assert events_of(together.release_all()) == [(104, "e"), (108, "g")]


def test_events_of_one_chunk_are_put_in_order_too() -> None:
    held = buffer()
    put(held, [(103, "c"), (101, "a"), (103, "d"), (102, "b")], 0)
    assert events_of(held.release_all()) == [(101, "a"), (102, "b"), (103, "c"), (103, "d")]


def test_late_events_are_released_immediately_in_arrival_order_and_counted() -> None:
    held = buffer()
    put(held, [(100, "a"), (110, "z")], 0)
    left = put(held, [(104, "late"), (103, "later"), (107, "in time")], 1)
    assert events_of(left)[:2] == [(104, "late"), (103, "later")]
    assert held.late_events == 2
    assert events_of(put(held, [(99, "whole chunk"), (98, "of late ones")], 2)) == [
        (99, "whole chunk"),
        (98, "of late ones"),
    ]
    assert held.late_events == 4
    assert seconds(events_of(held.release_all()))[-2:] == [107, 110]


def test_a_raw_chunk_is_one_unit_with_the_time_of_its_first_event() -> None:
    held = buffer(is_raw=True)
    first, second = message([(100, "a"), (104, "b")]), message([(102, "c"), (103, "d")])
    assert held.take(second, place(0)) == []
    assert held.take(first, place(1)) == []
    left = held.take(message([(110, "z")]), place(2))
    assert [each.message for each in left] == [first, second]


def test_switching_the_order_off_releases_buffered_events_first() -> None:
    held = buffer()
    put(held, [(103, "c")], 0)
    put(held, [(101, "a")], 1)
    off = buffer(0, after=held)
    assert events_of(put(off, [(1, "new")], 2)) == [(101, "a"), (103, "c"), (1, "new")]
    assert off.is_empty
    assert events_of(put(off, [(0, "next")], 3)) == [(0, "next")]


def test_chunks_that_cannot_be_decoded_are_released_immediately() -> None:
    held = buffer()
    put(held, [(103, "c")], 0)
    broken = ChunkMessage("t", "s", None, 1, 1, b"\xc1 no msgpack")
    assert [each.message for each in held.take(broken, place(1))] == [broken]
    no_time = ChunkMessage("t", "s", None, 1, 1, msgpack.packb(["noon", {}]))
    assert [each.message for each in held.take(no_time, place(2))] == [no_time]
    assert held.buffered_chunks == 1


def test_a_flush_message_releases_buffered_chunks_once() -> None:
    held = buffer()
    put(held, [(103, "c")], 0)
    put(held, [(101, "a")], 1)
    assert events_of(put(held, 103, 2)) == [(101, "a"), (103, "c")]
    assert put(held, 103, 3) == []
    put(held, [(104, "d")], 4)
    assert put(held, 103, 5) == [], "an old one finds newer chunks in time"
    assert events_of(put(held, 10**9, 6)) == [(104, "d")]
    assert held.watermark_ns == 104 * 10**9, "it says nothing of times that no chunk has shown"


def test_a_full_buffer_releases_its_oldest_events_early() -> None:
    held = buffer(max_bytes=3 * FIVE_EVENTS_BYTES)
    rounds = [[(100 + offset, "x")] * 5 for offset in (3, 1, 2)]
    assert [put(held, events, offset) for offset, events in enumerate(rounds)] == [[], [], []]
    left = put(held, [(104, "x")] * 5, 3)
    assert seconds(events_of(left)) == [101] * 5
    assert (held.early_events, held.buffered_chunks) == (5, 3)
    assert seconds(events_of(put(held, [(100, "late")], 4))) == [100]
    assert held.late_events == 1
    huge = buffer(max_bytes=100)
    assert seconds(events_of(put(huge, [(100, "x" * 200)], 0))) == [100], "one chunk alone may be too large"


def test_a_buffered_message_is_recognized_when_it_is_redelivered() -> None:
    held = buffer()
    put(held, [(103, "c")], 7)
    again = buffer(after=held)
    assert again.contains(place(7))
    assert not again.contains(place(8))
    again.release_all()
    assert not again.contains(place(7))


def test_a_chunk_that_ended_a_worker_is_set_aside_and_the_rest_stays() -> None:
    held = buffer()
    put(held, [(100, "a"), (103, "c")], 0)
    put(held, [(101, "deadly")], 1)
    assert events_of(held.remove_fatal(lambda found: found.offset == 1)) == [(101, "deadly")]
    assert events_of(held.release_all()) == [(100, "a"), (103, "c")]


def test_chunks_of_samples_that_go_back_in_time_are_counted() -> None:
    plain = buffer(0, is_raw=True)
    for times in ([10, 11], [12, 13], [12, 14], [15], [15]):
        found = timed_events(message([(time, "x") for time in times]).payload)
        assert found is not None
        plain.note_unsorted(found.times_ns, received_ns=5)
    assert plain.inversions == 1
    assert buffer(0, is_raw=True, after=plain).inversions == 1
    figures = plain.figures("t", "p", 0)
    assert figures.warning is not None
    assert "reorder_s" in figures.warning
    assert buffer(1, is_raw=True, after=plain).figures("t", "p", 0).warning is None


CHUNKS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 99)), min_size=1, max_size=6)
MESSAGES = st.lists(CHUNKS | st.integers(0, 40), max_size=14)
WAYS = st.fixed_dictionaries(
    {"is_raw": st.booleans(), "max_bytes": st.sampled_from([10**9, 3 * FIVE_EVENTS_BYTES])}
)


def all_released(
    messages: Sequence[Sequence[Event] | Flush], *, restarts: Iterable[int] = (), **way: Any
) -> tuple[list[Any], list[int]]:
    """Returns the released events after each message, and the final counts; restarted before some
    messages.
    """
    held, given_by = buffer(**way), []
    for offset, what in enumerate(messages):
        if offset in restarts:
            held = buffer(after=held, **way)
        given_by.append([(each.message, each.others) for each in put(held, what, offset)])
    counts = [held.late_events, held.early_events, held.buffered_chunks, held.buffered_bytes]
    given_by.append([(each.message, each.others) for each in held.release_all()])
    return given_by, counts


@given(MESSAGES, WAYS, st.data())
def test_released_events_do_not_depend_on_restarts(
    messages: list[Any], way: Any, data: st.DataObject
) -> None:
    restarts = data.draw(st.sets(st.integers(0, max(len(messages) - 1, 0))))
    assert all_released(messages, restarts=restarts, **way) == all_released(messages, **way)


@given(MESSAGES, WAYS)
def test_every_event_is_released_once_late_ones_immediately_and_others_by_time(
    messages: list[Any], way: dict[str, Any]
) -> None:
    held = buffer(**way)
    in_order: list[Event] = []
    all_late: list[Event] = []
    late_units = 0
    for offset, what in enumerate(messages):
        watermark_ns = held.watermark_ns
        found = events_of(put(held, what, offset))
        late = [] if isinstance(what, int) else late_of(what, watermark_ns, is_raw=way["is_raw"])
        assert found[: len(late)] == late
        all_late += late
        late_units += sum(time * 10**9 < watermark_ns for time, _ in late)
        in_order += found[len(late) :]
    in_order += events_of(held.release_all())
    sent = itertools.chain.from_iterable(what for what in messages if not isinstance(what, int))
    assert sorted([*all_late, *in_order]) == sorted(sent)
    assert held.late_events == late_units
    if not way["is_raw"]:
        assert seconds(in_order) == sorted(seconds(in_order))


def late_of(events: Sequence[Event], watermark_ns: int, *, is_raw: bool) -> list[Event]:
    """The events that are older than the watermark; of a raw chunk all of them, if its first one is."""
    if is_raw:
        return list(events) if events[0][0] * 10**9 < watermark_ns else []
    return [event for event in events if event[0] * 10**9 < watermark_ns]


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_shuffled_within_the_bound_is_restored_to_its_order(seed: int) -> None:
    chance = random.Random(seed)
    events = [(1000 + n // 30, n) for n in range(900)]
    chunks = [events[at : at + 7] for at in range(0, 900, 7)]
    # A chunk is late by less than the bound; it lasts a second at most.
    order = sorted(range(len(chunks)), key=lambda n: chunks[n][0][0] + chance.uniform(0, REORDER_S - 1))
    held = buffer()
    left = [events_of(put(held, chunks[n], offset)) for offset, n in enumerate(order)]
    found = [*itertools.chain.from_iterable(left), *events_of(held.release_all())]
    assert order != sorted(order)
    assert held.late_events == 0
    assert seconds(found) == seconds(events)
    assert sorted(found) == events
