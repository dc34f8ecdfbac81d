"""Readers of a segmented file between any two steps of its writer, and writers between those of a reader."""

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from windvane.errors import RangeGone
from windvane.store.files.rows import Rows
from windvane.store.files.segmented_file import SegmentedFile
from windvane.store.files.segmented_writer import SegmentedWriter

PAGE = mmap.PAGESIZE
LENGTH = 3 * PAGE + 10
_ACCESSES = 12


def expected(start: int, stop: int) -> NDArray[np.uint8]:
    """The bytes at these offsets, whatever the writer did before it wrote them."""
    return (np.arange(start, stop) * 7 // 5 % 251).astype(np.uint8)


def grow_to(writer: SegmentedWriter, length: int) -> None:
    writer.append(expected(writer.length, length).data)


class WatchedHead:
    """A head that calls `step` before each access to one of its words."""

    def __init__(self, head: Any, step: Callable[[], None]) -> None:
        self.__dict__.update(head=head, step=step)

    def __getattr__(self, name: str) -> Any:
        self.step()
        return getattr(self.head, name)

    def __setattr__(self, name: str, value: object) -> None:
        self.step()
        setattr(self.head, name, value)


@contextmanager
def interleaved(
    reader: SegmentedFile, steps: Sequence[Callable[[], object]], positions: Sequence[int]
) -> Iterator[None]:
    """Runs each step of the writer just before the access of that number of the reader.

    Accesses are those to the reader's head, and the opening of segments.
    """
    waiting = list(zip(positions, steps, strict=True))
    accesses = 0
    is_writing = False

    def before_access() -> None:
        nonlocal accesses, is_writing
        if is_writing:
            return
        is_writing = True
        while waiting and waiting[0][0] <= accesses:
            waiting.pop(0)[1]()
        is_writing = False
        accesses += 1

    open_file = os.open

    def open_after_step(*args: Any, **options: Any) -> int:
        before_access()
        return open_file(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_head", WatchedHead(reader._head, before_access))
        patch.setattr(os, "open", open_after_step)
        yield


@pytest.fixture
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda descriptor: None)


def view_all(file: SegmentedFile) -> None:
    """A view of what was there has its bytes, or says that they are gone."""
    epoch = file.epoch
    start, length = file.start, file.length
    if start >= length:
        return
    try:
        view = file.view(start, length)
    except RangeGone:
        return
    except IndexError:
        assert file.epoch > epoch
        return
    assert np.array_equal(view, expected(start, length))


def read_all(file: SegmentedFile) -> None:
    """Reading gives the bytes of the offset, fewer than requested at the end, or says that they are gone."""
    start = file.start
    try:
        read = file.read(start, LENGTH)
    except RangeGone:
        return
    assert read == expected(start, start + len(read)).tobytes()


def slice_rows(file: SegmentedFile) -> None:
    """An open slice never fails: it begins at the first row that is kept."""
    rows = Rows(file, np.dtype(np.uint8))[:]
    assert any(np.array_equal(rows, expected(start, start + len(rows))) for start in (0, 2 * PAGE))


@pytest.mark.usefixtures("_no_syncs")
@pytest.mark.parametrize("action", [view_all, read_all, slice_rows])
def test_a_writer_may_drop_restart_and_grow_between_any_steps_of_a_reader(
    tmp_path: Path, action: Callable[[SegmentedFile], None]
) -> None:
    for number, positions in enumerate(combinations_with_replacement(range(_ACCESSES), 4)):
        with SegmentedWriter(tmp_path / str(number), segment_bytes=PAGE).resume() as writer:
            grow_to(writer, LENGTH)
            steps = (
                lambda writer=writer: writer.drop_before(2 * PAGE),
                lambda writer=writer: writer.cut(0),
                lambda writer=writer: grow_to(writer, 10),
                lambda writer=writer: grow_to(writer, LENGTH),
            )
            with SegmentedFile(writer.directory) as reader:
                with interleaved(reader, steps, positions):
                    action(reader)
                action(reader)


def test_bytes_that_are_dropped_before_a_restart_are_not_viewed_outside_the_mapping(tmp_path: Path) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        grow_to(writer, LENGTH)
        reader = SegmentedFile(tmp_path)
        writer.drop_before(2 * PAGE)

        def restart() -> None:
            writer.cut(0)
            grow_to(writer, LENGTH)

        # The restart follows when the reader has read the start: byte 0 was dropped then, and is kept again.
        with interleaved(reader, [restart], [1]), pytest.raises(RangeGone, match="byte 0"):
            reader.view(0, PAGE)


@pytest.mark.usefixtures("_no_syncs")
@pytest.mark.parametrize("action", [view_all, read_all, slice_rows])
def test_a_reader_may_look_between_any_steps_of_a_writer(
    tmp_path: Path, action: Callable[[SegmentedFile], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with SegmentedWriter(tmp_path, segment_bytes=PAGE).resume() as writer:
        reader = SegmentedFile(tmp_path)
        monkeypatch.setattr(writer, "_head", WatchedHead(writer._head, lambda: action(reader)))
        grow_to(writer, LENGTH)
        writer.drop_before(2 * PAGE)
        writer.cut(0)
        grow_to(writer, 10)
        grow_to(writer, LENGTH)
        action(reader)
