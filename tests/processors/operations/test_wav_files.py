"""`wav` on files of broken writers: every received sample, no header decoded as sound, for any cut."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from windvane.processors.worker.pipeline.steps import RunningSteps
from windvane.store.catalog.policy import Policy, Step

from tests.processors.operations import naive
from tests.processors.operations.test_wav import INT16, chunk, decode, decode_all, form, samples_of, to_array
from tests.processors.streams import Cut, cuts, op, run, run_with_restarts, whole

LIST = b"LIST\x1a\0\0\0INFOISFT\x0e\0\0\0Lavf58.29.100\0"
"""As ffmpeg writes it."""


@dataclass(frozen=True)
class Written:
    """A file of some writer, and the bytes of its samples."""

    file: bytes
    samples: bytes


def written(
    samples: bytes,
    *,
    fmt: bytes = INT16,
    kind: bytes = b"RIFF",
    data_size: int | None = None,
    riff_size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
    padding: bytes = b"\0",
) -> Written:
    """Sizes are right unless they are given."""
    size = len(samples) if data_size is None else data_size
    body = b"WAVE" + before + fmt + b"data" + struct.pack("<I", size) + samples
    body += padding * (len(samples) % 2) + after
    size = len(body) if riff_size is None else riff_size
    return Written(kind + struct.pack("<I", size) + body, samples)


def rf64(kind: bytes, samples: bytes, *, fmt: bytes = INT16, said: int | None = None) -> Written:
    ds64 = chunk(b"ds64", struct.pack("<QQQI", 0, len(samples) if said is None else said, 0, 0))
    return written(samples, fmt=fmt, kind=kind, data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF, before=ds64)


def int16(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def one_after_the_other(*files: bytes, in_one_chunk: bool = False) -> tuple[list[int], list[str]]:
    """The samples, and the reasons of rejections, of files that are each sent as an event."""
    stops = np.cumsum([len(file) for file in files]).tolist()
    ends = [len(files)] if in_one_chunk else list(range(1, len(files) + 1))
    cut = Cut(stops, list(range(len(files))), ends)
    given, rejected = decode_all(op("wav"), cut.blocks(to_array(b"".join(files))))
    return [int(value) for block in given for value in block.rows.ravel()], rejected


A, B = int16(*range(1000, 1100)), int16(*range(-900, -800))
a, b = list(range(1000, 1100)), list(range(-900, -800))

WRITERS = {
    "ffmpeg": written(A, data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF, before=LIST),
    "sox": written(A, data_size=0x7FFFF000, riff_size=0x7FFFF024),
    "arecord": written(A, data_size=0x80000000, riff_size=0x80000024),
    "gstreamer": written(A, data_size=0, riff_size=0),
    "python": written(A, data_size=0, riff_size=36),
    "16 too large": written(A, data_size=216, riff_size=252),
    "1 too large": written(A, data_size=201),
    "16 too small": written(A, data_size=184),
    "16 too small, as RIFF says": written(A, data_size=184, riff_size=220),
    "3 too small": written(A, data_size=197),
    "RIFF too small": written(A, riff_size=50),
    "RIFF too large": written(A, riff_size=100_000),
    "RIFF of 0": written(A, riff_size=0),
    "tagged behind": written(A, after=LIST, riff_size=36 + len(A)),
    "ID3v1 behind": written(A, after=b"TAG" + b"title".ljust(125, b"\0"), riff_size=36 + len(A)),
    "ID3v2 behind": written(A, after=b"ID3\x03\0\0\0\0\0\x0a" + bytes(10), riff_size=36 + len(A)),
    "zeros behind": written(A, after=bytes(512), riff_size=36 + len(A)),
    "a line break behind": written(A, after=b"\r\n", riff_size=36 + len(A)),
    "LIST too large": written(A, after=LIST[:4] + b"\xff\0\0\0" + LIST[8:]),
    "LIST too small": written(A, after=LIST[:4] + b"\x08\0\0\0" + LIST[8:]),
    "odd LIST, padded": written(A, before=chunk(b"LIST", b"INFOabcdefg")),
    "odd LIST, not padded": written(A, before=chunk(b"LIST", b"INFOabcdefg", padding=b"")),
    "odd bext behind, not padded": written(A, after=chunk(b"bext", b"abc", padding=b"")),
    "RF64": rf64(b"RF64", A),
    "BW64": rf64(b"BW64", A),
    "RF64 without an end": rf64(b"RF64", A, said=0),
    "RF64 too large": rf64(b"RF64", A, said=2**40),
    "JUNK for RF64": written(A, before=chunk(b"JUNK", bytes(28))),
    "a picture before": written(A, before=chunk(b"id3 ", b"\xff" * 200_000)),
    "wrong frame size": written(A, fmt=INT16[:20] + struct.pack("<HH", 0, 16)),
    "extensible": written(A, fmt=form(1, 16, extensible=True)),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("in_one_chunk", [False, True])
def test_all_samples_of_all_files_are_there(writer: str, in_one_chunk: bool) -> None:
    file = WRITERS[writer].file
    good = written(B).file
    samples, rejected = one_after_the_other(file, file, good, file, in_one_chunk=in_one_chunk)
    assert samples == a + a + b + a
    if writer == "LIST too small":
        assert all("not the start of a WAVE file" in reason for reason in rejected)
    else:
        assert rejected == []


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_cut_at_every_byte_is_the_same(writer: str) -> None:
    file = WRITERS[writer].file
    stream = (file if len(file) < 10_000 else file[:20] + written(A).file) + WRITERS["sox"].file
    count = len(stream)
    cut = Cut(list(range(1, count + 1)), list(range(count)), list(range(1, count + 1)))
    given, _ = decode_all(op("wav"), cut.blocks(to_array(stream)))
    assert [int(value) for block in given for value in block.rows.ravel()] == a + a
    times = [time for block in given for time in block.row_times_ns.tolist()]
    assert [stream[time] for time in times] == [each for each in (A + A)[1::2]]
    assert times == sorted(set(times))


def test_an_incomplete_file_does_not_affect_the_next() -> None:
    file = written(A, before=LIST, after=LIST).file
    for stop in range(1, len(file)):
        samples, rejected = one_after_the_other(file[:stop], written(B).file)
        came = max(min(stop - (len(file) - len(LIST) - len(A)), len(A)), 0) // 2
        assert samples == a[:came] + b
        assert len(rejected) <= 1
        if rejected:
            assert "has no samples" in rejected[0]


def test_a_leading_empty_file_does_not_affect_the_others() -> None:
    other = form(1, 8, channels=2, rate_hz=44_100)
    for empty in (
        b"",
        written(b"").file,
        written(b"", fmt=other).file,
        written(b"", fmt=other, after=LIST).file,
    ):
        assert one_after_the_other(empty, written(A).file, empty, written(B).file) == (a + b, [])


@pytest.mark.parametrize(
    "writer", ["ffmpeg", "sox", "arecord", "gstreamer", "16 too large", "RF64 without an end"]
)
def test_files_in_one_event_are_separated_by_their_headers(writer: str) -> None:
    stream = WRITERS[writer].file * 3
    assert samples_of(decode(stream)) == a * 3
    # If a cut is in such a header, only its first bytes are decoded as samples.
    for stop in range(1, len(stream), 7):
        samples = samples_of(decode(stream, Cut([stop, len(stream)], [1, 2], [1, 2])))
        assert len(samples) - 300 <= 10
        assert [each for each in samples if each in a] == a * 3


def test_samples_that_look_like_the_start_of_a_file_are_samples() -> None:
    alike = b"xxRIFF\1\2\3\4WAVEfmt xx" * 3 + b"RIFFRIFFRIFFxx"
    expected = np.frombuffer(alike, "<i2").tolist()
    for file in (written(alike), written(alike, data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF)):
        for cut in (whole(len(file.file)), Cut([50, len(file.file)], [1, 2], [1, 2])):
            assert samples_of(decode(file.file, cut)) == expected


def test_eight_bits_are_centred() -> None:
    samples = written(bytes([128, 0, 255, 129, 127]), fmt=form(1, 8)).file
    assert one_after_the_other(samples, samples) == ([0, -128, 127, 1, -1] * 2, [])
    assert decode(samples).rows.dtype == np.int8


def test_rows_beyond_the_declared_size_are_counted() -> None:
    wav = op("wav")
    run(wav, whole(len(WRITERS["16 too small"].file)).blocks(to_array(WRITERS["16 too small"].file)))
    assert wav.counts()["beyond_size"] == 8


@pytest.mark.parametrize(
    "behind", [b"fLaC" + bytes(40), b"RIFF\4\0\0\0AVI LIST", b"OggS\0\2\xff\xff\xff\xff", b"some text"]
)
def test_a_file_of_another_kind_is_rejected_and_takes_no_samples_with_it(behind: bytes) -> None:
    for in_one_chunk in (False, True):
        samples, rejected = one_after_the_other(
            written(A).file, behind, written(B).file, in_one_chunk=in_one_chunk
        )
        assert samples == a + b
        [reason] = rejected
        assert "not the start of a WAVE file" in reason


def test_a_step_that_rejects_a_part_gives_the_rest_to_the_steps_behind() -> None:
    policy = Policy(
        reference="w",
        format="raw",
        pipeline=(
            Step(operation="wav", name="samples"),
            Step(operation="features", name="features", parameters={"window": 50, "bands": 0}),
        ),
    )
    stream = to_array(b"no file" + written(A).file + b"no file")
    [block] = Cut([7, len(stream) - 7, len(stream)], [1, 2, 3], [3]).blocks(stream)
    failed: list[tuple[str, str]] = []
    steps = RunningSteps(policy, {})
    results = list(steps.run({"bytes": block}, failed=lambda step, error: failed.append((step, str(error)))))
    assert [(result.step, len(result.block.rows)) for result in results] == [
        ("samples", 100),
        ("features", 2),
    ]
    [(step, reason)] = failed
    assert (step, "not the start of a WAVE file" in reason) == ("samples", True)


FORMATS = [form(1, 8), form(1, 16, channels=2), form(1, 24), form(1, 32), form(3, 32), form(3, 64)]


@st.composite
def files(draw: st.DrawFn) -> list[Written]:
    """Files of one format by several writers. Samples look neither like text nor like silence."""
    fmt = draw(st.sampled_from(FORMATS))
    frame = int.from_bytes(fmt[20:22], "little")
    result = []
    for _ in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(5, 30))
        samples = bytes(draw(st.integers(0x80, 0xFF)) for _ in range(4)) * (frames * frame // 4 + 1)
        samples = samples[: frames * frame]
        data_size = draw(
            st.sampled_from([None, None, 0, 0xFFFFFFFF, 0x7FFFF000, len(samples) + 16, len(samples) - 3])
        )
        padding = draw(st.sampled_from([b"\0", b""]))
        before = draw(st.sampled_from([b"", LIST, chunk(b"LIST", b"abc", padding=padding)]))
        kind = draw(st.sampled_from([b"RIFF", b"RF64", b"BW64"]))
        if kind != b"RIFF" and data_size is None:
            result.append(rf64(kind, samples, fmt=fmt))
            continue
        after = b""
        if data_size is None:
            after = draw(st.sampled_from([b"", LIST, chunk(b"bext", b"abc", padding=padding)]))
        else:
            padding = b""  # it could not be distinguished from a sample
        riff_size = draw(st.sampled_from([None, 0, 0xFFFFFFFF, 40, 100_000]))
        result.append(
            written(
                samples,
                fmt=fmt,
                data_size=data_size,
                riff_size=riff_size,
                before=before,
                after=after,
                padding=padding,
            )
        )
    return result


@given(given_files=files(), data=st.data())
@settings(max_examples=150, deadline=None)
def test_samples_of_every_writer_do_not_depend_on_chunk_boundaries(
    given_files: list[Written], data: st.DataObject
) -> None:
    stream = b"".join(each.file for each in given_files)
    begins = np.cumsum([len(each.file) for each in given_files]).tolist()
    drawn = data.draw(cuts(len(stream), max_events=20))
    stops = sorted({*drawn.event_stops, *begins} - {0})
    times = data.draw(st.lists(st.integers(0, 2**62), min_size=len(stops), max_size=len(stops)))
    expected = b"".join(each.samples for each in given_files)
    assert b"".join(naive.wave_data(each.file) for each in given_files) == expected

    blocks = list(Cut(stops, times, list(range(1, len(stops) + 1))).blocks(to_array(stream)))
    output = run(op("wav"), blocks)
    if output.rows.dtype == np.int8:
        output_bytes = (output.rows.astype(np.int16) + 128).astype(np.uint8).tobytes()
    elif given_files[0].file.find(FORMATS[2]) > 0:
        output_bytes = b"".join(value.tobytes()[:3] for value in output.rows.ravel())
    else:
        output_bytes = output.rows.tobytes()
    assert output_bytes == expected
    assert run_with_restarts(lambda: op("wav"), blocks).same_rows(output)
    one_block = run(op("wav"), Cut(stops, times, [len(stops)]).blocks(to_array(stream)))
    assert one_block.same_rows(output)
    assert one_block.times_ns.tolist() == output.times_ns.tolist()
