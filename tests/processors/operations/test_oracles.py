"""Every built-in operation has a test of its own, with an oracle."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from windvane.extensions import OPERATIONS

TESTS = Path(__file__).parents[1]
ORACLES = r"scipy|sklearn|river|naive|np\.testing|np\.diff|math\.|statistics"
SHARED = {"test_every_operation.py", "test_oracles.py", "test_operations_page.py", "test_state_codec.py"}


@pytest.mark.parametrize("name", sorted(OPERATIONS.built_in))
def test_a_built_in_operation_has_a_test_with_an_oracle(name: str) -> None:
    files = [path for room in ("operations", "learning") for path in (TESTS / room).glob("test_*.py")]
    sources = [path.read_text() for path in files if path.name not in SHARED]
    own = [text for text in sources if re.search(rf"""\bop\(\s*["']{name}["']""", text)]
    assert any(re.search(ORACLES, text) for text in own), f"no test calls op({name!r}) next to an oracle"
