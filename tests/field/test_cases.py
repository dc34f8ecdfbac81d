"""Inputs that users had trouble with, each tried on a `windvane up` of its own; see README.md."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

CASES = sorted(Path(__file__).parent.glob("*/try.py"))
CASE_S = 240.0
SLOWER = "5"
"""The cases wait so many times as long as on a machine without other work."""


@pytest.mark.system
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.parent.name)
def test_the_input_is_read_as_its_user_expects(case: Path, tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("windvane")
    environ = environment(tmp_path, {"WINDVANE": str(command), "WV_SLOW": SLOWER})
    done = subprocess.run(
        [sys.executable, case], env=environ, capture_output=True, text=True, timeout=CASE_S, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_all_cases_are_found() -> None:
    assert len(CASES) == 22
