"""A payload's events are counted only if every event is well-formed."""

import gzip
import re
import sys
import zlib
from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import ChunkRejected
from windvane.ingest.bodies.decompression import decompress, decompressing
from windvane.ingest.checks.payload import count_events, counting

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

events = st.builds(
    lambda time, record: msgpack.packb([time, record]),
    st.integers(0, 2**32),
    st.dictionaries(st.text(max_size=5), st.binary(max_size=60), max_size=4),
)


@given(st.lists(events, max_size=20), st.none() | st.integers(-5, 30))
def test_the_count_is_right_whatever_the_hint_says(chunk: list[bytes], hint: int | None) -> None:
    assert count_events(b"".join(chunk), hint) == len(chunk)
    assert count_events(memoryview(b"".join(chunk)), len(chunk)) == len(chunk)


@given(st.lists(events, min_size=1, max_size=20), st.data(), st.booleans())
def test_a_truncated_payload_is_rejected(chunk: list[bytes], data: st.DataObject, hinted: bool) -> None:
    whole = b"".join(chunk)
    ends: set[int] = set()
    for event in chunk:
        ends.add(max(ends, default=0) + len(event))
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda at: at not in ends))
    with pytest.raises(ChunkRejected, match=r"ends inside event|not well-formed"):
        count_events(whole[:cut], len(chunk) if hinted else None)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (b"\x92\x00\xc1", "event 1 .* not well-formed"),
        (b"\x92\x00" + b"\x91" * 100_000, "event 1 is nested deeper than 800"),
        (b"\x92\x00\xdd\xff\xff\xff\xff", "ends inside event 1"),
        (b"\x92\x00\xc6\xff\xff\xff\xff", "ends inside event 1"),
    ],
)
@pytest.mark.parametrize("hint", [None, 2])
def test_the_broken_event_is_named(broken: bytes, said: str, hint: int | None) -> None:
    good = msgpack.packb([1, {"message": "x" * 80}])
    with pytest.raises(ChunkRejected, match=said) as rejection:
        count_events(good + broken, hint)
    assert rejection.value.code == ("invalid-event" if "nested" in str(rejection.value) else "malformed")


@pytest.mark.parametrize("first", [b"\x93\0\0\0", b"\x81\0\0", b"\x07", b"\xdc\0\3\0\0\0", b"\xc1"])
def test_a_payload_that_does_not_begin_with_an_event_is_rejected(first: bytes) -> None:
    with pytest.raises(ChunkRejected, match="begin with an event"):
        count_events(first)


def test_arrays_of_two_may_have_any_header() -> None:
    assert count_events(b"\xdc\0\2\0\x80" + b"\xdd\0\0\0\2\0\x80" + b"\x92\0\x80") == 3
    assert count_events(b"\xdd\0\0\0\2\0\x80", 1) == 1


def test_gzip_members_one_behind_the_other_are_one_payload() -> None:
    pieces = [b"abc" * 1000, b"", b"d", bytes(5_000_000)]
    packed = b"".join(map(gzip.compress, pieces))
    assert decompress(packed, "gzip", max_bytes=6_000_000) == b"".join(pieces)


@given(st.lists(st.binary(max_size=5000), max_size=300))
def test_any_members_come_out_as_they_went_in(pieces: list[bytes]) -> None:
    packed = b"".join(gzip.compress(piece, 1) for piece in pieces)
    assert decompress(packed, "gzip", max_bytes=2_000_000) == b"".join(pieces)


def test_a_gzip_bomb_is_rejected_by_its_decompressed_size() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with pytest.raises(ChunkRejected, match="more than 1000000 bytes"):
        decompress(bomb, "gzip", max_bytes=1_000_000)
    many_small = gzip.compress(bytes(400_000)) * 3
    with pytest.raises(ChunkRejected, match="more than 1000000 bytes"):
        decompress(many_small, "gzip", max_bytes=1_000_000)
    assert len(decompress(gzip.compress(bytes(1_000_000)), "gzip", max_bytes=1_000_000)) == 1_000_000


@pytest.mark.parametrize("size", [1, 10, 17, 30])
def test_a_truncated_member_is_rejected(size: int) -> None:
    packed = gzip.compress(b"some events, not many of them")
    with pytest.raises(ChunkRejected, match="cut off"):
        decompress(packed + packed[:size], "gzip", max_bytes=1000)


