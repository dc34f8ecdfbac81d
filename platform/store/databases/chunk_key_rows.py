"""The rows of chunk keys: a queue for each partition, of which a window is kept."""

from collections.abc import Sequence

import sqlalchemy as sa

from . import checkpoint_schema as tables
from .checkpoint_records import Partition

_PUT_KEYS = sa.insert(tables.chunk_keys)
_LAST_KEY = sa.select(sa.func.coalesce(sa.func.max(tables.chunk_keys.c.sequence), 0)).where(
    tables.chunk_keys.c.topic == sa.bindparam("topic"),
    tables.chunk_keys.c.partition == sa.bindparam("partition"),
)
_DROP_KEYS = sa.delete(tables.chunk_keys).where(
    tables.chunk_keys.c.topic == sa.bindparam("of_topic"),
    tables.chunk_keys.c.partition == sa.bindparam("of_partition"),
    tables.chunk_keys.c.sequence <= sa.bindparam("last"),
)


def of_partition(table: sa.Table, partition: Partition) -> tuple[sa.ColumnElement[bool], ...]:
    """The conditions that a row of `table` is about this partition."""
    return (table.c.topic == partition[0], table.c.partition == partition[1])


def add_chunk_keys(
    connection: sa.Connection, partition: Partition, keys: Sequence[tuple[str, bytes]], window: int
) -> None:
    """In a transaction: add (stream, key), and keep the last `window` of the partition."""
    topic, number = partition
    last = connection.execute(_LAST_KEY, {"topic": topic, "partition": number}).scalar_one()
    newest = last + len(keys)
    kept = keys[max(0, len(keys) - window) :]
    if kept:
        connection.execute(
            _PUT_KEYS,
            [
                {"topic": topic, "partition": number, "sequence": at, "key": key, "reference": reference}
                for at, (reference, key) in enumerate(kept, newest - len(kept) + 1)
            ],
        )
    connection.execute(_DROP_KEYS, {"of_topic": topic, "of_partition": number, "last": newest - window})


def chunk_keys_of(connection: sa.Connection, partition: Partition) -> list[bytes]:
    """The keys that a partition keeps, oldest first."""
    keys = sa.select(tables.chunk_keys.c.key).where(*of_partition(tables.chunk_keys, partition))
    return list(connection.scalars(keys.order_by(tables.chunk_keys.c.sequence)))
