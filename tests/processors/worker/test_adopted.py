"""Chunks of an archive that was adopted without a checkpoint are recognized when the bus redelivers them."""

from pathlib import Path

from windvane.processors.worker.progress.adopted_chunks import AdoptedChunks
from windvane.store.files.store import Store

from tests.store.files.resumed import resumed


def test_a_chunk_is_known_by_its_arrival_time_and_its_id(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with resumed(store.stream_writer("t", attrs={})) as writer:
        for number in range(1000):
            chunk_id = None if number % 3 == 0 else f"id-{number}".encode()
            writer.append(b"x", arrived_ns=2000 - number // 2, chunk_id=chunk_id, events=1)
    with AdoptedChunks(store.stream("t"), 900) as adopted:
        for number in range(1000):
            chunk_id = None if number % 3 == 0 else f"id-{number}".encode()
            assert adopted.has(2000 - number // 2, chunk_id) == (number < 900)
        assert not adopted.has(2000, b"another")
        assert not adopted.has(1, None)


def test_an_id_that_is_longer_than_its_record_is_known_by_its_beginning(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with resumed(store.stream_writer("t", attrs={})) as writer:
        writer.append(b"x", arrived_ns=1, chunk_id=b"i" * 40, events=1)
    with AdoptedChunks(store.stream("t"), 1) as adopted:
        assert adopted.has(1, b"i" * 40)
        assert not adopted.has(1, b"i" * 31)
