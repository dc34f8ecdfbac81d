"""What is fuzzed: the whole way of a forwarder's bytes that does no I/O, and what must hold for any of them.

The first byte of an input selects the protocol, the second how the bytes are cut; the rest are on the wire.
`take` returns if they were accepted or rejected with a code, and raises otherwise.
"""

from collections.abc import Iterator

import msgspec
from windvane.errors import ChunkRejected, FramingError
from windvane.ingest.bodies.decompression import decompress
from windvane.ingest.checks.payload import count_events
from windvane.ingest.forward.framing import MessageReader
from windvane.ingest.forward.handshake import MAX_HANDSHAKE_BYTES, ServerHandshake
from windvane.ingest.forward.json_events import JsonReader
from windvane.ingest.forward.message import Message
from windvane.ingest.security.settings import parse_security
from windvane.records.events import iterate_events

DOORS = ["open", "handshake", "json"]
MAX_MESSAGE_BYTES = 64 * 1024
MAX_UNPACKED_BYTES = 256 * 1024
MAX_READER_BYTES = 5 * MAX_MESSAGE_BYTES
SECURITY = parse_security('shared_key = "k3y"\n[[user]]\nname = "north"\npassword = "p1"\n')
NONCE, SALT = b"n" * 16, b"s" * 16


def as_input(door: str, sent: bytes, *, step: int = 0) -> bytes:
    """The input that says `sent` came at `door` in pieces of `step` bytes (0: at once)."""
    return bytes([DOORS.index(door), step]) + sent


def take(data: bytes) -> None:
    """Takes one input; raises AssertionError if a property does not hold."""
    if len(data) < 2:
        return
    door, step, sent = DOORS[data[0] % len(DOORS)], data[1], data[2:]
    if door == "handshake":
        sent = behind_handshake(sent)
    cut = list(messages(door, sent, step or len(sent) or 1))
    whole = list(messages(door, sent, len(sent) or 1))
    assert joined(cut) == joined(whole), "where the bytes are cut makes a difference"
    for message in whole:
        check(message)


def behind_handshake(sent: bytes) -> bytes:
    """What the gateway takes for messages: what follows a PING that is right."""
    verdict = ServerHandshake(SECURITY, address="10.7.0.1", nonce=NONCE, salt=SALT).receive(sent)
    if verdict is None:
        assert len(sent) < MAX_HANDSHAKE_BYTES, "a handshake has no end"
        return b""
    assert 0 < verdict.consumed <= len(sent)
    return sent[verdict.consumed :] if verdict.admitted is not None else b""


def messages(door: str, sent: bytes, step: int) -> Iterator[Message]:
    """Every message before the bytes end or break."""
    reader: MessageReader | JsonReader
    if door == "json":
        reader = JsonReader(b"", max_message_bytes=MAX_MESSAGE_BYTES)
    else:
        reader = MessageReader(max_message_bytes=MAX_MESSAGE_BYTES)
    try:
        for at in range(0, len(sent), step):
            piece = sent[at : at + step]
            while piece:
                room = reader.writable()
                size = min(len(room), len(piece))
                assert size > 0, "nothing more can be received"
                room[:size] = piece[:size]
                reader.received(size)
                piece = piece[size:]
                for message in reader.messages():
                    yield msgspec.structs.replace(message, payload=bytes(message.payload))
                assert reader.settle() <= MAX_READER_BYTES, "the reader keeps too much"
                assert reader.pending_bytes <= MAX_MESSAGE_BYTES + size, (
                    "more is pending than a message may have"
                )
            if at % 3 == 0:
                reader.compact()
    except FramingError:
        return


def joined(found: list[Message]) -> list[list[object]]:
    """Single events that ask for no ack come in runs, which the reads cut: one behind the other here."""
    values: list[list[object]] = []
    for m in found:
        single = "chunk_id" not in m.options and m.events is not None
        if single and values and values[-1][0] == ("single", m.tag, m.options.get("signal", 0)):
            before = values[-1][1]
            assert isinstance(before, bytes)
            values[-1][1] = before + bytes(m.payload)
        elif single:
            values.append([("single", m.tag, m.options.get("signal", 0)), bytes(m.payload)])
        else:
            values.append(["chunk", m.tag, bytes(m.payload), m.options])
    return values


def check(message: Message) -> None:
    """What the gateway does with a message, and what the worker will do with its events."""
    payload, compression = message.payload, message.options.get("compression", "text")
    try:
        if compression != "text":
            payload = decompress(payload, compression, max_bytes=MAX_UNPACKED_BYTES)
            assert len(payload) <= MAX_UNPACKED_BYTES, "it unpacked to more than it may"
        events = count_events(payload, message.options.get("size_hint"))
    except ChunkRejected:
        events = None
    if message.events is not None and compression == "text" and events is not None:
        assert events == message.events, "the framing counts otherwise than the gateway"
    if events is None:
        return
    assert count_events(payload) == events, "the hint of a size makes a difference"
    try:
        decoded = sum(1 for _ in iterate_events(payload))
    except ChunkRejected:
        return
    assert decoded == events, "the worker finds another number of events"