def test_invalid_gzip_is_rejected() -> None:
    for packed in (b"\x92\x00\x80", zlib.compress(b"x"), gzip.compress(b"x")[:-1] + b"?"):
        with pytest.raises(ChunkRejected, match="gzip"):
            decompress(packed, "gzip", max_bytes=1000)
    with pytest.raises(ChunkRejected, match="'lzma' is not known"):
        decompress(b"", "lzma", max_bytes=1000)


PADDINGS = [b"\0", bytes(512), bytes(70_000), b"\n", b"\r\n", b"\n\n", bytes(3) + b"\n"]


@pytest.mark.parametrize("padding", PADDINGS, ids=lambda padding: f"{len(padding)} of {padding[:1]!r}")
@pytest.mark.parametrize("content", [b"", b"abc" * 1000, bytes(3_000_000)], ids=len)
def test_gzip_padded_with_zeros_or_line_breaks_is_read(content: bytes, padding: bytes) -> None:
    member = gzip.compress(content)
    for packed in (bytearray(member + padding), memoryview(member + padding)):
        assert decompress(packed, "gzip", max_bytes=4_000_000) == content
    # As files that were padded each and joined then.
    assert decompress((member + padding) * 2, "gzip", max_bytes=7_000_000) == 2 * content


@pytest.mark.parametrize(
    "garbage",
    [b" ", b"x", b"\0x", b"\nnot gzip", b"\x1f", b"\x1f\x8b", b"\n\x1f\x8b\x08", bytes(4000) + b"."],
)
def test_garbage_after_the_last_gzip_member_is_rejected(garbage: bytes) -> None:
    member = gzip.compress(b"events")
    with pytest.raises(ChunkRejected, match="gzip") as rejected:
        decompress(member + garbage, "gzip", max_bytes=1000)
    assert rejected.value.code == "malformed"
    rest = garbage.lstrip(b"\0\r\n")
    if rest[:1] != b"\x1f":  # that may be a member which is cut off
        behind = "1 byte behind the gzip member is" if len(rest) == 1 else "bytes behind the gzip member are"
        assert f"{behind} neither gzip nor padding" in str(rejected.value)
        at = len(member) + len(garbage) - len(rest)
        assert f"(from byte {at}: {rest[:8].hex(' ')})" in str(rejected.value)


