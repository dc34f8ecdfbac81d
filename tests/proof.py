"""`make proof`: the promises of docs/proof.json with their full counts, part by part.

    python -m tests.proof            # lists the parts
    python -m tests.proof kills      # runs the part: its tests with --proof, its make targets, its benchmarks

An entry of the file: `promise` (a sentence), `part`, `proof` (a list of ids), `figure` (what the last run on
record showed, or null). An id is

- a test as pytest names it (`tests/…/test_x.py::test_y`, with or without a parameter), or a file of tests;
- `make TARGET`, with variables after it;
- a benchmark: `benchmarks/x.py`, with options after it.
"""

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "proof.json"
PART_S = 3600.0
"""What a part may take."""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of docs/proof.json."""

    promise: str
    part: str
    proof: list[str]
    figure: str | None = None


def promises() -> list[Promise]:
    """All of them. Raises msgspec.ValidationError."""
    return msgspec.json.decode(FILE.read_bytes(), type=list[Promise])


def is_test(proof: str) -> bool:
    """Whether it is an id of pytest."""
    return proof.startswith("tests/")


def is_make_target(proof: str) -> bool:
    """Whether it is a target of the Makefile."""
    return proof.startswith("make ")


def make_targets() -> set[str]:
    """The targets that the Makefile has."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(proofs: Iterable[str]) -> list[list[str]]:
    """What runs them: one pytest for all tests, then the others one by one."""
    proofs = list(dict.fromkeys(proofs))
    found = []
    if tests := [proof for proof in proofs if is_test(proof)]:
        last_resort = f"faulthandler_timeout={PART_S:g}"
        found.append([sys.executable, "-m", "pytest", "--proof", "-o", last_resort, *tests])
    for proof in proofs:
        if is_make_target(proof):
            found.append(shlex.split(proof))
        elif not is_test(proof):
            found.append([sys.executable, *shlex.split(proof)])
    return found


def main() -> int:
    """The exit status: 0 if all of the part passed."""
    known: dict[str, list[Promise]] = {}
    for promise in promises():
        known.setdefault(promise.part, []).append(promise)
    if len(sys.argv) < 2 or not sys.argv[1]:
        for part, of_part in known.items():
            print(part)
            for promise in of_part:
                print(f"    {promise.promise}")
        print("\nmake proof PART=NAME runs one of them.")
        return 0
    part = sys.argv[1]
    if part not in known:
        print(f"there is no part {part!r}; it can be {', '.join(known)}", file=sys.stderr)
        return 2
    began_s = time.monotonic()
    failed = []
    for command in commands(proof for promise in known[part] for proof in promise.proof):
        print("+", shlex.join(command), flush=True)
        left_s = max(1.0, PART_S - (time.monotonic() - began_s))
        try:
            ended = subprocess.run(command, cwd=ROOT, check=False, timeout=left_s).returncode
        except subprocess.TimeoutExpired:
            print(f"part {part} took over {PART_S / 60:g} minutes", file=sys.stderr)
            return 1
        if ended:
            failed.append(shlex.join(command))
    for command_line in failed:
        print(f"failed: {command_line}", file=sys.stderr)
    print(f"part {part}: {(time.monotonic() - began_s) / 60:.1f} minutes")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
