"""How many rows a segment of a data array has: fixed when the array is created."""

from __future__ import annotations

import math

PAGE_BYTES = 4096
"""The unit that segments are mapped in: a whole number of them lie side by side in memory."""
MIN_SEGMENT_BYTES = 256 * 1024
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
SEGMENT_S = 3600
"""A segment has about as many rows as arrive in this time."""
UNKNOWN_RATE_SEGMENT_BYTES = 4 * 1024 * 1024
"""For rows without a rate."""


def rows_per_segment(row_bytes: int, *, rate_hz: float = 0.0, segment_bytes: int | None = None) -> int:
    """The rows of a segment: about an hour's, in MIN_SEGMENT_BYTES to MAX_SEGMENT_BYTES, in whole pages.

    `rate_hz` is 0.0 if the rows have no rate; `segment_bytes` replaces the hour. If the smallest number of
    rows that is a whole number of pages is larger than MAX_SEGMENT_BYTES, segments are whole rows only.
    """
    if segment_bytes is None:
        hour_bytes = rate_hz * SEGMENT_S * row_bytes if rate_hz > 0 else UNKNOWN_RATE_SEGMENT_BYTES
        wanted_bytes = int(min(max(hour_bytes, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES))
    else:
        wanted_bytes = segment_bytes
    unit = math.lcm(PAGE_BYTES, row_bytes) // row_bytes
    if unit * row_bytes > MAX_SEGMENT_BYTES:
        unit = 1
    return max(wanted_bytes // row_bytes // unit, 1) * unit
