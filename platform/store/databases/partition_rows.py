"""The rows of partitions: their owners, their epochs, and the positions at which reading resumes."""

from collections.abc import Mapping

import sqlalchemy as sa

from ...errors import PartitionLost
from . import checkpoint_schema as tables
from .checkpoint_records import AT_BEGINNING, UNKNOWN_LOG, Partition, Taken
from .chunk_key_rows import chunk_keys_of, of_partition
from .database import Database


def owner_of(connection: sa.Connection, partition: Partition) -> str | None:
    """The name of the worker that took the partition last; None if it was never taken."""
    return connection.scalar(sa.select(tables.owners.c.owner).where(*of_partition(tables.owners, partition)))


def take_partition(
    database: Database,
    connection: sa.Connection,
    partition: Partition,
    owner: str,
    log: str,
    read_before: frozenset[int],
) -> Taken:
    """In a transaction that takes partitions: see `CheckpointDatabase.take`.

    `read_before` are the partitions of the topic that were read when the transaction began.
    """
    before = owner_of(connection, partition)
    topic, number = partition
    taking = database.insert(tables.owners).values(topic=topic, partition=number, epoch=1, owner=owner)
    epoch = connection.execute(
        taking.on_conflict_do_update(
            index_elements=["topic", "partition"],
            set_={"epoch": tables.owners.c.epoch + 1, "owner": taking.excluded.owner},
        ).returning(tables.owners.c.epoch)
    ).scalar_one()
    logs = sa.select(tables.positions.c.log, tables.positions.c.next_offset).where(
        *of_partition(tables.positions, partition)
    )
    rows = dict(connection.execute(logs.order_by(tables.positions.c.taken)).all())
    if UNKNOWN_LOG in rows and log not in rows:
        # Committed before logs had identities: what is read first since is taken for the same log.
        connection.execute(
            sa.update(tables.positions)
            .where(*of_partition(tables.positions, partition), tables.positions.c.log == UNKNOWN_LOG)
            .values(log=log)
        )
        rows[log] = rows.pop(UNKNOWN_LOG)
    position = rows.get(log)
    added_to = read_before - {number} if position is None else frozenset()
    first = database.insert(tables.positions).values(
        topic=topic,
        partition=number,
        log=log,
        next_offset=None if added_to else AT_BEGINNING,
        taken=epoch,
    )
    connection.execute(
        first.on_conflict_do_update(
            index_elements=["topic", "partition", "log"], set_={"taken": first.excluded.taken}
        )
    )
    return Taken(
        position=None if position == AT_BEGINNING else position,
        chunk_keys=chunk_keys_of(connection, partition),
        epoch=epoch,
        before=before,
        other_logs=[other for other, at in rows.items() if other != log and (at or 0) > 0],
        added_to=added_to,
    )


_LOCKED_OWNER = (
    sa.select(tables.owners.c.epoch, tables.owners.c.owner)
    .where(
        tables.owners.c.topic == sa.bindparam("topic"), tables.owners.c.partition == sa.bindparam("partition")
    )
    # Until this transaction has ended no worker takes the partition. SQLite has one writer and needs no lock.
    .with_for_update()
)


def check_epochs(connection: sa.Connection, epochs: Mapping[Partition, int]) -> None:
    """In a transaction that commits: raises PartitionLost if a partition has another epoch."""
    lost: dict[Partition, str] = {}
    # In one order, so that two commits that meet on PostgreSQL cannot wait for each other.
    for partition, epoch in sorted(epochs.items()):
        row = connection.execute(_LOCKED_OWNER, {"topic": partition[0], "partition": partition[1]}).first()
        if row is None or row.epoch != epoch:
            lost[partition] = "no worker" if row is None else row.owner
    if lost:
        raise PartitionLost(lost)
