"""Whatever forwarders send is framed alike, however it is cut on its way; what is broken is said to be."""

import struct
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import FramingError
from windvane.ingest.checks.deep_values import HEADS_A_TURN
from windvane.ingest.forward.framing import (
    FIRST_BUFFER_BYTES,
    ROOMY_BUFFER_BYTES,
    MessageReader,
)
from windvane.ingest.forward.message import MAX_OPTION_BYTES, Message

LIMIT = 1 << 20


def read(data: bytes, cuts: list[int] | None = None, limit: int = LIMIT) -> list[Message]:
    """Feeds `data` in pieces whose sizes are `cuts`, over and over."""
    reader = MessageReader(max_message_bytes=limit)
    messages: list[Message] = []
    position = turn = 0
    while position < len(data):
        room = reader.writable()
        assert len(room) > 0
        size = min(len(room), len(data) - position, cuts[turn % len(cuts)] if cuts else len(data))
        turn += 1
        room[:size] = data[position : position + size]
        position += size
        reader.received(size)
        messages.extend(reader.messages())
        while reader.has_more:
            messages.extend(reader.messages())
    assert not len(reader.pending), "bytes are left over"
    return messages


def run_together(messages: list[Message]) -> list[tuple[Any, ...]]:
    """Messages as values; events of Message mode that follow each other with one tag as one."""
    values: list[list[Any]] = []
    for m in messages:
        is_run = m.events is not None and not {"chunk_id", "size_hint"} & m.options.keys()
        if is_run and values and values[-1][:2] == ["run", m.tag]:
            values[-1][2] += bytes(m.payload)
        else:
            kind = "run" if is_run else "message"
            values.append([kind, m.tag, bytes(m.payload), m.options])
    return [tuple(value) for value in values]


def flat(messages: list[Message]) -> list[tuple[Any, ...]]:
    """Messages as values; Message mode events singly: the reads say which form a run."""
    values: list[tuple[Any, ...]] = []
    for m in messages:
        payload = bytes(m.payload)
        if m.events is not None and "chunk_id" not in m.options:
            unpacker = msgpack.Unpacker(raw=True, strict_map_key=False)
            unpacker.feed(payload)
            values += [(m.tag, "event", repr(event)) for event in unpacker]
        else:
            values.append((m.tag, payload, m.events, m.options))
    return values


EVENT_TIME = b"\xd7\x00" + struct.pack(">II", 1_700_000_000, 5)
EVENT_TIME_EXT8 = b"\xc7\x08\x00" + struct.pack(">II", 1_700_000_000, 5)
INTEGER_TIME = b"\xce" + struct.pack(">I", 1_700_000_000)
RECORD = b"\x81\xa1k\x01"
EVENTS = b"\x92" + EVENT_TIME + RECORD + b"\x92" + INTEGER_TIME + RECORD
METADATA_EVENT = b"\x92\x92" + EVENT_TIME + b"\x80" + RECORD
OPTION = b"\x82\xa5chunk\xa3abc\xa4size\x02"


def message(
    tag: bytes,
    payload: bytes,
    events: int | None,
    size_hint: int | None = None,
    chunk_id: bytes | None = None,
    compression: str | None = None,
    signal: int | None = None,
) -> Message:
    given = {"size_hint": size_hint, "chunk_id": chunk_id, "compression": compression, "signal": signal}
    options: Any = {name: value for name, value in given.items() if value is not None}
    return Message(tag, payload, events, options)


