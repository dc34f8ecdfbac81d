"""`windvane operation` and `windvane reprocess`, as their user calls them, over a running installation."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.processes import Running, wait_until, windvane

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
    assert "clip\tsamples\tsamples\tclip.py\tSamples, clipped to ±limit." in ok(home, "operation", "list")

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

    # The stream goes on behind the new outputs.
    assert windvane(home, "send", "t", str(home / "samples.raw"), "--format", "raw").returncode == 0
    wait_until(lambda: "t:clip\t40000" in ok(home, "ls", "arrays"), "the rows behind them")


def test_a_class_is_written_and_keeps_its_promises(site: Running) -> None:
    ok(site.home, "operation", "new", "running-mean", "--class")
    assert "✓ the same rows" in ok(site.home, "operation", "check", "running-mean", "t")


def test_broken_promises_are_found(site: Running) -> None:
    file = site.home / "operations" / "mean.py"
    file.write_text(
        "from windvane.processors.operation import operation\n"
        '@operation("mean")\ndef mean(block):\n    return block.rows - block.rows.mean()\n'
    )
    file.chmod(0o600)
    done = windvane(site.home, "operation", "check", "mean", "t")
    assert done.returncode == 1
    assert "the rows differ where the input is cut into other blocks" in done.stderr.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["operation", "new", "no name"], "is no name for an operation"),
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


def test_a_file_that_cannot_be_loaded_is_said_where_it_is_asked_for(site: Running) -> None:
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
