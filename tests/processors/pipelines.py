"""Policies that between them name every built-in operation, and chunks that bring each into the middle of
something.

An operation that none of them names has a policy of its own: it runs with the parameters of the first example
in its docstring, or with its defaults.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from windvane.errors import PolicyInvalid
from windvane.processors.operations.base.block import Block, Events, EventTimes
from windvane.processors.operations.base.operation import Operation
from windvane.processors.operations.base.registry import built_in_operations
from windvane.processors.operations.base.steps import check_pipeline
from windvane.processors.worker.pipeline.steps import Result, RunningSteps
from windvane.store.catalog.policy import Policy, Step

from tests.docs.operations_page import examples

RATE_HZ = 1000.0
CHUNKS, ROWS = 6, 83

_BEARING: dict[str, Any] = {
    "rollers": 9,
    "roller_diameter_mm": 7.94,
    "pitch_diameter_mm": 39.04,
    "speed_rpm": 3000.0,
}


def _step(operation: str, name: str = "", *, input: str | None = None, **parameters: Any) -> Step:
    return Step(operation=operation, name=name or operation, input=input, parameters=parameters)


def policies() -> dict[str, Policy]:
    """By the name that `chunks` takes."""
    named = _policies_with_parameters()
    operations = built_in_operations()
    steps = [step for policy in named.values() for step in policy.pipeline]
    own = [name for name in operations if name not in {step.operation for step in steps}]
    return named | dict(policy_with_defaults(name, operations, steps) for name in own)


def policy_with_defaults(
    name: str, operations: Mapping[str, type[Operation]], steps: Sequence[Step]
) -> tuple[str, Policy]:
    """The policy of an operation that is not in `steps`, and the name that `chunks` takes.

    Of the steps, the first ones that give the kinds of input that it needs run before it.
    """
    of_docstring = [step for pipeline in examples(operations[name]) for step in pipeline]
    keys = next((step for step in of_docstring if step["operation"] == name), {})
    parameters = {key: value for key, value in keys.items() if key not in Step.__struct_fields__}
    pipeline = [_step(name, input=None, **parameters)]
    while (kind := operations[pipeline[0].operation].input) not in ("bytes", "events"):
        pipeline.insert(0, next(each for each in steps if operations[each.operation].output == kind))
    reads_events = kind == "events"
    policy = Policy(reference=name, format="json" if reads_events else "raw", pipeline=tuple(pipeline))
    try:
        check_pipeline(policy)
    except PolicyInvalid as error:
        raise AssertionError(
            f"{error} Give an example with its parameters (```toml) in the docstring of "
            f"{operations[name].__name__}, by which its saved state is tested"
        ) from error
    return f"{'events' if reads_events else 'samples'}-{name}", policy


def _policies_with_parameters() -> dict[str, Policy]:
    samples = (
        _step("pcm", dtype="int16", channels=3, rate_hz=RATE_HZ, times="first", max_gap_s=0.01),
        _step("gaps", input="pcm"),
        _step("filter", input="pcm", cutoff_hz=[50, 200], response="bandpass"),
        _step("resample", input="pcm", up=3, down=7),
        _step("spectrum", input="pcm", length=32),
        _step("welch", input="pcm", length=16, overlap=0.3, segments=14, step=1),
        _step("bands", input="spectrum", bands=[[40, 100], [100, 400]]),
        _step("envelope", input="pcm", length=40, taps=15),
        _step("bearing", input="pcm", **_BEARING, length=40, taps=15),
        _step("kurtosis", input="pcm", length=16, frames=15),
        _step("best_band", input="kurtosis"),
        _step("sliding_dft", input="pcm", frequencies_hz=[50.0, 120.0], length=60, hop=12),
        _step("order", input="pcm", points=16, speed_channel=2, speed_scale=1.0),
        _step("order", "tacho", input="pcm", points=16, tacho_channel=2, threshold=300.0),
        _step("features", input="pcm", window=7, bands=2),
        _step("statistics", input="pcm", period_s=0.04, measures=["mean", "kurtosis"]),
        _step("model", input="features", estimator="river.anomaly.HalfSpaceTrees", parameters={"n_trees": 3}),
        _step("trained_model", input="features", first_after_rows=20, every_rows=10),
        _step("condition", input="features", interval_s=0.005, learn=10, warning=2.0, danger=3.0),
    )
    return {
        "samples": Policy(reference="samples", format="raw", pipeline=samples),
        "pieces": Policy(
            reference="pieces",
            format="raw",
            pipeline=(_step("pcm", dtype="int16", channels=3, rate_hz=RATE_HZ),),
        ),
        "wav": Policy(reference="wav", format="raw", pipeline=(_step("wav"),)),
        "events": Policy(
            reference="events", format="json", pipeline=(_step("fields", rate_hz=10.0), _step("statistics"))
        ),
    }


def chunks(name: str) -> Iterator[dict[str, Block | Events]]:
    """What a stream of that policy brings: the same each time, with a gap behind the third chunk."""
    name = name.partition("-")[0]
    if name == "events":
        for chunk in range(CHUNKS):
            events_ns = (np.arange(chunk * 7, chunk * 7 + 7) + (chunk > 2) * 30) * 100_000_000
            yield {"events": Events(events_ns.tolist(), [{b"a": n / 3, b"b": 7} for n in events_ns.tolist()])}
        return
    for data, first, ends, times_ns in _raw(name):
        rows = np.frombuffer(data, np.uint8)
        yield {"bytes": Block(rows, first, EventTimes(np.array(ends), np.array(times_ns)))}


def _raw(name: str) -> Iterator[tuple[bytes, int, list[int], list[int]]]:
    rng = np.random.default_rng(1)
    files = []
    for chunk in range(CHUNKS):
        samples = (rng.standard_normal((ROWS, 3)) * (100 + 300 * (chunk > 3))).astype("<i2")
        samples[:, 2] = np.where(np.arange(ROWS) % 25 < 5, 900, 120)
        data = samples.tobytes()
        if name == "wav":
            head = struct.pack(
                "<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, 3, 1000, 6000, 6, 16
            )
            data = head + struct.pack("<4sI", b"data", len(data)) + data
        files.append(data)
    size = len(files[0])
    # Cut in the middle of frames, or of a header; event times need whole frames.
    more = {"samples": 0, "pieces": 1, "wav": 21}[name]
    stops = [size * chunk + more for chunk in range(1, CHUNKS)] + [size * CHUNKS]
    stream, first = b"".join(files), 0
    for chunk, stop in enumerate(stops):
        time_ns = (ROWS * chunk + (chunk > 2) * 50) * 1_000_000
        yield stream[first:stop], first, [stop], [time_ns]
        first = stop


def given_by(steps: RunningSteps, name: str, parts: slice) -> list[tuple[str, int, str, bytes, list[int]]]:
    """All rows that the steps give for some of the chunks, to the last bit."""
    results: list[Result] = []
    for given in list(chunks(name))[parts]:
        results += steps.run(given, failed=_failed)
    return [
        (
            each.step,
            each.block.first,
            each.block.rows.dtype.str,
            each.block.rows.tobytes(),
            _times(each.block),
        )
        for each in results
    ]


def _times(block: Block) -> list[int]:
    times: list[int] = block.row_times_ns.tolist()
    return times


def _failed(step: str, error: BaseException) -> None:
    raise AssertionError(f"{step}: {error!r}") from error
