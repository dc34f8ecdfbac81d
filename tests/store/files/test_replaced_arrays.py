"""Replaced arrays: listed with size, time and cause; dropped completely, and never by mistake."""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from windvane.errors import ArrayNotFound, StoreLocked
from windvane.store.files.replaced_arrays import drop, replaced, superseded
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

ROWS, TIMES_NS = np.zeros((1000, 4)), np.arange(1000)


def write(store: Store, reference: str, kind: Any = np.float64) -> None:
    with resumed(store.array_writer(reference, dtype=np.dtype(kind), row_shape=(4,), attrs={})) as array:
        array.append(ROWS.astype(kind), TIMES_NS)


def rebuild(store: Store, reference: str) -> None:
    write(store, f"{reference}~rebuilt")
    uid = store.array_uid(f"{reference}~rebuilt")
    assert uid is not None
    store.put_rebuilt_in_place(reference, uid)


def test_what_was_replaced_is_listed_with_size_time_and_cause(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for kind in (np.float64, np.float32):
        write(store, "s:a/b", kind)
    rebuild(store, "s:a/b")
    found = store.replaced()
    assert [(name, each.by) for name, each in found.items()] == [
        ("s:a/b~1", "layout"),
        ("s:a/b~2", "reprocess"),
    ]
    one, two = found.values()
    assert 0 < one.replaced_ns < two.replaced_ns
    assert one.size_bytes >= ROWS.nbytes + TIMES_NS.nbytes
    assert store.replaced("other") == {}


def test_the_latest_is_the_latest_whatever_the_clock_and_the_number_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    write(store, "s:a")
    for clock_ns in (30, 20, 10):
        monkeypatch.setattr("time.time_ns", lambda clock_ns=clock_ns: clock_ns)
        rebuild(store, "s:a")
    folder = tmp_path / "s" / "arrays"
    assert [each.directory.name for each in superseded(folder, "a")] == ["a~1", "a~2"]
    assert store.drop_superseded("s:a") == ["s:a~1", "s:a~2"]
    rebuild(store, "s:a")  # takes the first free number, and is the latest
    assert store.drop_superseded("s:a") == ["s:a~3"]
    assert list(store.replaced()) == ["s:a~1"]
    assert store.arrays() == ["s:a", "s:a~1"]


def test_what_an_earlier_version_set_aside_is_listed_and_never_superseded(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, "s:a")
    for number in (1, 2):
        shutil.copytree(tmp_path / "s/arrays/a", tmp_path / f"s/arrays/a~{number}")
    rebuild(store, "s:a")
    assert store.drop_superseded("s:a") == []
    assert [each.by for each in store.replaced().values()] == [None, None, "reprocess"]
    assert all(each.replaced_ns > 0 for each in store.replaced().values())


def test_a_killed_drop_leaves_no_array_and_the_next_drop_in_its_folder_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    write(store, "s:a")
    rebuild(store, "s:a")
    rebuild(store, "s:a")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.drop_array("s:a~1")
    folder = tmp_path / "s" / "arrays"
    assert len(list(folder.iterdir())) == 3
    assert store.arrays() == ["s:a", "s:a~2"]
    assert [each.directory.name for each in replaced(folder)] == ["a~2"]
    store.drop_array("s:a~2")
    assert [each.name for each in folder.iterdir()] == ["a"]
    with pytest.raises(ArrayNotFound):
        store.drop_array("s:a~2")


def test_what_is_being_written_is_not_dropped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with resumed(store.array_writer("s:a", dtype=np.dtype("f8"), row_shape=(4,), attrs={})) as array:
        array.append(ROWS, TIMES_NS)
        with pytest.raises(StoreLocked):
            drop(tmp_path / "s" / "arrays" / "a")
    assert store.array("s:a").shape == (1000, 4)
    descriptor = os.open(tmp_path / "s/arrays/a/rows/head", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # and the attempt has not left a lock
    os.close(descriptor)
