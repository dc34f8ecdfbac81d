import io
import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.store.export.npy import npy_header
from windvane.store.selection.time_ranges import selected_rows
from windvane.web.api.arrays import PIECE_BYTES, pieces

from tests.web.served_home import Client, Home, append, problem, quoted

bounds = st.none() | st.integers(-40, 40)
steps = st.none() | st.integers(-9, 9).filter(bool)


@settings(deadline=None)
@given(length=st.integers(0, 30), start=bounds, stop=bounds, step=steps, rows_per_piece=st.integers(1, 7))
def test_a_slice_cut_into_pieces_is_the_slice(
    length: int, start: int | None, stop: int | None, step: int | None, rows_per_piece: int
) -> None:
    array = np.arange(length)
    rows = selected_rows(slice(start, stop, step), kept_from=0, length=length)
    found = [array[piece] for piece in pieces(rows, rows_per_piece=rows_per_piece)]
    assert all(1 <= len(piece) <= rows_per_piece for piece in found)
    assert np.concatenate([array[:0], *found]).tolist() == array[start:stop:step].tolist()


def test_where_rows_were_dropped_an_open_slice_begins_at_the_first_that_is_kept() -> None:
    assert selected_rows(slice(None, None, None), kept_from=4, length=10) == range(4, 10)
    assert list(selected_rows(slice(None, None, -2), kept_from=4, length=10)) == [9, 7, 5]
    assert list(selected_rows(slice(-3, None, None), kept_from=4, length=10)) == [7, 8, 9]


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype("<f4"),
        np.dtype(">i2"),
        np.dtype("?"),
        np.dtype([("long_name_" * 9 + str(i), "<f8") for i in range(999)]),
    ],
    ids=["float", "big endian", "bool", "a header over 64 KiB"],
)
def test_the_npy_header_is_numpy_s(dtype: np.dtype[Any]) -> None:
    rows = np.zeros((3, 2), dtype)
    file = io.BytesIO(npy_header(dtype, rows.shape) + rows.tobytes())
    loaded = np.load(file, max_header_size=1_000_000)
    assert (loaded.dtype, loaded.shape) == (dtype, (3, 2))


def spectra(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=(count, 5)).astype("<f4")


QUERIES = [
    "",
    "start=3",
    "stop=-1",
    "start=2&stop=9",
    "start=-4",
    "step=3",
    "step=-1",
    "start=8&stop=1&step=-2",
    "start=5&stop=5",
    "start=100",
]


def sliced(array: NDArray[Any], query: str) -> NDArray[Any]:
    given_parts = dict(part.split("=") for part in query.split("&") if part)
    key = slice(
        *(int(given_parts[name]) if name in given_parts else None for name in ("start", "stop", "step"))
    )
    return array[key]


@pytest.mark.parametrize("query", QUERIES)
async def test_raw_is_the_bytes_of_the_slice(client: Client, home: Home, query: str) -> None:
    rows = spectra(12)
    home.array("voice:spectrum", rows)
    expected = sliced(rows, query)
    answer = await client.get(f"/api/v1/arrays/voice:spectrum/data?{query}")
    assert answer.status == 200
    assert answer.headers["Windvane-Dtype"] == "<f4"
    assert answer.headers["Windvane-Shape"] == f"{len(expected)},5"
    assert answer.content_length == expected.nbytes
    assert await answer.read() == expected.tobytes()


@pytest.mark.parametrize("query", QUERIES)
async def test_npy_is_what_numpy_loads(client: Client, home: Home, query: str) -> None:
    rows = spectra(12)
    home.array("voice:spectrum", rows)
    answer = await client.get(f"/api/v1/arrays/voice:spectrum/data?format=npy&{query}")
    body = await answer.read()
    assert answer.content_length == len(body)
    np.testing.assert_array_equal(np.load(io.BytesIO(body)), sliced(rows, query), strict=True)


@pytest.mark.parametrize("query", QUERIES)
async def test_json_is_the_rows_as_lists(client: Client, home: Home, query: str) -> None:
    rows = spectra(12)
    home.array("voice:spectrum", rows)
    answer = await client.get(f"/api/v1/arrays/voice:spectrum/data?format=json&{query}")
    assert await answer.json() == sliced(rows, query).tolist()


