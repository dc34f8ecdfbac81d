"""JSON on the forward port: the same messages however the bytes are cut, and each byte looked at once."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import FramingError
from windvane.ingest.forward.json_events import MAX_DEPTH, JsonReader, encode_json_ack
from windvane.records.events import iterate_events
from windvane.records.json_records import MAX_NESTING

LIMIT = 1 << 20


def read(
    data: bytes, cut: int | None = None, limit: int = LIMIT
) -> list[tuple[bytes, list[Any], bytes | None]]:
    reader = JsonReader(b"", max_message_bytes=limit)
    found = []
    step = cut or max(1, len(data))
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        reader.writable()[: len(piece)] = piece
        reader.received(len(piece))
        for message in reader.messages():
            events = [[ns, as_text(record)] for ns, record in iterate_events(message.payload)]
            assert message.events == len(events)
            found.append((message.tag, events, message.options.get("chunk_id")))
    assert not bytes(reader.pending).strip()
    return found


def as_text(value: Any) -> Any:
    """Decoded msgpack has bytes for text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {as_text(key): as_text(inner) for key, inner in value.items()}
    return [as_text(inner) for inner in value] if isinstance(value, list) else value


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


times = st.integers(0, 10**7).map(Decimal) | st.decimals(0, 4_000_000_000, places=9)
entries = st.tuples(times, st.dictionaries(st.text(max_size=5), values, max_size=3))


@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=9), st.lists(entries, max_size=3)), max_size=4),
    st.sampled_from(["", " ", "\n", "\r\n\t"]),
    st.booleans(),
    st.integers(1, 50),
)
def test_any_messages_come_out_however_they_are_cut(
    messages: list[tuple[str, list[tuple[Decimal, dict[str, Any]]]]],
    between: str,
    ascii_only: bool,
    cut: int,
) -> None:
    def written(value: Any) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    data = between.join(
        f"[{written(tag)}, [{', '.join(f'[{time:f}, {written(record)}]' for time, record in events)}]"
        f", {written({'chunk': tag})}]"
        for tag, events in messages
    ).encode()
    expected = [
        (tag.encode(), [[int(time * 10**9), record] for time, record in events], tag.encode())
        for tag, events in messages
    ]
    assert read(data) == expected
    assert read(data, cut) == expected


def test_each_form_of_a_message() -> None:
    assert read(b'["t",7,{"a":1}]') == [(b"t", [[7_000_000_000, {"a": 1}]], None)]
    assert read(b'["t",7.5,{},{"chunk":"\\u00fc"}]') == [(b"t", [[7_500_000_000, {}]], "ü".encode())]
    assert read(b'["t",[[7,{}],[null,{}]],null]') == [(b"t", [[7_000_000_000, {}], [0, {}]], None)]
    assert read(b'["t",[["1970-01-01T00:00:07Z",{}]]]') == [(b"t", [[7_000_000_000, {}]], None)]
    assert encode_json_ack("ü".encode()) == '{"ack":"ü"}'.encode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"tag":"t"}', "a JSON message is"),
        (b"[]", "a JSON message is"),
        (b'["t"]', "a JSON message is"),
        (b"[1,2,{}]", "a JSON message is"),
        (b'["t","packed"]', "JSON event"),
        (b'["t",1,"text"]', "JSON event"),
        (b'["t",[[1]]]', "JSON event"),
        (b'["t",1,{},3]', "option"),
        (b'["t",[],{},3]', "2 or 3 elements"),
        (b'["t",1,{}] true', "0x74"),
        (b'["t",1,{"a":}]', "not valid JSON"),
        (b'["t",1,{"a":"\xff"}]', "not valid JSON"),
        (b'["' + b"t" * 2000 + b'",1,{}]', "a tag of 2000 bytes"),
        (b"[" * (MAX_DEPTH + 1), "nested deeper"),
        (b'["t",1,{"a":' + b"[" * MAX_NESTING + b"]" * MAX_NESTING + b"}]", "nested deeper than 800"),
        (b"\xef\xbb[1]", "0xef"),
        (b'["' + b"x" * LIMIT, "over the limit"),
    ],
)
@pytest.mark.parametrize("cut", [None, 1000])
def test_the_error_names_what_is_wrong_with_the_json(data: bytes, said: str, cut: int | None) -> None:
    with pytest.raises(FramingError, match=said):
        read(data, cut or 60_000)


def test_a_string_that_comes_byte_by_byte_is_looked_at_once() -> None:
    text = '\\"\\\\x' * 20_000  # 140,000 bytes of escapes
    data = json.dumps(["t", 1, {"a": text}]).encode()
    assert read(data, 1)[0][1] == [[10**9, {"a": text}]]
