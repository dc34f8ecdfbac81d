"""Conformance suites for packages that bring an operation or a bus engine; needs the extra `testing`.

Subclass `operations.OperationConformance` or `bus.BusConformance` in a test module. Nothing else in Windvane
imports pytest or Hypothesis.
"""

import pytest

pytest.register_assert_rewrite(
    "windvane.testing.bus", "windvane.testing.operations", "windvane.testing.streams"
)
