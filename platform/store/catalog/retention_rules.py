"""How long the store keeps what a policy's streams and arrays have: the `[policy.retention]` table."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ...errors import PolicyInvalid

_Hours = Annotated[float, Meta(gt=0, le=1e6)]


class Retention(Struct, frozen=True):
    """How long data is kept, and how much; None keeps it all.

    A chunk of a data stream is kept for `stream_hours` after its arrival, a row of a data array for
    `array_hours` after its event time, and the overview of a row (its pyramid) for `pyramid_hours`, by
    default as long as the row. `bytes` bounds what all streams and arrays of the policy take together: the
    oldest is dropped first, whichever stream it is of. Whole segments are dropped, so a little more stays.
    """

    stream_hours: _Hours | None = None
    array_hours: _Hours | None = None
    pyramid_hours: _Hours | None = None
    bytes: Annotated[int, Meta(ge=1_048_576, le=2**62)] | None = None


def check_retention(retention: Retention) -> None:
    """Raise PolicyInvalid for times that contradict each other; names the path."""
    rows, overview = retention.array_hours, retention.pyramid_hours
    if overview is None:
        return
    if rows is None:
        raise PolicyInvalid(
            "retention.pyramid_hours: needs array_hours, since the overview outlives rows that are dropped; "
            "set array_hours, or leave pyramid_hours out"
        )
    if overview < rows:
        raise PolicyInvalid(
            f"retention.pyramid_hours: is {overview:g}, must be at least array_hours ({rows:g}): the rows "
            "would have no overview; leave it out to drop both at the same age"
        )


def retention_to_mapping(retention: Retention) -> dict[str, Any]:
    """The settings that are set, for TOML, which has no null."""
    return {name: value for name, value in msgspec.structs.asdict(retention).items() if value is not None}