@pytest.mark.parametrize("as_payload", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("before", [b"", gzip.compress(b"first") + b"\n"], ids=["one", "second"])
def test_a_gzip_member_that_is_damaged_says_which_check_failed(
    as_payload: Callable[[bytes], bytes], before: bytes
) -> None:
    member = gzip.compress(b"events" * 100)
    for packed, said in (
        (member[:-8] + bytes(4) + member[-4:], "damaged: its checksum (CRC-32) does not match its content;"),
        (member[:-4] + bytes(4), "damaged: its length field does not match its content;"),
        (member[:10] + b"\xff" * 20, "damaged: invalid block type;"),
    ):
        with pytest.raises(ChunkRejected, match=re.escape(said)):
            decompress(as_payload(before + packed), "gzip", max_bytes=10_000)


def test_what_does_not_begin_like_gzip_shows_how_it_begins() -> None:
    with pytest.raises(ChunkRejected, match="not gzip: it begins with 7b 22 6e 22 3a 31 7d, gzip with 1f 8b"):
        decompress(b'{"n":1}', "gzip", max_bytes=1000)


@pytest.mark.parametrize("padding", PADDINGS, ids=len)
def test_padding_alone_is_not_gzip(padding: bytes) -> None:
    for packed in (padding, padding + gzip.compress(b"x")):
        with pytest.raises(ChunkRejected, match="gzip"):
            decompress(packed, "gzip", max_bytes=1000)


def chunked_frame(*pieces: bytes) -> bytes:
    """A frame as a stream writes it: block by block, without the size of its content in the header."""
    stream = zstd.ZstdCompressor()
    blocks = [stream.compress(piece, zstd.ZstdCompressor.FLUSH_BLOCK) for piece in pieces]
    frame = b"".join([*blocks, stream.flush()])
    assert zstd.get_frame_info(frame).decompressed_size is None
    return frame


@given(st.lists(st.lists(st.binary(max_size=3000), min_size=1, max_size=4), max_size=40), st.booleans())
def test_any_zstd_frames_come_out_as_they_went_in(frames: list[list[bytes]], chunked: bool) -> None:
    packed = b"".join(chunked_frame(*f) if chunked else zstd.compress(b"".join(f)) for f in frames)
    content = b"".join(b"".join(frame) for frame in frames)
    assert decompress(memoryview(packed), "zstd", max_bytes=max(1, len(content))) == content


def test_zstd_frames_may_have_checksums_be_large_and_be_skipped() -> None:
    content = bytes(range(256)) * 20_000
    options: dict[int, int] = {
        zstd.CompressionParameter.checksum_flag: 1,
        zstd.CompressionParameter.compression_level: 19,
    }
    skippable = b"\x50\x2a\x4d\x18\x05\0\0\0hello"
    packed = zstd.compress(content, options=options) + skippable + zstd.compress(b"") + chunked_frame(content)
    assert decompress(packed, "zstd", max_bytes=2 * len(content)) == 2 * content


def test_a_zstd_bomb_is_rejected_by_its_decompressed_size() -> None:
    for bomb in (
        zstd.compress(bytes(50_000_000)),
        zstd.compress(bytes(400_000)) * 3,
        chunked_frame(*[bytes(400_000)] * 3),
    ):
        with pytest.raises(ChunkRejected, match="more than 1000000 bytes") as rejected:
            decompress(bomb, "zstd", max_bytes=1_000_000)
        assert rejected.value.code == "too-large"
    assert len(decompress(zstd.compress(bytes(1_000_000)), "zstd", max_bytes=1_000_000)) == 1_000_000


def test_a_zstd_frame_with_a_huge_window_is_rejected() -> None:
    stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = stream.compress(b"few", zstd.ZstdCompressor.FLUSH_BLOCK) + stream.flush()
    with pytest.raises(ChunkRejected, match="window of more than 8388608") as rejected:
        decompress(frame, "zstd", max_bytes=1_000_000)
    assert rejected.value.code == "too-large"


@pytest.mark.parametrize("size", [1, 5, 9, 20])
def test_a_truncated_zstd_frame_is_rejected(size: int) -> None:
    packed = zstd.compress(b"some events, not many of them")
    with pytest.raises(ChunkRejected, match="cut off"):
        decompress(packed + packed[:size], "zstd", max_bytes=1000)


def test_invalid_zstd_is_rejected() -> None:
    checked = zstd.compress(b"x", options={zstd.CompressionParameter.checksum_flag: 1})
    for packed in (b"\x92\x00\x80\x00\x00", gzip.compress(b"x"), checked[:-1] + bytes([checked[-1] ^ 1])):
        with pytest.raises(ChunkRejected, match="not valid zstd"):
            decompress(packed, "zstd", max_bytes=1000)


SKIPPABLE = b"\x50\x2a\x4d\x18\0\0\0\0"
PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("compression", PACKERS)
def test_members_are_counted_and_those_without_content_are_counted_apart(compression: str) -> None:
    pack = PACKERS[compression]
    full, empty = pack(b"abc"), pack(b"")
    assert decompress(full * 50, compression, max_bytes=1000, max_members=50) == b"abc" * 50
    with pytest.raises(ChunkRejected, match="more than 50 compressed members;") as rejected:
        decompress(full * 51, compression, max_bytes=1000, max_members=50)
    assert rejected.value.code == "too-many-members"
    assert decompress(empty * 1000 + full, compression, max_bytes=1000) == b"abc"
    with pytest.raises(ChunkRejected, match="more than 1000 compressed members without content") as rejected:
        decompress(full + empty * 1001, compression, max_bytes=1000)
    assert rejected.value.code == "too-many-members"


def test_skippable_frames_are_members_without_content_whatever_their_size() -> None:
    event, large = (
        zstd.compress(b"abc"),
        b"\x5f\x2a\x4d\x18" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20),
    )
    assert decompress(SKIPPABLE + event + large + event, "zstd", max_bytes=100) == b"abcabc"
    with pytest.raises(ChunkRejected, match="without content"):
        decompress(SKIPPABLE * (3 << 20), "zstd", max_bytes=1 << 23)
    with pytest.raises(ChunkRejected, match="cut off"):
        decompress(event + large[:-1], "zstd", max_bytes=100)


@pytest.mark.parametrize("compression", PACKERS)
def test_decompressing_rests_after_each_megabyte_and_each_few_members(compression: str) -> None:
    pack = PACKERS[compression]
    for packed in (pack(bytes(20 << 20)), pack(b"abc") * 640):
        rests = sum(1 for _ in decompressing(packed, compression, max_bytes=32 << 20))
        assert rests >= 19


def test_counting_rests_and_stops_behind_the_most_that_is_taken() -> None:
    payload = b"\x92\x00\x80" * 200_000
    assert sum(1 for _ in counting(payload, None, max_events=1_000_000)) == 12
    assert sum(1 for _ in counting(payload, None, max_events=20_000)) == 2
    assert 20_000 < count_events(payload, max_events=20_000) < 40_000
