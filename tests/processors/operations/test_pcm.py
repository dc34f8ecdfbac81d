"""`pcm` against NumPy and the standard library's struct, for any cut of the bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.errors import OperationFailed, PolicyInvalid

from tests.processors.operations import naive
from tests.processors.streams import Cut, cuts, op, run, run_with_restarts, whole

CODES = {
    "int8": "b",
    "uint8": "B",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float32": "f",
    "float64": "d",
}


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_bytes_are_decoded_as_by_struct(dtype: str, byteorder: str) -> None:
    data = np.frombuffer(np.arange(960, dtype=np.float64).astype("<i4").tobytes(), np.uint8)
    pcm = op("pcm", dtype=dtype, channels=3, rate_hz=1000, byteorder=byteorder)
    output = run(pcm, whole(len(data)).blocks(data))
    count = len(data) // np.dtype(dtype).itemsize
    values = struct.unpack(f"{'<>'[byteorder == 'big']}{count}{CODES[dtype]}", data.tobytes())
    assert output.rows.dtype == np.dtype(dtype)
    assert output.rows.shape[1] == 3
    np.testing.assert_array_equal(output.rows.ravel(), np.array(values, dtype))
    assert output.blocks[0].rate_hz == 1000.0


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_24_bits_become_int32(byteorder: str) -> None:
    packed = np.random.default_rng(0).bytes(300)
    output = run(
        op("pcm", dtype="int24", rate_hz=1, byteorder=byteorder),
        whole(300).blocks(np.frombuffer(packed, np.uint8)),
    )
    little = packed if byteorder == "little" else np.frombuffer(packed, "3u1")[:, ::-1].tobytes()
    assert output.rows.dtype == np.int32
    np.testing.assert_array_equal(output.rows.ravel(), naive.int24(little))


def test_a_scale_gives_the_unit() -> None:
    data = np.array([1000, -500], "<i2").view(np.uint8)
    output = run(op("pcm", rate_hz=25_600, scale=0.001, unit="g"), whole(4).blocks(data))
    assert output.rows.tolist() == [[1.0], [-0.5]]
    assert output.blocks[0].attrs == {
        "kind": "samples",
        "rate_hz": 25_600.0,
        "channels": 1,
        "unit": "g",
        "scale": 0.001,
    }


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_samples_and_times_do_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    sample_bytes, dtype = data.draw(
        st.sampled_from([(1, "int8"), (2, "int16"), (3, "int24"), (8, "float64")])
    )
    channels = data.draw(st.integers(1, 3))
    parameters = {
        "dtype": dtype,
        "channels": channels,
        "rate_hz": 8000,
        "scale": data.draw(st.sampled_from([1.0, 0.1])),
    }
    stream = np.frombuffer(data.draw(st.binary(min_size=1, max_size=200)), np.uint8)
    cut = data.draw(cuts(len(stream)))
    expected = run(op("pcm", **parameters), whole(len(stream)).blocks(stream))
    blocks = list(cut.blocks(stream))
    output, restarted = (
        run(op("pcm", **parameters), blocks),
        run_with_restarts(lambda: op("pcm", **parameters), blocks),
    )
    assert output.same_rows(expected)
    assert restarted.same_rows(expected)
    frame_bytes = sample_bytes * channels
    stops = range(frame_bytes, len(stream) + 1, frame_bytes)
    times_ns = naive.row_times_ns(stops, cut.event_stops, cut.times_ns)
    assert output.times_ns.tolist() == restarted.times_ns.tolist() == times_ns


@given(first=st.integers(0, 20), cut=cuts(40))
@settings(deadline=None)
def test_decoding_resumes_at_a_frame_boundary_after_a_gap(first: int, cut: Cut) -> None:
    stream = np.arange(20, dtype="<i2").repeat(2).view(np.uint8)  # 20 frames of two equal samples
    pcm = op("pcm", channels=2, rate_hz=1)
    blocks = [block for block in cut.blocks(stream[:40]) if block.first >= first]
    rows = run(pcm, blocks).rows.reshape(-1, 2)
    begin = -(-blocks[0].first // 4) if blocks else 10
    assert rows.tolist() == [[frame, frame] for frame in range(begin, 10)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "rate_hz is missing"),
        ({"rate_hz": 0}, "must be a number over 0"),
        ({"rate_hz": float("inf")}, "rate_hz cannot be inf"),
        ({"rate_hz": 1, "scale": 0}, "scale cannot be 0"),
        ({"rate_hz": 1, "dtype": "int12"}, "must be one of 'int8', 'uint8', 'int16'"),
        ({"rate_hz": 1, "channels": 0}, "must be a whole number from 1 up to 1024"),
    ],
)
def test_invalid_parameters_are_rejected(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(PolicyInvalid, match=message):
        op("pcm", **parameters)


def test_rows_other_than_bytes_are_rejected() -> None:
    with pytest.raises(OperationFailed, match='pcm reads bytes, not int16 rows: give it the input "bytes"'):
        op("pcm", rate_hz=1).process(next(whole(2).blocks(np.zeros((2, 1), np.int16))))
