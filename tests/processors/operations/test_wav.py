"""`wav` against scipy.io.wavfile and the standard library's wave, for any cut of the bytes."""

from __future__ import annotations

import io
import re
import struct
import wave
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import scipy.io.wavfile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windvane.processors.operations.base.block import Block, blocks_of
from windvane.processors.operations.base.operation import Operation, PartlyRejected

from tests.processors.operations import naive
from tests.processors.streams import Cut, Output, audio, cuts, op, run, run_with_restarts, whole

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")


def chunk(name: bytes, body: bytes, *, padding: bytes = b"\0") -> bytes:
    return name + struct.pack("<I", len(body)) + body + (padding if len(body) % 2 else b"")


def form(code: int, bits: int, *, channels: int = 1, rate_hz: int = 8000, extensible: bool = False) -> bytes:
    frame = (bits + 7) // 8 * channels
    layout = struct.pack("<HIIHH", channels, rate_hz, rate_hz * frame, frame, bits)
    if extensible:
        extension = struct.pack("<HHIH", 22, bits, 0, code) + GUID_TAIL
        return chunk(b"fmt ", struct.pack("<H", 0xFFFE) + layout + extension)
    return chunk(b"fmt ", struct.pack("<H", code) + layout)


def riff(*chunks: bytes) -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def endless(data: bytes, *, size: int = 0xFFFFFFFF) -> bytes:
    """A file as written to a pipe, where the writer cannot seek back to fill in the sizes."""
    return (
        b"RIFF" + struct.pack("<I", size) + b"WAVE" + form(1, 16) + b"data" + struct.pack("<I", size) + data
    )


INT16 = form(1, 16)


def decode(data: bytes, cut: Cut | None = None) -> Output:
    return run(op("wav"), (cut or whole(len(data))).blocks(np.frombuffer(data, np.uint8)))


def decode_all(wav: Operation, blocks: Iterable[Block]) -> tuple[list[Block], list[str]]:
    """The output blocks, and the reasons of rejections."""
    given: list[Block] = []
    rejected = []
    for block in blocks:
        try:
            given += blocks_of(wav.process(block))
        except PartlyRejected as error:
            given += blocks_of(error.given)
            rejected.append(str(error))
    return given, rejected


