import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.store.files.mapping import ContiguousMapping
from windvane.store.files.segment_names import OFFSET_NAMES

PAGE = mmap.PAGESIZE
GIB = 1024 * 1024 * 1024


def make_segment(directory: Path, offset: int, size: int) -> None:
    """A sparse segment of `size` bytes, whose first byte identifies it."""
    path = directory / OFFSET_NAMES.name(offset)
    Path(path).write_bytes(bytes([offset % 251]))
    os.truncate(path, size)


def mappings_of(directory: Path) -> list[str]:
    """The segments that this process has mapped, in the order of their addresses."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [Path(line.split(maxsplit=5)[5]).name for line in lines if str(directory) in line]


def test_segments_lie_side_by_side(tmp_path: Path) -> None:
    for number in range(5):
        make_segment(tmp_path, number * PAGE, PAGE)
    mapping = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES)
    view = mapping.view(0, 5 * PAGE, origin=0, length=5 * PAGE, epoch=0)
    assert view.flags.c_contiguous
    assert view[::PAGE].tolist() == [number * PAGE % 251 for number in range(5)]
    assert mappings_of(tmp_path) == [f"{number * PAGE:020d}.seg" for number in range(5)]


def test_only_segments_that_are_looked_at_are_mapped(tmp_path: Path) -> None:
    for number in range(9):
        make_segment(tmp_path, number * PAGE, PAGE)
    mapping = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES)
    for number in (7, 2, 4, 3):
        mapping.view(number * PAGE + 1, number * PAGE + 2, origin=0, length=9 * PAGE, epoch=0)
    assert mappings_of(tmp_path) == [f"{number * PAGE:020d}.seg" for number in (2, 3, 4, 7)]
    assert mapping.view(PAGE, 9 * PAGE, origin=0, length=9 * PAGE, epoch=0)[::PAGE].tolist() == [
        number * PAGE % 251 for number in range(1, 9)
    ]


def test_a_growing_file_grows_in_place(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, PAGE)
    mapping = ContiguousMapping(str(tmp_path), 4 * PAGE, OFFSET_NAMES)
    first = mapping.view(0, 10, origin=0, length=10, epoch=0)
    os.truncate(tmp_path / OFFSET_NAMES.name(0), 4 * PAGE)
    make_segment(tmp_path, 4 * PAGE, 3 * PAGE)
    second = mapping.view(0, 7 * PAGE, origin=0, length=7 * PAGE, epoch=0)
    assert second.ctypes.data == first.ctypes.data
    assert len(mappings_of(tmp_path)) == 2


def test_a_file_that_outgrows_its_reservation_moves_and_old_views_stay(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, GIB)
    mapping = ContiguousMapping(str(tmp_path), GIB, OFFSET_NAMES)
    old = mapping.view(0, 10, origin=0, length=10, epoch=0)
    for number in range(1, 6):
        make_segment(tmp_path, number * GIB, GIB)
    new = mapping.view(0, 6 * GIB, origin=0, length=6 * GIB, epoch=0)
    assert new.shape == (6 * GIB,)
    assert new[::GIB].tolist() == [number * GIB % 251 for number in range(6)]
    assert old.ctypes.data != new.ctypes.data
    assert old.tolist() == new[:10].tolist()
    assert len(mappings_of(tmp_path)) == 7
    del old
    assert len(mappings_of(tmp_path)) == 6


def test_the_last_view_unmaps(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, PAGE)
    mapping = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES)
    part = mapping.view(0, PAGE, origin=0, length=PAGE, epoch=0)[10:20:3].view()
    mapping.close()
    assert part.tolist() == [0, 0, 0, 0]
    assert mappings_of(tmp_path)
    del part
    assert not mappings_of(tmp_path)


def test_a_mapping_without_views_holds_nothing_once_it_is_gone(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, PAGE)
    gc.disable()
    try:
        ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES).view(0, PAGE, origin=0, length=PAGE, epoch=0)
        assert not mappings_of(tmp_path)
    finally:
        gc.enable()


def test_views_cannot_be_written_to(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, PAGE)
    view = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES).view(0, PAGE, origin=0, length=PAGE, epoch=0)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    assert isinstance(view, np.ndarray)


def test_dropped_segments_are_let_go_by_the_next_view(tmp_path: Path) -> None:
    for number in range(3):
        make_segment(tmp_path, number * PAGE, PAGE)
    mapping = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES)
    mapping.view(0, 3 * PAGE, origin=0, length=3 * PAGE, epoch=0)
    os.unlink(tmp_path / OFFSET_NAMES.name(0))
    mapping.view(PAGE, 3 * PAGE, origin=PAGE, length=3 * PAGE, epoch=0)
    assert mappings_of(tmp_path) == [f"{number * PAGE:020d}.seg" for number in (1, 2)]


def test_a_recreated_file_is_not_read_from_its_old_segments(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, PAGE)
    mapping = ContiguousMapping(str(tmp_path), PAGE, OFFSET_NAMES)
    assert mapping.view(0, 1, origin=0, length=PAGE, epoch=0)[0] == 0
    os.unlink(tmp_path / OFFSET_NAMES.name(0))
    (tmp_path / OFFSET_NAMES.name(0)).write_bytes(b"\x07")
    assert mapping.view(0, 1, origin=0, length=PAGE, epoch=1)[0] == 7


def test_nothing_is_mapped_past_the_committed_length_or_the_end_of_a_segment(tmp_path: Path) -> None:
    make_segment(tmp_path, 0, 4 * PAGE)
    mapping = ContiguousMapping(str(tmp_path), 8 * PAGE, OFFSET_NAMES)
    mapping.view(0, 5, origin=0, length=PAGE + 1, epoch=0)
    assert mapped_bytes(tmp_path) == 2 * PAGE
    mapping.view(0, 4 * PAGE, origin=0, length=6 * PAGE, epoch=0)
    assert mapped_bytes(tmp_path) == 4 * PAGE
    with pytest.raises(IndexError):
        mapping.view(0, 5 * PAGE, origin=0, length=6 * PAGE, epoch=0)


def mapped_bytes(directory: Path) -> int:
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(directory) in line:
            low, high = (int(address, 16) for address in line.split()[0].split("-"))
            total += high - low
    return total


def test_a_range_over_segments_that_are_not_whole_pages_is_a_copy(tmp_path: Path) -> None:
    size = PAGE + 512
    content = np.random.default_rng(3).integers(0, 256, 3 * size, np.uint8)
    for offset in range(0, len(content), size):
        (tmp_path / OFFSET_NAMES.name(offset)).write_bytes(content[offset : offset + size].tobytes())
    mapping = ContiguousMapping(str(tmp_path), size, OFFSET_NAMES)

    def view(start: int, stop: int) -> NDArray[np.uint8]:
        return mapping.view(start, stop, origin=0, length=len(content), epoch=0)

    within = view(size + 7, 2 * size)
    assert np.array_equal(within, content[size + 7 : 2 * size])
    assert np.shares_memory(within, view(size + 7, size + 8))
    across = view(100, 3 * size - 1)
    assert np.array_equal(across, content[100 : 3 * size - 1])
    assert not across.flags.writeable
    assert not np.shares_memory(across, view(100, 101))