# Each case: what it is, its bytes, and the message that they are.
WELL_FORMED = [
    # fixarray of 2; tag fixstr; payload as every type of str and bin
    ("packed fixstr", b"\x92\xa1t\xa0", message(b"t", b"", None)),
    ("packed str8", b"\x92\xa1t\xd9" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    ("packed str16", b"\x92\xa1t\xda\0" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    ("packed str32", b"\x92\xa1t\xdb\0\0\0" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    ("packed bin8", b"\x92\xa1t\xc4" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    ("packed bin16", b"\x92\xa1t\xc5\0" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    ("packed bin32", b"\x92\xa1t\xc6\0\0\0" + bytes([len(EVENTS)]) + EVENTS, message(b"t", EVENTS, None)),
    # outer array16 and array32; tag as str8, str16, bin8
    ("array16", b"\xdc\0\x02\xd9\x01t\xa0", message(b"t", b"", None)),
    ("array32", b"\xdd\0\0\0\x02\xda\0\x01t\xa0", message(b"t", b"", None)),
    ("tag bin8", b"\x92\xc4\x01t\xa0", message(b"t", b"", None)),
    # a tag and a payload that are not UTF-8 are valid
    ("not UTF-8", b"\x92\xa2\xff\xfe\xa1\xff", message(b"\xff\xfe", b"\xff", None)),
    # options: the chunk id typed str and bin, with a newline as fluentd has it, map32 as Fluent Bit has it
    ("chunk and size", b"\x93\xa1t\xa0" + OPTION, message(b"t", b"", None, 2, b"abc")),
    ("chunk bin", b"\x93\xa1t\xa0\x81\xa5chunk\xc4\x03a\xffc", message(b"t", b"", None, None, b"a\xffc")),
    ("map32", b"\x93\xa1t\xa0\xdf\0\0\0\x01\xa5chunk\xa4abc\n", message(b"t", b"", None, None, b"abc\n")),
    ("gzip", b"\x93\xa1t\xa0\x81\xaacompressed\xa4gzip", message(b"t", b"", None, compression="gzip")),
    ("metrics", b"\x93\xa1t\xa0\x81\xadfluent_signal\x01", message(b"t", b"", None, signal=1)),
    ("empty option", b"\x93\xa1t\xa0\x80", message(b"t", b"", None)),
    ("nil option", b"\x93\xa1t\xa0\xc0", message(b"t", b"", None)),
    ("size as text is ignored", b"\x93\xa1t\xa0\x81\xa4size\xa12", message(b"t", b"", None)),
    ("integer key in option", b"\x93\xa1t\xa0\x81\x05\x06", message(b"t", b"", None)),
    # Forward mode: the entries' array as fixarray, array16, array32; entries of protocol 1.5
    ("forward", b"\x92\xa1t\x92" + EVENTS, message(b"t", EVENTS, 2, 2)),
    ("forward array16", b"\x92\xa1t\xdc\0\x02" + EVENTS, message(b"t", EVENTS, 2, 2)),
    ("forward array32", b"\x92\xa1t\xdd\0\0\0\x02" + EVENTS, message(b"t", EVENTS, 2, 2)),
    ("forward empty", b"\x92\xa1t\x90", message(b"t", b"", 0, 0)),
    ("forward with option", b"\x93\xa1t\x92" + EVENTS + OPTION, message(b"t", EVENTS, 2, 2, b"abc")),
    ("forward metadata", b"\x92\xa1t\x91" + METADATA_EVENT, message(b"t", METADATA_EVENT, 1, 1)),
    # the framing does not check that entries are events: the check of the chunk does
    ("forward of numbers", b"\x92\xa1t\x92\x01\x02", message(b"t", b"\x01\x02", None, 2)),
    # Message mode: every form of time; with an option and without
    ("message", b"\x93\xa1t" + EVENT_TIME + RECORD, message(b"t", b"\x92" + EVENT_TIME + RECORD, 1)),
    (
        "message ext8",
        b"\x93\xa1t" + EVENT_TIME_EXT8 + RECORD,
        message(b"t", b"\x92" + EVENT_TIME_EXT8 + RECORD, 1),
    ),
    (
        "message integer",
        b"\x93\xa1t" + INTEGER_TIME + RECORD,
        message(b"t", b"\x92" + INTEGER_TIME + RECORD, 1),
    ),
    ("message zero", b"\x93\xa1t\x00" + RECORD, message(b"t", b"\x92\x00" + RECORD, 1)),
    (
        "message with chunk",
        b"\x94\xa1t" + EVENT_TIME + RECORD + OPTION,
        message(b"t", b"\x92" + EVENT_TIME + RECORD, 1, 2, b"abc"),
    ),
]


@pytest.mark.parametrize(
    ("data", "expected"), [case[1:] for case in WELL_FORMED], ids=[c[0] for c in WELL_FORMED]
)
@pytest.mark.parametrize("cuts", [None, [1], [3, 1]])
def test_a_message_is_read_whole_or_byte_by_byte(
    data: bytes, expected: Message, cuts: list[int] | None
) -> None:
    [message] = read(data, cuts)
    assert msgspec_values(message) == msgspec_values(expected)


def msgspec_values(m: Message) -> tuple[Any, ...]:
    return m.tag, bytes(m.payload), m.events, {"compression": "text", **m.options}


BROKEN = [
    ("a map", b"\x81\xa1a\x01", "0x81"),
    ("HTTP", b"GET / HTTP/1.1\r\n", "0x47"),
    ("TLS client hello", b"\x16\x03\x01\x02\x00", "0x16"),
    ("array of 5", b"\x95\xa1t\x00\x80\x80\x80", "Message mode"),
    ("array of 1", b"\x91\xa1t\xa0", "PackedForward"),
    ("packed of 4", b"\x94\xa1t\xa0\x80\x80", "PackedForward"),
    ("message of 2", b"\x92\xa1t\x00", "Message mode"),
    ("array32 of 2^32-1", b"\xdd\xff\xff\xff\xff\xa1t\xa0", "PackedForward"),
    ("tag is a number", b"\x92\x01\xa0", "0x01"),
    ("long tag", b"\x92\xda\x05\x00" + b"t" * 1280 + b"\xa0", "1280 bytes"),
    ("4 GiB bin", b"\x92\xa1t\xc6\xff\xff\xff\xff", "limit"),
    ("reserved byte in an entry", b"\x92\xa1t\x91\x92\x00\xc1", "not well-formed"),
    ("broken 100,000 deep", b"\x92\xa1t\x91\x92\x00" + b"\x91" * 100_000 + b"\xc1", "not well-formed"),
    ("broken behind 2,000 deep", b"\x92\xa1t\x92\x92\x00" + b"\x91" * 2_000 + b"\x01\xc1", "not well-formed"),
    ("option 2,000 deep", b"\x93\xa1t\xa0" + b"\x91" * 2_000 + b"\x01", "option is nested too deeply"),
    (
        "Forward's option 2,000 deep",
        b"\x93\xa1t\x90" + b"\x91" * 2_000 + b"\x01",
        "option is nested too deeply",
    ),
    ("option is a number", b"\x93\xa1t\xa0\x07", "option is a map"),
    ("option is too large", b"\x93\xa1t\xa0\xc5\xff\xff" + b"x" * MAX_OPTION_BYTES, "option"),
    ("option with an array as key", b"\x93\xa1t\xa0\x81\x90\x01", "option"),
]


@pytest.mark.parametrize(("data", "said"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@pytest.mark.parametrize("cuts", [None, [7]])
def test_the_error_names_what_is_wrong_with_the_bytes(data: bytes, said: str, cuts: list[int] | None) -> None:
    with pytest.raises(FramingError, match=said):
        read(data, cuts)


def test_messages_before_the_broken_one_are_read() -> None:
    reader = MessageReader(max_message_bytes=LIMIT)
    data = b"\x92\xa1t\xa1x" + b"\x93\xa1t\x00\x80" + b"\xff"
    reader.writable()[: len(data)] = data
    reader.received(len(data))
    messages = reader.messages()
    assert bytes(next(messages).payload) == b"x"
    assert next(messages).events == 1
    with pytest.raises(FramingError, match="0xff"):
        next(messages)
    assert bytes(reader.pending) == b"\xff"


GOOD = b"\x92\x01\x81\xa1n\x01"
CHUNK = b"\x81\xa5chunk\xa1c"


def deep(levels: int, inner: bytes = b"\x81\xa1a") -> bytes:
    return b"\x92\x01" + inner * levels + b"\x01"


@pytest.mark.parametrize("cuts", [None, [1], [7, 3000], [64]])
@pytest.mark.parametrize("inner", [b"\x91", b"\x81\xa1a", b"\xde\x00\x01\xd9\x01k", b"\x92\xc4\x03abc"])
@pytest.mark.parametrize("levels", [1_022, 1_023, 1_024, 1_025, 5_000])
def test_the_end_of_what_is_nested_deeper_than_msgpack_goes_is_found(
    cuts: list[int] | None, inner: bytes, levels: int
) -> None:
    event = deep(levels, inner)
    events = GOOD + event + GOOD * 2 + event
    forward = b"\x93\xa1t\x95" + events + CHUNK
    in_message_mode = b"\x94\xa1t" + event[1:] + CHUNK
    packed = b"\x92\xa1t\xa6" + GOOD
    without_option = b"\x93\xa1t" + event[1:]
    data = forward + in_message_mode + packed + without_option * 2 + b"\x92\xa1t\x95" + events + packed
    messages = read(data, cuts)
    expected = [events, event, GOOD, event, event, events, GOOD]
    assert b"".join(bytes(message.payload) for message in messages) == b"".join(expected)
    assert [m.options.get("chunk_id") for m in messages[:3]] == [b"c", b"c", None]
    assert messages[0].options["size_hint"] == 5


def test_what_is_nested_deeply_is_walked_over_in_turns_and_once() -> None:
    """A hostile message takes 4 ms at a time from all others."""
    reader = MessageReader(max_message_bytes=4 * LIMIT)
    levels = 40 * HEADS_A_TURN
    data = b"\x92\xa1t\x92" + deep(levels, b"\x91") + GOOD
    position = turns = 0
    messages: list[Message] = []
    while position < len(data):
        room = reader.writable()
        size = min(len(room), len(data) - position)
        room[:size] = data[position : position + size]
        position += size
        reader.received(size)
        messages.extend(reader.messages())
        while reader.has_more:
            turns += 1
            messages.extend(reader.messages())
    assert 30 < turns < 60
    [message] = messages
    assert (len(message.payload), message.options["size_hint"]) == (len(data) - 4, 2)


@pytest.mark.parametrize("option", [b"", b"\x80", b"\x81\xa4size\x01", b"\xc0"])
def test_messages_of_one_event_that_want_no_ack_come_together(option: bytes) -> None:
    one = bytes([0x93 + bool(option)]) + b"\xa1t" + EVENT_TIME + RECORD + option
    other = one.replace(b"\xa1t", b"\xa1u")
    data = one * 3 + other * 2 + one
    assert [(m.tag, bytes(m.payload), m.events) for m in read(data)] == [
        (b"t", 3 * (b"\x92" + EVENT_TIME + RECORD), 3),
        (b"u", 2 * (b"\x92" + EVENT_TIME + RECORD), 2),
        (b"t", b"\x92" + EVENT_TIME + RECORD, 1),
    ]


@pytest.mark.parametrize(
    ("option", "ends_alike"),
    [
        (b"\x80", b"\x82\xa5chunk\xa3abc\xa1x\x80"),
        (b"\x81\xa4size\x01", b"\x82\xa5chunk\xa3abc\xa1x\x81\xa4size\x01"),
        (b"\xc0", b"\x82\xa5chunk\xa3abc\xa1x\xc0"),
    ],
)
def test_an_option_that_only_ends_like_the_one_before_is_its_own(option: bytes, ends_alike: bytes) -> None:
    head = b"\x94\xa1t" + EVENT_TIME + RECORD
    joined, alone, last = read(head + option + head + option + head + ends_alike + head + option)
    assert (joined.events, joined.options.get("chunk_id")) == (2, None)
    assert (alone.events, alone.options["chunk_id"], bytes(alone.payload)) == (
        1,
        b"abc",
        b"\x92" + EVENT_TIME + RECORD,
    )
    assert (last.events, last.options.get("chunk_id")) == (1, None)


def test_who_fills_what_it_is_given_gets_more_to_fill() -> None:
    one = b"\x93\xa1t" + EVENT_TIME + b"\x81\xa1k\xd9\xc8" + b"x" * 200
    stream = one * 4000
    reader = MessageReader(max_message_bytes=LIMIT)
    sizes = []
    while stream:
        room = reader.writable()
        sizes.append(len(room))
        piece, stream = stream[: len(room)], stream[len(room) :]
        room[: len(piece)] = piece
        reader.received(len(piece))
        for _ in reader.messages():
            pass
    assert sizes[0] == FIRST_BUFFER_BYTES
    assert min(sizes[5:-1]) > ROOMY_BUFFER_BYTES // 2


def test_an_endless_message_ends_at_the_limit() -> None:
    reader = MessageReader(max_message_bytes=LIMIT)
    with pytest.raises(FramingError, match="limit"):  # noqa: PT012 -- the loop is what is tested
        received = feed(reader, b"\x92\xa1t\xdd\xff\xff\xff\xff")
        while received <= 2 * LIMIT:
            received += feed(reader, (b"\x92\x00\xc4\xff" + b"x" * 255) * 100)
    assert received <= LIMIT + (1 << 18)


def feed(reader: MessageReader, data: bytes) -> int:
    room = reader.writable()
    size = min(len(room), len(data))
    room[:size] = data[:size]
    reader.received(size)
    assert not list(reader.messages())
    return size


times = st.sampled_from(
    [EVENT_TIME, EVENT_TIME_EXT8, INTEGER_TIME, b"\x00", b"\xcb" + struct.pack(">d", 1.5)]
)
values = st.recursive(
    st.none()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=300)
    | st.text(max_size=40)
    | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=8,
)
records = values.map(msgpack.packb)
events: st.SearchStrategy[bytes] = st.tuples(times, records).map(lambda pair: b"\x92" + pair[0] + pair[1])
tags = st.binary(min_size=1, max_size=40).map(lambda tag: b"\xd9" + bytes([len(tag)]) + tag)
options: st.SearchStrategy[bytes] = st.dictionaries(
    st.sampled_from(["chunk", "size", "x"]), st.text(max_size=30) | st.integers(0, 9), max_size=3
).map(msgpack.packb)


@st.composite
def forward_messages(draw: st.DrawFn) -> bytes:
    """One message in any mode, or a heartbeat."""
    tag = draw(tags)
    option = draw(st.just(b"") | options)
    mode = draw(st.sampled_from(["packed", "forward", "message", "run", "nil"]))
    if mode == "nil":
        return b"\xc0"
    head = bytes([0x92 + bool(option)])
    if mode == "packed":
        payload = b"".join(draw(st.lists(events, max_size=5)))
        return head + tag + bytes(msgpack.packb(payload, use_bin_type=draw(st.booleans()))) + option
    if mode == "forward":
        entries = draw(st.lists(events, max_size=5))
        return head + tag + b"\xdc" + struct.pack(">H", len(entries)) + b"".join(entries) + option
    if mode == "run":
        head, run = bytes([0x93 + bool(option)]) + tag, draw(st.lists(events, min_size=2, max_size=6))
        return b"".join(head + event[1:] + option for event in run)
    return bytes([0x93 + bool(option)]) + tag + draw(events)[1:] + option


@settings(deadline=None, max_examples=150)
@given(
    st.lists(forward_messages(), max_size=8).map(b"".join),
    st.lists(st.integers(1, 400), min_size=1, max_size=5),
)
def test_however_the_bytes_are_cut_the_messages_are_the_same(data: bytes, cuts: list[int]) -> None:
    whole = read(data)
    assert flat(read(data, cuts)) == flat(whole)
    assert flat(read(data, [1])) == flat(whole)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(forward_messages(), min_size=1, max_size=6).map(b"".join),
    st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=6), st.integers(0, 9)), max_size=5),
    st.integers(1, 600),
)
def test_any_mutation_of_a_session_is_read_or_ends_it(
    data: bytes, mutations: list[tuple[int, bytes, int]], cut: int
) -> None:
    mutated = bytearray(data)
    for place, new, removed in mutations:
        at = place % (len(mutated) + 1)
        mutated[at : at + removed] = new
    outcomes = []
    for cuts in (cut, 1):
        reader, found = MessageReader(max_message_bytes=LIMIT), list[Message]()
        try:
            for at in range(0, len(mutated), cuts):
                piece = mutated[at : at + cuts]
                while piece:
                    room = reader.writable()
                    size = min(len(room), len(piece))
                    room[:size] = piece[:size]
                    reader.received(size)
                    for message in reader.messages():
                        found.append(msgspec.structs.replace(message, payload=bytes(message.payload)))
                    assert reader.settle() <= 5 * LIMIT
                    if at % 7 == 0:
                        reader.compact()
                    del piece[:size]
        except FramingError:
            pass
        outcomes.append(found)
    # What came before the break is the same. (Where the break lies is, too, but for a break at the end of a
    # message that is complete: one who has the bytes behind it already sees them first.)
    one, other = (run_together(found) for found in outcomes)
    assert one == other


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 700_000), st.integers(1, 300_000), st.booleans())
def test_large_payloads_pass_whatever_their_size_and_the_reads(
    size: int, cut: int, with_option: bool
) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    tail = b"\x81\xa5chunk\xa1c" if with_option else b""
    one = bytes([0x92 + with_option]) + b"\xa1t\xc6" + struct.pack(">I", len(payload)) + payload + tail
    messages = read(one * 3, [cut])
    assert [bytes(m.payload) for m in messages] == [payload] * 3


def test_a_header_alone_reserves_no_memory_for_what_it_announces() -> None:
    reader = MessageReader(max_message_bytes=32 << 20)
    head = b"\x92\xa1t\xc6" + struct.pack(">I", 31 << 20)
    reader.writable()[: len(head)] = head
    reader.received(len(head))
    assert not list(reader.messages())
    assert len(reader.writable()) < 1 << 20
