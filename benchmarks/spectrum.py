"""How fast `spectrum` is, compared with the transform alone and with the SciPy call for the same.

One signal, int16 as sensors send it, goes through `process()` in blocks at default settings (frames of 2,048,
half overlap). In turn with it, round after round:

- rfft: `scipy.fft.rfft` of as many frames of the same length, in float64 and batches of the same size, over
  and over the same memory: no windowing, no squares, no results to keep;
- welch: `scipy.signal.welch(samples, rate)` with its own defaults: frames of 256, half overlap;
- welch of the same frames: with the window, length, overlap and detrending of `spectrum`.

All run in one thread and are measured in CPU time of that thread, so that other work on the machine weighs
less; ratios are medians over the rounds. From the root of the repository:
`python benchmarks/spectrum.py --json FILE`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

sys.path[0] = str(Path(__file__).resolve().parents[1])

from windvane.processors.operations.base.block import Block, EventTimes
from windvane.processors.operations.base.steps import make_operation
from windvane.processors.operations.framing import BATCH_VALUES
from windvane.store.catalog.policy import Step

from benchmarks.report import Report, arguments

LENGTH, HOP = 2048, 1024
CHANNEL_RATE_HZ = 25_600.0
BLOCK_SECONDS = {"blocks of 1 s": 1, "blocks of 10 s": 10}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="of signal at 25.6 kHz (default: 120)")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each (default: 9)")
    options = parser.parse_args()

    samples = (
        np.random.default_rng(0).normal(0, 3000, options.seconds * int(CHANNEL_RATE_HZ)).astype(np.int16)
    )
    same_frames: dict[str, Any] = {"nperseg": LENGTH, "noverlap": LENGTH - HOP, "detrend": False}
    peers: dict[str, Callable[[], object]] = {
        "rfft": _bare_transform((len(samples) - LENGTH) // HOP + 1),
        "welch": partial(scipy.signal.welch, samples, CHANNEL_RATE_HZ),
        "welch of the same frames": partial(scipy.signal.welch, samples, CHANNEL_RATE_HZ, **same_frames),
    }
    ours = {name: _through_process(samples, seconds) for name, seconds in BLOCK_SECONDS.items()}
    ways: dict[str, Callable[[], object]] = {**peers, **ours}
    took = _measure(ways, options.rounds)

    report = Report("spectrum, one thread")
    for peer in peers:
        report.add(peer, len(samples) / median(took[peer]) / 1e6, "M samples/s")
    for name in ours:
        speed = len(samples) / median(took[name])
        for peer in peers:
            ratio = median(theirs / mine for mine, theirs in zip(took[name], took[peer], strict=True))
            report.add(f"{name}, to {peer}", speed / 1e6, "M samples/s", peer, ratio)
        report.add(f"{name}, one thread", speed / CHANNEL_RATE_HZ, "channels of 25.6 kHz")
    report.finish(options.json)


def _through_process(samples: NDArray[np.int16], block_seconds: int) -> Callable[[], None]:
    size = block_seconds * int(CHANNEL_RATE_HZ)
    blocks = [
        Block(
            samples[first : first + size, np.newaxis],
            first,
            EventTimes(np.array([min(first + size, len(samples))]), np.array([first])),
            CHANNEL_RATE_HZ,
        )
        for first in range(0, len(samples), size)
    ]

    operation = make_operation(Step(operation="spectrum"))

    def run() -> None:
        operation.restore(None)
        for block in blocks:
            operation.process(block)

    return run


def _bare_transform(frames: int) -> Callable[[], None]:
    batch = BATCH_VALUES // LENGTH
    memory = np.random.default_rng(0).standard_normal((batch, LENGTH))

    def run() -> None:
        for _ in range(frames // batch):
            scipy.fft.rfft(memory, axis=1)
        if frames % batch:
            scipy.fft.rfft(memory[: frames % batch], axis=1)

    return run


def _measure(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way in each round; the ways take turns, once more before the first round."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.thread_time()
            way()
            took[name].append(time.thread_time() - begin)
    return took


if __name__ == "__main__":
    main()
