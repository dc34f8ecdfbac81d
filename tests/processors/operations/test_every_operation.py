"""What holds for every operation on samples: no cut changes a bit, nothing is joined over a gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.processors.operations.base.block import Block, blocks_of
from windvane.processors.operations.base.operation import Operation

from tests.processors.streams import Cut, cuts, firsts, op, run, run_with_restarts, whole

RATE_HZ = 1000.0


def noise(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(count).standard_normal((count, 2)) * 50 + 3


ALL_MEASURES = [
    "rms",
    "peak",
    "kurtosis",
    "crest",
    "skewness",
    "mean",
    "std",
    "min",
    "max",
    "peak_to_peak",
    "shape",
    "impulse",
    "clearance",
]

BEARING = {"rollers": 9, "roller_diameter_mm": 7.94, "pitch_diameter_mm": 39.04}

CASES: dict[str, Callable[[], Operation]] = {
    "spectrum": lambda: op("spectrum", length=32, level="dB", detrend="linear"),
    "welch": lambda: op("welch", length=16, segments=4),
    "welch of groups that overlap": lambda: op("welch", length=16, overlap=0.3, segments=4, step=1),
    "features": lambda: op("features", window=50, bands=2, measures=ALL_MEASURES),
    "envelope": lambda: op("envelope", length=40, taps=15, dtype="float64"),
    "bearing": lambda: op("bearing", **BEARING, length=40, taps=15, speed_rpm=3000.0),
    "kurtosis": lambda: op("kurtosis", length=16, frames=5),
    "sliding_dft": lambda: op("sliding_dft", frequencies_hz=[50.0, 120.0], length=60, hop=12),
    "filter": lambda: op("filter", cutoff_hz=[50, 200], response="bandpass", begin="steady"),
    "resample down": lambda: op("resample", up=3, down=7),
    "resample up": lambda: op("resample", up=5, down=2, dtype="float32"),
    "decimate": lambda: op("resample", rate_hz=250.0),
    "interpolate": lambda: op("resample", up=3),
    "welch of groups apart": lambda: op("welch", length=16, segments=2, step=3, dtype="float32"),
}


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_cut_changes_a_bit(name: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 400))
    samples = noise(count).astype(data.draw(st.sampled_from([np.int16, np.float32, np.float64])))
    cut = data.draw(cuts(count))
    expected = run(CASES[name](), whole(count).blocks(samples, rate_hz=RATE_HZ))
    blocks = list(cut.blocks(samples, rate_hz=RATE_HZ))
    output = run(CASES[name](), blocks)
    restarted = run_with_restarts(CASES[name], blocks)
    assert output.same_rows(expected)
    assert restarted.same_rows(expected)
    assert output.times_ns.tolist() == restarted.times_ns.tolist()
    assert set(output.times_ns.tolist()) <= set(cut.times_ns)


@pytest.mark.parametrize("name", CASES)
@given(before=st.integers(1, 250), missing=st.integers(1, 2000), after=st.integers(1, 250))
@settings(max_examples=25, deadline=None)
def test_nothing_is_joined_over_a_gap(name: str, before: int, missing: int, after: int) -> None:
    samples = noise(before + after)
    cut = Cut([before, before + after], [1, 2], [1, 2])
    first, second = cut.blocks(samples, rate_hz=RATE_HZ)
    moved = replace(second.times, ends=second.times.ends + missing)
    output = run(CASES[name](), [first, replace(second, first=before + missing, times=moved)], gaps=True)
    alone = [
        run(CASES[name](), whole(len(part)).blocks(part, rate_hz=RATE_HZ)).rows
        for part in (samples[:before], samples[before:])
    ]
    alone = [rows for rows in alone if len(rows)]
    assert output.rows.tobytes() == b"".join(rows.tobytes() for rows in alone)
    if len(alone) == 2:
        assert firsts(output)[len(alone[0])] > len(alone[0])


@pytest.mark.parametrize("name", CASES)
def test_each_channel_is_as_if_it_were_alone(name: str) -> None:
    samples = noise(2000)
    blocks = list(whole(2000).blocks(samples, rate_hz=RATE_HZ))
    both = run(CASES[name](), blocks).rows
    for channel in range(2):
        part: Any = replace(blocks[0], rows=samples[:, [channel]])
        alone = run(CASES[name](), [part]).rows
        together = both[:, channel] if both.ndim == 3 else np.split(both, 2, axis=1)[channel]
        assert together.tobytes() == alone.tobytes()


def in_blocks(samples: NDArray[Any], size: int = 333, rate_hz: float = RATE_HZ) -> list[Block]:
    stops = [*range(size, len(samples), size), len(samples)]
    cut = Cut(stops, list(range(len(stops))), list(range(1, len(stops) + 1)))
    return list(cut.blocks(samples, rate_hz=rate_hz))


@pytest.mark.parametrize("name", CASES)
def test_what_is_given_is_left_as_it_was(name: str) -> None:
    operation, blocks = CASES[name](), in_blocks(noise(2000))
    for block in blocks:
        block.rows.setflags(write=False)
        blocks_of(operation.process(block))
