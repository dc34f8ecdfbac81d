"""A machine whose records raise alarms: levels at times of their own, and the policies that judge them."""

import struct
from collections.abc import Sequence
from typing import Any

import msgpack

BEGIN_S = 1_790_000_000
RULE = {"output": "fields", "column": "rms", "warning": 10.0, "danger": 20.0, "hold_rows": 2}
FIELDS = {"operation": "fields"}
CONDITION = {"operation": "condition", "columns": ["rms"], "learn": 12}
POLICY: dict[str, Any] = {"tags": ["t*"], "pipeline": [FIELDS], "alarm": [RULE]}
QUIET, WARNING, DANGER = 1.0, 12.0, 25.0
COURSE = [QUIET] * 4 + [WARNING] * 3 + [DANGER] * 3 + [QUIET] * 5
"""Raised at row 5, escalated at row 8, eased at row 11 and cleared at row 13 by RULE."""


def time_ns(row: int) -> int:
    """The event time of a row: one a second."""
    return (BEGIN_S + row) * 1_000_000_000


def payload(levels: Sequence[float], *, first: int = 0) -> bytes:
    """Events of one chunk: a level each, and a speed that never changes."""
    return b"".join(
        msgpack.packb(
            [
                msgpack.ExtType(0, struct.pack(">II", BEGIN_S + first + number, 0)),
                {"rms": level, "speed": 12.0},
            ]
        )
        for number, level in enumerate(levels)
    )
