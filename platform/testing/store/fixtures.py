"""What the tests of the suite share: the fixtures, and writers that are resumed."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

from ...store.interface import ArrayWriter, StoreEngine, StreamWriter

OpenStore: TypeAlias = Callable[[], StoreEngine]
"""Opens the store of the test, which is empty at first; each call is what another process would have."""

DATABASE_ID = bytes(range(16))
FLOAT = np.dtype("<f4")
ATTRS = {"rate_hz": 10.0}
Writer = TypeVar("Writer", StreamWriter, ArrayWriter)

_numbers = itertools.count()
few_inputs = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


def new_name() -> str:
    """A reference that no test has used."""
    return f"stream{next(_numbers)}"


class StoreFixtures:
    """The store of the test, and a reference of its own."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Give a function that opens the store of this test."""
        raise NotImplementedError("the subclass gives the fixture open_store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[StoreEngine]:
        with open_store() as store:
            yield store

    @pytest.fixture
    def name(self) -> str:
        return new_name()


def resumed(writer: Writer) -> Writer:
    """The writer, at the end of the existing data, as if all of it had been committed."""
    try:
        return writer.resume(writer.found, database_id=DATABASE_ID)
    except BaseException:
        writer.close()
        raise


def stream_writer(store: StoreEngine, name: str) -> StreamWriter:
    """The writer of a stream, not resumed yet."""
    return store.stream_writer(name, attrs={"tag": name})


def array_writer(
    store: StoreEngine,
    reference: str,
    *,
    dtype: Any = FLOAT,
    row_shape: tuple[int, ...] = (3,),
    rate_hz: float = 10.0,
) -> ArrayWriter:
    """The writer of an array, not resumed yet."""
    return store.array_writer(
        reference, dtype=np.dtype(dtype), row_shape=row_shape, attrs={"rate_hz": rate_hz}
    )


def rows_from(first: int, count: int) -> NDArray[np.float32]:
    """Rows that tell their number, shape (count, 3)."""
    return np.arange(3 * first, 3 * (first + count), dtype=FLOAT).reshape(count, 3)


def times_from(first: int, count: int) -> NDArray[np.int64]:
    """Their times in ns."""
    return np.arange(first, first + count, dtype=np.int64) * 1000


def append_chunk(writer: StreamWriter, data: bytes, *, events: int = 1, chunk_id: bytes | None = None) -> int:
    """Append a chunk that arrived when it was the n-th."""
    return writer.append(data, arrived_ns=writer.chunks + 1, chunk_id=chunk_id, events=events)
