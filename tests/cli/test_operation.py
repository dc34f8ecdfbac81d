"""`windvane operation` and `windvane reprocess`, as their user calls them, over a running installation."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT

import numpy as np
import pytest
from windvane.store.files.store import Store

from tests.processes import COMMAND, Running, environment, started, wait_until, windvane

pytestmark = pytest.mark.system

POLICY = """
reference = "t"
format = "raw"
[[pipeline]]
operation = "pcm"
name = "samples"
dtype = "int16"
rate_hz = 1000.0
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("own") / "home"
    with Running("up", home, "--forward", "127.0.0.1:0", "--web", "127.0.0.1:0") as running:
        policy = home / "t.toml"
        policy.write_text(POLICY)
        assert ok(home, "apply", str(policy))
        samples = home / "samples.raw"
        samples.write_bytes(signal().tobytes())
        assert windvane(home, "send", "t", str(samples), "--format", "raw").returncode == 0
        wait_until(lambda: "t:samples\t20000" in ok(home, "ls", "arrays"), "the samples")
        yield running


def signal() -> "np.ndarray[tuple[int], np.dtype[np.int16]]":
    return (1000 * np.sin(np.arange(20_000) / 10)).astype("<i2")


def ok(home: Path, *arguments: str) -> str:
    done = windvane(home, *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_new_check_policy_reprocess(site: Running) -> None:
    home = site.home
    assert "wrote" in ok(home, "operation", "new", "clip")
    listed = ok(home, "operation", "list")
    assert "clip\tsamples\tsamples\tclip.py\tSamples, clipped to ±limit." in listed
    assert "for the samples of those frames." in listed  # a sentence of two lines is shown whole

    tried = ok(home, "operation", "check", "clip", "t", "--set", "limit=500")
    assert "20,000 rows of int16 (1,) at 1000 Hz" in tried
    assert "-999 … 999" in " ".join(tried.split())
    assert "-500 … 500" in " ".join(tried.split())
    assert "✓ the same rows" in tried

    (home / "t.toml").write_text(POLICY + '[[pipeline]]\noperation = "clip"\nlimit = 500\n')
    ok(home, "apply", str(home / "t.toml"))
    assert "clip 20,000" in ok(home, "reprocess", "t")
    ok(home, "export", "t:clip", str(home / "clip.npy"))
    assert np.array_equal(np.load(home / "clip.npy")[:, 0], np.clip(signal(), -500, 500))

    # The stream continues after the new outputs.
    assert windvane(home, "send", "t", str(home / "samples.raw"), "--format", "raw").returncode == 0
    wait_until(lambda: "t:clip\t40000" in ok(home, "ls", "arrays"), "the rows behind them")


def test_what_was_replaced_is_listed_and_dropped(site: Running) -> None:
    home = site.home
    for _ in range(2):
        done = ok(home, "reprocess", "t")
    assert "removed, of earlier reprocessings: " in done
    lines = [line.split("\t") for line in ok(home, "ls", "--replaced").splitlines()]
    [(reference, size, time, by)] = [line for line in lines if line[0].startswith("t:samples~")]
    assert int(size) > 2 * 20_000
    assert time.startswith("20")
    assert by == "reprocess"
    assert f"the old ones: {reference}" in done or reference in done

    for rejected, why in (
        ("t:samples", "it is the current output t:samples"),
        ("t:x~1", "no data array 't:x~1'"),
    ):
        failed = windvane(home, "drop", rejected, "--yes")
        assert failed.returncode == 1
        assert why in failed.stderr.decode()
    asked = windvane(home, "drop", reference)
    assert asked.returncode == 1
    assert "nothing was removed; add --yes" in asked.stderr.decode()
    assert reference in ok(home, "ls", "arrays")

    assert f"removed {reference}" in ok(home, "drop", reference, "--yes")
    assert reference not in ok(home, "ls", "arrays")
    assert ok(home, "ls", "--replaced").count("t:samples") == 0
    assert "t:samples\t" in ok(home, "ls", "arrays")


def test_rebuilding_twice_sets_earlier_outputs_aside_and_removes_none(site: Running) -> None:
    home = site.home
    ok(home, "recover", "rebuild", "t")
    [(reference, *_)] = [
        line.split("\t")
        for line in ok(home, "ls", "--replaced").splitlines()
        if line.startswith("t:samples~")
    ]
    earlier = home / "store" / "t" / "arrays" / reference.partition(":")[2]
    rows = next((earlier / "rows").glob("c.*")).read_bytes()
    done = ok(home, "recover", "rebuild", "t")
    assert "removed" not in done
    assert not earlier.exists()
    [kept] = (home / "set-aside").rglob(f"{earlier.name}/rows/c.*")
    assert kept.read_bytes() == rows


def test_an_output_that_counts_under_the_name_of_a_rebuilt_one_is_not_dropped(site: Running) -> None:
    """A reprocessing was killed between its commit and the renaming: by its uid it is the current output."""
    home = site.home
    ok(home, "reprocess", "t", "--side-by-side")
    store = Store(home / "store")
    folder = store.array_directory("t:samples").parent
    # As that crash leaves it: the current one has the name of the rebuilt one.
    os.rename(folder / "samples~rebuilt", folder / "samples~9")
    shutil.copytree(folder / "samples", folder / "samples~rebuilt")
    failed = windvane(home, "drop", "t:samples~rebuilt", "--yes")
    assert failed.returncode == 1
    assert "it is the current output t:samples" in failed.stderr.decode()
    shutil.rmtree(folder / "samples~rebuilt")
    assert "removed t:samples~9" in ok(home, "drop", "t:samples~9", "--yes")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("SystemExit(3)", "exit(3)"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("type('PanicException', (BaseException,), {})('x')", "PanicException"),
    ],
)
@pytest.mark.parametrize("method", ["process", "__init__", "state", "restore", "counts"])
def test_whatever_an_operation_raises_is_said_by_check(
    site: Running, method: str, raised: str, expected: str
) -> None:
    file = site.home / "operations" / "raising.py"
    methods = "".join(
        f"    def {name}(self, *given):\n        {f'raise {raised}' if name == method else body}\n"
        for name, body in {
            "__init__": "pass",
            "process": "return given[0]",
            "state": "return 1",
            "restore": "pass",
            "counts": "return {}",
        }.items()
    )
    file.write_text(
        "from windvane.processors.operations.base.operation import Operation, operation\n"
        f'@operation("raising")\nclass Raising(Operation):\n    input = output = "samples"\n{methods}'
    )
    file.chmod(0o600)
    done = windvane(site.home, "operation", "check", "raising", "t")
    file.unlink()
    said = done.stderr.decode()
    assert done.returncode == 1, said
    assert "Traceback" not in said
    assert (
        next(name for name in ("exit(3)", "KeyboardInterrupt", "PanicException") if name in said) == expected
    )


