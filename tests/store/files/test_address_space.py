"""Arrays that are larger than the address space that a process may use (RLIMIT_AS, `ulimit -v`)."""

import gc
import mmap
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.errors import AddressSpaceUsed
from windvane.lab.array import Array
from windvane.store.files.data_array import DataArray
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.mapping import ContiguousMapping
from windvane.store.files.segment_names import OFFSET_NAMES

from .resumed import resumed

MIB = 1024 * 1024
GIB = 1024 * MIB
PAGE = mmap.PAGESIZE
ROWS, WIDTH = 65_536, 256
SEGMENT_BYTES = 4 * MIB
LEFT_BYTES = 24 * MIB


@contextmanager
def address_space_left(left_bytes: int) -> Iterator[None]:
    """For a while, this process may map so many bytes more than it does now."""
    gc.collect()  # mappings of earlier tests must not be released meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + left_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An array of 64 MiB, each row of which contains the row's number 256 times."""
    directory = tmp_path_factory.mktemp("arrays") / "long"
    rows = np.repeat(np.arange(ROWS, dtype=np.int32), WIDTH).reshape(ROWS, WIDTH)
    writer = DataArrayWriter(
        directory,
        "s:long",
        dtype=rows.dtype,
        row_shape=(WIDTH,),
        attrs={},
        segment_bytes=SEGMENT_BYTES,
    )
    with resumed(writer) as writer:
        writer.append(rows, np.arange(ROWS))
    return directory


KEYS = [
    np.s_[5:10],
    np.s_[-10:],
    np.s_[ROWS - 1],
    np.s_[4090:4100],  # over the end of a segment
    np.s_[4096:12288],  # two whole segments
    np.s_[7, 3],
    np.s_[5:10, ::-1],
    np.s_[::8192],
    np.s_[::-16384],
    [1, -1, 30_000],
    np.arange(ROWS) % 20_000 == 3,
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_the_requested_part_is_mapped_if_the_whole_does_not_fit(written: Path, key: Any) -> None:
    with DataArray(written, "s:long") as source:
        with address_space_left(LEFT_BYTES):
            found = Array(source)[key]
        expected = np.repeat(np.arange(ROWS, dtype=np.int32), WIDTH).reshape(ROWS, WIDTH)[key]
        np.testing.assert_array_equal(found, expected, strict=True)


def test_a_range_is_not_a_copy_and_adjacent_rows_share_a_mapping(written: Path) -> None:
    with DataArray(written, "s:long") as source, address_space_left(LEFT_BYTES):
        first, second = source[5], source[6]
        assert not first.flags.owndata
        assert not first.flags.writeable
        assert second.ctypes.data - first.ctypes.data == WIDTH * 4


def test_all_rows_can_be_walked_through_one_by_one(written: Path) -> None:
    with DataArray(written, "s:long") as source, address_space_left(LEFT_BYTES):
        assert sum(int(row[0]) for row in source) == ROWS * (ROWS - 1) // 2
        rows: Any = Array(source)
        assert [int(row[0]) for row, _ in zip(rows, range(9), strict=False)] == list(range(9))


def test_the_whole_that_does_not_fit_is_an_error_that_names_the_limit(written: Path) -> None:
    with DataArray(written, "s:long") as source:
        with address_space_left(LEFT_BYTES):
            with pytest.raises(AddressSpaceUsed, match=r"RLIMIT_AS.*ulimit -v.*max_map_count"):
                source[:]
            with pytest.raises(AddressSpaceUsed):
                source[..., 0]
            assert source[9][0] == 9
        assert source[:].shape == (ROWS, WIDTH)  # there is room now


def test_a_reservation_leaves_room_for_the_rest_of_the_process(written: Path) -> None:
    with DataArray(written, "s:long") as source, address_space_left(80 * MIB):
        assert source[5:10].sum() == WIDTH * (5 + 6 + 7 + 8 + 9)
        mmap.mmap(-1, 48 * MIB).close()  # the whole would have fit, and left 16 MiB


@pytest.mark.parametrize("segment_bytes", [PAGE, GIB])
def test_segments_of_any_size_are_mapped_in_part(tmp_path: Path, segment_bytes: int) -> None:
    count = 6
    for number in range(count):
        path = tmp_path / OFFSET_NAMES.name(number * segment_bytes)
        path.touch()
        os.truncate(path, segment_bytes)
    length = count * segment_bytes
    mapping = ContiguousMapping(str(tmp_path), segment_bytes, OFFSET_NAMES)
    with address_space_left(GIB // 2 if segment_bytes == GIB else 5 * PAGE):
        for start in (0, length // 2 - 10, length - 20):
            assert mapping.view(start, start + 20, origin=0, length=length, epoch=0).tolist() == [0] * 20
        with pytest.raises(AddressSpaceUsed):
            mapping.view(0, length, origin=0, length=length, epoch=0)
