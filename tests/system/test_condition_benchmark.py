"""The benchmark of `condition` as a user runs it: over any folder, through real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.condition import phm_2012_score

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "condition.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def save(folder: Path, name: str, levels_g: list[float], *, spoilt: int | None = None) -> None:
    """An experiment of noise, a record for each level; one of them with a NaN."""
    rng = np.random.default_rng(1)
    samples = rng.normal(0, 1000, (len(levels_g), 256, 2)) * np.array(levels_g)[:, np.newaxis, np.newaxis]
    if spoilt is not None:
        samples[spoilt, 3, 1] = np.nan
    else:
        samples = samples.astype(np.int32)
    np.savez(folder / name, acc_mg=samples, seconds=40_000.0 + 10 * np.arange(len(levels_g)))


def test_every_file_that_can_be_run_is_run_and_the_others_are_named(tmp_path: Path) -> None:
    save(tmp_path, "Bearing9_1.npz", [0.5] * 120 + [1.4] * 30)
    save(tmp_path, "Bearing9_2.npz", [0.5] * 80, spoilt=10)
    save(tmp_path, "Bearing9_3.npz", [])
    (tmp_path / "Bearing9_4.npz").write_bytes(b"no archive")
    done = benchmark("--data", str(tmp_path), "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    failed, healthy = figures["bearings"]["Bearing9_1"], figures["bearings"]["Bearing9_2"]
    assert set(figures["bearings"]) == {"Bearing9_1", "Bearing9_2"}
    assert set(figures["left_out_files"]) == {"Bearing9_3.npz", "Bearing9_4.npz"}
    # The step comes with record 120 of 0 … 149, and is seen with the eighth record of it.
    assert failed["first_warning_share"] == pytest.approx(127 / 149)
    assert failed["first_warning_lead_s"] == pytest.approx(220)
    assert failed["warnings_in_first_half"] == 0
    assert failed["rul_rows"] == 22
    assert 0 < failed["rul_mean_score"] < 1
    assert (healthy["records"], healthy["records_left_out"]) == (79, 1)
    assert healthy["first_warning_share"] is None
    assert figures["times_real_time"] > 1
    assert "Bearing9_1" in done.stdout


def test_a_folder_without_experiments_is_rejected_with_a_cause(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = benchmark("--data", str(folder))
        assert done.returncode == 1
        assert str(folder) in done.stderr
        assert "BearingX_Y.npz" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_score_halves_at_five_percent_late_and_at_twenty_percent_early() -> None:
    error, score = phm_2012_score(np.full(5, 100.0), np.array([100.0, 105.0, 80.0, 110.0, 0.0]))
    np.testing.assert_allclose(error, [0, -5, 20, -10, 100], atol=1e-12)
    np.testing.assert_allclose(score, [1, 0.5, 0.5, 0.25, 2**-5])
