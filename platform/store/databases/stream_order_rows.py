"""The rows of the chunks that streams hold back, and of the figures about the order of streams."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing

import sqlalchemy as sa

from ...errors import StoreFailed
from .checkpoint_schema import SCHEMA, held_chunks, stream_orders, suspects
from .database import Place, open_reader
from .stream_order import HeldChunk, OrderFigures

_READ_AT_ONCE = 500
_ID_BYTES = 32

_HELD_SEQUENCES = sa.select(held_chunks.c.sequence, held_chunks.c.events).where(
    held_chunks.c.reference == sa.bindparam("stream")
)
_DELETE_HELD = sa.delete(held_chunks).where(
    held_chunks.c.reference == sa.bindparam("stream"), held_chunks.c.sequence == sa.bindparam("at")
)
_INSERT_HELD = sa.insert(held_chunks)
_DELETE_FIGURES = sa.delete(stream_orders).where(stream_orders.c.reference == sa.bindparam("stream"))
_INSERT_FIGURES = sa.insert(stream_orders)
_HELD = sa.select(*(column for column in held_chunks.c if column.name != "reference")).order_by(
    held_chunks.c.sequence
)


def write_held(
    connection: sa.Connection, reference: str, figures: OrderFigures, held: Sequence[HeldChunk]
) -> None:
    """Within a transaction: `held` is all that the stream holds from now on."""
    before = dict(connection.execute(_HELD_SEQUENCES, {"stream": reference}).all())
    wanted = {chunk.sequence for chunk in held}
    changed = [chunk for chunk in held if before.get(chunk.sequence) != chunk.events]
    gone = [*(before.keys() - wanted), *(chunk.sequence for chunk in changed if chunk.sequence in before)]
    if gone:
        connection.execute(_DELETE_HELD, [{"stream": reference, "at": sequence} for sequence in gone])
    if changed:
        connection.execute(_INSERT_HELD, [_held_row(reference, chunk) for chunk in changed])
    connection.execute(_DELETE_FIGURES, {"stream": reference})
    if not figures.is_plain:
        row = figures._asdict() | {"is_sorting": int(figures.is_sorting)}
        connection.execute(_INSERT_FIGURES, row)


def _held_row(reference: str, chunk: HeldChunk) -> dict[str, object]:
    row = chunk._asdict()
    return {"reference": reference, "message": row.pop("offset"), **row}


def read_held(connection: sa.Connection, reference: str) -> tuple[HeldChunk, ...]:
    """What the stream holds, oldest first."""
    rows = connection.execute(_HELD.where(held_chunks.c.reference == reference))
    return tuple(HeldChunk(*row) for row in rows)


def held_offsets(connection: sa.Connection, log: str, partition: tuple[str, int]) -> dict[int, str]:
    """The offsets of the messages of this partition that ended workers, and the streams that hold them."""
    of_partition = [
        suspects.c.log == log,
        suspects.c.topic == partition[0],
        suspects.c.partition == partition[1],
    ]
    same_message = [
        suspects.c[name] == held_chunks.c[name] for name in ("log", "topic", "partition", "message")
    ]
    query = sa.select(suspects.c.message, held_chunks.c.reference).where(*of_partition, *same_message)
    return dict(connection.execute(query).all())


def read_figures(connection: sa.Connection, partitions: Iterable[tuple[str, int]]) -> Iterator[OrderFigures]:
    """Of the streams whose last chunk came by one of these partitions, if there is something to report."""
    wanted = set(partitions)
    for row in connection.execute(sa.select(stream_orders)):
        figures = OrderFigures(*row)
        if (figures.policy, figures.partition) in wanted:
            yield figures


def figures_of_streams(connection: sa.Connection, references: Sequence[str]) -> dict[str, OrderFigures]:
    """The figures of these streams; those without are missing."""
    found: dict[str, OrderFigures] = {}
    for first in range(0, len(references), _READ_AT_ONCE):
        some = references[first : first + _READ_AT_ONCE]
        for row in connection.execute(sa.select(stream_orders).where(stream_orders.c.reference.in_(some))):
            figures = OrderFigures(*row)
            found[figures.reference] = figures
    return found


def committed_figures(place: Place, references: Sequence[str]) -> dict[str, OrderFigures] | None:
    """The figures of the last checkpoints of these streams, for a process that does not write them.

    Changes nothing. None if the database does not exist, cannot be read, or is of another version.
    """
    try:
        with closing(open_reader(place, SCHEMA)) as database, database.reading("read figures") as connection:
            return figures_of_streams(connection, references)
    except (StoreFailed, TypeError):
        return None


def forget_order(connection: sa.Connection, reference: str) -> None:
    """Call within a transaction: the stream is rebuilt from the bus."""
    for table in (held_chunks, stream_orders):
        connection.execute(sa.delete(table).where(table.c.reference == reference))


def held_chunk_ids(connection: sa.Connection, reference: str) -> list[bytes]:
    """The IDs, at most 32 bytes each, of the chunks that the stream holds; b"" for one without."""
    ids = connection.scalars(sa.select(held_chunks.c.chunk_id).where(held_chunks.c.reference == reference))
    return [(id or b"")[:_ID_BYTES] for id in ids]
