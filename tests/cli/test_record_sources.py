import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.commands.sources.chunks import MAX_LINE_BYTES, Chunk, Losses
from windvane.commands.sources.records import jsonl_chunks, line_chunks, raw_chunks
from windvane.errors import InputInvalid
from windvane.records.events import iterate_events

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
    assert records(jsonl_chunks, data, cuts=cuts, losses=Losses()) == expected


def test_what_a_slow_pipe_has_given_goes_out_before_the_next_read() -> None:
    arrived = [b'{"n":1}\n\n{"n":2}\n\n', b'{"n":3}\n{"n"', b":4}\n", b""]
    batches = jsonl_chunks(lambda size: arrived.pop(0), chunk_bytes=10**6, losses=Losses())
    numbers = [record[b"n"] for chunk in next(batches) for _, record in iterate_events(chunk.payload)]
    assert (numbers, len(arrived)) == ([1, 2], 3)
    numbers = [record[b"n"] for chunk in next(batches) for _, record in iterate_events(chunk.payload)]
    assert (numbers, len(arrived)) == ([3], 2)


@pytest.mark.parametrize(
    ("given_time", "time_ns"),
    [
        ('"1700000000.123456789"', 1_700_000_000_123_456_789),
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        ("0", 0),
        ('"2026-11-22T10:48:00Z"', 1_795_344_480_000_000_000),
        ('"2016-12-31t23:59:60z"', 1_483_228_800_000_000_000),
    ],
)
def test_the_time_of_a_record_is_that_of_its_time_field_which_leaves_it(
    given_time: str, time_ns: int
) -> None:
    data = f'\ufeff{{"t": {given_time}, "a": 1}}'.encode()
    for keep, fields in ((False, [b"a"]), (True, [b"t", b"a"])):
        ((chunk,),) = jsonl_chunks(
            reader(data), chunk_bytes=100, losses=Losses(), time_field="t", keep_time_field=keep
        )
        ((found, record),) = iterate_events(chunk.payload)
        assert (found, list(record)) == (time_ns, fields)


@pytest.mark.parametrize(
    ("data", "time_field", "said"),
    [
        (b'{"n":1}\n[2]\n{"n":3}\n', None, "line 2: not a JSON object: it is an array"),
        (b'{"n":1}\n{"n":\n{"n":3}\n', None, "line 2: not a JSON object: "),
        (b'{"n":1}\n{"n":"\xff"}\n{"n":3}\n', None, "line 2: not a JSON object: byte 6 is not valid UTF-8"),
        (b'{"t":1}\n{"n":2}\n{"t":3}\n', "t", "line 2: it has no field 't'; it has n"),
        (b'{"t":1}\n{"t":"noon"}\n{"t":3}\n', "t", "line 2: 'noon' is not a valid time"),
        (b'{"t":1}\n{"t":-1}\n{"t":3}\n', "t", "line 2: -1 is not a valid time"),
    ],
)
def test_a_line_that_is_not_a_record_is_reported_and_the_others_continue(
    data: bytes, time_field: str | None, said: str
) -> None:
    losses = Losses()
    found = records(jsonl_chunks, data, losses=losses, time_field=time_field)
    assert (len(found), losses.lines) == (2, 1)
    assert f"1 line was not sent; the first is {said}" in str(losses)


def test_the_number_of_lost_lines_and_the_first_ten_are_reported() -> None:
    losses = Losses()
    assert records(jsonl_chunks, b"no\n" * 20, losses=losses) == []
    assert str(losses).startswith("20 lines were not sent; the first is line 1: not a JSON object")
    assert str(losses).endswith("; the next begin at line 2, 3, 4, 5, 6, 7, 8, 9, 10, …")


def test_a_line_over_the_bound_ends_the_source_behind_those_before_it() -> None:
    batches = line_chunks(reader(b"one\n" + b"x" * (MAX_LINE_BYTES + 1)), chunk_bytes=100)
    (chunk,) = next(batches)
    assert [record for _, record in iterate_events(chunk.payload)] == [{b"message": b"one"}]
    with pytest.raises(InputInvalid, match="line 2 is longer than"):
        list(batches)
