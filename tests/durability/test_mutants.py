"""The tests of this folder find faults in the order of durable steps: three here, all in a proof."""

import ast

import pytest

from tests.durability.mutants import MUTANTS, Mutant
from tests.durability.mutation import require_caught, require_green, source_of
from tests.durability.proof import IS_PROOF

TRIED = [
    mutant
    for mutant in MUTANTS
    if IS_PROOF
    or mutant.name
    in (
        "a mixed group is acked without fdatasync",
        "recovered pages are not synced",
        "a rejected chunk is acked before its dead letter is durable",
    )
]


@pytest.mark.system
@pytest.mark.parametrize("mutant", TRIED, ids=str)
def test_a_fault_in_the_order_makes_a_test_fail(mutant: Mutant) -> None:
    print(f"{mutant.name}: {require_caught(mutant)}")


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_what_a_mutant_changes_is_in_the_source_once(mutant: Mutant) -> None:
    source = source_of(mutant)
    assert source.count(mutant.old) == 1
    ast.parse(source.replace(mutant.old, mutant.new))


@pytest.mark.system
@pytest.mark.skipif(not IS_PROOF, reason="they run by themselves in this suite: WINDVANE_PROOF=1")
def test_without_a_fault_the_same_tests_pass() -> None:
    require_green()
