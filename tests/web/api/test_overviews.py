from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.store.pyramid.overview import overview, overview2d

from tests.store.pyramid.brute_force import with_pyramid
from tests.web.served_home import Client, Home, problem

OVERVIEW = "/api/v1/arrays/t:samples/overview"
BINARY = {"Accept": "application/octet-stream"}


def samples(count: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(3).normal(size=count).astype("<f4")
    rows[1_000:2_000] = np.nan
    return rows


async def got(client: Client, url: str) -> dict[str, Any]:
    answer = await client.get(url)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


async def test_an_overview_has_the_edges_their_times_and_the_values_between_them(
    client: Client, home: Home
) -> None:
    rows = samples(9_000)
    home.array("t:samples", rows)
    with home.store.array("t:samples") as array:
        with_pyramid(array, 8_900)
    found = await got(client, f"{OVERVIEW}?from=100&to=8000&pixels=50")
    assert list(found) == ["rows", "times_ns", "min", "max", "mean"]
    edges = found["rows"]
    assert len(edges) == 51
    assert edges[0] <= 100
    assert edges[-1] >= 8_000
    assert all(edge % 64 == 0 for edge in edges)
    assert found["times_ns"] == [edge * 1_000 for edge in edges]
    gaps = 0
    for pixel in range(50):
        there = rows[edges[pixel] : edges[pixel + 1]]
        if np.isnan(there).all():
            assert found["min"][pixel] is found["max"][pixel] is found["mean"][pixel] is None
            gaps += 1
            continue
        assert found["min"][pixel] == np.nanmin(there)
        assert found["max"][pixel] == np.nanmax(there)
        assert found["mean"][pixel] == pytest.approx(np.nanmean(there, dtype=np.float64), abs=1e-5)
    assert gaps == 5


async def test_a_range_is_of_rows_or_of_times(client: Client, home: Home) -> None:
    home.array("t:samples", samples(9_000))
    last_ns = 8_999 * 1_000
    assert (await got(client, f"{OVERVIEW}?pixels=3"))["rows"] == [0, 3_008, 6_016, 9_000]
    assert (await got(client, f"{OVERVIEW}?from=5&to=9&pixels=3"))["rows"] == [5, 6, 7, 9]
    by_time = await got(client, f"{OVERVIEW}?from=1970-01-01T00:00:00.008Z&pixels=2")
    assert by_time["rows"] == [8_000, 8_512, 9_000]
    assert by_time["times_ns"][-1] == last_ns
    past = await got(client, f"{OVERVIEW}?from=8999&to=9002&pixels=3")
    assert past["rows"] == [8_999, 9_000, 9_001, 9_002]
    assert past["times_ns"] == [last_ns, last_ns, None, None]
    assert [value is None for value in past["min"]] == [False, True, True]
    later = await got(client, f"{OVERVIEW}?from=2026-11-01T00:00Z&to=2026-11-02T00:00Z")
    assert later == {"rows": [9_000], "times_ns": [last_ns], "min": [], "max": [], "mean": []}


async def test_rows_that_were_dropped_are_gaps(client: Client, home: Home) -> None:
    store = type(home.store)(home.path / "store", segment_bytes=4096)
    home.store = store
    rows = samples(9_000)
    writer = home.array("t:samples", rows)
    writer.drop_before(5_000)
    kept = store.array("t:samples").start
    assert kept
    found = await got(client, f"{OVERVIEW}?from=0&to=9000&pixels=9")
    for pixel, (first, stop) in enumerate(zip(found["rows"], found["rows"][1:], strict=False)):
        there = rows[max(first, kept) : max(stop, kept)]
        assert found["max"][pixel] == (np.nanmax(there) if len(there) else None)
    assert (await got(client, f"{OVERVIEW}?pixels=9"))["rows"][0] == kept


async def test_the_binary_form_is_the_parts_one_after_another(client: Client, home: Home) -> None:
    rows = np.random.default_rng(4).integers(-99, 99, (9_000, 3)).astype(">i2")
    home.array("t:samples", rows, attrs={"columns": ["x", "y", "z"]})
    for query, shape in (("", (40, 3)), ("&column=y", (40,))):
        answer = await client.get(f"{OVERVIEW}?pixels=40{query}", headers=BINARY)
        assert answer.content_type == "application/octet-stream"
        assert answer.headers["Windvane-Dtype"] == "<i2"
        assert answer.headers["Windvane-Shape"] == ",".join(map(str, shape))
        body, parts = await answer.read(), []
        for dtype, part_shape in (
            ("<i8", (41,)),
            ("<i8", (41,)),
            ("<i8", shape),
            ("<i2", shape),
            ("<i2", shape),
            ("<f8", shape),
        ):
            size = np.dtype(dtype).itemsize * int(np.prod(part_shape))
            parts.append(np.frombuffer(body[:size], dtype).reshape(part_shape))
            body = body[size:]
        assert body == b""
        with home.store.array("t:samples") as array:
            expected = overview(array, 0, 9_000, pixels=40, column=query[8:] or None)
        for name, part in zip(("rows", "times_ns", "count", "min", "max", "mean"), parts, strict=True):
            assert np.array_equal(part, getattr(expected, name)), name


async def test_a_row_of_one_value_is_that_value(client: Client, home: Home) -> None:
    home.array("t:samples", samples(900).reshape(-1, 1))
    home.array("t:pairs", samples(1_800).reshape(-1, 2))
    assert isinstance((await got(client, f"{OVERVIEW}?pixels=3"))["min"][0], float)
    pairs = await got(client, "/api/v1/arrays/t:pairs/overview?pixels=9&from=0&to=1100")
    assert [pixel and len(pixel) for pixel in pairs["min"]] == [2] * 4 + [None] * (len(pairs["min"]) - 4)


async def test_spectra_have_an_overview_of_time_and_frequency(client: Client, home: Home) -> None:
    rows = np.random.default_rng(4).normal(size=(9_000, 33)).astype("<f4")
    home.array("t:spectrum", rows)
    url = "/api/v1/arrays/t:spectrum/overview2d?from=0&to=10000&pixels=20&bins=8"
    found = await got(client, url)
    assert list(found) == ["rows", "times_ns", "bins", "max"]
    assert found["bins"] == [0, 4, 8, 12, 16, 20, 24, 28, 33]
    for pixel, (first, stop) in enumerate(zip(found["rows"], found["rows"][1:], strict=False)):
        there = rows[first:stop]
        expected = (
            [there[:, a:b].max() for a, b in zip(found["bins"], found["bins"][1:], strict=False)]
            if len(there)
            else None
        )
        assert found["max"][pixel] == expected
    answer = await client.get(url, headers=BINARY)
    assert answer.headers["Windvane-Shape"] == "20,8"
    with home.store.array("t:spectrum") as array:
        expected_2d = overview2d(array, 0, 10_000, pixels=20, bins=8)
    parts = (expected_2d.rows, expected_2d.times_ns, expected_2d.bins, expected_2d.count, expected_2d.max)
    assert await answer.read() == b"".join(part.tobytes() for part in parts)


async def test_negative_rows_count_from_the_end(client: Client, home: Home) -> None:
    home.array("t:samples", samples(900))
    last = await got(client, f"{OVERVIEW}?from=-5")
    assert (last["rows"][0], last["rows"][-1]) == (895, 900)
    assert await got(client, f"{OVERVIEW}?to=-890") == await got(client, f"{OVERVIEW}?to=10")
    assert await got(client, f"{OVERVIEW}?from=-1000") == await got(client, OVERVIEW)


async def test_mistakes_are_named(client: Client, home: Home) -> None:
    home.array("t:samples", samples(900))
    home.array("t:complex", np.zeros(900, "<c16"))
    assert "to: " in (await problem(await client.get(f"{OVERVIEW}?to=yesterday"), 400))["detail"]
    await problem(await client.get(f"{OVERVIEW}?pixels=0"), 400)
    await problem(await client.get(f"{OVERVIEW}?column=rms"), 404)
    await problem(await client.get("/api/v1/arrays/t:none/overview"), 404)
    assert (
        "complex128" in (await problem(await client.get("/api/v1/arrays/t:complex/overview"), 422))["detail"]
    )
    assert "spectra" in (await problem(await client.get(f"{OVERVIEW}2d"), 422))["detail"]
    far = await got(client, f"{OVERVIEW}?from=9000000000000000&to=99999999999999999&pixels=10000")
    assert set(far["min"]) == {None}
