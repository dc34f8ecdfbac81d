"""Types whose information threads build side by side."""

import subprocess
import sys

import pytest

PROGRAM = """
import threading
import msgspec
from windvane.msgspec_threading import prepare

def work(kinds, start):
    start.wait(10)
    for kind in kinds:
        prepare(kind)
        msgspec.convert({"a": 1}, kind)

for round in range(200):
    fields = {"__annotations__": {"a": int, "b": "list[int] | None"}, "b": None}
    kinds = [type(f"K{n}", (msgspec.Struct,), dict(fields)) for n in range(20)]
    start = threading.Barrier(4)
    threads = [threading.Thread(target=work, args=(kinds, start)) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join(30) for thread in threads]
print("done")
"""


@pytest.mark.system
def test_threads_that_build_the_same_types_at_once_do_not_end_the_process() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=100, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "done"), ended.stderr[-2000:]
