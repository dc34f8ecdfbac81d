"""Gaps, late and repeated rows: found by event times, never joined over, counted, for any cut of blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.errors import OperationFailed
from windvane.processors.operations.base.block import Block, Events, blocks_of
from windvane.processors.operations.base.operation import Operation

from tests.processors.streams import SECOND_NS, Cut, firsts, op, run, run_with_restarts

RATE_HZ = 1000.0
MS = 1_000_000
BEGIN_NS = 1_800_000_000 * SECOND_NS


@dataclass
class Sent:
    """The data of a sender: events of samples, each with its time; values count up to 30,000 and wrap."""

    meaning: Literal["first", "last"] = "first"
    samples: list[list[int]] = field(default_factory=list)
    times_ns: list[int] = field(default_factory=list)

    def event(self, at_ms: float, size: int = 100) -> None:
        begun = sum(map(len, self.samples))
        self.samples.append([sample % 30_000 for sample in range(begun, begun + size)])
        last_ns = round((size - 1) / RATE_HZ * SECOND_NS) if self.meaning == "last" else 0
        self.times_ns.append(BEGIN_NS + round(at_ms * MS) + last_ns)

    def blocks(self, block_ends: list[int] | None = None, *, frame_bytes: int = 2) -> list[Block]:
        stops = np.cumsum([len(event) * frame_bytes for event in self.samples]).tolist()
        data = np.array([sample for event in self.samples for sample in event], "<i2").view(np.uint8)
        return list(Cut(stops, self.times_ns, []).regrouped(block_ends or []).blocks(data))


def pcm(meaning: str = "first", **more: Any) -> Operation:
    return op("pcm", rate_hz=RATE_HZ, times=meaning, **more)


def counts(operation: Operation, blocks: list[Block]) -> dict[str, int]:
    for block in blocks:
        operation.process(block)
    return dict(operation.counts())


def naive_rows(sent: Sent, tolerance_ms: float) -> tuple[list[int], list[int], dict[str, int]]:
    """Values and indices of the accepted rows, event by event, and the counters."""
    values: list[int] = []
    numbers: list[int] = []
    counted = {"gaps": 0, "missing": 0, "late": 0, "repeated": 0}
    begin = expected = None
    gaps: list[tuple[int, int]] = []
    next_number = behind_rows = behind_events = 0
    tolerance = tolerance_ms * MS
    for samples, time_ns in zip(sent.samples, sent.times_ns, strict=True):
        if not samples:
            continue
        row_ns = SECOND_NS / RATE_HZ
        first = time_ns - (round((len(samples) - 1) * row_ns) if sent.meaning == "last" else 0)
        if expected is None:
            begin = expected = first
        assert begin is not None
        if first < expected - tolerance:
            behind_rows, behind_events = behind_rows + len(samples), behind_events + 1
            if behind_rows <= 60 * RATE_HZ or behind_events < 8:
                late = first < begin or any(g - tolerance <= first < e for g, e in gaps[-16:])
                counted["late" if late else "repeated"] += len(samples)
                continue
            begin, gaps, missing = first, [], 1
            counted["gaps"] += 1
        elif first > expected + tolerance:
            gaps.append((expected, first))
            missing = round((first - expected) / row_ns)
            counted["gaps"] += 1
        else:
            missing = 0
        counted["missing"] += missing
        behind_rows = behind_events = 0
        next_number += missing
        values += samples
        numbers += range(next_number, next_number + len(samples))
        next_number += len(samples)
        expected = first + round(len(samples) * row_ns)
    return values, numbers, counted


def test_by_default_times_cause_no_gaps() -> None:
    sent = Sent()
    for at_ms in (0, 5000, 100, 100):
        sent.event(at_ms)
    operation = op("pcm", rate_hz=RATE_HZ)
    assert len(run(operation, sent.blocks()).rows) == 400
    assert set(operation.counts().values()) == {0}


@pytest.mark.parametrize("meaning", ["first", "last"])
def test_a_missing_event_is_a_gap_of_as_many_samples(meaning: Literal["first", "last"]) -> None:
    sent = Sent(meaning)
    for at_ms in (0, 100, 300, 400):
        sent.event(at_ms)
    blocks = blocks_of(pcm(meaning).process(sent.blocks()[0]))
    assert [(block.first, block.stop) for block in blocks] == [(0, 200), (300, 500)]
    assert blocks[1].row_times_ns[0] == sent.times_ns[2]
    assert counts(pcm(meaning), sent.blocks()) == {"gaps": 1, "missing": 100, "late": 0, "repeated": 0}


def test_jitter_and_a_slow_clock_cause_no_gap() -> None:
    sent, jitter = Sent(), np.random.default_rng(0).uniform(-20, 20, 2000)
    for index, late_ms in enumerate(jitter):
        sent.event(100.01 * index + late_ms)  # 100 ppm: 20 ms in all
    assert counts(pcm(), sent.blocks())["gaps"] == 0
    # If the tolerance is smaller, the jitter appears as gaps.
    assert counts(pcm(max_gap_s=0.005), sent.blocks())["gaps"] > 100


def test_late_and_repeated_events_are_dropped_and_counted() -> None:
    sent = Sent()
    for at_ms in (1000, 1100, 1400, 1100, 1200, 500, 1500):
        sent.event(at_ms)
    operation = pcm()
    output = run(operation, sent.blocks([3]), gaps=True)
    kept = [0, 1, 2, 6]
    assert output.rows[:, 0].tolist() == [sample for event in kept for sample in sent.samples[event]]
    assert firsts(output) == [*range(200), *range(400, 600)]
    # 1200 would fill the gap, and 500 is before the first; 1100 is there already.
    assert operation.counts() == {"gaps": 1, "missing": 200, "late": 200, "repeated": 100}


def test_a_clock_that_was_set_back_does_not_stop_the_stream() -> None:
    sent = Sent()
    sent.event(10_000_000)
    for index in range(700):
        sent.event(100 * index)
    operation = pcm()
    output = run(operation, sent.blocks(), gaps=True)
    assert len(output.rows) == 100 + 100 * 100
    assert firsts(output)[100] == 101
    assert operation.counts() == {"gaps": 1, "missing": 1, "late": 60_000, "repeated": 0}


def test_slow_senders_need_eight_events_until_their_clock_was_set_back() -> None:
    fields = op("fields", rate_hz=1 / 600)
    times_ns = [BEGIN_NS, *(BEGIN_NS - 10**15 + 600 * SECOND_NS * index for index in range(10))]
    given = blocks_of(fields.process(Events(times_ns, [{b"x": value} for value in range(11)])))
    assert [block.rows[:, 0].tolist() for block in given] == [[0.0], [8.0, 9.0, 10.0]]


@st.composite
def senders(draw: st.DrawFn) -> Sent:
    """Events that mostly follow each other, with jumps both ways, repetitions, and long stretches behind."""
    sent, at_ms = Sent(draw(st.sampled_from(["first", "last"]))), 0.0
    for _ in range(draw(st.integers(1, 8))):
        at_ms += draw(st.sampled_from([0, 0, 0, 9, -9, 55, -55, 1000, -1000, 100_000, -100_000, 7e9]))
        size = draw(st.sampled_from([0, 1, 30, 100, 20_000]))
        for _ in range(draw(st.sampled_from([1, 1, 2, 10]))):
            sent.event(at_ms, size)
            at_ms += size
    return sent


@given(sent=senders(), data=st.data())
@settings(max_examples=80, deadline=None)
def test_rows_and_counts_do_not_depend_on_block_boundaries(sent: Sent, data: st.DataObject) -> None:
    values, numbers, counted = naive_rows(sent, tolerance_ms=50)
    ends = data.draw(st.lists(st.integers(1, len(sent.samples)), max_size=5))
    blocks = sent.blocks(ends)
    operation = pcm(sent.meaning)
    for output in (
        run(operation, blocks, gaps=True),
        run_with_restarts(lambda: pcm(sent.meaning), blocks, gaps=True),
    ):
        assert output.rows.ravel().tolist() == values
        assert firsts(output) == numbers
    assert operation.counts() == counted


@given(times_ns=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20), data=st.data())
@settings(deadline=None)
def test_row_numbers_increase_for_any_event_times(times_ns: list[int], data: st.DataObject) -> None:
    rate_hz = data.draw(st.sampled_from([1e-30, 1.0, 1e12]))
    fields = op("fields", rate_hz=rate_hz)
    output = run(fields, [Events(times_ns, [{b"x": 1}] * len(times_ns))], gaps=True)
    left_out = fields.counts()["late"] + fields.counts()["repeated"]
    assert len(output.rows) == len(times_ns) - left_out > 0


def test_records_of_a_sensor_with_a_rate_have_gaps() -> None:
    fields = op("fields", rate_hz=10, max_gap_s=0.2)
    seconds = [0.0, 0.1, 0.25, 0.3, 1.3, 1.4]
    times_ns = [BEGIN_NS + round(second * SECOND_NS) for second in seconds]
    given = blocks_of(fields.process(Events(times_ns, [{b"x": value} for value in range(6)])))
    assert [(block.first, block.stop, block.rate_hz) for block in given] == [(0, 4, 10.0), (13, 15, 10.0)]
    assert given[0].attrs["rate_hz"] == 10.0


def wav_file(count: int) -> bytes:
    data = np.arange(count, dtype="<i2").tobytes()
    form = b"fmt \x10\0\0\0\x01\0\x01\0" + np.array([1000, 2000], "<u4").tobytes() + b"\x02\0\x10\0"
    body = b"WAVE" + form + b"data" + np.uint32(len(data)).tobytes() + data
    return b"RIFF" + np.uint32(len(body)).tobytes() + body


def test_between_wave_files_time_may_have_passed() -> None:
    files = [wav_file(100)] * 3
    stops = np.cumsum([len(content) for content in files]).tolist()
    times_ns = [BEGIN_NS, BEGIN_NS + 100 * MS, BEGIN_NS + 700 * MS]
    data = np.frombuffer(b"".join(files), np.uint8)
    for ends in ([3], [1, 2, 3]):
        wav = op("wav", times="first")
        output = run(wav, Cut(stops, times_ns, ends).blocks(data), gaps=True)
        assert firsts(output) == [*range(200), *range(700, 800)]
        assert wav.counts()["gaps"] == 1


def test_a_file_that_cannot_be_read_is_a_gap() -> None:
    files = [wav_file(10), b"RIFFnonsense, and no more", wav_file(10)]
    stops = np.cumsum([len(content) for content in files]).tolist()
    wav = op("wav")
    first, second, third = Cut(stops, [1, 2, 3], [1, 2, 3]).blocks(np.frombuffer(b"".join(files), np.uint8))
    given = [*blocks_of(wav.process(first))]
    with pytest.raises(OperationFailed):
        wav.process(second)
    given += blocks_of(wav.process(third))
    assert [(block.first, block.stop) for block in given] == [(0, 10), (11, 21)]


def test_missing_bytes_leave_a_gap_of_their_samples() -> None:
    data = np.arange(40, dtype="<i2").view(np.uint8)
    blocks = list(Cut([21, 47, 80], [1, 2, 3], [1, 2, 3]).blocks(data))
    output = run(op("pcm", rate_hz=1), [blocks[0], blocks[2]], gaps=True)
    assert output.rows[:, 0].tolist() == firsts(output) == [*range(10), *range(24, 40)]


def test_an_event_that_ends_within_a_frame_is_rejected() -> None:
    block = next(Cut([7, 14], [1, 2], [2]).blocks(np.zeros(14, np.uint8)))
    operation = pcm()
    with pytest.raises(OperationFailed, match=r"ends 1 bytes into a frame of 2.*hold whole frames.*ignore"):
        operation.process(block)
    assert operation.state() is None


def test_no_frame_is_joined_over_a_gap_within_a_chunk() -> None:
    sent = Sent()
    for at_ms in (0, 100, 400):
        sent.event(at_ms)
    spectrum = op("spectrum", length=64, overlap=0.0)
    frames: list[NDArray[Any]] = []
    numbers: list[int] = []
    for block in blocks_of(pcm().process(sent.blocks()[0])):
        for result in blocks_of(spectrum.process(block)):
            frames += list(result.rows)
            numbers += range(result.first, result.stop)
    assert numbers == [0, 1, 2, 7]  # sample 400 would come to frame 6.25


@given(skipped=st.sets(st.integers(1, 9)), data=st.data())
@settings(deadline=None)
def test_gaps_appear_as_separate_rows(skipped: set[int], data: st.DataObject) -> None:
    samples = np.zeros((100, 2))
    cut = Cut([*range(10, 101, 10)], [*range(10)], [*range(1, 11)])
    blocks = [block for index, block in enumerate(cut.blocks(samples, rate_hz=4.0)) if index not in skipped]
    expected, times_ns = [], []
    for before, after in pairwise(blocks):
        if before.stop != after.first:
            expected.append([before.stop, after.first - before.stop, (after.first - before.stop) / 4])
            times_ns.append(int(after.times.times_ns[0]))
    for output in (run(op("gaps"), blocks), run_with_restarts(lambda: op("gaps"), blocks)):
        assert output.rows.tolist() == expected
        assert output.times_ns.tolist() == times_ns
