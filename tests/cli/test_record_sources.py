import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.commands.record_sources import (
    MAX_LINE_BYTES,
    Chunk,
    csv_chunks,
    jsonl_chunks,
    line_chunks,
    raw_chunks,
)
from windvane.errors import InputInvalid
from windvane.events import iterate_events

Source = Callable[..., Iterator[list[Chunk]]]


def reader(data: bytes, cuts: list[int] | None = None) -> Callable[[int], bytes]:
    """Gives `data` in pieces that end at `cuts`, as a pipe would."""
    ends = iter([*sorted({cut % (len(data) + 1) for cut in cuts or []} - {0}), len(data)])
    state = {"at": 0, "end": next(ends)}

    def read(size: int) -> bytes:
        if state["at"] == state["end"]:
            state["end"] = next(ends, len(data))
        piece = data[state["at"] : min(state["at"] + size, state["end"])]
        state["at"] += len(piece)
        return piece

    return read


def records(source: Source, data: bytes, *, cuts: list[int] | None = None, **options: Any) -> list[Any]:
    chunks = [chunk for batch in source(reader(data, cuts), chunk_bytes=100, **options) for chunk in batch]
    assert sum(chunk.source_bytes for chunk in chunks) <= len(data)
    found = [record for chunk in chunks for _, record in iterate_events(chunk.payload)]
    assert sum(chunk.events for chunk in chunks) == len(found)
    return found


cut_anywhere = st.lists(st.integers(0, 2000), max_size=8)


@given(data=st.binary(max_size=1000), cuts=cut_anywhere, chunk_bytes=st.integers(1, 300))
def test_raw_pieces_put_together_are_the_file_and_each_is_a_chunk(
    data: bytes, cuts: list[int], chunk_bytes: int
) -> None:
    chunks = [chunk for batch in raw_chunks(reader(data, cuts), chunk_bytes=chunk_bytes) for chunk in batch]
    pieces = [record[b"message"] for chunk in chunks for _, record in iterate_events(chunk.payload)]
    assert b"".join(pieces) == data
    assert [chunk.source_bytes for chunk in chunks] == [len(piece) for piece in pieces]
    assert all(1 <= len(piece) <= chunk_bytes for piece in pieces)


def test_a_file_is_cut_into_raw_pieces_of_even_size() -> None:
    data = bytes(5_000_000)
    sizes = [c.source_bytes for batch in raw_chunks(io.BytesIO(data).read, chunk_bytes=3000) for c in batch]
    assert set(sizes[:-1]) == {3000}


bare_lines = st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b""))


@given(text_lines=st.lists(bare_lines), cuts=cut_anywhere)
def test_lines_come_out_as_they_are_however_they_are_read(text_lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in text_lines)
    assert [record[b"message"] for record in records(line_chunks, data, cuts=cuts)] == text_lines


def test_a_line_may_end_with_carriage_return_or_with_the_file() -> None:
    found = records(line_chunks, b"one\r\n\ntwo\xff\nthree")
    assert [record[b"message"] for record in found] == [b"one", b"", b"two\xff", b"three"]


def test_lines_that_are_utf_8_go_as_text_and_others_as_bytes() -> None:
    (batch,) = line_chunks(reader("grün\n".encode() + b"gr\xfcn\n"), chunk_bytes=1000)
    (chunk,) = batch
    assert b"\xa5gr\xc3\xbcn" in chunk.payload  # str of 5 bytes
    assert b"\xc4\x04gr\xfcn" in chunk.payload  # bin of 4 bytes


values = st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.none()


@given(st.lists(st.dictionaries(st.text(max_size=5), values), max_size=8), cut_anywhere)
def test_json_lines_come_out_as_they_are_however_they_are_read(
    objects: list[dict[str, Any]], cuts: list[int]
) -> None:
    data = "".join(json.dumps(each) + "\n" for each in objects).encode()
    expected = [
        {key.encode(): value.encode() if isinstance(value, str) else value for key, value in each.items()}
        for each in objects
    ]
    assert records(jsonl_chunks, data, cuts=cuts) == expected


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(
    lambda text: f"x{text}"
)


