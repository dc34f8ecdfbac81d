"""`wav` at the end of the samples: a frame cut by a size, other frame sizes, and events of another kind."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from windvane.processors.operations.wav.other_formats import is_other_kind

from tests.processors.operations.test_wav import chunk, decode, form, samples_of, to_array
from tests.processors.operations.test_wav_files import A, B, a, b, int16, one_after_the_other, written
from tests.processors.streams import Cut, op, run, whole

STEREO = form(1, 16, channels=2)
FRAMES = bytes(range(0x80, 0xA8))


@pytest.mark.parametrize("last", [7, 1000, 0x4141, 0x20, -1])
@pytest.mark.parametrize("in_one_chunk", [False, True])
def test_a_declared_size_one_byte_too_small_keeps_the_last_sample(last: int, in_one_chunk: bool) -> None:
    samples = A + int16(last)
    file = written(samples, data_size=len(samples) - 1, riff_size=36 + len(samples) - 1).file
    expected = [*a, last]
    assert one_after_the_other(file, written(B).file, file, in_one_chunk=in_one_chunk) == (
        expected + b + expected,
        [],
    )
    assert one_after_the_other(file, b"some text")[0] == expected
    joined = file * 2
    if last >> 8:
        assert samples_of(decode(joined)) == expected * 2


@pytest.mark.parametrize("missing", [1, 2, 3])
@pytest.mark.parametrize("end", [b"\x81\x82\x83\x84", b"A@@@", b"\0\0\0\1", b"    "])
def test_a_frame_cut_by_the_declared_size_is_complete(missing: int, end: bytes) -> None:
    samples = FRAMES + end
    file = written(samples, fmt=STEREO, data_size=len(samples) - missing).file
    expected = np.frombuffer(samples, "<i2").tolist()
    assert one_after_the_other(file, file) == (expected * 2, [])
    wav = op("wav")
    run(wav, whole(len(file)).blocks(to_array(file)))
    assert wav.counts()["beyond_size"] == 1


def test_a_byte_of_padding_that_the_riff_size_counts_completes_no_frame() -> None:
    file = written(FRAMES[:-1], fmt=STEREO).file
    expected = np.frombuffer(FRAMES[:-4], "<i2").tolist()
    assert one_after_the_other(file, file) == (expected * 2, [])


@pytest.mark.parametrize(
    ("code", "bits", "frame_bytes"), [(1, 16, 4), (1, 8, 2), (1, 8, 4), (1, 16, 3), (3, 32, 8)]
)
def test_channels_and_bits_override_the_declared_frame_size(code: int, bits: int, frame_bytes: int) -> None:
    dtype = {8: "u1", 16: "<i2", 32: "<f4"}[bits]
    values = np.arange(240).astype(dtype)
    fmt = struct.pack("<HHIIHH", code, 1, 8000, 8000 * frame_bytes, frame_bytes, bits)
    given = decode(written(values.tobytes(), fmt=chunk(b"fmt ", fmt)).file)
    assert given.rows.ravel().tolist() == (values.astype(float) - 128 * (bits == 8)).tolist()


@pytest.mark.parametrize(("byte_rate", "dtype"), [(32_000, "<i4"), (0, "<i4"), (24_000, "<i3")])
def test_24_bits_may_lie_in_32(byte_rate: int, dtype: str) -> None:
    fmt = struct.pack("<HHIIHH", 1, 1, 8000, byte_rate, 4, 24)
    file = written(bytes(range(0x81, 0x81 + 24)), fmt=chunk(b"fmt ", fmt)).file
    assert len(decode(file).rows) == (6 if dtype == "<i4" else 8)


OTHERS = {
    "MP3": b"\xff\xfb\x90\x64" + bytes(range(256)) * 4,
    "MPEG 2 layer III": b"\xff\xf3\x44\xc4" + bytes(range(256)),
    "MP2": (b"\xff\xfd\x84\x04" + bytes(range(256)) * 4)[:384] + b"\xff\xfd\x84\x04" + bytes(600),
    "AAC": (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)) * 3,
    "gzip": gzip.compress(bytes(range(256)) * 4),
    "zip": b"PK\3\4\x14\0\0\0\x08\0" + bytes(range(256)),
    "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(64),
    "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(64),
    "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "bzip2": b"BZh91AY&SY" + bytes(range(256)),
    "xz": b"\xfd7zXZ\0\0\4" + bytes(range(256)),
    "zstd": b"\x28\xb5\x2f\xfd\x24" + bytes(range(256)),
    "7z": b"7z\xbc\xaf\x27\x1c\0\4" + bytes(range(256)),
    "MP4": b"\0\0\0\x20ftypisom" + bytes(range(64)),
    "AIFF": b"FORM\0\0\1\0AIFFCOMM" + bytes(64),
    "FLAC": b"fLaC\0\0\0\x22" + bytes(64),
    "Ogg": b"OggS\0\2" + bytes(64),
    "text": "Ä hello this is not a wave file, sorry\n".encode() * 5,
    "short text": "Ähm".encode(),
    "Chinese": "这不是波形文件".encode(),
    "text with a mark": b"\xef\xbb\xbfhello",
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("in_one_chunk", [False, True])
def test_an_event_of_another_format_after_a_file_is_rejected(kind: str, in_one_chunk: bool) -> None:
    samples, rejected = one_after_the_other(
        written(A).file, OTHERS[kind], written(B).file, in_one_chunk=in_one_chunk
    )
    assert samples == a + b
    [reason] = rejected
    assert "not the start of a WAVE file" in reason


def test_samples_after_a_file_are_decoded_and_counted() -> None:
    """Also if they begin with the 11 bits of MPEG audio, of another layer or with fields invalid in MP3."""
    rng = np.random.default_rng(1)
    for first in (-1, -257, -769, 0x5FFF - 0x8000 + 0x2000, 12_345, *rng.integers(-9000, 9000, 200).tolist()):
        further = int16(first, -1, *rng.integers(-3000, 3000, 99).tolist())
        file = written(A).file
        wav = op("wav")
        stream = to_array(file + further)
        output = run(wav, Cut([len(file), len(stream)], [1, 2], [1, 2]).blocks(stream))
        if further[:4].isascii():
            continue
        assert samples_of(output) == a + np.frombuffer(further, "<i2").tolist()
        assert wav.counts()["beyond_size"] == 101


def test_sound_is_rarely_mistaken_for_another_format() -> None:
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 3000, (40_000, 200)).astype("<i2")
    assert sum(is_other_kind(each.tobytes()) for each in noise) <= 20