def test_ctrl_c_ends_a_check_whatever_the_operation_catches(site: Running) -> None:
    """The first one between two blocks; the second one at once, here in a block that never ends."""
    file = site.home / "operations" / "stubborn.py"
    file.write_text(
        "import sys\nfrom windvane.processors.operations.base.operation import operation\n"
        '@operation("stubborn")\ndef stubborn(block):\n'
        "    print('working', file=sys.stderr, flush=True)\n"
        "    while True:\n        try:\n            while True: pass\n        except BaseException: pass\n"
    )
    file.chmod(0o600)
    command = [*COMMAND, "operation", "check", "stubborn", "t"]
    with started(command, env=environment(site.home), stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"working" in process.stderr.readline()
        process.send_signal(SIGINT)
        assert b"Ctrl-C again ends at once" in process.stderr.readline()
        process.send_signal(SIGINT)
        assert process.wait(60) == -SIGINT
    file.unlink()


def test_a_class_is_written_and_keeps_its_promises(site: Running) -> None:
    ok(site.home, "operation", "new", "running-mean", "--class")
    assert "✓ the same rows" in ok(site.home, "operation", "check", "running-mean", "t")


def test_broken_promises_are_found(site: Running) -> None:
    file = site.home / "operations" / "mean.py"
    file.write_text(
        "from windvane.processors.operations.base.operation import operation\n"
        '@operation("mean")\ndef mean(block):\n    return block.rows - block.rows.mean()\n'
    )
    file.chmod(0o600)
    done = windvane(site.home, "operation", "check", "mean", "t")
    assert done.returncode == 1
    assert "the rows differ if the input is split into other blocks" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["operation", "new", "no name"], "is not a valid name of an operation"),
        (["operation", "new", "pcm"], "is a built-in operation; give yours another name"),
        (["operation", "check", "nothing"], '"nothing" is not known'),
        (["operation", "check", "clip", "nowhere"], "no data stream 'nowhere'"),
        (["operation", "check", "clip", "t", "--set", "limit"], "write NAME=VALUE"),
        (["operation", "check", "clip", "t", "--set", "limit=-1"], "must be a number over 0"),
        (["reprocess", "nowhere"], "no data stream 'nowhere'"),
    ],
)
def test_mistakes_are_said_in_a_line(site: Running, arguments: list[str], said: str) -> None:
    windvane(site.home, "operation", "new", "clip")
    done = windvane(site.home, *arguments)
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_check_reports_why_its_file_cannot_be_loaded(site: Running) -> None:
    file = site.home / "operations" / "broken.py"
    file.write_text("x =")
    file.chmod(0o600)
    done = windvane(site.home, "operation", "check", "broken")
    file.unlink()
    assert done.returncode == 1
    assert "broken.py, line 1: SyntaxError" in done.stderr.decode()


def test_what_is_written_is_for_its_user_alone(site: Running) -> None:
    windvane(site.home, "operation", "new", "mine")
    assert (site.home / "operations" / "mine.py").stat().st_mode & 0o777 == 0o600
    assert json.loads((site.home / "run" / "web.json").read_text())
