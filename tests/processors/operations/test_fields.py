"""`fields`: one row of numbers per event."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import PolicyInvalid
from windvane.processors.operations.base.block import Events

from tests.processors.streams import op, run, run_with_restarts

NAN = float("nan")


def events(*records: Any, first_ns: int = 100) -> Events:
    return Events(list(range(first_ns, first_ns + len(records))), list(records))


def test_named_fields_are_columns_and_missing_numbers_are_nan() -> None:
    output = run(
        op("fields", fields=["speed", "température"]),
        [
            events({b"speed": 3, "température".encode(): 20.5}),
            events({b"speed": b"12"}, {b"speed": True, b"other": 1}, b"a line", None, {b"speed": None, 5: 1}),
        ],
    )
    expected = [[3, 20.5], [NAN, NAN], [1, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN]]
    np.testing.assert_array_equal(output.rows, expected)
    assert output.rows.dtype == np.float64
    assert output.times_ns.tolist() == [100, 100, 101, 102, 103, 104]
    assert output.blocks[0].columns == ("speed", "température")
    assert output.blocks[0].attrs == {"kind": "values", "columns": ["speed", "température"]}


def test_a_null_in_the_first_record_with_numbers_keeps_its_column() -> None:
    output = run(
        op("fields"),
        [events({b"a": None}, {b"a": None, b"b": 1, b"c": b"x"}, {b"a": 2, b"b": None})],
    )
    assert output.blocks[0].columns == ("a", "b")
    np.testing.assert_array_equal(output.rows, [[NAN, 1], [2, NAN]])


def test_the_first_record_with_numbers_fixes_the_columns() -> None:
    output = run(
        op("fields"),
        [
            events({b"text": b"x"}, b"line"),
            events([1, 2], {b"b": 2.5, b"name": b"n", b"a": 1, b"\xff": 3}, {b"a": 7, b"c": 9}, first_ns=200),
            events({b"b": -1}, first_ns=300),
        ],
    )
    assert output.blocks[0].columns == ("b", "a")
    np.testing.assert_array_equal(output.rows, [[2.5, 1], [NAN, 7], [-1, NAN]])
    assert output.times_ns.tolist() == [201, 202, 300]


scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.none(), st.binary(max_size=3)
)
records = st.one_of(st.dictionaries(st.sampled_from([b"a", b"b", b"c"]), scalars), scalars)


@given(
    stream=st.lists(records, max_size=12),
    ends=st.sets(st.integers(1, 11)),
    fields=st.sampled_from([None, ["a"], ["c", "a"]]),
)
@settings(deadline=None)
def test_rows_do_not_depend_on_how_records_are_grouped(
    stream: list[Any], ends: set[int], fields: list[str] | None
) -> None:
    bounds = [0, *sorted(end for end in ends if end < len(stream)), len(stream)]
    blocks = [Events(list(range(start, stop)), stream[start:stop]) for start, stop in pairwise(bounds)]
    expected = run(op("fields", fields=fields), [Events(list(range(len(stream))), stream)])
    for output in (
        run(op("fields", fields=fields), blocks),
        run_with_restarts(lambda: op("fields", fields=fields), blocks),
    ):
        assert output.same_rows(expected)
        assert output.times_ns.tolist() == expected.times_ns.tolist()


@pytest.mark.parametrize("fields", [[], ["a", "a"]])
def test_columns_are_named_once(fields: list[str]) -> None:
    with pytest.raises(PolicyInvalid, match="name each field once"):
        op("fields", fields=fields)
