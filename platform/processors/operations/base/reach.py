"""Which input rows an output row of an operation depends on: what `windvane explain` follows back."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reach:
    """The input rows that an output row is computed from; of an operation that reads events, the events.

    Each output row is completed by one input row: it is given when that row arrives. It is computed from
    `rows` consecutive input rows, of which that is the last.

    Attributes:
        rows: how many; None from the input row that completed the output row before on.
        step: how many input rows later the next output row is completed, as long as no input is missing;
            None if that varies.
        earlier: what it depends on besides: nothing; all earlier rows behind the last gap ("since gap"), as
            what a recursive filter gives; or all earlier rows ("all"), as what a model gives.
        note: what else has an influence, for users; "" for nothing.
        whole_events: whether a cut within an event can change rows, as if an operation looks at the times of
            events. Rows are then followed back to whole events.
    """

    rows: int | None = 1
    step: Fraction | None = None
    earlier: Literal["nothing", "since gap", "all"] = "all"
    note: str = ""
    whole_events: bool = False


def window(rows: int, step: int | Fraction) -> Reach:
    """The reach of a plain window."""
    return Reach(rows, Fraction(step), "nothing")


ROW_BY_ROW = window(1, 1)
