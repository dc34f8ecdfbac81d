"""Repairs the databases of a home: copies readable rows to a new one, and sets the damaged one aside."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec

from ..catalog.catalog import Catalog
from ..catalog.policy_copy import read_policy_copy
from ..databases.checkpoint import SqlCheckpointDatabase
from ..databases.checkpoint_records import StreamCheckpoint
from ..databases.dead_letters import SqlDeadLetters
from .salvage import Saved, salvage
from .set_aside import SetAside

_encode = msgspec.msgpack.Encoder(enc_hook=dict).encode
_decode = msgspec.msgpack.Decoder(StreamCheckpoint).decode


def repair_checkpoints(path: Path, aside: SetAside) -> list[str]:
    """Save the checkpoints that can be read; streams without one are `recover`'s. No worker may run.

    The new database has an identity of its own: an output whose checkpoint is lost is not mistaken for one
    that was never committed. Positions and chunk IDs may be lost too, and then messages are reread, so
    each stream is marked as adopted: its arrival records identify them.
    """
    saved = salvage(
        path,
        aside,
        lambda new: SqlCheckpointDatabase(new).close(),
        tables=(
            "positions",
            "streams",
            "chunk_keys",
            "owners",
            "outbox",
            "decisions",
            "suspects",
            "held_chunks",
            "stream_orders",
        ),
    )
    lines = _lines(path, saved)
    with closing(sqlite3.connect(path)) as database, database:
        for reference, row in database.execute("SELECT reference, checkpoint FROM streams").fetchall():
            try:
                checkpoint = _decode(row)
            except (msgspec.DecodeError, TypeError):
                database.execute("DELETE FROM streams WHERE reference = ?", (reference,))
                lines.append(
                    f"{path.name}: the checkpoint of {reference} cannot be read: "
                    f"`windvane recover adopt {reference}`"
                )
                continue
            if (archive := checkpoint.outputs.get(reference)) is not None:
                marked = replace(checkpoint, adopted_chunks=archive.chunks)
                database.execute(
                    "UPDATE streams SET checkpoint = ? WHERE reference = ?", (_encode(marked), reference)
                )
    return lines


def repair_dead_letters(path: Path, aside: SetAside) -> list[str]:
    """Save the dead letters that can be read whole."""
    saved = salvage(path, aside, lambda new: SqlDeadLetters(new).close(), tables=("contents", "letters"))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM letters WHERE id NOT IN (SELECT id FROM contents)")
        database.execute("DELETE FROM contents WHERE id NOT IN (SELECT id FROM letters)")
        database.execute(
            "UPDATE totals SET letters = (SELECT count(*) FROM letters),"
            " cost_bytes = (SELECT coalesce(sum(cost_bytes), 0) FROM letters)"
        )
    return _lines(path, saved)


def repair_catalog(path: Path, aside: SetAside, copy: Path) -> list[str]:
    """Save the documents that can be read; policies that cannot come from the copy of those in force."""
    saved = salvage(
        path,
        aside,
        lambda new: asyncio.run(_make_catalog(new)),
        tables=("documents", "document_revisions", "attachments"),
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE catalog_revision SET value = (SELECT coalesce(max(revision), 0) FROM documents),"
            " last_id = (SELECT coalesce(max(id), 0) FROM documents)"
        )
        # Deletions are lost: followers of a type reread all of it.
        database.execute(
            "INSERT INTO catalog_types SELECT documents.type, value, value FROM documents, catalog_revision"
            " GROUP BY documents.type"
        )
        for table in ("document_revisions", "attachments"):
            database.execute(f"DELETE FROM {table} WHERE document_id NOT IN (SELECT id FROM documents)")
    return _lines(path, saved) + asyncio.run(_restore_policies(path, copy))


async def _make_catalog(path: Path) -> None:
    await (await Catalog.open(f"sqlite:///{path}")).close()


async def _restore_policies(path: Path, copy: Path) -> list[str]:
    catalog = await Catalog.open(f"sqlite:///{path}")
    lines = []
    try:
        kept = {document.reference for document in await catalog.list("policy", limit=1_000_000)}
        for body in read_policy_copy(copy):
            reference = str(body.get("reference"))
            if reference not in kept:
                await catalog.put("policy", reference, title=str(body.get("title", "")), body=body)
                lines.append(f"{path.name}: policy {reference!r} is back from {copy.name}")
    finally:
        await catalog.close()
    return lines


def _lines(path: Path, saved: Sequence[Saved]) -> list[str]:
    return [
        f"{path.name}: saved {each.rows} rows of {each.table}"
        + ("" if each.is_whole else "; others cannot be read")
        for each in saved
    ]
