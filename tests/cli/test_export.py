"""`windvane export`: ranges, columns, folders, and what an export that ends early leaves."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import zarr
from windvane.commands.export import FORMAT_NAMES
from windvane.store.export.formats import FORMATS
from windvane.web.app import api_description

from tests.docs.snippets import ROOT, snippets_of
from tests.processes import started, wait_until

from .conftest import Run
from .test_data import TIMES_NS, put_array, put_stream

ROWS = np.arange(12, dtype="<f4").reshape(6, 2)


def fill(home: Path) -> None:
    """Two streams of the policy `p`, with two outputs each, and an array that Parquet cannot hold."""
    for number, stream in enumerate(["park.t1", "park/t 2"]):
        put_stream(home, stream, b"1")
        put_array(home, f"{stream}:features", ROWS + number, TIMES_NS[:6] + number, columns=["rms", "peak"])
        put_array(home, f"{stream}:score", ROWS[:3, 0] + number, TIMES_NS[:3])
    put_array(home, "park.t1:phase", np.zeros(3, "<c8"), TIMES_NS[:3])


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_stream_is_a_folder_with_a_file_for_each_array(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    said = run("export", "park.t1", str(tmp_path / "out")).stderr
    assert files_in(tmp_path / "out") == {
        "features/stream=park.t1/rows.parquet",
        "score/stream=park.t1/rows.parquet",
    }
    assert "left out park.t1:phase: the column 'value' is complex64, which Parquet cannot hold" in said
    assert said.endswith(f"wrote 2 arrays to {tmp_path / 'out'}\n")


def test_a_policy_is_a_folder_of_all_its_streams_in_any_format(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    for name, suffix in (("parquet", ".parquet"), ("arrow", ".arrow"), ("csv", ".csv"), ("npy", ".npy")):
        run("export", "--policy", "p", str(tmp_path / name), "--format", name)
        expected = {
            f"{output}/stream={stream}/rows{suffix}"
            for output in ("features", "score")
            for stream in ("park.t1", "park%2Ft%202")
        }
        assert files_in(tmp_path / name) - {f"phase/stream=park.t1/rows{suffix}"} == expected
    run("export", "--policy", "p", str(tmp_path / "z"), "--format", "zarr", "--column", "rms")
    group: Any = zarr.open_group(tmp_path / "z" / "features" / "stream=park.t1" / "rows.zarr", mode="r")
    np.testing.assert_array_equal(group["rms"][:], ROWS[:, 0])


def test_several_arrays_are_a_folder(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    run("export", "park.t1:score", "park/t 2:features", str(tmp_path / "out"), "--start", "1", "--stop", "3")
    assert pq.read_table(tmp_path / "out" / "score").num_rows == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["OUT"], "nothing to export"),
        (["--policy", "none", "OUT"], "no stream has the policy 'none'"),
        (["park.t9", "OUT"], "park.t9"),
        (["bare", "OUT"], "bare: no arrays"),
        (["park.t1:phase", "park.t1:phase2", "OUT"], "phase2"),
        (["park.t1", "OUT", "--format", "wav"], "none of these arrays can be exported as wav"),
        (
            ["park.t1:score", "OUT.txt"],
            "none of the suffixes .npy, .csv, .parquet, .arrow, .zarr.zip",
        ),
        (["park.t1:score", "OUT.npy", "--column", "x"], "park.t1:score has no column 'x'; it has value"),
        (["park.t1:features", "OUT.npy", "--column", "rms", "--column", "peak"], "choose one column"),
    ],
)
def test_a_mistake_is_said_and_leaves_nothing(
    run: Run, home: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    fill(home)
    put_stream(home, "bare", b"1")
    out = tmp_path / "out"
    out.mkdir()
    given = [str(out / each) if each.startswith("OUT") else each for each in arguments]
    assert said in run("export", *given, exit_code=1).stderr
    assert list(out.iterdir()) == []


def test_a_directory_is_never_replaced(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    for arguments in (["park.t1"], ["park.t1:score"]):
        target = tmp_path / "x.zarr"
        target.mkdir(exist_ok=True)
        (target / "mine").touch()
        assert "does not replace a directory" in run("export", *arguments, str(target), exit_code=1).stderr
        assert files_in(target) == {"mine"}


def test_the_command_and_the_route_offer_the_formats_that_there_are() -> None:
    assert (*FORMATS,) == FORMAT_NAMES
    [described] = [
        each["schema"]["enum"]
        for each in api_description()["paths"]["/api/v1/arrays/{ref}/export"]["get"]["parameters"]
        if each["name"] == "format"
    ]
    assert set(described) == set(FORMATS)


def test_the_format_option_goes_before_the_suffix(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    run("export", "park.t1:score", str(tmp_path / "score.data"), "--format", "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "score.data"), ROWS[:3, 0])


@pytest.mark.system
@pytest.mark.parametrize("name", ["x.csv", "x.zarr", "folder"])
def test_ctrl_c_leaves_no_file_and_the_old_one_as_it_was(home: Path, tmp_path: Path, name: str) -> None:
    rows = np.zeros((3_000_000, 2))
    put_stream(home, "s", b"1")
    put_array(home, "s:x", rows, np.arange(len(rows)))
    out = tmp_path / "out"
    out.mkdir()
    if name == "x.csv":
        (out / name).write_text("old")
    before = files_in(out)
    what = ["s", "--format", "csv"] if name == "folder" else ["s:x"]
    command = [sys.executable, "-m", "windvane.cli", "export", *what, str(out / name)]
    environment = {**os.environ, "WINDVANE_HOME": str(home)}
    with started(command, env=environment, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: any(".part" in path for path in files_in(out)), "the draft")
        process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert files_in(out) == before
    assert [path.name for path in out.iterdir()] == [Path(each).name for each in before]


def test_duckdb_and_polars_read_a_folder_as_the_documentation_shows(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(home)
    monkeypatch.chdir(tmp_path)
    page = list(snippets_of(ROOT / "docs" / "export.md"))
    [command] = [each.text for each in page if "--policy" in each.text and each.language == "sh"]
    run(*command.replace("turbine ", "p ").split()[1:])
    found = {}
    for snippet in page:
        if snippet.language == "python" and re.search(r"import (duckdb|polars)", snippet.text):
            names: dict[str, object] = {}
            exec(snippet.text, names)
            found[snippet.text.split()[1]] = names["peaks"]
    by_duckdb, by_polars = found["duckdb"], found["polars"]
    assert by_duckdb == [("park.t1", 11.0), ("park/t 2", 12.0)]
    assert isinstance(by_polars, pl.DataFrame)
    assert by_polars.rows() == by_duckdb


def test_duckdb_and_polars_see_the_times_to_the_nanosecond(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    run("export", "--policy", "p", str(tmp_path / "out"))
    files = str(tmp_path / "out" / "features" / "*" / "*.parquet")
    times_ns = sorted([*TIMES_NS[:6].tolist(), *(TIMES_NS[:6] + 1).tolist()])
    frame = pl.scan_parquet(files, hive_partitioning=True).sort("time").collect()
    assert frame["time"].dt.timestamp("ns").to_list() == times_ns
    rows = duckdb.execute(f"SELECT epoch_ns(time) FROM read_parquet('{files}') ORDER BY time").fetchall()
    assert [time_ns for (time_ns,) in rows] == times_ns


def test_the_attributes_are_in_the_files(run: Run, home: Path, tmp_path: Path) -> None:
    fill(home)
    run("export", "park.t1", str(tmp_path / "out"))
    schema = pq.read_schema(tmp_path / "out" / "features" / "stream=park.t1" / "rows.parquet")
    assert json.loads(schema.metadata[b"windvane"])["attrs"] == {"columns": ["rms", "peak"]}
