"""The tables of the checkpoint database, and how a file of an earlier version gets them."""

from .stream_order import TABLES as _ORDER

VERSION = 5

_OWNERS = """
CREATE TABLE owners (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID
"""

# A number is never reused, so that a process removes only messages that it has read.
_OUTBOX = "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL)"

# next_offset is NULL for a partition that was added to its topic and waits for the others; -1 for one that
# may be read, and of which nothing was committed yet.
_POSITIONS = """
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, log TEXT NOT NULL, next_offset INTEGER,
    taken INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, log)
) WITHOUT ROWID
"""

# A queue per partition: `sequence` rises by one, the window is a range at its end. Without row ids the keys
# of a partition lie side by side, so adding and dropping touch the two ends alone. `reference` finds the keys
# of a stream whose tag has moved to another partition.
_CHUNK_KEYS = """
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    reference TEXT NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID;
CREATE INDEX chunk_keys_by_stream ON chunk_keys (reference)
"""

_IDENTITY = """
CREATE TABLE identity (database_id BLOB NOT NULL, upgraded_s REAL NOT NULL);
INSERT INTO identity VALUES (randomblob(16), unixepoch());
-- Where an operator chose to resume after missing messages: [first, resume_at).
CREATE TABLE decisions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, log TEXT NOT NULL, resume_at INTEGER NOT NULL,
    first INTEGER NOT NULL, PRIMARY KEY (topic, partition, log, resume_at)
) WITHOUT ROWID;
CREATE TABLE suspects (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, log TEXT NOT NULL, message INTEGER NOT NULL,
    deaths INTEGER NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (topic, partition, log, message)
) WITHOUT ROWID
"""

SCHEMA = f"""
{_POSITIONS};
CREATE TABLE streams (reference TEXT PRIMARY KEY, checkpoint BLOB NOT NULL);
{_CHUNK_KEYS};
{_OWNERS};
{_OUTBOX};
{_IDENTITY};
{_ORDER}
"""
UPGRADES = {
    1: _OWNERS,
    2: _OUTBOX,
    3: f"""
ALTER TABLE positions RENAME TO positions_3;
{_POSITIONS};
INSERT INTO positions SELECT topic, partition, '', next_offset, 0 FROM positions_3;
DROP TABLE positions_3;
ALTER TABLE chunk_keys RENAME TO chunk_keys_3;
{_CHUNK_KEYS};
INSERT INTO chunk_keys SELECT topic, partition, sequence, key, '' FROM chunk_keys_3;
DROP TABLE chunk_keys_3;
{_IDENTITY}
""",
    4: _ORDER,
}
