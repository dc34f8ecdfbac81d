"""The tables of the dead letters, and how a file of an earlier version gets them."""

import sqlalchemy as sa

from .columns import AUTO_ID, blob, integer, text
from .database import Schema

VERSION = 3

_metadata = sa.MetaData()

# Long values have a table of their own: SQLite rewrites a whole row to change a count in it. The
# transactions that change the letters update the totals too; a sum over the table would take longer with
# each letter.
letters = sa.Table(
    "letters",
    _metadata,
    sa.Column("id", AUTO_ID, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False, unique=True),
    integer("cost_bytes"),
    text("code"),
    text("reason"),
    text("tag"),
    text("sender"),
    text("policy", nullable=True),
    integer("size"),
    integer("time_ns"),
    integer("last_time_ns"),
    integer("times"),
    blob("chunk_id", nullable=True),
    text("compression", server_default="text"),
    integer("signal", server_default=sa.text("0")),
    text("format", server_default=""),
    text("identity", nullable=True),
    sa.Index("letters_by_code", "code", "id"),
    sqlite_autoincrement=True,
)

contents = sa.Table("contents", _metadata, integer("id", primary_key=True), text("detail"), blob("payload"))

totals = sa.Table("totals", _metadata, integer("letters"), integer("cost_bytes"), integer("evicted"))

code_totals = sa.Table("code_totals", _metadata, text("code", primary_key=True), integer("cost_bytes"))

# Triggers, so that a process of version 2, which does not know the totals of codes, updates them too.
_SQLITE_TRIGGERS = """
CREATE TRIGGER letter_came AFTER INSERT ON letters BEGIN
    INSERT INTO code_totals VALUES (new.code, new.cost_bytes)
    ON CONFLICT (code) DO UPDATE SET cost_bytes = cost_bytes + excluded.cost_bytes;
END;
CREATE TRIGGER letter_went AFTER DELETE ON letters BEGIN
    UPDATE code_totals SET cost_bytes = cost_bytes - old.cost_bytes WHERE code = old.code;
END
"""
_POSTGRESQL_TRIGGERS = """
CREATE FUNCTION letter_came() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO code_totals VALUES (new.code, new.cost_bytes)
    ON CONFLICT (code) DO UPDATE SET cost_bytes = code_totals.cost_bytes + excluded.cost_bytes;
    RETURN NULL;
END $$;
CREATE FUNCTION letter_went() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE code_totals SET cost_bytes = cost_bytes - old.cost_bytes WHERE code = old.code;
    RETURN NULL;
END $$;
CREATE TRIGGER letter_came AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION letter_came();
CREATE TRIGGER letter_went AFTER DELETE ON letters FOR EACH ROW EXECUTE FUNCTION letter_went()
"""
_FIRST_ROW = "INSERT INTO totals VALUES (0, 0, 0)"

# A process of the former version may have the file open: its statements must still work.
_UPGRADES = {
    1: """
ALTER TABLE letters ADD COLUMN chunk_id BLOB;
ALTER TABLE letters ADD COLUMN compression TEXT NOT NULL DEFAULT 'text';
ALTER TABLE letters ADD COLUMN signal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE letters ADD COLUMN format TEXT NOT NULL DEFAULT '';
ALTER TABLE letters ADD COLUMN identity TEXT
""",
    2: f"""
CREATE TABLE code_totals (code TEXT PRIMARY KEY, cost_bytes INTEGER NOT NULL);
INSERT INTO code_totals SELECT code, sum(cost_bytes) FROM letters GROUP BY code;
CREATE INDEX letters_by_code ON letters (code, id);
{_SQLITE_TRIGGERS}
""",
}

SCHEMA = Schema(
    name="windvane_dead_letters",
    version=VERSION,
    metadata=_metadata,
    setup={
        "sqlite": f"{_FIRST_ROW};{_SQLITE_TRIGGERS}",
        "postgresql": f"{_FIRST_ROW};{_POSTGRESQL_TRIGGERS}",
    },
    sqlite_upgrades=_UPGRADES,
)
