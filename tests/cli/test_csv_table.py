"""Tables are understood as their writers mean them, and no cell is changed on its way."""

import csv
import io
import json
import math
import re
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.commands.sources.chunks import Losses
from windvane.commands.sources.csv_table import Table, TableOptions, open_table
from windvane.errors import InputInvalid
from windvane.records.events import iterate_events

from tests.cli.conftest import Run


def as_text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


class Read:
    """A table that was sent, from a file or through a pipe whose reads end at `cuts`."""

    table: Table

    def __init__(self, data: str | bytes, *, cuts: list[int] | None = None, **options: Any) -> None:
        encoded = data if isinstance(data, bytes) else data.encode()
        self.losses = Losses()
        source = io.BytesIO(encoded)
        ends = sorted({0, *(cut % (len(encoded) + 1) for cut in cuts or []), len(encoded)})
        pieces = [encoded[begin:end] for begin, end in pairwise(ends)]
        read: Callable[[int], bytes] = source.read
        rewind: Callable[[], Any] | None = lambda: source.seek(0)  # noqa: E731
        if cuts is not None:
            read, rewind = lambda _: pieces.pop(0) if pieces else b"", None
        self.table = open_table(read, TableOptions(**options), rewind=rewind)
        batches = self.table.chunks(chunk_bytes=100, losses=self.losses, clock_ns=lambda: 7)
        payload = b"".join(chunk.payload for batch in batches for chunk in batch)
        self.times_ns: list[int] = []
        self.records: list[dict[str, Any]] = []
        for ns, record in iterate_events(payload):
            self.times_ns.append(ns)
            self.records.append({as_text(key): as_text(value) for key, value in record.items()})

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.table.columns}

    def column(self, name: str) -> list[Any]:
        return [record[name] for record in self.records]


# The dialect


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a,b\n1,2.5\n", "comma"),
        ("a, b\n1, 2.5\n", "comma and blanks"),
        ("a,b\n1, 2.5\n", "comma and blanks"),
        ("a;b\r\n1;2.5\r\n", "semicolon"),
        ("a; b\n1; 2,5\n", "semicolon and blanks"),
        ("a;b\n1;2,5\n", "semicolon"),
        ("a\tb\n1\t2.5\n", "tab"),
        ("a|b\n1|2.5\n", "pipe"),
        ("a | b\n1 | 2.5\n", "pipe between blanks"),
        ("sep=;\r\na;b\r\n1;2.5\r\n", "semicolon"),
        ("\ufeffsep=|\na|b\n1|2.5\n", "pipe"),
        ("\ufeffa;b\r\n1;2.5\r\n", "semicolon"),
        ('"a";"b"\n"1";"2.5"\n', "semicolon"),
        ("\n\na;b\n\n1;2.5\n\n", "semicolon"),
        ("a,b,\n1,2.5,\n", "comma"),
    ],
)
@pytest.mark.parametrize("cuts", [None, []], ids=["file", "pipe"])
def test_the_delimiter_is_found_out(data: str, said: str, cuts: list[int] | None) -> None:
    read = Read(data, cuts=cuts)
    assert str(read.table.dialect) == said
    assert read.records == [{"a": 1, "b": 2.5}]


@pytest.mark.parametrize(
    ("data", "records"),
    [
        ("time;power (kW, mean);x\n1;2,5;3\n4;5,5;6\n", [[1, 2.5, 3], [4, 5.5, 6]]),
        ("a\tb,c\n1\tx,y\n", [[1, "x,y"]]),
        ('a,b\n1,"x;y;z"\n', [[1, "x;y;z"]]),
        ('a, b\n1, "x, y"\n', [[1, "x, y"]]),
        ('a,b\n1, "x, y"\n', [[1, "x, y"]]),
        ('a;b\n"1,5";"line 1\nline 2"\n', [[1.5, "line 1\nline 2"]]),
        ('a,b\n"1,5","say ""x"""\n', [[1.5, 'say "x"']]),
        ("a\n1\n2\n", [[1], [2]]),
        ("a,b\n 1 ,  x\n", [[1, "x"]]),
        ("a,b\n1,x y \n", [[1, "x y "]]),
        ("a,b\n1,  x\n2,y\n", [[1, "  x"], [2, "y"]]),
        (",a\n0,1\n", [[0, 1]]),
        ("a,b,\n1,2,3\n", [[1, 2, 3]]),
    ],
)
def test_cells_come_out_whole(data: str, records: list[list[Any]]) -> None:
    assert [[*record.values()] for record in Read(data).records] == records


