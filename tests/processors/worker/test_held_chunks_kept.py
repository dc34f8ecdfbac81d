"""Buffered chunks after faults other than a kill: lost checkpoints, old copies, edits."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from windvane.processors.worker.order_watch import BusFlusher
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamPosition
from windvane.store.repair.adoption import Adopted, adopt_stream

from tests.processors.worker.test_reorder import (
    BASE_S,
    Sent,
    committed,
    hasty,  # noqa: F401
    home,  # noqa: F401
    policies,
    publish,
    times_s,
    until_offset,
    until_policies,
    until_rows,
    work,
)
from tests.processors.worker.test_worker import Home


def adopt(home: Home, stream: str) -> Adopted:  # noqa: F811
    directory = home.store.stream_directories()[stream]
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        return adopt_stream(stream, directory, home.store.array_directories(stream), checkpoints)


def lose(home: Home, stream: str) -> None:  # noqa: F811
    """Removes the row of the stream, as if it was damaged; the rest of its state remains."""
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.execute("DELETE FROM streams WHERE reference = ?", (stream,))
        database.execute("UPDATE identity SET database_id = randomblob(16)")


async def flush(home: Home, stream: str, number: int, *, until_s: int) -> None:  # noqa: F811
    await publish(home, stream, Sent(number, flushes_s=until_s))
    async with asyncio.timeout(30):
        while committed(home, stream).held:
            await home.worker.checkpoint()


async def test_an_adoption_keeps_what_a_lost_checkpoint_held(home: Home) -> None:  # noqa: F811
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (1,)), Sent(1, (10,))])
    lose(home, "json")
    adopt(home, "json")
    assert [chunk.chunk_id for chunk in committed(home, "json").held] == [b"1"]
    async with home.working():
        await publish(home, "json", Sent(2, (9,)))
        await home.until_stored(1)
    # Chunks that were buffered since are not mistaken for the earlier ones.
    assert [chunk.chunk_id for chunk in committed(home, "json").held] == [b"1", b"2"]
    async with home.working():
        await flush(home, "json", 3, until_s=10)
    assert times_s(home, "json:fields") == [1, 9, 10]


async def test_a_stream_that_had_stored_nothing_keeps_what_a_lost_checkpoint_held(
    home: Home,  # noqa: F811
    hasty: None,  # noqa: F811
) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.execute("DELETE FROM streams")
        database.execute("UPDATE stream_orders SET latest_ns = NULL")
    async with home.working(checkpoint_interval_s=0.05, flusher=BusFlusher(home.bus)):
        await until_rows(home, 2)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [9, 10]


async def test_an_adoption_with_an_old_checkpoint_copy_stores_later_events_once(home: Home) -> None:  # noqa: F811
    await policies(home)
    database = home.path / "checkpoints.sqlite"
    async with home.working():
        await work(home, [Sent(0, (1,)), Sent(1, (10,)), Sent(2, (11,))])
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(home.path / "copy")) as copy:
        source.backup(copy)
    async with home.working():
        await work(home, [Sent(3, (15,))])
    assert times_s(home, "json:fields") == [1, 10]
    for file in home.path.glob("checkpoints.sqlite*"):
        file.unlink()
    shutil.move(home.path / "copy", database)
    adopt(home, "json")
    assert [chunk.chunk_id for chunk in committed(home, "json").held] == [b"2"]
    async with home.working():
        await flush(home, "json", 4, until_s=15)
    assert times_s(home, "json:fields") == [1, 10, 11, 15]


async def test_a_chunk_that_is_set_aside_survives_an_edit_before_any_other_chunk(home: Home) -> None:  # noqa: F811
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
    held = committed(home, "json").held[1]
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        for _ in range(2):
            checkpoints.blame(held.log, ("json", 0), [held.offset], "a fault")
        marked = replace(committed(home, "json"), positions=(StreamPosition(held.log, "json", 0, 2),))
        checkpoints.commit(positions={}, streams={"json": marked}, chunk_keys={}, window=0)
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.execute("UPDATE positions SET next_offset = 0")  # as if another stream is behind
    async with home.working(checkpoint_interval_s=0.05):
        await until_offset(home, 2)  # they are part of the stream, which is opened for them
        await home.policy(
            "json", tags=["json"], partitions=1, format="json", pipeline=[{"operation": "fields"}]
        )
        await until_policies(home, lambda policy: policy.reference != "json" or policy.reorder_s == 0)
        await work(home, [Sent(2, (11,))])
        await until_offset(home, 3)
    assert times_s(home, "json:fields") == [10, 11]
    assert [letter.code for letter in home.letters.list()] == ["ended-worker"]


@pytest.mark.parametrize("restarts", [False, True])
async def test_chunks_of_two_policies_go_through_the_steps_of_their_own(home: Home, restarts: bool) -> None:  # noqa: F811
    for name in ("a", "b"):
        steps: list[dict[str, Any]] = [{"operation": "fields", "name": name}]
        await home.policy(name, tags=["t"], reorder_s=5, partitions=1, format="json", pipeline=steps)
    async with home.working():
        await home.publish("a", {"n": 1}, tag="t", chunk_id=b"1")
        await home.until_stored(1)
        if not restarts:
            await home.publish("b", {"n": 2}, tag="t", chunk_id=b"2")
            await home.until_stored(2)
    if restarts:
        async with home.working():
            await home.publish("b", {"n": 2}, tag="t", chunk_id=b"2")
            await home.until_stored(1)
    assert [len(home.store.array(array)) for array in home.store.arrays("t")] == [1, 1]


async def test_a_redelivered_chunk_releases_no_chunks_of_another_policy(home: Home) -> None:  # noqa: F811
    for name in ("a", "b"):
        steps: list[dict[str, Any]] = [{"operation": "fields", "name": name}]
        await home.policy(name, tags=["t"], reorder_s=5, partitions=1, format="json", pipeline=steps)

    async def send(policy: str, number: int) -> None:
        payload = msgpack.packb([BASE_S + number, {"n": number}])
        await home.publish(policy, tag="t", chunk_id=b"%d" % number, payload=payload, events=1)

    async with home.working():
        for number, policy in enumerate("aba"):
            await send(policy, number)
            await home.until_stored(number + 1)
    known = committed(home, "t")
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        logs = {topic: log for log, of_log in checkpoints.logs().items() for topic, _ in of_log}
        position = StreamPosition(logs["b"], "b", 0, 1)
        marked = replace(known, positions=(*known.positions, position))
        checkpoints.commit(positions={}, streams={"t": marked}, chunk_keys={}, window=0)
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.execute("UPDATE positions SET next_offset = 0 WHERE topic = 'b'")
    async with home.working():
        async with asyncio.timeout(30):
            while not len(home.worker._streams):
                await asyncio.sleep(0.01)
        await send("a", 3)
        await home.until_stored(1)
    assert [chunk.chunk_id for chunk in committed(home, "t").held] == [b"2", b"3"]


async def test_a_buffered_chunk_that_ended_one_worker_delays_only_its_own_stream(home: Home) -> None:  # noqa: F811
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,))])
    [held] = committed(home, "json").held
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        checkpoints.blame(held.log, ("json", 0), [held.offset], "a fault")
    async with home.working():  # without an automatic checkpoint
        for number in range(1, 4):
            await home.publish("json", {"n": number}, tag="another", chunk_id=b"%d" % number)
        await home.until_stored(3)


async def test_events_released_before_a_change_of_the_format_are_not_released_twice(home: Home) -> None:  # noqa: F811
    async def policy(format: str) -> None:
        await home.policy("p", tags=["t"], reorder_s=5, partitions=1, format=format, field="n")

    async def send(number: int, *times_s: int) -> None:
        payload = b"".join(msgpack.packb([BASE_S + time_s, {"n": b"%02d" % time_s}]) for time_s in times_s)
        await home.publish("p", tag="t", chunk_id=b"%d" % number, payload=payload, events=len(times_s))

    await policy("msgpack")
    async with home.working():
        await send(0, 10, 13)
        await send(1, 11, 31)  # all but 31 are released
        await home.until_stored(2)
    await policy("raw")
    async with home.working():
        await send(2, 32)
        await home.until_stored(1)
    assert len(committed(home, "t").held) == 2
    async with home.working():
        await send(3, 50)
        await home.until_stored(1)
    stream = home.store.stream("t")
    assert stream.read(0, stream.size).endswith(b"13" + b"3132")
