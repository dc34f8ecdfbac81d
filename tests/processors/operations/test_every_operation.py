"""Properties of every operation on samples: no cut changes a bit, nothing is joined over a gap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.operations import Operation
from windvane.testing.operations import MakeOperation, SampleConformance

from tests.processors.streams import cuts, op, run

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


class TestEveryOperation(SampleConformance):
    """The shipped suite, with each of the cases for operations on samples."""

    @pytest.fixture(params=CASES)
    def make_operation(self, request: pytest.FixtureRequest) -> MakeOperation:
        return CASES[request.param]


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@settings(max_examples=5, deadline=None)
def test_events_that_complete_no_row_are_left_out(name: str, data: st.DataObject) -> None:
    cut = data.draw(cuts(400))
    run(CASES[name](), cut.blocks(np.ones((400, 2)), rate_hz=1000.0))