def test_a_column_without_a_name_is_called_by_its_number() -> None:
    assert [*Read(",a\n0,1\n").types] == ["column1", "a"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_an_encoding_with_a_mark_is_known(encoding: str) -> None:
    assert Read("größe\tb\nä\t1\n".encode(encoding)).records == [{"größe": "ä", "b": 1}]


def test_another_encoding_is_reported_and_can_be_given() -> None:
    data = "grad;v\n1;20 °C\n2;30 K\n".encode("cp1252")
    read = Read(data)
    assert read.column("v") == ["30 K"]
    assert "the first is line 2: not UTF-8; give --encoding, for example cp1252" in str(read.losses)
    assert Read(data, encoding="cp1252").column("v") == ["20 °C", "30 K"]
    with pytest.raises(InputInvalid, match="line 1 must name the columns: not UTF-8; give --encoding"):
        Read("größe;v\n1;2\n".encode("cp1252"))


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)] * 2),
        max_size=8,
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 500), max_size=8) | st.none(),
)
def test_any_text_comes_out_as_it_is_however_it_is_read(
    rows: list[tuple[str, str]], delimiter: str, end: str, cuts: list[int] | None
) -> None:
    text = io.StringIO()
    table = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator=end)
    table.writerows([("a", "b"), *((f"x{a}", f"x{b}") for a, b in rows)])
    read = Read(text.getvalue(), cuts=cuts, types={"a": "text", "b": "text"})
    assert [(each["a"], each["b"]) for each in read.records] == [(f"x{a}", f"x{b}") for a, b in rows]


# The types


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-2", "0"], "integer"),
        (["9223372036854775807", "-9223372036854775808"], "integer"),
        (["9223372036854775808", "18446744073709551615"], "integer"),
        (["20260101", "20260102"], "integer"),
        (["", "5"], "integer"),
        (["+1", "-1"], "integer"),
        (["1.5", "2", "-0"], "float"),
        (["12.50", ".5", "5."], "float"),
        (["1e-05", "1.5E3", "2e+16"], "float"),
        (["0.1", "0.30000000000000004"], "float"),
        (["1.000000000000000056e-01"], "float"),
        (["1.5", "NaN", "inf", "-Infinity"], "float"),
        (["+1.5", "+2"], "float"),
        (["", " "], "empty"),
        # what could not be given back
        (["00042", "1"], "text"),
        (["1", "2", "007"], "text"),
        (["-01"], "text"),
        (["00.5"], "text"),
        (["61e9540"], "text"),
        (["61e95"], "text"),
        (["002e1234"], "text"),
        (["1e400"], "text"),
        (["1.5e400", "1.5"], "text"),
        (["1.5e-400"], "text"),
        (["18446744073709551616"], "text"),
        (["-9223372036854775809"], "text"),
        (["1.5", "9007199254740993"], "text"),
        (["0.1234567890123456789"], "text"),
        (["+4915112345678"], "text"),
        (["nan"], "text"),
        (["1", "nan"], "text"),
        (["Inf", "Nan"], "text"),
        (["1_000"], "text"),
        (["١٢"], "text"),
        (["0x10"], "text"),
        (["1 000"], "text"),
        (["1.2.3"], "text"),
        (["2026-01-01"], "text"),
        (["true", "false"], "text"),
        (["-"], "text"),
        (["."], "text"),
    ],
)
@pytest.mark.parametrize("cuts", [None, []], ids=["file", "pipe"])
def test_a_column_is_numeric_only_if_each_cell_can_be_given_back(
    cells: list[str], kind: str, cuts: list[int] | None
) -> None:
    read = Read("n;v\n" + "".join(f"{n};{cell}\n" for n, cell in enumerate(cells)), cuts=cuts)
    assert read.types["v"] == kind
    found = read.column("v")
    if kind == "text":
        assert found == cells
    elif kind == "empty":
        assert found == [None] * len(cells)
    else:
        wanted = {"integer": int, "float": float}[kind]
        assert [repr(each) for each in found] == [repr(wanted(cell)) if cell else "None" for cell in cells]


_number = (
    st.integers(-(2**70), 2**70).map(str)
    | st.floats().map(repr)
    | st.floats(width=32).map(lambda value: f"{value:.6g}")
    | st.decimals(allow_nan=False, allow_infinity=False).map(str)
    | st.from_regex(r"[+-]?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,4})?", fullmatch=True)
)


