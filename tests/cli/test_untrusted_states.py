"""A database of checkpoints that another user can write: no pickle of it is read, and no state is lost."""

from pathlib import Path

import numpy as np
import pytest
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane

pytestmark = pytest.mark.system

POLICY = """
reference = "t"
format = "raw"
[[pipeline]]
operation = "pcm"
dtype = "int16"
rate_hz = 1000.0
[[pipeline]]
operation = "features"
window = 100
[[pipeline]]
operation = "model"
"""


def rows(home: Path, array: str) -> int:
    done = windvane(home, "ls", "arrays")
    counts = dict(line.split("\t")[:2] for line in done.stdout.decode().splitlines())
    return int(counts.get(array, 0))


def test_a_worker_keeps_the_models_of_a_database_that_others_can_write_and_continues_once_it_is_its_own(
    tmp_path: Path,
) -> None:
    home, samples = tmp_path / "home", tmp_path / "samples.raw"
    samples.write_bytes(np.random.default_rng(0).integers(-999, 999, 20_000).astype("<i2").tobytes())

    def run(*, features: int, said: str = "") -> None:
        """Sends the samples to a running installation, until there are so many rows."""
        with Running("up", home, "--forward", "127.0.0.1:0", "--web", "127.0.0.1:0"):
            (tmp_path / "t.toml").write_text(POLICY)
            assert windvane(home, "apply", str(tmp_path / "t.toml")).returncode == 0
            assert windvane(home, "send", "t", str(samples), "--format", "raw").returncode == 0
            wait_until(lambda: rows(home, "t:features") == features, "the rows")
            wait_until(
                lambda: said.encode() in windvane(home, "dead-letter", "list").stdout, "the dead letter"
            )

    run(features=200)
    assert rows(home, "t:model") == 200
    database = home / "checkpoints.sqlite"
    assert connect(home).model("t:model").rows_learned == 200

    database.chmod(0o664)
    run(features=400, said="step-failed")
    letters = windvane(home, "dead-letter", "list").stdout.decode()
    assert "'model'" in letters
    assert rows(home, "t:model") == 200

    database.chmod(0o600)
    run(features=600)
    wait_until(lambda: rows(home, "t:model") == 400, "the scores")
    assert connect(home).model("t:model").rows_learned == 400
