"""What the ingest benchmark sends is what it says, else its figures say nothing."""

from collections.abc import Callable

import msgpack
import pytest
from windvane.ingest.bodies.decompression import decompress
from windvane.ingest.checks.payload import count_events
from windvane.ingest.checks.schema import EventCheck
from windvane.ingest.forward.framing import MessageReader
from windvane.ingest.forward.message import Message
from windvane.store.catalog.policy_schema import parse_schema

from benchmarks import traffic
from benchmarks.ingest import MODES, modes_named
from benchmarks.traffic import Traffic

KINDS = list({mode.make: mode for mode in MODES})


def read(data: bytes) -> list[Message]:
    reader = MessageReader(max_message_bytes=1 << 24)
    found: list[Message] = []
    while data:
        room = reader.writable()
        size = min(len(room), len(data))
        room[:size] = data[:size]
        reader.received(size)
        found += reader.messages()
        data = data[size:]
    assert not reader.pending_bytes
    return found


def payload_of(message: Message) -> bytes:
    compression = message.options.get("compression", "text")
    if compression == "text":
        return bytes(message.payload)
    return bytes(decompress(message.payload, compression, max_bytes=1 << 24))


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("acked", [False, True], ids=["plain", "acked"])
def test_a_write_holds_its_events_in_whole_messages(make: Callable[..., Traffic], acked: bool) -> None:
    sent = make(acked=acked)
    messages = read(sent.write)
    payload = b"".join(map(payload_of, messages))
    assert payload == sent.payload
    assert count_events(payload) == sent.events
    assert {message.tag for message in messages} == {traffic.TAG.encode()}
    if acked:
        [message] = messages
        assert message.options["chunk_id"] == sent.write[-traffic.CHUNK_ID_BYTES :]
    else:
        assert {message.options.get("chunk_id") for message in messages} == {None}


def test_records_have_their_size_differ_and_are_of_the_schema() -> None:
    records = traffic.records(1000)
    assert {len(record) for record in records} == {traffic.RECORD_BYTES}
    assert len(set(records)) > 990
    check = EventCheck(parse_schema(traffic.SCHEMA))
    assert check.sift(b"".join(records), len(records), now_ns=0) is None
    assert len(msgpack.unpackb(records[0])[1]) == 8


def test_modes_are_chosen_by_name_pattern_and_kind() -> None:
    assert [mode.name for mode in modes_named("tls-1,message")] == [
        "tls-1", "message-1", "message-4", "message-100",
    ]  # fmt: skip
    assert len({mode.name for mode in MODES}) == len(MODES)