@given(st.lists(_number.filter(bool), min_size=1, max_size=4))
@settings(max_examples=300)
def test_whatever_looks_like_a_number_keeps_its_value_or_its_text(cells: list[str]) -> None:
    read = Read("n;v\n" + "".join(f"1;{cell}\n" for cell in cells))
    found = read.column("v")
    assert not read.losses.lines
    for cell, value in zip(cells, found, strict=True):
        if isinstance(value, str):
            assert value == cell
        elif math.isfinite(value):
            digits = max(1, len(cell.lower().split("e")[0].replace(".", "").lstrip("+-0")))
            assert Decimal(cell) == (value if isinstance(value, int) else Decimal(f"{value:.{digits - 1}e}"))
            assert not re.match("[+-]?0[0-9]", cell)
        else:
            assert cell.lstrip("+-").lower() in ("nan", "inf", "infinity")


@pytest.mark.parametrize(
    ("cells", "mark", "values"),
    [
        (["1,5", "2"], None, [1.5, 2.0]),
        (["1234,567"], None, [1234.567]),
        (["0,125"], None, [0.125]),
        (["-1,5e+03"], None, [-1500.0]),
        (["1,5", "1,234"], None, [1.5, 1.234]),
        (["1,234"], None, ["1,234"]),
        (["1,234", "5"], "," , [1.234, 5.0]),
        (["1,5"], ".", ["1,5"]),
        (["1,5", "2.5"], None, ["1,5", "2.5"]),
        (["1.234,5"], None, ["1.234,5"]),
        (["1,234,567"], None, ["1,234,567"]),
        (["1,"], None, ["1,"]),
        (["1.234"], ",", ["1.234"]),
        (["1.234"], None, [1.234]),
    ],
)  # fmt: skip
def test_a_decimal_comma_counts_only_if_it_can_be_nothing_else(
    cells: list[str], mark: Any, values: list[Any]
) -> None:
    read = Read("n;v\n" + "".join(f"1;{cell}\n" for cell in cells), mark=mark)
    assert read.column("v") == values


def test_one_column_with_decimal_commas_speaks_for_the_others() -> None:
    read = Read("a;b;c\n1,5;1,234;1.234\n")
    assert read.records == [{"a": 1.5, "b": 1.234, "c": "1.234"}]


def test_an_empty_cell_is_null_in_a_column_of_numbers_and_empty_in_one_of_text() -> None:
    read = Read("n,v,s\n,1.5,\n3,,x\n")
    assert read.records == [{"n": None, "v": 1.5, "s": ""}, {"n": 3, "v": None, "s": "x"}]


@pytest.mark.parametrize("size", [128 * 1024 + 1, 1_000_000, 9_000_000])
def test_a_cell_may_have_any_size_below_the_bound_of_a_line(size: int) -> None:
    assert Read(f"a,b\n1,{'x' * size}\n").column("b") == ["x" * size]


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("text", "00042", "00042"),
        ("text", "", ""),
        ("integer", "00042", 42),
        ("integer", "+7", 7),
        ("integer", "", None),
        ("integer", "1.5", "1.5"),
        ("integer", "18446744073709551616", "18446744073709551616"),
        ("float", "61e95", 61e95),
        ("float", "0.1234567890123456789", 0.1234567890123456789),
        ("float", "-inf", -math.inf),
        ("float", "1e400", "1e400"),
        ("float", "1,5", "1,5"),
        ("bool", "true", True),
        ("bool", "No", False),
        ("bool", "0", False),
        ("bool", "2", "2"),
        ("time", "2026-09-21T14:13:20.000000007Z", 1_790_000_000_000_000_007),
        ("time", "noon", "noon"),
    ],
)
def test_a_given_type_is_kept_and_what_does_not_fit_stays_text(kind: Any, cell: str, value: Any) -> None:
    read = Read(f'n,v\n1,1\n2,"{cell}"\n', types={"v": kind})
    found = read.column("v")[1]
    assert (type(value) if kind != "time" else int, found) == (
        (type(found) if kind != "time" else int),
        value,
    )
    is_misfit = isinstance(value, str) and kind != "text"
    assert read.table.has_given_misfits == is_misfit
    if is_misfit:
        (said,) = read.table.misfits()
        assert said.startswith(f"column 'v': 1 of its cells is not of type {kind} and went as text")
        assert said.endswith("in line 3")


