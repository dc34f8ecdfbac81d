"""Breaks the source on purpose and runs the test that must fail: `python -m tests.durability.mutation`.

A mutant is a change in a copy of the package, in a temporary directory that is first in Python's module
search path; the source itself is never changed. Prints each mutant with its result; exits with 1 if one
survives. Arguments choose mutants by a part of their names.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.durability.mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
COPY_VARIABLE = "WINDVANE_MUTANT"
"""The path of the copy that a test is to run with; `conftest.py` checks that it does."""
TIMEOUT_S = 300


class NotCaughtError(AssertionError):
    """A mutant survived, or could not be tried."""


def source_of(mutant: Mutant) -> str:
    """The current content of the file that it changes."""
    return (ROOT / "platform" / mutant.file).read_text()


@contextmanager
def _copy(mutant: Mutant | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="windvane-mutant-") as folder:
        package = Path(folder) / "windvane"
        shutil.copytree(ROOT / "platform", package, ignore=shutil.ignore_patterns("ui", "__pycache__"))
        if mutant is not None:
            source = source_of(mutant)
            if source.count(mutant.old) != 1:
                raise NotCaughtError(f"{mutant.name}: its text is not once in platform/{mutant.file}")
            (package / mutant.file).write_text(source.replace(mutant.old, mutant.new))
        yield Path(folder)


def run_tests(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs tests of this folder with the package in `copy`, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(copy), COPY_VARIABLE: str(copy)}
    environment.pop("WINDVANE_PROOF", None)  # the sample must find it
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider"]
        + [f"tests/durability/{test}" for test in tests],
        cwd=ROOT,
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )


def require_caught(mutant: Mutant) -> str:
    """Returns the line with the failure of its test. Raises NotCaughtError if the test passes, or cannot
    run.
    """
    with _copy(mutant) as copy:
        result = run_tests(copy, [mutant.test])
    if result.returncode != 1 or "failed" not in result.stdout.splitlines()[-1]:
        raise NotCaughtError(f"{mutant.name}: {mutant.test} ended with {result.returncode}\n{result.stdout}")
    return next((line for line in result.stdout.splitlines() if line.startswith("E ")), "")


def require_green() -> None:
    """All these tests pass with a copy that is not changed."""
    with _copy(None) as copy:
        result = run_tests(copy, sorted({mutant.test for mutant in MUTANTS}))
    if result.returncode:
        raise NotCaughtError(f"without any mutant:\n{result.stdout}")


def main() -> int:
    chosen = [m for m in MUTANTS if not sys.argv[1:] or any(part in m.name for part in sys.argv[1:])]
    require_green()
    survivors = 0
    for mutant in chosen:
        try:
            said = require_caught(mutant)
            print(f"caught    {mutant.name}\n          {mutant.test}\n          {said[:150]}", flush=True)
        except NotCaughtError as error:
            survivors += 1
            print(f"SURVIVED  {error}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
