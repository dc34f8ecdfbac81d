import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.web.ranges import (
    MAX_RANGES,
    ByteRange,
    NotSatisfiable,
    etag_listed,
    growing_etag,
    may_continue,
    parse_range,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=10-19", [(10, 20)]),
        ("bytes=90-", [(90, 100)]),
        ("bytes=-5", [(95, 100)]),
        ("bytes=-500", [(0, 100)]),
        ("bytes=50-1000", [(50, 100)]),
        ("BYTES = 1-2 , 5-6", [(1, 3), (5, 7)]),
        ("bytes=70-79,0-9", [(70, 80), (0, 10)]),
        ("bytes=0-9,5-20", [(0, 21)]),
        ("bytes=10-19,0-9", [(0, 20)]),
        ("bytes=0-9,,200-300", [(0, 10)]),
    ],
)
def test_a_range_header_names_bytes(header: str, expected: list[tuple[int, int]]) -> None:
    assert parse_range(header, start=0, length=100) == [ByteRange(*pair) for pair in expected]


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "rows=0-5",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-5;1-2",
        "bytes=1",
    ],
)
def test_an_invalid_range_of_bytes_is_ignored(header: str | None) -> None:
    assert parse_range(header, start=0, length=100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200,300-", "bytes=-0", "bytes=99999999999999-"])
def test_ranges_of_nothing_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(NotSatisfiable, match="bytes 0 to 99"):
        parse_range(header, start=0, length=100)


def test_no_range_of_an_empty_stream_can_be_requested() -> None:
    with pytest.raises(NotSatisfiable, match="no bytes"):
        parse_range("bytes=0-", start=0, length=0)


def test_bytes_that_retention_dropped_cannot_be_requested_but_a_suffix_gives_the_rest() -> None:
    with pytest.raises(NotSatisfiable, match="bytes 40 to 99"):
        parse_range("bytes=30-50", start=40, length=100)
    assert parse_range("bytes=-90", start=40, length=100) == [ByteRange(40, 100)]
    assert parse_range("bytes=40-41", start=40, length=100) == [ByteRange(40, 42)]


def test_too_many_ranges_are_rejected() -> None:
    with pytest.raises(NotSatisfiable, match="at most"):
        parse_range("bytes=" + "0-0," * MAX_RANGES + "0-0", start=0, length=10)


@settings(deadline=None)
@given(
    specs=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=8),
    kept_from=st.integers(0, 40),
    kept=st.integers(0, 40),
)
def test_the_ranges_given_are_the_kept_bytes_of_those_asked_for_and_each_only_once(
    specs: list[tuple[int, int]], kept_from: int, kept: int
) -> None:
    header = "bytes=" + ",".join(f"{first}-{first + more}" for first, more in specs)
    length = kept_from + kept
    wanted = {
        byte
        for first, more in specs
        for byte in range(first, min(first + more + 1, length))
        if first >= kept_from
    }
    try:
        found = parse_range(header, start=kept_from, length=length)
    except NotSatisfiable:
        found = []
    assert found is not None
    given_bytes = [byte for part in found for byte in range(part.start, part.stop)]
    assert sorted(given_bytes) == sorted(wanted)


def test_if_range_holds_for_an_earlier_state_of_the_same_thing_only() -> None:
    uid, other = b"\x01" * 16, b"\x02" * 16
    now = growing_etag(uid, 100)
    assert may_continue(None, now)
    assert may_continue(now, now)
    assert may_continue(growing_etag(uid, 50), now)
    assert not may_continue(growing_etag(uid, 101), now)
    assert not may_continue(growing_etag(other, 50), now)
    assert not may_continue(f"W/{now}", now)
    assert not may_continue("Sun, 22 Nov 2026 10:00:00 GMT", now)


def test_an_etag_is_found_in_a_list() -> None:
    assert etag_listed('"a", "b"', '"b"')
    assert etag_listed("*", '"b"')
    assert etag_listed('W/"b"', '"b"')
    assert not etag_listed('"bb"', '"b"')
    assert not etag_listed(None, '"b"')