async def test_json_says_null_for_what_is_not_finite(client: Client, home: Home) -> None:
    home.array("x:values", np.array([[1.5, np.nan], [np.inf, -0.25]]))
    answer = await client.get("/api/v1/arrays/x:values/data?format=json")
    assert json.loads(await answer.text()) == [[1.5, None], [None, -0.25]]


async def test_json_of_records_and_of_complex_numbers_is_nested_lists(client: Client, home: Home) -> None:
    home.array("x:records", np.array([(1, 2.5), (3, 4.5)], dtype=[("n", "<i4"), ("v", "<f8")]))
    home.array("x:complex", np.array([1 + 2j]))
    assert await (await client.get("/api/v1/arrays/x:records/data?format=json")).json() == [
        [1, 2.5],
        [3, 4.5],
    ]
    assert await (await client.get("/api/v1/arrays/x:complex/data?format=json")).json() == [[1.0, 2.0]]


async def test_the_times_of_the_rows_come_in_the_same_ways(client: Client, home: Home) -> None:
    home.array("voice:spectrum", spectra(12))
    times_ns = np.arange(12, dtype="<i8") * 1_000
    url = "/api/v1/arrays/voice:spectrum/times"
    assert await (await client.get(f"{url}?start=2&step=4")).read() == times_ns[2::4].tobytes()
    assert await (await client.get(f"{url}?format=json&start=-2")).json() == times_ns[-2:].tolist()
    loaded = np.load(io.BytesIO(await (await client.get(f"{url}?format=npy")).read()))
    np.testing.assert_array_equal(loaded, times_ns, strict=True)


async def test_a_large_slice_is_sent_whole_with_bounded_memory(client: Client, home: Home) -> None:
    rows = np.arange(4_000_000, dtype="<i8").reshape(-1, 4)
    writer = home.array("large:samples", rows[:0])
    for block in np.split(rows, 20):
        append(writer, block)
    tracemalloc.start()
    try:
        answer = await client.get("/api/v1/arrays/large:samples/data?step=-1")
        position = rows.nbytes
        async for part in answer.content.iter_any():
            position -= len(part)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert position == 0
    assert rows.nbytes > 30 * 1024 * 1024
    assert peak_bytes < 8 * PIECE_BYTES + 4 * 1024 * 1024


@pytest.mark.parametrize("form", ["raw", "json"])
async def test_many_pieces_keep_their_order(client: Client, home: Home, form: str) -> None:
    rows = np.arange(300_000, dtype="<i4")
    home.array("many:rows", rows)
    answer = await client.get(f"/api/v1/arrays/many:rows/data?step=-3&format={form}")
    if form == "raw":
        np.testing.assert_array_equal(np.frombuffer(await answer.read(), "<i4"), rows[::-3])
    else:
        assert await answer.json() == rows[::-3].tolist()


