import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

from .conftest import Run


def put_stream(home: Path, reference: str, *chunks: bytes) -> None:
    with Store(home / "store") as store:
        writer = resumed(store.stream_writer(reference, attrs={"tag": reference, "policy": "p"}))
        for number, chunk in enumerate(chunks, start=1):
            writer.append(chunk, arrived_ns=number * 10**9, chunk_id=None, events=number)


def put_array(
    home: Path, reference: str, rows: NDArray[Any], times_ns: NDArray[np.int64], **attrs: Any
) -> None:
    with Store(home / "store") as store:
        writer = resumed(
            store.array_writer(reference, dtype=rows.dtype, row_shape=rows.shape[1:], attrs=attrs)
        )
        writer.append(rows, times_ns)


def test_streams_are_listed_one_a_line_for_programs(run: Run, home: Path) -> None:
    put_stream(home, "b", b"12", b"345")
    put_stream(home, "ä", b"")
    assert (
        run("ls").stdout
        == "b\t5\t2\t3\t1970-01-01T00:00:02.000Z\tp\nä\t0\t1\t1\t1970-01-01T00:00:01.000Z\tp\n"
    )
    assert run("ls", "streams").stdout == run("ls").stdout


def test_arrays_are_listed_with_shape_and_last_time(run: Run, home: Path) -> None:
    put_array(home, "s:spectrum", np.zeros((2, 3, 4), "<f4"), np.array([1, 1_500_000_000]))
    put_array(home, "s:score", np.zeros(0), np.zeros(0, np.int64))
    assert (
        run("ls", "arrays").stdout
        == "s:score\t0\t1\tfloat64\t\ns:spectrum\t2\t3×4\tfloat32\t1970-01-01T00:00:01.500Z\n"
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], b"0123456789"),
        (["--offset", "4"], b"456789"),
        (["--offset", "4", "--length", "3"], b"456"),
        (["--offset", "-3"], b"789"),
        (["--offset", "-30"], b"0123456789"),
        (["--length", "0"], b""),
        (["--offset", "10"], b""),
        (["--offset", "8", "--length", "99"], b"89"),
    ],
)
def test_cat_gives_the_bytes_requested(run: Run, home: Path, options: list[str], expected: bytes) -> None:
    put_stream(home, "digits", b"01234", b"56789")
    assert run("cat", "digits", *options).stdout_bytes == expected


def test_cat_behind_the_end_says_where_that_is(run: Run, home: Path) -> None:
    put_stream(home, "digits", b"0123456789")
    rejected = run("cat", "digits", "--offset", "11", exit_code=1)
    assert rejected.stderr.startswith("windvane: --offset 11: digits has 10 bytes; give at most 10")
    assert rejected.stdout == ""


def test_cat_gives_a_long_stream_whole(run: Run, home: Path) -> None:
    data = np.random.default_rng(1).bytes(3_000_001)
    put_stream(home, "long", data)
    assert run("cat", "long").stdout_bytes == data


ROWS = 50_000  # more than one piece
TIMES_NS = np.arange(ROWS, dtype=np.int64) * 1_000_000 + 1_700_000_000_000_000_001


def test_npy_is_the_array(run: Run, home: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((ROWS, 3, 2)).astype("<f4")
    put_array(home, "s:x", rows, TIMES_NS)
    assert "wrote 50,000 rows of s:x" in run("export", "s:x", str(tmp_path / "x.npy")).stderr
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows, strict=True)