# The time


@pytest.mark.parametrize(
    ("cell", "ns"),
    [
        ("20260101", 1_767_225_600_000_000_000),
        ("20260101120000", 1_767_268_800_000_000_000),
        ("1790000000.123456789", 1_790_000_000_123_456_789),
        ("1790000000123", 1_790_000_000_123_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),
        (" 2026-09-21 14:13:20 ", 1_790_000_000_000_000_000),
    ],
)
def test_the_time_field_is_the_time_and_leaves_the_record(cell: str, ns: int) -> None:
    read = Read(f"t,v\n{cell},1\n", time_field="t")
    assert (read.times_ns, read.records) == ([ns], [{"v": 1}])
    kept = Read(f"t,v\n{cell},1\n", time_field="t", keep_time_field=True)
    assert (kept.times_ns, [*kept.records[0]]) == ([ns], ["t", "v"])


def test_a_time_may_have_a_decimal_comma_where_numbers_have() -> None:
    assert Read("t;v\n1790000000,25;1,5\n", time_field="t").times_ns == [1_790_000_000_250_000_000]


def test_without_a_time_field_it_is_now_and_a_column_that_looks_like_one_is_named() -> None:
    read = Read("date,v\n2026-01-01,1\n")
    assert read.times_ns == [7]
    assert "time: now; 'date' looks like a time: --time-field 'date'" in read.table.describe()
    assert "time: now" in Read("n,v\n20260101,1\n").table.describe()


# Reports of records that are lost


@pytest.mark.parametrize(
    ("data", "records", "said"),
    [
        (
            "a,b\n1,2\n3\n5,6\n",
            2,
            "1 line was not sent; the first is line 3: it has 1 cell, line 1 names 2 col",
        ),
        ("a,b\n1,2\n3,4,5\n5,6\n", 2, "line 3: it has 3 cells"),
        ('a,b\n1,2\n"3"x,4\n5,6\n', 2, "line 3: not valid CSV"),
        ('a,b\n1,2\n5,6\n"3,4\n7,8\n', 2, "2 lines were not sent; the first is lines 4 to 5: not valid CSV"),
        ("a,b\n1,2\n1,\xff\n3\n", 1, "2 lines were not sent; the first is line 3: not UTF-8"),
    ],
)
@pytest.mark.parametrize("cuts", [None, [], [12]], ids=["file", "pipe", "slow pipe"])
def test_a_row_that_cannot_be_one_is_reported_and_the_others_continue(
    data: str, records: int, said: str, cuts: list[int] | None
) -> None:
    read = Read(data.encode("latin-1"), cuts=cuts)
    assert len(read.records) == records
    assert said in str(read.losses)


def test_a_row_without_a_time_is_reported_with_its_line() -> None:
    read = Read("t,v\n1,2\nnoon,3\n,4\n5,6\n", time_field="t")
    assert read.column("v") == [2, 6]
    assert str(read.losses).startswith(
        "2 lines were not sent; the first is line 3: 'noon' is not a valid time"
    )


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        ("a,a\n1,2\n", {}, "line 1 must name each column once, but reads a,a"),
        ("1,2\n3,4\n", {}, "line 1 must name the columns, but holds only numbers: 1, 2"),
        ("a,b\n1,2\n", {"time_field": "t"}, "there is no column 't'; there are a, b"),
        ("a,b\n1,2\n", {"types": {"c": "text"}}, "there is no column 'c'; there are a, b"),
        ('"a,b\n1,2\n', {}, "line 1 must name the columns: not valid CSV"),
        (b"\x80a,b\n1,2\n", {}, "line 1 must name the columns: not UTF-8"),
        (b"\x81", {"encoding": "ascii"}, "it is not ascii"),
    ],
)
def test_what_is_not_a_table_is_not_sent_at_all(data: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputInvalid, match=said):
        Read(data, **options)


@pytest.mark.parametrize("data", ["", "\n", "a,b\n", "a,b"])
def test_a_table_without_rows_has_no_events(data: str) -> None:
    read = Read(data)
    assert (read.records, read.losses.lines) == ([], 0)


# Pipes


