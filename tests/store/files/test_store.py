import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from windvane.errors import ArrayNotFound, StoreFailed, StoreLocked, StreamNotFound
from windvane.store.files.data_array_writer import DataArrayWriter
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed

FLOAT = np.dtype("<f4")
# Valid tags: 1 to 200 bytes of UTF-8 without ':' and control characters.
TAGS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters=":"), min_size=1, max_size=200
).filter(lambda tag: len(tag.encode()) <= 200)


def open_array(store: Store, reference: str, *, rate_hz: float = 1.0) -> DataArrayWriter:
    return resumed(store.array_writer(reference, dtype=FLOAT, row_shape=(2,), attrs={"rate_hz": rate_hz}))


def test_streams_and_arrays_are_found_by_reference(tmp_path: Path) -> None:
    store = Store(tmp_path / "home/store")
    assert store.streams() == store.arrays() == []
    with resumed(store.stream_writer("turbine.t07", attrs={"tag": "turbine.t07"})) as stream:
        stream.append(b"bytes", arrived_ns=1, chunk_id=None, events=1)
        with open_array(store, "turbine.t07:spectrum") as array, open_array(store, "alone:score"):
            array.append(np.ones((3, 2), FLOAT), np.arange(3))
    another = Store(tmp_path / "home/store")
    assert another.streams() == ["turbine.t07"]
    assert another.arrays() == ["alone:score", "turbine.t07:spectrum"]
    assert another.arrays("turbine.t07") == ["turbine.t07:spectrum"]
    assert another.arrays("nobody") == []
    assert another.stream("turbine.t07").read(0, 9) == b"bytes"
    assert another.array("turbine.t07:spectrum").reference == "turbine.t07:spectrum"
    assert len(another.array("turbine.t07:spectrum")) == 3


@settings(max_examples=40, deadline=None)
@given(tags=st.lists(TAGS, min_size=1, max_size=3, unique=True))
@example(tags=[".", "..", "...", ".hidden", "a/b", "a%2Fb", "%", "%-", "%41", "A", "~1", "head", " "])
@example(tags=["風車.第七号機.振動センサー" * 5, "турбина", "é", "e\u0301", "🌀" * 50])
@example(tags=["/" * 200, "/" * 199 + ".", "%" * 120, "x" * 200])
def test_any_tag_names_a_stream_of_its_own(tags: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for tag in tags:
            resumed(store.stream_writer(tag, attrs={"tag": tag})).close()
            open_array(store, f"{tag}:spectrum").close()
            open_array(store, f"{tag}:..").close()
        assert store.streams() == sorted(tags)
        assert store.arrays() == sorted(f"{tag}:{output}" for tag in tags for output in ("spectrum", ".."))
        for tag in tags:
            assert store.stream(tag).attrs["tag"] == tag
            assert store.arrays(tag) == [f"{tag}:..", f"{tag}:spectrum"]


def test_what_is_not_there_is_not_found_and_not_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    open_array(store, "s:made").close()
    for reference in ("nobody", "s", "", "s:made", "x" * 300):
        with pytest.raises(StreamNotFound, match="windvane ls streams"):
            store.stream(reference)
    for reference in ("nobody", "s:other", "s:", ":made", "", "s:made/..", "s:" + "x" * 300):
        with pytest.raises(ArrayNotFound, match="windvane ls arrays"):
            store.array(reference)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_invalid_references_are_rejected(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for reference in ("", "a:b"):
        with pytest.raises(ValueError, match="cannot name a data stream"):
            store.stream_writer(reference, attrs={})
    for reference in ("a", "a:", "a:" + "x" * 300):
        with pytest.raises(ValueError, match="cannot name a data array"):
            open_array(store, reference)


def test_a_changed_array_is_set_aside_and_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for rate_hz in (1.0, 2.0, 3.0):
        with open_array(store, "s:spectrum", rate_hz=rate_hz) as writer:
            writer.append(np.full((1, 2), rate_hz, FLOAT), np.arange(1))
    assert store.arrays() == ["s:spectrum", "s:spectrum~1", "s:spectrum~2"]
    assert [float(store.array(reference)[0, 0]) for reference in store.arrays()] == [3.0, 1.0, 2.0]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    with one.stream_writer("s", attrs={}), open_array(one, "s:o"):
        with pytest.raises(StoreLocked):
            other.stream_writer("s", attrs={})
        with pytest.raises(StoreLocked):
            open_array(other, "s:o", rate_hz=7.0)
        other.stream_writer("t", attrs={}).close()
    other.stream_writer("s", attrs={}).close()


def test_sync_makes_all_durable_and_a_failed_one_stops_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    writer = resumed(store.stream_writer("s", attrs={}))
    writer.append(b"x", arrived_ns=0, chunk_id=None, events=1)
    store.sync()
    store.close()
    with pytest.raises(StoreFailed, match=r"Bad file descriptor.*has stopped"):
        store.sync()
    with pytest.raises(StoreFailed, match="has stopped"):
        store.stream_writer("s", attrs={})
    with pytest.raises(StoreFailed, match="has stopped"):
        open_array(store, "s:o")


def test_a_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreFailed, match="cannot be opened"):
        Store(tmp_path / "file")