def test_npy_holds_records_too(run: Run, home: Path, tmp_path: Path) -> None:
    rows = np.zeros(3, dtype=[("a", "<i4"), ("b", "S3")])
    rows["a"], rows["b"] = [1, 2, 3], [b"x", b"y", b"z"]
    put_array(home, "s:x", rows, TIMES_NS[:3])
    run("export", "s:x", str(tmp_path / "x.NPY"))
    np.testing.assert_array_equal(np.load(tmp_path / "x.NPY"), rows, strict=True)


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<i2"])
def test_csv_has_times_names_and_every_number_exactly(
    run: Run, home: Path, tmp_path: Path, dtype: str
) -> None:
    rows = (np.random.default_rng(1).standard_normal((ROWS, 2)) * 1000).astype(dtype)
    put_array(home, "s:x", rows, TIMES_NS, columns=["rms", 'a,"b"'])
    run("export", "s:x", str(tmp_path / "x.csv"))
    heading, *lines = csv.reader(io.StringIO((tmp_path / "x.csv").read_text(), newline=""))
    assert heading == ["time_ns", "rms", 'a,"b"']
    assert [int(line[0]) for line in lines] == TIMES_NS.tolist()
    np.testing.assert_array_equal(np.array([line[1:] for line in lines]).astype(dtype), rows)


def test_csv_names_what_has_no_name_by_its_place(run: Run, home: Path, tmp_path: Path) -> None:
    put_array(home, "s:matrix", np.zeros((1, 2, 2), "<i1"), TIMES_NS[:1])
    put_array(home, "s:number", np.zeros(1, "<i1"), TIMES_NS[:1])
    for name, heading in (("matrix", "time_ns,0.0,0.1,1.0,1.1"), ("number", "time_ns,value")):
        run("export", f"s:{name}", str(tmp_path / "x.csv"))
        assert (tmp_path / "x.csv").read_text().splitlines()[0] == heading


