"""Exports over HTTP are the files that the command writes."""

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from windvane.store.export.files import export_file
from windvane.store.export.formats import FORMATS
from windvane.store.export.rows_to_export import RowsToExport

from tests.web.served_home import Client, Home, problem

URL = "/api/v1/arrays/s:samples/export"
SAMPLES = np.random.default_rng(1).integers(-999, 999, (60_000, 2)).astype("<i2")
ATTRS = {"kind": "samples", "rate_hz": 1_000.0, "columns": ["x", "y"]}


@pytest.mark.parametrize("name", [*FORMATS])
async def test_an_export_is_the_file_of_the_command(
    client: Client, home: Home, tmp_path: Path, name: str
) -> None:
    home.array("s:samples", SAMPLES, attrs=ATTRS)
    made = FORMATS[name]
    answer = await client.get(f"{URL}?format={name}&start=10&stop=-10")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == made.media_type
    assert answer.headers["Content-Disposition"] == f"attachment; filename*=UTF-8''s%3Asamples{made.suffix}"
    assert answer.headers["Windvane-Rows"] == "10:59990"
    body = await answer.read()
    export = RowsToExport(home.store.array("s:samples"), range(10, 59_990))
    target = tmp_path / f"x{made.suffix}"
    assert sum(export_file(export, target, made)) == 59_980
    if name == "zarr":  # a zip file has the time at which its members were written
        with zipfile.ZipFile(io.BytesIO(body)) as sent, zipfile.ZipFile(target) as file:
            assert {each: sent.read(each) for each in sent.namelist()} == {
                each: file.read(each) for each in file.namelist()
            }
    elif name == "mdf":  # as has its log of changes
        assert len(body) == target.stat().st_size
    else:
        assert body == target.read_bytes()


async def test_rows_are_selected_by_time_and_columns_by_name(client: Client, home: Home) -> None:
    home.array("s:samples", SAMPLES, attrs=ATTRS)  # row i at i * 1,000 ns
    query = "format=parquet&start=1970-01-01T00:00:00.000005Z&stop=1970-01-01T00:00:00.000009Z"
    body = await (await client.get(f"{URL}?{query}&column=y&column=x")).read()
    table = pq.read_table(io.BytesIO(body))
    assert table.column_names == ["time", "y", "x"]
    assert table["time"].cast("int64").to_pylist() == [5_000, 6_000, 7_000, 8_000]
    assert table["x"].to_pylist() == SAMPLES[5:9, 0].tolist()


@pytest.mark.parametrize(
    ("query", "status", "said"),
    [
        ("format=xlsx", 400, "format=xlsx is not known; it may be arrow, csv, mdf, npy, parquet, wav, zarr"),
        ("start=yesterday", 400, "RFC 3339"),
        ("column=z", 404, "s:samples has no column 'z'; it has x, y"),
        ("format=npy&column=x&column=y", 422, "choose one column"),
    ],
)
async def test_a_mistake_is_a_problem(client: Client, home: Home, query: str, status: int, said: str) -> None:
    home.array("s:samples", SAMPLES[:9], attrs=ATTRS)
    assert said in (await problem(await client.get(f"{URL}?{query}"), status))["detail"]


async def test_what_a_format_cannot_hold_and_what_does_not_exist_are_problems(
    client: Client, home: Home
) -> None:
    home.array("s:samples", np.zeros(3, "<c16"))
    members = await problem(await client.get(f"{URL}?format=parquet"), 422)
    assert members["title"] == "Export failed"
    assert (await problem(await client.get("/api/v1/arrays/s:none/export"), 404))[
        "title"
    ] == "Array not found"


async def test_a_format_whose_package_is_missing_is_a_problem(
    client: Client, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.array("s:samples", SAMPLES[:9])
    monkeypatch.setitem(sys.modules, "zarr", None)
    members = await problem(await client.get(f"{URL}?format=zarr"), 501)
    assert "pip install 'windvane[zarr]'" in members["detail"]


async def test_rows_that_retention_dropped_are_gone(client: Client, home: Home) -> None:
    writer = home.array("s:samples", np.zeros((64 * 1024, 16)))
    writer.drop_before(60 * 1024)
    await problem(await client.get(f"{URL}?start=0"), 410)
    kept = home.store.array("s:samples").start
    assert (await client.get(f"{URL}?format=npy")).headers["Windvane-Rows"] == f"{kept}:65536"