def test_in_a_pipe_a_later_cell_that_does_not_fit_goes_as_text() -> None:
    first = "n,v,e,x\n1,1.5,,1\n"
    read = Read(f"{first}2,2,5,2.5\n00042,61e9540,x,inf\n", cuts=[len(first)])
    assert [[*each.values()] for each in read.records] == [
        [1, 1.5, None, 1],
        [2, 2.0, 5, 2.5],
        ["00042", "61e9540", "x", "inf"],
    ]
    assert read.types == {"n": "integer", "v": "float", "e": "integer", "x": "integer"}
    assert read.losses.lines == 0
    assert [line[:40] for line in read.table.misfits()] == [
        "column 'n': 1 of its cells is not of typ",
        "column 'v': 1 of its cells is not of typ",
        "column 'e': 1 of its cells is not of typ",
        "column 'x': 1 of its cells is not of typ",
    ]
    assert not read.table.has_given_misfits


@given(st.lists(st.integers(0, 60), max_size=8))
def test_however_a_pipe_is_cut_no_value_is_lost(cuts: list[int]) -> None:
    data = 'n;v;s\n1;2,5;x\n\n2;"3,5";"a\nb"\n00042;4;\n'
    read = Read(data, cuts=cuts)
    assert [str(value) for value in read.column("n")] in (["1", "2", "00042"],)
    assert read.column("s") == ["x", "a\nb", ""] or read.column("s") == ["x", "a\nb", None]
    assert [float(str(each)) for each in read.column("v")] == [2.5, 3.5, 4.0]


def test_what_a_slow_pipe_has_given_goes_out_before_the_next_read() -> None:
    arrived = [b"a,b\n", b"1,2\n3,", b"4\n", b""]
    table = open_table(lambda _: arrived.pop(0), TableOptions(), rewind=None)
    assert len(arrived) == 2
    batches = table.chunks(chunk_bytes=10**6, losses=Losses())
    got = [len([*iterate_events(chunk.payload)]) for chunk in next(b for b in batches if b)]
    assert (got, len(arrived)) == ([1], 2)


def test_memory_does_not_grow_with_the_file() -> None:
    rows = 4000
    line = b"%d,2.5," + b"x" * 4000 + b"\n"
    state = {"at": 0}

    def read(_: int) -> bytes:
        at = state["at"]
        state["at"] = min(at + 100, rows)
        head = b"n,v,s\n" if at == 0 else b""
        return head + b"".join(line % n for n in range(at, state["at"])) if at < rows else b""

    losses = Losses()
    tracemalloc.start()
    table = open_table(read, TableOptions(), rewind=lambda: state.update(at=0))
    events = sum(c.events for batch in table.chunks(chunk_bytes=65536, losses=losses) for c in batch)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (events, losses.lines, table.rows) == (rows, 0, rows)
    assert peak_bytes < 6_000_000  # of 16 MB


# The command