def test_parquet_has_a_column_for_each_name(run: Run, home: Path, tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((ROWS, 2))
    put_array(home, "s:x", rows, TIMES_NS, columns=["rms", "peak"], unit="g")
    run("export", "s:x", str(tmp_path / "x.parquet"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["time", "rms", "peak"]
    assert table["time"].cast("int64").to_pylist() == TIMES_NS.tolist()
    np.testing.assert_array_equal(table["peak"].to_numpy(), rows[:, 1])
    described = json.loads(table.schema.metadata[b"windvane"])
    assert (described["reference"], described["attrs"]["unit"]) == ("s:x", "g")


def test_parquet_holds_nameless_rows_as_lists(run: Run, home: Path, tmp_path: Path) -> None:
    rows = np.arange(3 * 2 * 2, dtype="<f4").reshape(3, 2, 2)
    put_array(home, "s:x", rows, TIMES_NS[:3])
    run("export", "s:x", str(tmp_path / "x.parquet"))
    table = pq.read_table(tmp_path / "x.parquet")
    assert table["values"].to_pylist() == rows.reshape(3, 4).tolist()
    assert json.loads(table.schema.metadata[b"windvane"])["row_shape"] == [2, 2]


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_an_array_without_rows_is_a_file_without_rows(
    run: Run, home: Path, tmp_path: Path, suffix: str
) -> None:
    put_array(home, "s:x", np.zeros((0, 2)), TIMES_NS[:0], columns=["a", "b"])
    run("export", "s:x", str(tmp_path / f"x.{suffix}"))
    if suffix == "npy":
        assert np.load(tmp_path / "x.npy").shape == (0, 2)
    elif suffix == "csv":
        assert (tmp_path / "x.csv").read_text() == "time_ns,a,b\n"
    else:
        assert pq.read_table(tmp_path / "x.parquet").num_rows == 0


def test_an_export_that_fails_leaves_no_file_and_the_old_one_as_it_was(
    run: Run, home: Path, tmp_path: Path
) -> None:
    put_array(home, "s:x", np.zeros((1, 2), dtype=[("a", "<i4")]), TIMES_NS[:1])
    (tmp_path / "x.csv").write_text("old")
    assert "only .npy can hold" in run("export", "s:x", str(tmp_path / "x.csv"), exit_code=1).stderr
    assert (
        "none of the suffixes .npy, .csv, .parquet"
        in run("export", "s:x", str(tmp_path / "x"), exit_code=1).stderr
    )
    nowhere = tmp_path / "none" / "x.npy"
    put_array(home, "s:y", np.zeros(1), TIMES_NS[:1])
    said = run("export", "s:y", str(nowhere), exit_code=1).stderr
    assert said.startswith(f"windvane: {nowhere} cannot be written: No such file or directory; name a file")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.csv"]
    assert (tmp_path / "x.csv").read_text() == "old"


def test_a_tag_that_is_spelt_otherwise_in_its_reference_is_named(
    run: Run, home: Path, tmp_path: Path
) -> None:
    put_stream(home, "j.\\x5cxff", b"12")
    put_array(home, "j.\\x5cxff:kw", np.zeros(2), np.arange(2))
    for command in (["cat", "j.\\xff"], ["reprocess", "j.\\xff"], ["verify", "j.\\xff"]):
        assert "that of the tag j.\\xff has the reference 'j.\\x5cxff'" in run(*command, exit_code=1).stderr
    exported = run("export", "j.\\xff:kw", str(tmp_path / "kw.npy"), exit_code=1)
    assert "has the reference 'j.\\x5cxff:kw'" in exported.stderr
    assert "has the reference" not in run("cat", "j.\\xfe", exit_code=1).stderr
    assert (
        "has the reference" not in run("export", "j.\\xff:other", str(tmp_path / "o.npy"), exit_code=1).stderr
    )
    assert run("cat", "j.\\x5cxff").stdout_bytes == b"12"


NOVEMBER_NS = 1_793_491_200_000_000_000  # 2026-11-01T00:00Z


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--start", "2026-11-01T00:00Z"], slice(2, None)),
        (["--start", "2026-11-01T00:00:01Z", "--stop", "2026-11-01T00:00:03+00:00"], slice(3, 5)),
        (["--stop", str(NOVEMBER_NS + 1)], slice(0, 3)),
        (["--start", "1", "--stop", "-1"], slice(1, -1)),
        (["--start", "2030-01-01"], slice(6, 6)),
    ],
)
def test_an_export_is_of_the_rows_between_two_times(
    run: Run, home: Path, tmp_path: Path, options: list[str], expected: slice
) -> None:
    rows = np.arange(12, dtype="<i4").reshape(6, 2)
    put_array(home, "s:x", rows, NOVEMBER_NS + (np.arange(6) - 2) * 10**9)
    said = run("export", "s:x", str(tmp_path / "x.npy"), *options).stderr
    assert f"wrote {len(rows[expected])} row" in said
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows[expected], strict=True)


def test_a_bound_that_is_not_valid_is_a_mistake_of_usage(run: Run, home: Path, tmp_path: Path) -> None:
    put_array(home, "s:x", np.zeros(3), TIMES_NS[:3])
    rejected = run("export", "s:x", str(tmp_path / "x.npy"), "--start", "yesterday", exit_code=2)
    assert "Invalid value for '--start': 'yesterday' is neither a whole number nor a time" in rejected.stderr
    assert not (tmp_path / "x.npy").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--start", "1970-01-01T00:00:02Z"], b"56789"),
        (["--stop", "1970-01-01T00:00:02Z"], b"01234"),
        (["--start", "1970-01-01T00:00:02Z", "--length", "2"], b"56"),
        (["--start", "3", "--stop", "1970-01-01T00:00:02Z"], b"34"),
        (["--start", "2026-11-01"], b""),
    ],
)
def test_cat_selects_by_time_of_arrival(run: Run, home: Path, options: list[str], expected: bytes) -> None:
    put_stream(home, "digits", b"01234", b"56789")
    assert run("cat", "digits", *options).stdout_bytes == expected


def test_cat_takes_an_end_or_a_length(run: Run, home: Path) -> None:
    put_stream(home, "digits", b"0123456789")
    assert "exclude each other" in run("cat", "digits", "--stop", "3", "--length", "3", exit_code=1).stderr