@given(st.lists(st.tuples(cells, cells), max_size=8), cut_anywhere)
def test_table_rows_come_out_as_they_are_however_they_are_read(
    rows: list[tuple[str, str]], cuts: list[int]
) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([("a", "b"), *rows])
    found = records(csv_chunks, text.getvalue().encode(), cuts=cuts)
    assert found == [{b"a": a.encode(), b"b": b.encode()} for a, b in rows]


def test_cells_that_look_like_numbers_are_numbers_and_empty_ones_nothing() -> None:
    data = b"\xef\xbb\xbfa,b,c,d\r\n1,-2.5,1e3,x1\r\n\r\n+7,.5,,18446744073709551616\r\n"
    assert records(csv_chunks, data) == [
        {b"a": 1, b"b": -2.5, b"c": 1000.0, b"d": b"x1"},
        {b"a": 7, b"b": 0.5, b"c": None, b"d": b"18446744073709551616"},
    ]


def test_what_a_slow_pipe_has_given_goes_out_before_the_next_read() -> None:
    arrived = [b'{"n":1}\n\n{"n":2}\n\n', b'{"n":3}\n{"n"', b":4}\n", b""]
    batches = jsonl_chunks(lambda size: arrived.pop(0), chunk_bytes=10**6)
    numbers = [record[b"n"] for chunk in next(batches) for _, record in iterate_events(chunk.payload)]
    assert (numbers, len(arrived)) == ([1, 2], 3)
    numbers = [record[b"n"] for chunk in next(batches) for _, record in iterate_events(chunk.payload)]
    assert (numbers, len(arrived)) == ([3], 2)


@pytest.mark.parametrize(
    ("given_time", "time_ns"),
    [
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("0", 0),
        ("2026-11-22T10:48:00Z", 1_795_344_480_000_000_000),
        ("2026-11-22 10:48:00.000001", 1_795_344_480_000_001_000),
        ("2026-11-22T11:48:00+01:00", 1_795_344_480_000_000_000),
    ],
)
def test_the_time_of_a_record_is_that_of_its_time_field(given_time: str, time_ns: int) -> None:
    for source, data in (
        (csv_chunks, f"t\n{given_time}\n"),
        (jsonl_chunks, json.dumps({"t": given_time})),
    ):
        ((chunk,),) = source(reader(data.encode()), chunk_bytes=100, time_field="t")
        assert [found for found, _ in iterate_events(chunk.payload)] == [time_ns]


@pytest.mark.parametrize(
    ("source", "data", "message"),
    [
        (jsonl_chunks, b'{"a":1}\n[2]\n', "line 2 is not a JSON object"),
        (jsonl_chunks, b'{"a":1}\n{"a":\n', "line 2 is not a JSON object"),
        (partial(jsonl_chunks, time_field="t"), b'{"a":1}\n', "line 1 has no 't'; it has a"),
        (partial(jsonl_chunks, time_field="t"), b'{"t":"noon"}\n', "line 1: 'noon' is not a valid time"),
        (partial(jsonl_chunks, time_field="t"), b'{"t":-1}\n', "line 1: -1 is not a valid time"),
        (csv_chunks, b"a,a\n1,2\n", "line 1 must name each column once"),
        (csv_chunks, b"a,b\n1,2\n1\n", "line 3 has 1 cells, line 1 names 2 columns"),
        (csv_chunks, b"a\n\xff\n", "line 2 is no text in UTF-8"),
        (partial(csv_chunks, time_field="t"), b"a,b\n1,2\n", "no column 't'; there are a, b"),
        (line_chunks, b"x" * (MAX_LINE_BYTES + 1), "line 1 is longer than"),
    ],
)
def test_what_is_not_what_the_format_says_is_named_with_its_line(
    source: Source, data: bytes, message: str
) -> None:
    with pytest.raises(InputInvalid, match=message):
        records(source, data)


def test_what_stands_before_an_invalid_line_is_sent() -> None:
    batches = jsonl_chunks(reader(b'{"n":1}\n{"n":2}\nnothing\n{"n":4}\n'), chunk_bytes=10**6)
    (chunk,) = next(batches)
    assert [record for _, record in iterate_events(chunk.payload)] == [{b"n": 1}, {b"n": 2}]
    with pytest.raises(InputInvalid):
        next(batches)