def to_array(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def samples_of(output: Output) -> list[int]:
    return [int(value) for value in output.rows.ravel()]


@pytest.mark.parametrize("name", ["Front_Center.wav", "Noise.wav"])
def test_a_recording_sent_in_pieces_is_what_scipy_reads(name: str) -> None:
    path = audio(name)
    rate_hz, expected = scipy.io.wavfile.read(path)
    data = path.read_bytes()
    stops = [*range(2048, len(data), 2048), len(data)]
    output = decode(data, Cut(stops, list(range(len(stops))), [5, 6, 40, len(stops)]))
    assert output.rows.dtype == expected.dtype
    assert np.array_equal(output.rows[:, 0], expected)
    assert output.blocks[0].rate_hz == rate_hz
    assert output.blocks[0].attrs == {
        "kind": "samples",
        "rate_hz": float(rate_hz),
        "channels": 1,
        "unit": "",
        "bits": 16,
    }


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_sample_format_that_scipy_writes(dtype: str, channels: int) -> None:
    samples = (np.random.default_rng(1).standard_normal((101, channels)) * 50 + 100).astype(dtype)
    file = io.BytesIO()
    scipy.io.wavfile.write(file, 11_025, samples)
    output = decode(file.getvalue())
    if dtype == "uint8":  # offset binary
        samples = (samples.astype(np.int16) - 128).astype(np.int8)
    assert output.rows.dtype == samples.dtype
    assert np.array_equal(output.rows, samples)
    assert output.blocks[0].rate_hz == 11_025.0


def test_24_bits_become_int32_with_their_values() -> None:
    packed = np.random.default_rng(2).bytes(3 * 2 * 50) + bytes.fromhex("ffff7f 000080 ffffff 010000")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(3)
        writer.setframerate(8000)
        writer.writeframes(packed)
    output = decode(file.getvalue())
    assert output.rows.dtype == np.int32
    assert np.array_equal(output.rows.ravel(), naive.int24(packed))


def test_the_extensible_format_is_read_like_the_plain_one() -> None:
    data = np.arange(-5, 5, dtype="<i2").tobytes()
    assert samples_of(decode(riff(form(1, 16, extensible=True), chunk(b"data", data)))) == list(range(-5, 5))
    floats = np.arange(5, dtype="<f4").tobytes()
    assert samples_of(decode(riff(form(3, 32, extensible=True), chunk(b"data", floats)))) == list(range(5))


def test_chunks_other_than_format_and_data_are_skipped() -> None:
    data = np.arange(7, dtype="<i2").tobytes()
    file = riff(
        chunk(b"JUNK", b"x" * 33),
        INT16,
        chunk(b"LIST", b"a" * 7),
        chunk(b"data", data),
        chunk(b"id3 ", b"b" * 9),
    )
    assert samples_of(decode(file + file)) == list(range(7)) * 2


def test_a_truncated_frame_gives_no_sample() -> None:
    file = riff(form(1, 16, channels=2), chunk(b"data", bytes(range(7))))
    assert samples_of(decode(file + file)) == [0x0100, 0x0302] * 2


def test_optional_padding_is_skipped() -> None:
    padded, bare = (riff(form(1, 8), chunk(b"data", b"abc", padding=padding)) for padding in (b"\0", b""))
    assert samples_of(decode(padded + bare + padded)) == [each - 128 for each in b"abcabcabc"]


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_file_written_to_a_pipe_has_no_size(size: int) -> None:
    data = np.arange(1000, dtype="<i2").tobytes()
    assert samples_of(decode(endless(data, size=size))) == list(range(1000))


def test_a_file_with_a_wrong_size_ends_at_the_next_file() -> None:
    file = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    lying = b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + file[8:]
    assert samples_of(decode(lying + file)) == [1, 2, 1, 2]


def stream_of_files(data: st.DataObject) -> bytes:
    files = []
    for _ in range(data.draw(st.integers(1, 4))):
        samples = data.draw(st.binary(max_size=60))
        around = [chunk(b"JUNK", b"RIFF" * data.draw(st.integers(0, 3))) for _ in range(2)]
        file = riff(around[0], form(1, 24, channels=2), chunk(b"data", samples or bytes(6)), around[1])
        files.append(b"RIFF\xff\xff\xff\xff" + file[8:] if data.draw(st.booleans()) else file)
    return b"".join(files)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_samples_and_times_do_not_depend_on_chunk_boundaries(data: st.DataObject) -> None:
    stream = stream_of_files(data)
    cut = data.draw(cuts(len(stream), max_events=20))
    expected = decode(stream)
    blocks = list(cut.blocks(np.frombuffer(stream, np.uint8)))
    output = run(op("wav"), blocks)
    assert output.same_rows(expected)
    assert run_with_restarts(lambda: op("wav"), blocks).same_rows(expected)

    regrouped = decode(stream, cut.regrouped(data.draw(st.sets(st.integers(1, 20)))))
    assert regrouped.times_ns.tolist() == output.times_ns.tolist()


def test_a_sample_sent_byte_by_byte_has_the_time_of_its_last_byte() -> None:
    stream = riff(INT16, chunk(b"data", np.arange(3, dtype="<i2").tobytes()), chunk(b"LIST", b"abcd"))
    stream += riff(INT16, chunk(b"data", np.arange(2, dtype="<i2").tobytes()))
    count = len(stream)
    output = decode(stream, Cut(list(range(1, count + 1)), list(range(count)), [20, 47, 49, count]))
    last_bytes = [45, 47, 49, 62 + 45, 62 + 47]
    assert samples_of(output) == [0, 1, 2, 0, 1]
    assert output.times_ns.tolist() == last_bytes


BROKEN: list[tuple[bytes, str]] = [
    (b"fLaC" + bytes(40), 'not the start of a WAVE file.*use "pcm"'),
    (b"RIFF\0\0\0\0AVI LIST", "not the start of a WAVE file"),
    (b"RIFX\0\0\0\0WAVE", "not the start of a WAVE file"),
    (riff(chunk(b"data", b"ab")), "samples before its format chunk"),
    (riff(chunk(b"fmt ", b"\1\0\1\0")), "format chunk has 4 bytes instead of 16"),
    (riff(form(0x55, 16), chunk(b"data", b"ab")), "format 0x0055.*write PCM of 8, 16, 24 or 32"),
    (riff(form(3, 16), chunk(b"data", b"ab")), "format 0x0003, 1 channels, 16 bits"),
    (riff(form(1, 16, channels=0), chunk(b"data", b"ab")), "0 channels"),
    (riff(form(1, 16, rate_hz=0), chunk(b"data", b"ab")), "0 Hz"),
    (
        riff(b"JUNK" + struct.pack("<I", 2**25)) + bytes(99),
        "chunk b'JUNK' of 33,554,432 bytes, 12 bytes behind",
    ),
    (riff(chunk(b"JUNK", b"abcd"), b"\1\2\3\4" + INT16), r"has b'\\x01.* should begin, 24 bytes behind"),
]


@pytest.mark.parametrize(("data", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
@pytest.mark.parametrize("chunks", [1, 3])
def test_only_the_part_that_is_not_a_wave_file_is_rejected(data: bytes, message: str, chunks: int) -> None:
    good = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    stream = np.frombuffer(good + data + good, np.uint8)
    cut = Cut([len(good), len(good + data), len(stream)], [1, 2, 3], [1, 2, 3] if chunks == 3 else [3])
    given, rejected = decode_all(op("wav"), cut.blocks(stream))
    assert len(rejected) == 1
    assert re.search(message, rejected[0])
    # One index is skipped: a gap.
    assert [(block.first, block.rows.ravel().tolist(), block.row_times_ns.tolist()) for block in given] == [
        (0, [1, 2], [1, 1]),
        (3, [1, 2], [3, 3]),
    ]


def test_what_follows_rejected_bytes_is_rejected_until_a_file_begins() -> None:
    good = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    stream = np.frombuffer(b"x" * 20 + b"y" * 20 + b"z" * 20 + good, np.uint8)
    given, rejected = decode_all(op("wav"), Cut([20, 40, len(stream)], [1, 2, 3], [1, 2, 3]).blocks(stream))
    assert len(rejected) == 3
    assert all("b'xxxxxxxxxxxx' are not the start of a WAVE file" in each for each in rejected)
    assert [block.rows.tolist() for block in given] == [[[1], [2]]]


def test_after_missing_bytes_there_is_a_gap_until_the_next_file() -> None:
    good = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    first, missing, last = Cut([46, 60, 108], [1, 2, 3], [1, 2, 3]).blocks(
        np.frombuffer(good + bytes(12) + good, np.uint8)
    )
    given, rejected = decode_all(op("wav"), [first, last])
    assert [(block.first, block.rows.tolist()) for block in given] == [(0, [[1]]), (2, [[1], [2]])]
    assert rejected == []
    given, rejected = decode_all(op("wav"), [first, missing, replace(last, first=200)])
    assert (
        "The bytes from 200 on follow others"
        in decode_all(op("wav"), [first, replace(missing, first=200)])[1][0]
    )


@pytest.mark.parametrize(
    "other", [form(1, 16, rate_hz=16_000), form(1, 16, channels=2), form(1, 32), form(3, 32), form(1, 8)]
)
def test_a_file_of_another_format_than_the_first_is_rejected(other: bytes) -> None:
    first = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    stream = np.frombuffer(first + riff(other, chunk(b"data", bytes(8))), np.uint8)
    wav = op("wav")
    blocks = list(Cut([len(first), len(stream)], [1, 2], [1, 2]).blocks(stream))
    wav.process(blocks[0])
    given, rejected = decode_all(wav, blocks[1:])
    assert given == []
    assert re.search(
        r"those before it in this stream had 1 channels of 16 bits .*tag of its own", rejected[0]
    )


@given(stream=st.binary(max_size=120), data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_decoded_or_rejected_regardless_of_chunk_boundaries(
    stream: bytes, data: st.DataObject
) -> None:
    stream = (
        riff(INT16, chunk(b"data", b"\1\0\2\0"))[: data.draw(st.sampled_from([0, 4, 12, 44, 48]))] + stream
    )
    # The last bytes may begin a file: the next byte decides.
    end = riff(INT16, chunk(b"data", b"\1\0\2\0"))
    count = len(stream) + len(end)

    def decoded(cut: Cut) -> tuple[list[int], list[list[int]], bool]:
        stops = [*cut.event_stops, count]
        blocks = Cut(stops, [0] * len(stops), [*cut.block_ends, len(stops)]).blocks(to_array(stream + end))
        given, rejected = decode_all(op("wav"), blocks)
        return (
            [index for block in given for index in range(block.first, block.stop)],
            [row for block in given for row in block.rows.tolist()],
            bool(rejected),
        )

    assert decoded(whole(len(stream))) == decoded(data.draw(cuts(len(stream))))


def test_memory_is_bounded_regardless_of_what_precedes_the_samples() -> None:
    stream = riff(chunk(b"JUNK", bytes(650_000)), INT16, chunk(b"data", b"\1\0\2\0"))
    wav = op("wav")
    output = run(op("wav"), Cut([100, 70_000, len(stream)], [1, 2, 3], [1, 2, 3]).blocks(to_array(stream)))
    assert samples_of(output) == [1, 2]
    for block in Cut([100, 70_000, len(stream)], [1, 2, 3], [1, 2, 3]).blocks(to_array(stream)):
        wav.process(block)
        state = wav.state()
        assert len(state.pending) + len(state.pending_events) < 64
