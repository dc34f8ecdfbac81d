"""How fast operations are compared with the bare NumPy or SciPy call, and how many channels one core handles.

Each operation takes one channel of int16 at 25.6 kHz in blocks of a second. In turn with it, round after
round, its peer is computed with NumPy or SciPy on the same frames of the same signal, whole and already in
float64, with nothing kept between blocks. Then many streams of raw int16 go through the vibration preset, by
the pipeline and the store of a worker, each in its turn, in chunks of a second (ten events each): archive,
decoding, spectrum, features, and what learns from them, with their states taken every two seconds. All is
measured in CPU time of one thread; ratios are medians over the rounds.

From the root of the repository: `python benchmarks/processing.py --json FILE`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import msgpack
import numpy as np
import scipy.ndimage
import scipy.signal
import scipy.stats
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from windvane.bus.discard import DiscardBus
from windvane.bus.messages.chunks import ChunkMessage
from windvane.processors.operations.base.block import Block, EventTimes, blocks_of
from windvane.processors.operations.base.presets import with_preset
from windvane.processors.operations.base.steps import make_operation
from windvane.processors.worker.pipeline.buffered_events import Released
from windvane.processors.worker.pipeline.pipeline import StreamPipeline
from windvane.processors.worker.pipeline.results_publisher import ResultsPublisher
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.processors.worker.progress.in_flight import MessagePosition
from windvane.store.catalog.policy import Step, policy_from_mapping
from windvane.store.files.store import Store

from benchmarks.report import Report, arguments

RATE_HZ = 25_600
BEGIN_NS = 1_800_000_000_000_000_000
CHUNKS = 4  # of a second, in a round through the preset
AIM_RATIO, AIM_CHANNELS = 0.5, 500
PUBLISHED_BYTES = 32 << 20
BEARING = {"rollers": 9, "roller_diameter_mm": 7.94, "pitch_diameter_mm": 39.04, "speed_rpm": 1800.0}

Way = Callable[[], object]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="of signal at 25.6 kHz (default: 60)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: 7)")
    parser.add_argument("--streams", type=int, default=50, help="through the preset in turn (default: 50)")
    parser.add_argument("--only", help="names of operations, with commas between them; default: all")
    options = parser.parse_args()
    report = Report("operations, one thread")
    samples = np.random.default_rng(0).normal(0, 3000, options.seconds * RATE_HZ).astype(np.int16)
    chosen = options.only.split(",") if options.only else None
    for name, (parameters, peer) in _cases(samples).items():
        operation, *_ = name.partition(" ")
        if chosen is None or operation in chosen:
            blocks = _blocks(samples, two_channels=operation == "order")
            ours = _through(operation, parameters, blocks)
            took = _measure({"ours": ours, "peer": peer}, options.rounds)
            speed = len(samples) / median(took["ours"]) / 1e6
            ratio = median(theirs / mine for mine, theirs in zip(took["ours"], took["peer"], strict=True))
            report.add(name, speed, "M samples/s", f"bare call (aim {AIM_RATIO:g})", ratio)
    if chosen is None or "preset" in chosen:
        asyncio.run(_preset(report, options.streams, options.rounds))
    report.finish(options.json)


def _cases(samples: NDArray[np.int16]) -> dict[str, tuple[dict[str, Any], Way]]:
    """Each operation with its parameters, and the bare library call that computes the same."""
    x = samples.astype(np.float64)
    return {**_spectral_cases(x), **_envelope_cases(x), **_sample_cases(x)}


def _spectral_cases(x: NDArray[np.float64]) -> dict[str, tuple[dict[str, Any], Way]]:
    window = scipy.signal.get_window("hann", 2048)
    frames = sliding_window_view(x, 2048)[::1024]

    def spectrum() -> NDArray[np.float64]:
        lines = np.fft.rfft(frames * window)
        power: NDArray[np.float64] = (lines.real**2 + lines.imag**2) / (RATE_HZ * np.sum(window**2))
        return power

    frequencies_hz = [50.0, 120.0, 300.0, 1000.0]
    angles = np.array(frequencies_hz)[:, np.newaxis] / RATE_HZ * np.arange(2048)
    waves = np.exp(-2j * np.pi * angles) * window
    tracked = sliding_window_view(x, 2048)[::256]
    return {
        "spectrum": ({}, spectrum),
        "spectrum in dB": ({"level": "dB"}, lambda: 10 * np.log10(spectrum())),
        "welch": ({"seconds": 10.0}, lambda: scipy.signal.welch(x, RATE_HZ, "hann", 2048, 1024)),
        "sliding_dft": ({"frequencies_hz": frequencies_hz}, lambda: np.abs(tracked @ waves.T)),
    }


def _envelope_cases(x: NDArray[np.float64]) -> dict[str, tuple[dict[str, Any], Way]]:
    def envelope(length: int = 16_384) -> object:
        analytic = scipy.signal.hilbert(
            scipy.signal.fftconvolve(x, scipy.signal.firwin(255, [2560, 10_240], pass_zero=False, fs=RATE_HZ))
        )
        return scipy.signal.spectrogram(np.abs(analytic), RATE_HZ, "hann", length, length // 2)

    short = scipy.signal.get_window("hann", 256)
    short_frames = sliding_window_view(x, 256)[::128]

    def kurtosis() -> object:
        lines = np.fft.rfft(short_frames * short)
        power = lines.real**2 + lines.imag**2
        return (power**2).mean(axis=0) / power.mean(axis=0) ** 2 - 2

    return {
        "envelope": ({}, envelope),
        "bearing": (BEARING, envelope),
        "kurtosis": ({}, kurtosis),
    }


def _sample_cases(x: NDArray[np.float64]) -> dict[str, tuple[dict[str, Any], Way]]:
    windows = x[: len(x) // 2560 * 2560].reshape(-1, 2560)
    sections = scipy.signal.butter(4, 1000, fs=RATE_HZ, output="sos")
    places, speed_rpm = np.arange(len(x)), np.full(len(x), 1800.0)

    def features() -> object:
        lines = np.fft.rfft(windows)
        power = lines.real**2 + lines.imag**2
        return (
            np.sqrt((windows**2).mean(axis=1)),
            np.abs(windows).max(axis=1),
            scipy.stats.kurtosis(windows, axis=1),
            [power[:, part * 160 : (part + 1) * 160].sum(axis=1) for part in range(8)],
        )

    def orders() -> object:
        angles = np.cumsum(speed_rpm / 60 / RATE_HZ * 1024)
        at = np.interp(np.arange(int(angles[-1])), angles, places)
        return scipy.ndimage.map_coordinates(x, [at], order=3)

    def statistics() -> object:
        return [f(part) for part in x.reshape(-1, RATE_HZ) for f in (np.min, np.mean, np.max, np.std)]

    return {
        "features": ({}, features),
        "filter": ({"cutoff_hz": 1000.0}, lambda: scipy.signal.sosfilt(sections, x)),
        "resample by 1/4": ({"down": 4}, lambda: scipy.signal.resample_poly(x, 1, 4)),
        "resample by 2/3": ({"up": 2, "down": 3}, lambda: scipy.signal.resample_poly(x, 2, 3)),
        "order": ({"speed_channel": 1, "points": 1024}, orders),
        "statistics": ({"period_s": 1.0}, statistics),
    }


def _blocks(samples: NDArray[np.int16], *, two_channels: bool) -> list[Block]:
    rows = samples[:, np.newaxis]
    if two_channels:
        rows = np.concatenate((rows, np.full_like(rows, 1800)), axis=1)
    seconds = range(len(samples) // RATE_HZ)
    return [
        Block(
            rows[second * RATE_HZ : (second + 1) * RATE_HZ],
            second * RATE_HZ,
            EventTimes(
                second * RATE_HZ + np.arange(1, 11) * RATE_HZ // 10,
                BEGIN_NS + second * 10**9 + np.arange(10) * 10**8,
            ),
            float(RATE_HZ),
        )
        for second in seconds
    ]


def _through(name: str, parameters: Mapping[str, Any], blocks: list[Block]) -> Way:
    operation = make_operation(Step(operation=name, parameters=dict(parameters)))

    def run() -> None:
        operation.restore(None)
        for block in blocks:
            blocks_of(operation.process(block))

    return run


def _measure(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
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


async def _preset(report: Report, streams: int, rounds: int) -> None:
    """The vibration preset; its pipelines hand alarms to a bus that keeps nothing, as a worker's do."""
    publisher = ResultsPublisher(DiscardBus(), WorkerTelemetry(), max_pending_bytes=PUBLISHED_BYTES)
    try:
        await asyncio.to_thread(_run_preset, report, streams, rounds, publisher)
    finally:
        await publisher.close()


