"""`difference` against NumPy, and against what every operation promises."""

import numpy as np
import pytest
from windvane.errors import PolicyInvalid
from windvane.testing.operations import MakeOperation, SampleConformance, operation_of_step
from windvane.testing.streams import run, whole


class TestDifference(SampleConformance):
    """The shipped suite."""

    @pytest.fixture
    def make_operation(self) -> MakeOperation:
        """As a policy makes it, by its entry point."""
        return lambda: operation_of_step("difference", scale=0.5)


def test_it_is_numpy_s_difference() -> None:
    samples = np.random.default_rng(1).standard_normal((1000, 3))
    output = run(operation_of_step("difference"), whole(1000).blocks(samples, rate_hz=100.0))
    np.testing.assert_array_equal(output.rows[1:], np.diff(samples, axis=0))
    assert output.rows[0].tolist() == [0.0, 0.0, 0.0]


def test_a_scale_must_be_positive() -> None:
    with pytest.raises(PolicyInvalid, match="scale"):
        operation_of_step("difference", scale=0)
