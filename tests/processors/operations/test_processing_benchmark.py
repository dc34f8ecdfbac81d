"""benchmarks/processing.py runs, and has a figure for each operation on samples and for the preset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from windvane.processors.operations.base.registry import operations

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "processing.py"


@pytest.mark.system
def test_the_benchmark_measures_every_operation_on_samples(tmp_path: Path) -> None:
    figures_file = tmp_path / "figures.json"
    few = ["--seconds", "2", "--rounds", "1", "--streams", "1"]
    command = [sys.executable, str(BENCHMARK), *few, "--json", str(figures_file)]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    figures = json.loads(figures_file.read_text())
    measured = {name.split()[0] for name in figures}
    on_samples = {
        name
        for name, cls in operations().items()
        if "samples" in (cls.input, *cls.accepts) and cls.__module__.startswith("windvane.")
    }
    # `gaps` compares only two numbers per block.
    assert on_samples - measured <= {"gaps", "condition"}
    assert all(figure["value"] > 0 for figure in figures.values())
    assert figures["vibration preset"]["against"] == "aim 500"