def test_a_dry_run_shows_what_was_understood_and_sends_nothing(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("t;kw;id\n20260101;1,5;00042\n20260102;2,5;00043\n20260103;3;1\n20260104;4;2\n")
    done = run("send", "x", str(file), "--format", "csv", "--time-field", "t", "--dry-run")
    assert done.stderr.splitlines() == [
        "delimiter: semicolon; decimal comma; 4 rows",
        "time: 't', not in the records; the first is 2026-01-01T00:00:00Z",
        "column: kw  float",
        "column: id  text  (line 2: '00042' is not a number that can be given back)",
        "would send 4 events in 1 chunk; nothing was sent",
    ]
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert shown[0] == {"time": "2026-01-01T00:00:00.000000000Z", "record": {"kw": 1.5, "id": "00042"}}
    assert len(shown) == 3


@pytest.mark.parametrize("format", ["jsonl", "lines", "raw"])
def test_a_dry_run_is_for_each_format(run: Run, tmp_path: Path, format: str) -> None:
    file = tmp_path / "x"
    file.write_text('{"a": 1}\n')
    done = run("send", "x", str(file), "--format", format, "--dry-run")
    assert done.stderr == "would send 1 event in 1 chunk; nothing was sent\n"


def test_the_exit_code_is_not_0_if_rows_were_lost_or_a_given_type_did_not_hold(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n3\n")
    lost = run("send", "x", str(file), "--format", "csv", "--dry-run", exit_code=1)
    assert f"windvane: {file}: 1 line was not sent; the first is line 3" in lost.stderr
    file.write_text("a,b\n1,2\nx,3\n")
    run("send", "x", str(file), "--format", "csv", "--dry-run")
    misfit = run("send", "x", str(file), "--format", "csv", "--dry-run", "--type", "a=integer", exit_code=1)
    assert "column 'a': 1 of its cells is not of type integer and went as text" in misfit.stderr


# What is not plain text with LF


@pytest.mark.parametrize("cuts", [None, [], [4], [5, 9]], ids=["file", "pipe", "slow pipe", "slower pipe"])
def test_lines_may_all_end_in_cr(cuts: list[int] | None) -> None:
    read = Read('a,b\r1,"x\ry"\r\r3,z\r', cuts=cuts)
    assert read.records == [{"a": 1, "b": "x\ry"}, {"a": 3, "b": "z"}]
    assert str(Read("a,b\r1,2\r3\r", cuts=cuts).losses).startswith(
        "1 line was not sent; the first is line 3: it has"
    )
    assert Read('a,"b\rc"', cuts=cuts).types == {"a": "empty", "b\rc": "empty"}


def test_a_cr_among_lines_that_end_in_lf_is_reported_in_plain_words() -> None:
    read = Read("a,b\n1,2\r3\n4,5\n")
    assert read.records == [{"a": 4, "b": 5}]
    assert "line 2: not valid CSV: a CR is in a cell without quotes, but lines end in LF" in str(read.losses)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize(
    "data", ["a,v\nf,1\n", "\u6642;\u98a8\n" + "\u6771;1\n" * 50, "t;v\r\n" * 9000], ids=len
)
@pytest.mark.parametrize("cuts", [None, []], ids=["file", "pipe"])
def test_utf16_without_a_mark_is_rejected_and_can_be_given(
    data: str, encoding: str, cuts: list[int] | None
) -> None:
    with pytest.raises(InputInvalid, match=f"many NUL bytes.*give --encoding {encoding}"):
        Read(data.encode(encoding), cuts=cuts)
    assert Read(data.encode(encoding), cuts=cuts, encoding=encoding).records == Read(data).records


def test_a_few_nul_bytes_are_text() -> None:
    assert Read("a,b\nx\0y,1\nz\0\0,2\n").column("a") == ["x\0y", "z\0\0"]


def test_a_name_that_a_column_without_one_would_get_is_reported() -> None:
    with pytest.raises(
        InputInvalid, match="column 2 has no name and would be called column2, which is the name of column 1"
    ):
        Read("column2,,b\n1,2,3\n")


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("title", ["Report of May\n\n", "Report of May\n", "# logger\n# version 2\n"])
@pytest.mark.parametrize("cuts", [None, []], ids=["file", "pipe"])
def test_a_title_above_the_names_is_reported(mark: str, title: str, cuts: list[int] | None) -> None:
    table = title + "\n".join(mark.join(row) for row in ("abc", "123", "4x6")) + "\n"
    number = title.count("\n") + 1
    with pytest.raises(
        InputInvalid, match=f"line 1 .* looks like a title.*from line {number} on there are 3 cells"
    ):
        Read(table, cuts=cuts)


@pytest.mark.parametrize(
    "data", ["note\na; b\nc; d\n", "v\n1\n2\n", "v\n1,5\n2,5\n", "text\nx; 1\ny\nz; 2\n"]
)
def test_a_single_column_is_not_taken_for_a_title(data: str) -> None:
    assert [*Read(data).types] == [data.split("\n")[0]]


@pytest.mark.parametrize(
    ("options", "record"),
    [
        (["--delimiter", ","], {"a;b": "1;2"}),
        (["--delimiter", "comma"], {"a;b": "1;2"}),
        (["--delimiter", ";"], {"a": 1, "b": 2}),
        (["--delimiter", "\\t"], {"a;b": "1;2"}),
        (["--delimiter", "\t"], {"a;b": "1;2"}),
        (["--delimiter", "|", "--decimal", ","], {"a;b": "1;2"}),
        (["--decimal", "."], {"a": 1, "b": 2}),
    ],
)
def test_a_mark_may_be_given_as_itself(
    run: Run, tmp_path: Path, options: list[str], record: dict[str, Any]
) -> None:
    (tmp_path / "t.csv").write_text("a;b\n1;2\n")
    shown = run("send", "tag", str(tmp_path / "t.csv"), "--format", "csv", "--dry-run", *options)
    assert json.dumps(record) in shown.stdout or json.dumps(record, separators=(",", ":")) in shown.stdout
    assert (
        "is not one of" in run("send", "tag", str(tmp_path / "t.csv"), "--delimiter", ":", exit_code=2).stderr
    )
