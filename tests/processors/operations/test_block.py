"""Event times of rows, kept by event."""

from __future__ import annotations

import numpy as np
import pytest
from windvane.processors.operations.base.block import Block, EventTimes

TIMES = EventTimes(np.array([10, 10, 13, 20]), np.array([100, 200, 300, 400]))


def test_a_row_has_the_time_of_the_event_that_completed_it() -> None:
    block = Block(np.zeros(12), 8, TIMES)
    # The second event completed no row.
    assert block.row_times_ns.tolist() == [100] * 2 + [300] * 3 + [400] * 7
    assert block.stop == 20


def test_a_row_that_no_event_completed_has_no_time() -> None:
    with pytest.raises(IndexError):
        TIMES.at(np.array([20]))


def test_derived_rows_have_the_times_of_the_rows_that_complete_them() -> None:
    derived = TIMES.of_completed(5, np.array([8, 9, 12, 13, 19]))
    assert derived.ends.tolist() == [7, 8, 10]
    assert derived.at(np.arange(5, 10)).tolist() == [100, 100, 300, 400, 400]


def test_events_that_complete_no_row_leave_no_time() -> None:
    counted = TIMES.of_counts(3, np.array([3, 4, 4, 6]))
    assert (counted.ends.tolist(), counted.times_ns.tolist()) == ([4, 6], [200, 400])
