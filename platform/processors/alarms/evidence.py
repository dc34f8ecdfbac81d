"""The evidence of an alarm: the stored rows around its time, and the columns that deviate most."""

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
from ...store.interface import ArrayReader, ArrayWriter, StoreEngine
from ..operations.base.steps import resolve_inputs

MAX_ARRAYS = 32
MAX_COLUMNS = 64
MAX_NAME = 200
MAX_CONTRIBUTIONS = 8
MAD_TO_SIGMA = 1.4826
LEAST_SPREAD = 0.01
"""Share of the usual value. Without it, the first change of a constant column would deviate infinitely."""
COMPARED_ROWS = 256
"""The usual values are computed from at most this many rows before the alarm, evenly spaced."""


class Evidence(msgspec.Struct, frozen=True):
    """Row ranges by array, and the values and the largest deviations of the judged row."""

    ranges: tuple[RowRange, ...] = ()
    values: dict[str, float] = {}
    contributions: tuple[Contribution, ...] = ()


class EvidenceSource:
    """The outputs of one stream, up to their known lengths.

    A length is known from the checkpoint or from `grown`. Rows beyond it were left by a killed process, and
    are not read: they may not have been computed again yet.
    """

    def __init__(
        self, stream: str, policy: Policy, store: StoreEngine, committed: Mapping[str, OutputLength]
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
        with suppress(PolicyInvalid):  # a user-defined operation was removed
            for step, source in zip(policy.pipeline, resolve_inputs(policy.pipeline), strict=True):
                if step.operation == CONDITION:
                    self._judged[step.name] = source

    def grown(self, step: str, array: ArrayWriter, length: int) -> None:
        """Records the length of a step's array, in rows."""
        self._known[step] = (array.uid, length)

    def look(self, output: str, *, since_ns: int, until_ns: int) -> Evidence:
        """Returns the evidence from `since_ns` to `until_ns` (event times, both included).

        The values are those of the last row of `output`, or of the condition's input if it is a condition.
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
                # The data stream has the samples too, and the rows made of them say more.
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
        return Evidence(tuple(ranges), values, contributions)


def _compared(array: ArrayReader, first: int, stop: int) -> tuple[dict[str, float], tuple[Contribution, ...]]:
    """Returns the row before `stop` by column, and its largest deviations from the rows before `first`."""
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