async def test_an_array_is_described(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", spectra(12), attrs={"rate_hz": 48_000.0, "columns": ["a"]})
    expected = {
        "reference": "voice:spectrum",
        "stream": "voice",
        "uid": writer.uid.hex(),
        "dtype": "<f4",
        "shape": [12, 5],
        "start": 0,
        "attrs": {"rate_hz": 48_000.0, "columns": ["a"]},
        "zarr": None,
    }
    assert await (await client.get("/api/v1/arrays/voice:spectrum")).json() == expected
    assert await (await client.get("/api/v1/arrays")).json() == [expected]


async def test_a_record_dtype_is_a_list_of_fields(client: Client, home: Home) -> None:
    home.array("x:records", np.zeros(1, dtype=[("n", "<i4"), ("v", "<f8", (2,))]))
    found = await (await client.get("/api/v1/arrays/x:records")).json()
    assert found["dtype"] == [["n", "<i4"], ["v", "<f8", [2]]]


async def test_rows_that_retention_dropped_are_gone(client: Client, home: Home) -> None:
    rows = np.arange(64 * 1024, dtype="<i8")
    writer = home.array("old:rows", rows)
    writer.drop_before(len(rows) // 2)
    kept_from = (await (await client.get("/api/v1/arrays/old:rows")).json())["start"]
    assert kept_from > 0
    members = await problem(await client.get("/api/v1/arrays/old:rows/data?start=5&stop=9"), 410)
    assert str(kept_from) in members["detail"]
    answer = await client.get("/api/v1/arrays/old:rows/data")
    assert await answer.read() == rows[kept_from:].tobytes()


DAY_NS = 86_400_000_000_000
NOVEMBER_NS = 1_793_491_200_000_000_000  # 2026-11-01T00:00Z


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("start=2026-11-01T00:00Z", slice(3, None)),
        ("start=2026-11-01T00:00:00.000000001Z", slice(4, None)),
        ("start=2026-11-01T01:00%2B01:00&stop=2026-11-03", slice(3, 5)),
        (f"start={NOVEMBER_NS}&stop={NOVEMBER_NS + DAY_NS + 1}", slice(3, 5)),
        ("start=2026-11-01T00:00Z&stop=-1&step=2", slice(3, -1, 2)),
        ("start=2026-11-02&stop=2026-10-30&step=-1", slice(4, 1, -1)),
        ("stop=1999-01-01", slice(0, 0)),
        ("start=2105-01-01", slice(0, 0)),
    ],
)
async def test_rows_and_times_are_selected_by_time(
    client: Client, home: Home, query: str, expected: slice
) -> None:
    rows = spectra(8)
    writer = home.array("voice:spectrum", rows[:0])
    times_ns = NOVEMBER_NS + (np.arange(8) - 3) * DAY_NS
    writer.append(rows, times_ns)
    answer = await client.get(f"/api/v1/arrays/voice:spectrum/data?{query}")
    assert await answer.read() == rows[expected].tobytes()
    answer = await client.get(f"/api/v1/arrays/voice:spectrum/times?format=json&{query}")
    assert await answer.json() == times_ns[expected].tolist()


async def test_a_column_is_selected_by_its_name(client: Client, home: Home) -> None:
    rows = spectra(4)
    home.array("s:features", rows, attrs={"columns": ["rms", "peak", "a b", "rms", ""]})
    records = np.array(
        [(1, (2.5, [3, 4])), (5, (6.5, [7, 8]))], [("n", "<i4"), ("v", [("x", ">f8"), ("y", "i2", 2)])]
    )
    home.array("s:records", records)
    home.array("s:plain", rows)
    for reference, column, expected in (
        ("s:features", "rms", rows[:, 0]),
        ("s:features", "a b", rows[:, 2]),
        ("s:records", "n", records["n"]),
        ("s:records", "v.x", records["v"]["x"]),
        ("s:records", "v.y", records["v"]["y"]),
        ("s:plain", "values", rows),
    ):
        url = f"/api/v1/arrays/{reference}/data?column={quoted(column)}"
        loaded = np.load(io.BytesIO(await (await client.get(f"{url}&format=npy&start=1")).read()))
        np.testing.assert_array_equal(loaded, expected[1:], strict=True)
        answer = await client.get(url)
        assert answer.headers["Windvane-Shape"] == ",".join(map(str, expected.shape))
        assert await answer.read() == expected.tobytes()
    members = await problem(await client.get("/api/v1/arrays/s:features/data?column=crest"), 404)
    assert members["title"] == "Column not found"
    assert members["detail"] == "s:features has no column 'crest'; it has rms, peak, a b, rms, "


@pytest.mark.parametrize(
    "query",
    [
        *("step=0", "start=a", "stop=1.5", "format=csv", "start=" + "9" * 30),
        *("start=2026-02-30", "stop=2026-11-01T00:00+01:00", "start=1969-12-31T00:00Z"),
    ],
)
async def test_an_invalid_slice_is_a_problem_that_names_the_parameter(
    client: Client, home: Home, query: str
) -> None:
    home.array("voice:spectrum", spectra(3))
    members = await problem(await client.get(f"/api/v1/arrays/voice:spectrum/data?{query}"), 400)
    assert query.partition("=")[0] in members["detail"]


@pytest.mark.parametrize("path", ["voice:nothing", "voice", "voice:nothing/data", "voice:nothing/times"])
async def test_an_array_that_is_not_there_is_a_problem(client: Client, path: str) -> None:
    assert (await problem(await client.get(f"/api/v1/arrays/{path}"), 404))["title"] == "Array not found"
