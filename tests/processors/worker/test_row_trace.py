"""What a row is said to depend on, against what happens if a byte or an event is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from windvane.processors.operations.base.block import Block, Events
from windvane.processors.operations.base.registry import built_in_operations
from windvane.processors.operations.base.steps import make_operation
from windvane.processors.worker.pipeline.steps import RunningSteps
from windvane.processors.worker.reprocessing.row_replay import with_steps
from windvane.processors.worker.reprocessing.row_trace import RowTrace, Traced
from windvane.store.catalog.policy import Policy, Step

from tests.processors.pipelines import chunks, policies

Given = dict[str, Block | Events]
CASES = [
    (name, step.name)
    for name, policy in policies().items()
    for step in policy.pipeline
    # A replay trains no model, so those rows are NaN; the other period is longer than the stream.
    if step.operation != "trained_model" and (name, step.operation) != ("events", "statistics")
]


class Row(NamedTuple):
    content: bytes
    time_ns: int
    traced: Traced


def rows_of(policy: Policy, step: str, given: Sequence[Given], *, numbers: Sequence[int] = ()) -> list[Row]:
    """The rows of a step; those with one of the `numbers` are traced."""
    running = with_steps(policy, [step])
    steps = RunningSteps(running, {})
    by_name = {each.name: each for each in running.pipeline}
    trace = RowTrace(steps.source_of, lambda name: make_operation(by_name[name]))
    rows: list[Row] = []
    event = 0
    for inputs in given:
        trace.begin_pass(event)
        events = inputs.get("events")
        event += len(events.records) if isinstance(events, Events) else 0
        for name, _, block in steps.run(inputs, failed=lambda name, _: trace.failed(name), observer=trace):
            if name != step:
                continue
            times = block.row_times_ns.tolist()
            for at, row in enumerate(block.rows):
                wanted = len(rows) in numbers
                traced = trace.trace(step, block.first + at) if wanted else Traced()
                rows.append(Row(row.tobytes(), times[at], traced))
    return rows


def changed(given: Sequence[Given], at: int) -> list[Given]:
    """The input with another value at this byte, or in this event."""
    found: list[Given] = []
    event = 0
    for inputs in given:
        data = next(iter(inputs.values()))
        if isinstance(data, Events):
            records = list(data.records)
            if event <= at < event + len(records):
                records[at - event] = {**records[at - event], b"a": records[at - event][b"a"] + 1000.5}
            event += len(records)
            found.append({"events": Events(data.times_ns, records)})
            continue
        if data.first <= at < data.stop:
            rows = data.rows.copy()
            rows[at - data.first] ^= 0x41
            data = replace(data, rows=rows)
        found.append({"bytes": data})
    return found


def size_of(given: Sequence[Given]) -> int:
    last = [next(iter(inputs.values())) for inputs in given]
    if isinstance(last[-1], Block):
        return last[-1].stop
    return sum(len(each.records) for each in last if isinstance(each, Events))


@pytest.mark.parametrize(("name", "step"), CASES)
def test_a_change_outside_leaves_the_row_alone_and_one_inside_changes_rows(name: str, step: str) -> None:
    policy = policies()[name]
    given = list(chunks(name))
    rng = np.random.default_rng(len(step))
    count = len(rows_of(policy, step, given))
    assert count, f"{step} gives no rows"
    numbers = sorted({0, count - 1, *rng.integers(0, count, 2).tolist()})
    before = rows_of(policy, step, given, numbers=numbers)
    changes = 0
    for number in numbers:
        traced = before[number].traced
        assert traced.all.start <= traced.direct.start < traced.direct.stop == traced.all.stop
        outside = [*range(traced.all.start), *range(traced.all.stop, size_of(given))]
        near = [at for at in outside if at in (traced.all.start - 1, traced.all.stop)]
        for at in [*near, *rng.choice(outside, min(3, len(outside)), replace=False).tolist()]:
            after = rows_of(policy, step, changed(given, at))
            assert after[number : number + 1], (number, at, traced)
            assert after[number][:2] == before[number][:2], (number, at, traced)
        inside = sorted({traced.direct.start, traced.direct.stop - 1, *range(*traced.direct)})
        tried = rng.choice(inside, min(4, len(inside)), replace=False).tolist()
        after_inside = [rows_of(policy, step, changed(given, at)) for at in tried]
        changes += any([row[:2] for row in each] != [row[:2] for row in before] for each in after_inside)
    # Gaps say where bytes are missing, not what they are; the trees of the model need more rows to differ.
    if step not in ("gaps", "model"):
        assert changes


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("pcm", {}),
        ("features", {"window": 7, "bands": 0, "measures": ["rms"]}),
        ("sliding_dft", {"frequencies_hz": [50.0], "length": 12, "hop": 4, "window": "boxcar"}),
        ("statistics", {"period_s": 0.001, "measures": ["rms"]}),
    ],
)
def test_the_first_and_the_last_sample_change_the_row_and_their_neighbours_do_not(
    operation: str, parameters: dict[str, object]
) -> None:
    samples = Step(
        operation="pcm", name="samples", parameters={"dtype": "int16", "channels": 3, "rate_hz": 1e3}
    )
    step = Step(operation=operation, name="step", input="samples", parameters=parameters)
    pipeline = (samples,) if operation == "pcm" else (samples, step)
    policy = Policy(reference="p", format="raw", pipeline=pipeline)
    name, given = pipeline[-1].name, list(chunks("pieces"))
    count = len(rows_of(policy, name, given))
    for number in {1, count // 2, count - 1}:
        row = rows_of(policy, name, given, numbers=[number])[number]
        start, stop = row.traced.all
        assert row.traced.direct == (start, stop)
        for at, changes in [
            (start - 1, False),
            (start, True),
            (stop - 2, operation != "statistics"),
            (stop, False),
        ]:
            after = rows_of(policy, name, changed(given, at))[number] if at < size_of(given) else row
            assert (after.content != row.content) == changes, (number, at, row.traced)


def test_every_built_in_operation_says_what_its_rows_depend_on() -> None:
    named = {step.operation for policy in policies().values() for step in policy.pipeline}
    assert named == set(built_in_operations())
