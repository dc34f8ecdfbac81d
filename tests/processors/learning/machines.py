"""Features of simulated machines: healthy, failing slowly, failing suddenly, starting with a shock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from windvane.processors.operations.base.block import Block, EventTimes

from tests.processors.streams import Output, op, run

SECOND_NS = 1_000_000_000
INTERVAL_S = 10
BANDS = 4
COLUMNS = tuple(
    f"channel{channel}.{name}"
    for channel in range(2)
    for name in ("rms", "peak", "kurtosis", *(f"band_{band}_{band + 1}" for band in range(BANDS)))
)

Rows = NDArray[np.float64]


def features(
    level_db: Rows,
    *,
    seed: int = 0,
    noise_db: float = 0.5,
    band_db: Rows | None = None,
) -> Rows:
    """Rows of two channels, `level_db` above 0.5 g, and band 2 of channel 1 by `band_db` above that."""
    noise = np.random.default_rng(seed).normal(0, noise_db, (len(level_db), len(COLUMNS)))
    decibels = level_db[:, np.newaxis] + noise
    if band_db is not None:
        decibels[:, COLUMNS.index("channel1.band_2_3")] += band_db
    amplitudes = 0.5 * 10 ** (decibels / 20)
    is_band = np.array(["band" in name for name in COLUMNS])
    rows: Rows = np.where(is_band, amplitudes**2 / BANDS, amplitudes)
    return rows


def blocks(
    rows: Rows, times_ns: NDArray[np.int64] | None = None, *, columns: Sequence[str] = COLUMNS
) -> list[Block]:
    """One block; by default a row every 10 s."""
    if times_ns is None:
        times_ns = np.arange(len(rows)) * INTERVAL_S * SECOND_NS
    return [Block(rows, 0, EventTimes(np.arange(1, len(rows) + 1), times_ns), columns=tuple(columns))]


def judged(rows: Rows, *, columns: Sequence[str] = COLUMNS, **parameters: Any) -> dict[str, Rows]:
    """The output of `condition` for the rows, by column."""
    return by_column(run(op("condition", **parameters), blocks(rows, columns=columns)))


def by_column(output: Output) -> dict[str, Rows]:
    """The columns of an output by name."""
    return dict(zip(output.blocks[0].columns, output.rows.T, strict=True))


def onsets(grade: Rows, level: int = 1) -> list[int]:
    """Rows with which the grade rises to `level` or above."""
    there: list[int] = np.flatnonzero(np.diff((grade >= level).astype(int), prepend=0) == 1).tolist()
    return there
