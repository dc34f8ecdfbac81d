"""What was stored at the time of an alarm: which rows of which arrays, and what stood out in them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress

import msgspec
import numpy as np

from ...errors import ArrayNotFound, PolicyInvalid, RangeGone
from ...store.catalog.alarm_rules import CONDITION
from ...store.catalog.alarms import Contribution, RowRange
from ...store.catalog.policy import Policy
from ...store.databases.checkpoint_records import OutputLength
from ...store.files.data_array import DataArray, DataArrayWriter
from ...store.files.store import Store
from ..operations.base.steps import resolve_inputs

MAX_ARRAYS = 32
MAX_COLUMNS = 64
MAX_NAME = 200
MAX_CONTRIBUTIONS = 8
MAD_TO_SIGMA = 1.4826
LEAST_SPREAD = 0.01
"""Of what is usual: what has never changed at all would be infinitely far from it at the least change."""
COMPARED_ROWS = 256
"""What is usual is read off so many rows from before the alarm, spread evenly over all that are kept."""


class Looked(msgspec.Struct, frozen=True):
    """What was found: rows by array, and of the row that was judged its values and what stands out."""

    ranges: tuple[RowRange, ...] = ()
    values: dict[str, float] = {}
    contributions: tuple[Contribution, ...] = ()


class EvidenceSource:
    """The outputs of one stream, as far as they are known to be written.

    Only rows up to the lengths that were committed or told since are looked at: what lies beyond is left of
    a process that was killed, and may not have come again when this is asked.
    """

    def __init__(
        self, stream: str, policy: Policy, store: Store, committed: Mapping[str, OutputLength]
    ) -> None:
        self._stream = stream
        self._store = store
        self._known = {
            reference.removeprefix(f"{stream}:"): (length.uid, length.length)
            for reference, length in committed.items()
            if reference != stream
        }
        self._outputs = [step.name for step in policy.pipeline if step.keep][:MAX_ARRAYS]
        self._judged = {name: name for name in self._outputs}
        with suppress(PolicyInvalid):  # an operation of the user's own is gone
            for step, source in zip(policy.pipeline, resolve_inputs(policy.pipeline), strict=True):
                if step.operation == CONDITION:
                    self._judged[step.name] = source

    def grown(self, step: str, array: DataArrayWriter, length: int) -> None:
        """The array of a step has so many rows now."""
        self._known[step] = (array.uid, length)

    def look(self, output: str, *, since_ns: int, until_ns: int) -> Looked:
        """What there is from `since_ns` to `until_ns`, event times, both included.

        The values are those of the last row of `output`, or, where that is a condition, of what it judges.
        """
        ranges: list[RowRange] = []
        values: dict[str, float] = {}
        contributions: tuple[Contribution, ...] = ()
        for name in self._outputs:
            try:
                array = self._store.array(f"{self._stream}:{name}")
            except ArrayNotFound:
                continue
            with array, suppress(RangeGone):
                uid, length = self._known.get(name, (b"", 0))
                # Samples say nothing that the rows above them do not, and are in the data stream too.
                if array.uid != uid or array.attrs.get("kind") == "samples":
                    continue
                begin = array.start
                times_ns = np.asarray(array.times_ns[begin:length])
                first, stop = np.searchsorted(times_ns, [since_ns, until_ns + 1]).tolist()
                if stop <= first:
                    continue
                ranges.append(RowRange(array.reference, begin + first, stop - first))
                if name == self._judged.get(output):
                    values, contributions = _compared(array, begin + first, begin + stop)
        return Looked(tuple(ranges), values, contributions)


def _compared(array: DataArray, first: int, stop: int) -> tuple[dict[str, float], tuple[Contribution, ...]]:
    """The row before `stop` by column, and what deviates most from the rows before `first`."""
    columns = [str(name)[:MAX_NAME] for name in array.attrs.get("columns", ())][:MAX_COLUMNS]
    if len(array.row_shape) != 1 or not columns:
        return {}, ()
    row = np.asarray(array[stop - 1], dtype=np.float64)[: len(columns)]
    finite = np.isfinite(row)
    values = {name: value for name, value, known in zip(columns, row.tolist(), finite, strict=True) if known}
    step = max(1, -(-(first - array.start) // COMPARED_ROWS))
    before = np.asarray(array[array.start : first : step], dtype=np.float64)[:, : len(columns)]
    if not len(before):
        return values, ()
    with np.errstate(invalid="ignore", divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of NaN alone
        usual = np.nanmedian(before, axis=0)
        spread = MAD_TO_SIGMA * np.nanmedian(np.abs(before - usual), axis=0)
        spread = np.maximum(spread, LEAST_SPREAD * np.abs(usual))
        deviations = (row - usual) / spread
    known = np.flatnonzero(np.isfinite(deviations))
    order = known[np.argsort(-np.abs(deviations[known]), kind="stable")][:MAX_CONTRIBUTIONS]
    return values, tuple(
        Contribution(columns[i], float(row[i]), float(usual[i]), float(spread[i]), float(deviations[i]))
        for i in order.tolist()
    )
