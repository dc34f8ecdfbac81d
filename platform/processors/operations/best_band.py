"""`best_band`: the band in which a signal is most impulsive, for use by `envelope`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from ...errors import OperationFailed
from .base.block import Block
from .base.operation import Operation, operation
from .base.reach import ROW_BY_ROW, Reach

MEASURES = ("low_hz", "high_hz", "kurtosis")


@operation("best_band")
class BestBand(Operation):
    """Of each row of `kurtosis`, the band of a given width with the greatest mean.

    The columns are `low_hz`, `high_hz` and that mean, `kurtosis`, those of channel 0 first. The lines at 0
    and at half the rate, which have different statistics, belong to no band. Each row gives one row with the
    same time. It looks at one length of frame: it is not a kurtogram over several. Keeps nothing.
    """

    input = "kurtosis"
    output = "features"

    def __init__(
        self,
        *,
        width_hz: Annotated[float, Meta(gt=0)] | None = None,
        min_hz: Annotated[float, Meta(ge=0)] = 0.0,
    ) -> None:
        """The candidate bands.

        Args:
            width_hz: of the band, rounded to whole lines; by default an eighth of half the rate.
            min_hz: bands begin here or above.
        """
        self._width_hz, self._min_hz = width_hz, min_hz

    def process(self, block: Block) -> Block:
        """Takes rows (n, bins) or (n, channels, bins); OperationFailed if no band fits."""
        step_hz, half_hz = block.attrs["frequency_step_hz"], block.attrs["rate_hz"] / 2
        width = max(round((half_hz / 8 if self._width_hz is None else self._width_hz) / step_hz), 1)
        begin = max(1, int(np.ceil(self._min_hz / step_hz)))
        rows = block.rows.reshape(len(block.rows), -1, block.rows.shape[-1])[:, :, begin:-1]
        if width > rows.shape[2]:
            raise OperationFailed(
                f"No band of {width * step_hz:g} Hz fits between {begin * step_hz:g} and {half_hz:g} Hz: set "
                "width_hz or min_hz lower."
            )
        means = np.lib.stride_tricks.sliding_window_view(rows, width, axis=2).mean(axis=3)
        # NaN is not a maximum, and a row with NaN has none.
        best = np.argmax(np.where(np.isnan(means), np.inf, means), axis=2)
        low = (begin + best - 0.5) * step_hz
        greatest = np.take_along_axis(means, best[:, :, np.newaxis], axis=2)[:, :, 0]
        channels = rows.shape[1]
        prefixes = [f"channel{channel}." for channel in range(channels)] if channels > 1 else [""]
        columns = tuple(prefix + name for prefix in prefixes for name in MEASURES)
        return Block(
            rows=np.stack([low, low + width * step_hz, greatest], axis=2).reshape(len(rows), -1),
            first=block.first,
            times=block.times.of_counts(block.first, block.times.ends),
            rate_hz=block.rate_hz,
            columns=columns,
            attrs={"kind": self.output, "columns": list(columns), "channels": channels, "unit": ""},
        )

    def depends_on(self) -> Reach:
        """The kurtosis."""
        return ROW_BY_ROW
