"""Exports stay readable whatever the fields of the records are called, and whatever they hold."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from windvane.store.export.column_names import distinct_names

from .conftest import Run
from .test_data import TIMES_NS, put_array

NAMES = [
    ["time", "kw"],
    ["time_ns", "kw"],
    ["time", "time_2", "time_ns", "time_ns_2", "time"],
    ["", "", "unnamed", "unnamed_2"],
    ["tag", "offset", "value", "values", "index", "__index_level_0__"],
    ["a.b", "a", "A", 'a"b', "a,b", "a\nb", " a", "a ", "é", "#", "0"],
    ["kw", "kw", "kw_2", "kw"],
]


@pytest.mark.parametrize("names", NAMES)
def test_each_column_is_found_by_a_name_of_its_own(
    run: Run, home: Path, tmp_path: Path, names: list[str]
) -> None:
    rows = np.random.default_rng(1).standard_normal((5, len(names)))
    put_array(home, "s:x", rows, TIMES_NS[:5], columns=names)
    said = run("export", "s:x", str(tmp_path / "x.parquet")).stderr
    run("export", "s:x", str(tmp_path / "x.csv"))
    table = pq.read_table(tmp_path / "x.parquet")
    heading, *lines = csv.reader(io.StringIO((tmp_path / "x.csv").read_bytes().decode(), newline=""))
    for time_name, found in (("time", table.column_names), ("time_ns", heading)):
        assert len(set(found)) == len(found) == len(names) + 1
        assert found[0] == time_name
        assert all(found[1:])
        # The first of a name keeps it, unless the row's time has it.
        for place, name in enumerate(names):
            if name and name != time_name and name not in names[:place]:
                assert found[1 + place] == name
    for place, name in enumerate(table.column_names[1:]):
        np.testing.assert_array_equal(table[name].to_numpy(), rows[:, place])
        assert pq.read_table(tmp_path / "x.parquet", columns=["time"]).column_names == ["time"]
        own = names[place]
        told = f"the column {own!r} is {name!r}" if own else f"a column has no name; it is {name!r}"
        renamed = f"{told} in the file" in said
        assert renamed == (name != names[place])
    np.testing.assert_array_equal(np.array([line[1:] for line in lines], float), rows)
    assert (
        [int(line[0]) for line in lines] == table["time"].cast("int64").to_pylist() == TIMES_NS[:5].tolist()
    )


def test_a_number_is_never_given_twice() -> None:
    names = ["time", "time", "time_2", "time_3", "time"]
    assert distinct_names("time", names) == ["time_4", "time_5", "time_2", "time_3", "time_6"]


NESTED = np.dtype(
    [
        ("time", "<i8"),
        ("place", [("lat", ">f8"), ("time", "<f4")]),
        ("place.lat", "<f4"),
        ("peaks", "<i2", (2, 2)),
        ("ok", "?"),
        ("name", "U8"),
        ("raw", "S4"),
        ("at", "<M8[us]"),
    ]
)


def test_nested_records_text_and_lists_are_columns(run: Run, home: Path, tmp_path: Path) -> None:
    rows = np.zeros(2, NESTED)
    rows["time"] = [7, 8]
    rows["place"]["lat"] = [1.5, 2.5]
    rows["place.lat"] = [3, 4]
    rows["peaks"] = np.arange(8).reshape(2, 2, 2)
    rows["ok"], rows["name"], rows["raw"] = [True, False], ['a,"b"', "grün"], [b"\xff,", b"x"]
    rows["at"] = np.array(["2026-01-01T00:00:00.5", "NaT"], "M8[us]")
    put_array(home, "s:x", rows, TIMES_NS[:2])
    run("export", "s:x", str(tmp_path / "x.parquet"))
    run("export", "s:x", str(tmp_path / "x.csv"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == [
        *("time", "time_2", "place.lat", "place.time", "place.lat_2"),
        *("peaks", "ok", "name", "raw", "at"),
    ]
    assert table["time_2"].to_pylist() == [7, 8]
    assert table["place.lat"].to_pylist() == [1.5, 2.5]
    assert table["place.lat_2"].to_pylist() == [3, 4]
    assert table["peaks"].to_pylist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert table["name"].to_pylist() == ['a,"b"', "grün"]
    assert table["raw"].to_pylist() == [b"\xff,", b"x"]
    assert table["at"].null_count == 1
    heading, *lines = csv.reader(io.StringIO((tmp_path / "x.csv").read_bytes().decode(), newline=""))
    assert heading == [
        *("time_ns", "time", "place.lat", "place.time", "place.lat_2"),
        *("peaks.0.0", "peaks.0.1", "peaks.1.0", "peaks.1.1"),
        *("ok", "name", "raw", "at"),
    ]
    assert lines[0][1:] == [
        *("7", "1.5", "0.0", "3.0", "0", "1", "2", "3"),
        *("True", 'a,"b"', "\\xff,", "2026-01-01T00:00:00.500000"),
    ]


@pytest.mark.parametrize("dtype", [">i2", ">f8", "<f2", "<u8", "?", "<M8[ns]", "<m8[s]"])
def test_values_of_every_byte_order_and_size_are_read_back(
    run: Run, home: Path, tmp_path: Path, dtype: str
) -> None:
    rows = np.arange(6).astype(dtype).reshape(3, 2)
    put_array(home, "s:x", rows, TIMES_NS[:3], columns=["a", "b"])
    put_array(home, "s:y", rows, TIMES_NS[:3])
    run("export", "s:x", str(tmp_path / "x.parquet"))
    run("export", "s:y", str(tmp_path / "y.parquet"))
    table = pq.read_table(tmp_path / "x.parquet")
    np.testing.assert_array_equal(np.stack([table["a"].to_numpy(), table["b"].to_numpy()], 1), rows)
    lists = pq.read_table(tmp_path / "y.parquet")["values"].combine_chunks()
    np.testing.assert_array_equal(pa.array(lists.flatten()).to_numpy(zero_copy_only=False), rows.reshape(-1))


@pytest.mark.parametrize(("dtype", "suffix"), [("<c16", "parquet"), ("V4", "parquet"), ("V4", "csv")])
def test_what_a_format_cannot_hold_is_said_with_the_one_that_can(
    run: Run, home: Path, tmp_path: Path, dtype: str, suffix: str
) -> None:
    put_array(home, "s:x", np.zeros(3, dtype), TIMES_NS[:3])
    assert "as .npy" in run("export", "s:x", str(tmp_path / f"x.{suffix}"), exit_code=1).stderr
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_without_a_name_is_reported_with_the_one_it_gets(
    run: Run, home: Path, tmp_path: Path, suffix: str
) -> None:
    put_array(home, "s:x", np.zeros((5, 3)), TIMES_NS[:5], columns=["", "kw", "kw"])
    said = run("export", "s:x", str(tmp_path / f"x.{suffix}")).stderr
    assert "a column has no name; it is 'unnamed' in the file\n" in said
    assert said.count("where that name is taken") == 1
