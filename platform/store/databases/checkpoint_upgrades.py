"""How a checkpoint file of an earlier version becomes one of the next.

Files of these versions exist: the statements stay as they were released.
"""

_OWNERS_2 = """
CREATE TABLE owners (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, epoch INTEGER NOT NULL, owner TEXT NOT NULL,
    PRIMARY KEY (topic, partition)
) WITHOUT ROWID
"""
_OUTBOX_3 = "CREATE TABLE outbox (number INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL)"
_LOGS_4 = """
ALTER TABLE positions RENAME TO positions_3;
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, log TEXT NOT NULL, next_offset INTEGER,
    taken INTEGER NOT NULL,
    PRIMARY KEY (topic, partition, log)
) WITHOUT ROWID;
INSERT INTO positions SELECT topic, partition, '', next_offset, 0 FROM positions_3;
DROP TABLE positions_3;
ALTER TABLE chunk_keys RENAME TO chunk_keys_3;
CREATE TABLE chunk_keys (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, sequence INTEGER NOT NULL, key BLOB NOT NULL,
    reference TEXT NOT NULL,
    PRIMARY KEY (topic, partition, sequence)
) WITHOUT ROWID;
CREATE INDEX chunk_keys_by_stream ON chunk_keys (reference);
INSERT INTO chunk_keys SELECT topic, partition, sequence, key, '' FROM chunk_keys_3;
DROP TABLE chunk_keys_3;
CREATE TABLE identity (database_id BLOB NOT NULL, upgraded_s REAL NOT NULL);
INSERT INTO identity VALUES (randomblob(16), unixepoch());
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
_ORDER_5 = """
CREATE TABLE held_chunks (
    reference TEXT NOT NULL, sequence INTEGER NOT NULL, log TEXT NOT NULL, topic TEXT NOT NULL,
    partition INTEGER NOT NULL, message INTEGER NOT NULL, sender TEXT NOT NULL, chunk_id BLOB,
    received_ns INTEGER NOT NULL, events INTEGER NOT NULL, payload BLOB NOT NULL,
    PRIMARY KEY (reference, sequence)
);
CREATE TABLE stream_orders (
    reference TEXT PRIMARY KEY, policy TEXT NOT NULL, partition INTEGER NOT NULL,
    held_chunks INTEGER NOT NULL, latest_ns INTEGER, late_events INTEGER NOT NULL,
    early_events INTEGER NOT NULL, inversions INTEGER NOT NULL, inverted_ns INTEGER NOT NULL,
    is_sorting INTEGER NOT NULL
) WITHOUT ROWID
"""

FORMAT_2_6 = "SELECT 1"
"""The tables stay. The version keeps former programs, which cannot read arrays of format 2, from the home."""

UPGRADES = {1: _OWNERS_2, 2: _OUTBOX_3, 3: _LOGS_4, 4: _ORDER_5, 5: FORMAT_2_6}
