"""`windvane ls --usage`: bytes by policy, stream and array, and what retention drops next."""

import time
from pathlib import Path

import numpy as np
import pytest
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

from .conftest import Run

SEGMENT_BYTES = 4096
NOW_NS = time.time_ns() // 1_000_000_000 * 1_000_000_000
HOUR_NS = 3_600_000_000_000


@pytest.fixture
def recorded(home: Path, run: Run) -> None:
    """A stream and an array of policy p, with two and a half segments, half an hour each."""
    home.mkdir(exist_ok=True)
    (home / "p.toml").write_text(
        '[[policy]]\nreference = "p"\ntags = ["t"]\nretention = { stream_hours = 10, array_hours = 1.25 }\n'
        '[[policy]]\nreference = "q"\ntags = ["u"]\nretention = { bytes = 1048576 }\n'
    )
    assert run("apply", str(home / "p.toml")).exit_code == 0
    with Store(home / "store", segment_bytes=SEGMENT_BYTES) as store:
        for tag, policy in (("t", "p"), ("u", "q")):
            with resumed(store.stream_writer(tag, attrs={"tag": tag, "policy": policy})) as stream:
                for half_hour in range(5):
                    stream.append(bytes(2048), arrived_ns=_at(half_hour), chunk_id=None, events=half_hour + 1)
            rows = np.zeros((5 * 256,), "<f8")
            times_ns = np.repeat([_at(half_hour) for half_hour in range(5)], 256)
            with resumed(store.array_writer(f"{tag}:out", dtype=rows.dtype, row_shape=(), attrs={})) as array:
                array.append(rows, times_ns)


def _at(half_hour: int) -> int:
    return NOW_NS - 2 * HOUR_NS + half_hour * HOUR_NS // 2


def _text(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time_ns // 1_000_000_000))


@pytest.mark.usefixtures("recorded")
def test_each_stream_and_array_says_what_is_dropped_next_and_when(run: Run) -> None:
    # A segment has the chunks of two half hours.
    expected = f"t\tp\t{5 * (2048 + 72)}\t{_text(_at(0))}\t{_text(_at(1) + 10 * HOUR_NS)}\t4096"
    without = f"u\tq\t{5 * (2048 + 72)}\t{_text(_at(0))}\t\t"
    assert run("ls", "streams", "--usage").stdout.splitlines() == [expected, without]
    arrays = run("ls", "--usage", "arrays").stdout.splitlines()
    # Rows of the first hour have expired: 512 of 8 bytes, with as much of times.
    assert arrays[0] == f"t:out\tp\t{5 * 4096}\t{_text(_at(0))}\tnow\t8192"


@pytest.mark.usefixtures("recorded")
def test_each_policy_says_what_it_takes_and_what_goes_first(run: Run) -> None:
    taken = 5 * (2048 + 72) + 5 * 4096
    assert run("ls", "--usage").stdout.splitlines() == [
        f"p\t1\t1\t{taken}\t\tnow\tt:out\t8192",
        f"q\t1\t1\t{taken}\t1048576\tat the bound\tu\t4096",
    ]
