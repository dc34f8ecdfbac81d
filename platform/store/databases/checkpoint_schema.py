"""The tables of the checkpoint database."""

import sqlalchemy as sa

from .checkpoint_upgrades import FORMAT_2_6, UPGRADES
from .columns import AUTO_ID, blob, integer, text
from .database import Schema

VERSION = 6

_metadata = sa.MetaData()

# next_offset is NULL for a partition that was added to its topic and waits for the others; -1 for one that
# may be read, and of which nothing was committed yet.
positions = sa.Table(
    "positions",
    _metadata,
    text("topic", primary_key=True),
    integer("partition", primary_key=True),
    text("log", primary_key=True),
    integer("next_offset", nullable=True),
    integer("taken"),
    sqlite_with_rowid=False,
)

streams = sa.Table("streams", _metadata, text("reference", primary_key=True), blob("checkpoint"))

# A queue per partition: `sequence` rises by one, the window is a range at its end. Without row ids the keys
# of a partition lie side by side, so adding and dropping touch the two ends alone. `reference` finds the keys
# of a stream whose tag has moved to another partition.
chunk_keys = sa.Table(
    "chunk_keys",
    _metadata,
    text("topic", primary_key=True),
    integer("partition", primary_key=True),
    integer("sequence", primary_key=True),
    blob("key"),
    text("reference"),
    sa.Index("chunk_keys_by_stream", "reference"),
    sqlite_with_rowid=False,
)

owners = sa.Table(
    "owners",
    _metadata,
    text("topic", primary_key=True),
    integer("partition", primary_key=True),
    integer("epoch"),
    text("owner"),
    sqlite_with_rowid=False,
)

# A number is never reused, so that a process removes only messages that it has read.
outbox = sa.Table(
    "outbox",
    _metadata,
    sa.Column("number", AUTO_ID, primary_key=True),
    blob("message"),
    sqlite_autoincrement=True,
)

identity = sa.Table(
    "identity", _metadata, blob("database_id"), sa.Column("upgraded_s", sa.Double, nullable=False)
)

# Where an operator chose to resume after missing messages: [first, resume_at).
decisions = sa.Table(
    "decisions",
    _metadata,
    text("topic", primary_key=True),
    integer("partition", primary_key=True),
    text("log", primary_key=True),
    integer("resume_at", primary_key=True),
    integer("first"),
    sqlite_with_rowid=False,
)

suspects = sa.Table(
    "suspects",
    _metadata,
    text("topic", primary_key=True),
    integer("partition", primary_key=True),
    text("log", primary_key=True),
    integer("message", primary_key=True),
    integer("deaths"),
    text("reason"),
    sqlite_with_rowid=False,
)

# A chunk that is held back to be put in order is part of its stream (`stream_order.py`).
held_chunks = sa.Table(
    "held_chunks",
    _metadata,
    text("reference", primary_key=True),
    integer("sequence", primary_key=True),
    text("log"),
    text("topic"),
    integer("partition"),
    integer("message"),
    text("sender"),
    blob("chunk_id", nullable=True),
    integer("received_ns"),
    integer("events"),
    blob("payload"),
)

# The figures of each stream, for readers that need no more than them.
stream_orders = sa.Table(
    "stream_orders",
    _metadata,
    text("reference", primary_key=True),
    text("policy"),
    integer("partition"),
    integer("held_chunks"),
    integer("latest_ns", nullable=True),
    integer("late_events"),
    integer("early_events"),
    integer("inversions"),
    integer("inverted_ns"),
    integer("is_sorting"),
    sqlite_with_rowid=False,
)

SCHEMA = Schema(
    name="windvane_checkpoints",
    version=VERSION,
    metadata=_metadata,
    setup={
        "sqlite": "INSERT INTO identity VALUES (randomblob(16), unixepoch())",
        "postgresql": "INSERT INTO identity VALUES (uuid_send(gen_random_uuid()), extract(epoch FROM now()))",
    },
    sqlite_upgrades=UPGRADES,
    postgresql_upgrades={5: FORMAT_2_6},
)