def _run_preset(report: Report, streams: int, rounds: int, publisher: ResultsPublisher) -> None:
    """Channels that one core keeps up with, for the whole preset and less and less of it."""
    preset = with_preset("vibration", {"reference": "benchmark"})
    steps = preset["pipeline"]
    kinds = {"vibration preset": preset}
    for count in range(len(steps) - 1, -1, -1):
        last = steps[count - 1].get("name", steps[count - 1]["operation"]) if count else "the archive alone"
        kinds[f"of it, up to {last}" if count else f"of it, {last}"] = {**preset, "pipeline": steps[:count]}
    chunks = _chunks(CHUNKS)
    with tempfile.TemporaryDirectory(prefix="windvane-processing-") as folder:
        store = Store(Path(folder))
        fed = {
            name: [
                StreamPipeline(
                    f"kind{kind}.channel{channel}",
                    policy_from_mapping(mapping),
                    store,
                    lambda: None,
                    publisher=publisher,
                    report_failure=_raise,
                    report_worked=lambda *_: None,
                    new_output=lambda _: None,
                    database_id=bytes(16),
                )
                for channel in range(streams)
            ]
            for kind, (name, mapping) in enumerate(kinds.items())
        }
        took = _measure({name: _feeding(channels, chunks) for name, channels in fed.items()}, min(rounds, 3))
        for channels in fed.values():
            for stream in channels:
                stream.close()
    for name in kinds:
        kept_up = streams * CHUNKS / median(took[name])
        aim = (f"aim {AIM_CHANNELS}", kept_up / AIM_CHANNELS) if name == "vibration preset" else (None, None)
        report.add(name, kept_up, "channels of 25.6 kHz a core", *aim)


def _feeding(streams: list[StreamPipeline], chunks: list[ChunkMessage]) -> Way:
    """Second by second through all streams in turn, as a worker meets them, with its checkpoints."""

    def feed() -> None:
        for second, chunk in enumerate(chunks):
            for stream in streams:
                stream.process(Released(chunk, MessagePosition("", "", 0, second)))
                if second % 2:
                    stream.checkpoint()

    return feed


def _raise(stream: StreamPipeline, step: str, chunk: ChunkMessage, error: Exception, trace: str) -> None:
    raise error


def _chunks(seconds: int) -> list[ChunkMessage]:
    samples = np.random.default_rng(0).normal(0, 3000, (seconds, 10, RATE_HZ // 10)).astype("<i2")
    return [
        ChunkMessage(
            tag="benchmark",
            sender="benchmark",
            chunk_id=second.to_bytes(16, "big"),
            received_ns=BEGIN_NS,
            events=10,
            payload=b"".join(
                msgpack.packb([1_800_000_000 + second, {"message": samples[second, event].tobytes()}])
                for event in range(10)
            ),
        )
        for second in range(seconds)
    ]


if __name__ == "__main__":
    main()
