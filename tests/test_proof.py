"""docs/proof.json names tests, targets and benchmarks that exist."""

import subprocess
import sys

import pytest

from tests.proof import ROOT, is_make_target, is_test, make_targets, promises

PROMISES = promises()
PROOFS = [proof for promise in PROMISES for proof in promise.proof]


def test_every_promise_is_a_sentence_and_has_a_part() -> None:
    assert len({promise.promise for promise in PROMISES}) == len(PROMISES)
    for promise in PROMISES:
        assert promise.promise.endswith("."), promise.promise
        assert promise.part.replace("-", "").isalpha(), promise.promise


@pytest.mark.system
@pytest.mark.long_running(timeout_s=600, reason="imports every test file that is named")
def test_every_test_exists() -> None:
    tests = sorted({proof for proof in PROOFS if is_test(proof)})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--proof", *tests]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert collected.returncode == 0, collected.stdout[-4000:]


def test_every_other_proof_is_a_make_target_or_a_benchmark_that_exists() -> None:
    targets = make_targets()
    assert {"check", "test", "proof", "soak"} <= targets
    for proof in PROOFS:
        if is_make_target(proof):
            assert proof.split()[1] in targets, proof
        elif not is_test(proof):
            assert (ROOT / proof.split()[0]).is_file(), proof
            assert proof.startswith("benchmarks/"), proof
