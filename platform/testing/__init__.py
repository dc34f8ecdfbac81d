"""Conformance suites for packages that bring an operation, a bus engine or a store engine.

Subclass `operations.OperationConformance`, `bus.BusConformance` or `store.StoreConformance` in a test module.
They need the extra `testing`: nothing else in Windvane imports pytest or Hypothesis.
"""

import pytest

pytest.register_assert_rewrite(
    "windvane.testing.bus",
    "windvane.testing.operations",
    "windvane.testing.store",
    "windvane.testing.streams",
)
