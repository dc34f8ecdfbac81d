"""Record batches, read back by aiokafka; the conformance suite sends them to a real broker."""

import pytest
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st
from windvane.bus.interface import Buffer
from windvane.bus.kafka.producer.record_batches import RecordBatch


def _viewed(data: bytes) -> memoryview:
    return memoryview(data)


PIECES = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(bytearray),
        st.binary(max_size=200).map(_viewed),
    ),
    max_size=5,
).map(tuple)
RECORDS = st.lists(st.tuples(st.binary(max_size=300), PIECES), min_size=1, max_size=200)


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
@given(records=RECORDS, state=st.tuples(st.integers(0, 1 << 40), st.integers(0, 9), st.integers(0, 1 << 30)))
def test_a_batch_reads_back_as_it_was_written(
    compression: str, records: list[tuple[bytes, tuple[Buffer, ...]]], state: tuple[int, int, int]
) -> None:
    batch = RecordBatch(compression)
    for key, value in records:
        batch.add(key, value)
    batch._set_producer_state(*state)
    assert batch.record_count() == len(records)
    read = MemoryRecords(batch._build())
    found = read.next_batch()
    assert found is not None
    assert found.validate_crc()
    assert (found.producer_id, found.producer_epoch, found.base_sequence) == state
    assert [(record.offset, record.key, record.value) for record in found] == [
        (place, key, b"".join(value)) for place, (key, value) in enumerate(records)
    ]
    assert not read.has_next()
