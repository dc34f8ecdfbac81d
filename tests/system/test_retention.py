"""Retention in worker processes that are killed: what is kept equals the same part of an undisturbed run."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    POLICY,
    chunks_of,
    kill_while_sending,
    undisturbed_results,
)

ROUNDS = 3
CHUNKS = 150  # of each stream
STREAMS = ["park.t00", "park.t01"]
SMALL_SEGMENTS = {"WINDVANE_WORKER_SEGMENT_BYTES": "16384"}
# Events are weeks old, and chunks expire after a second: all that a commit covers is dropped.
RETENTION = """
[policy.retention]
stream_hours = 0.0003
array_hours = 0.001
"""


def make_policy_with_retention(home: Path) -> None:
    home.mkdir()
    (home / "park.toml").write_text(POLICY.format(partitions=2) + RETENTION)
    applied = windvane(home, "apply", str(home / "park.toml"))
    assert applied.returncode == 0, applied.stderr.decode()


def sum_of_starts(home: Path) -> int:
    """Grows when anything is dropped."""
    found = connect(home)
    streams = sum(found.streams[name].start for name in found.streams)
    return streams + sum(found.arrays[name].start for name in found.arrays)


@pytest.mark.parametrize("seed", [1])
async def test_what_is_kept_equals_an_undisturbed_run_however_often_the_worker_is_killed(
    tmp_path: Path, seed: int
) -> None:
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in STREAMS}
    await undisturbed_results(tmp_path / "undisturbed", chunks)

    home = tmp_path / "disturbed"
    make_policy_with_retention(home)
    gateway = Running("gateway", home)
    worker = Running("worker", home, environ={**FAST_CHECKPOINTS, **SMALL_SEGMENTS})
    begins: list[int] = [0]

    def until_dropped(turn: int) -> None:
        """The kill is at a moment when something is being dropped."""
        wait_until(lambda: sum_of_starts(home) > begins[-1], f"retention drops something in round {turn}")
        begins.append(sum_of_starts(home))

    await kill_while_sending(gateway, worker, chunks, rounds=ROUNDS, seed=seed, disturb=until_dropped)
    assert "stopped" not in worker.log.read_text()

    expected, found = connect(tmp_path / "undisturbed"), connect(home)
    assert list(found.streams) == list(expected.streams)
    assert list(found.arrays) == list(expected.arrays)
    for tag in STREAMS:
        whole, kept = expected.streams[tag], found.streams[tag]
        assert kept.start > 0
        assert kept.size == whole.size
        assert kept[kept.start :] == whole[kept.start :]
    for reference in expected.arrays:
        array, rest = expected.arrays[reference], found.arrays[reference]
        assert rest.shape == array.shape
        first = rest.start
        assert np.asarray(rest[first:]).tobytes() == np.asarray(array[first:]).tobytes(), reference
        assert rest.times.tobytes() == array.times[first:].tobytes(), reference
    assert found.arrays["park.t00:samples"].start > 0

    verified = windvane(home, "verify")
    assert verified.returncode == 0, verified.stdout.decode() + verified.stderr.decode()


def test_the_disk_use_of_the_demo_stays_bounded(tmp_path: Path) -> None:
    """The policies of the demo, with seconds instead of an hour and small segments."""
    home = tmp_path / "demo"
    home.mkdir()
    policies = (files("windvane.simulation") / "policies.toml").read_text()
    assert policies.count("stream_hours = 1, array_hours = 1 }") == policies.count("[[policy]]")
    (home / "demo.toml").write_text(
        policies.replace("stream_hours = 1, array_hours = 1 }", "stream_hours = 0.001, array_hours = 0.001 }")
    )
    assert windvane(home, "apply", str(home / "demo.toml")).returncode == 0
    environment = {**FAST_CHECKPOINTS, **SMALL_SEGMENTS}
    with Running("up", home, "--demo", environ=environment):
        bounded = "turbine.t01.gearbox"

        def kept_and_total() -> tuple[int, int]:
            found = connect(home)
            if bounded not in found.streams:
                return 0, 0
            stream = found.streams[bounded]
            return stream.size - stream.start, stream.size

        # 12,800 bytes a second.
        wait_until(lambda: kept_and_total()[1] >= 400_000, "half a minute is stored", timeout_s=120)
        wait_until(lambda: kept_and_total()[0] <= 150_000, "what is older is dropped", timeout_s=60)
        wait_until(lambda: kept_and_total()[1] >= 600_000, "more is stored", timeout_s=120)
        wait_until(lambda: kept_and_total()[0] <= 150_000, "that is dropped too", timeout_s=60)
