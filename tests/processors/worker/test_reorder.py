"""A worker whose policies require reordering: its rows, kills, idle times, edits, other workers."""

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import pytest
from windvane.bus import open_bus
from windvane.bus.messages.chunks import ChunkMessage, encode_chunk
from windvane.bus.messages.flush import flush_message, flushed_until_ns
from windvane.processors.worker import order_watch
from windvane.processors.worker.order_watch import BusFlusher, Flusher
from windvane.processors.worker.pipeline import reorder_buffer
from windvane.processors.worker.progress import ownership
from windvane.processors.worker.reprocessing.reprocess import Reprocessing
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.checkpoint_records import StreamCheckpoint
from windvane.store.databases.stream_order import OrderFigures
from windvane.store.databases.stream_order_rows import committed_figures

from tests.processors.worker.test_worker import Home
from tests.processors.worker.test_worker_group import Group, until
from tests.processors.worker.turbulent_bus import Logs, TurbulentBus

FIELDS = [{"operation": "fields"}]
PCM = [{"operation": "pcm", "name": "samples", "dtype": "int16", "rate_hz": 100.0}]
POLICIES: dict[str, dict[str, Any]] = {
    "json": {"format": "json", "pipeline": FIELDS},
    "msgpack": {"format": "msgpack", "pipeline": FIELDS},
    "raw": {"format": "raw", "pipeline": PCM},
}
BASE_S = 1_790_000_000


class Sent(NamedTuple):
    """One message on the bus: the seconds of its events, or until when it flushes."""

    number: int
    times_s: tuple[int, ...] = ()
    flushes_s: int | None = None


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with opened(tmp_path) as home:
        yield home


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Home]:
    bus = open_bus("embedded:", path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{path / 'catalog.sqlite'}")
    yield Home(path, bus, bus.producer(), catalog)
    await catalog.close()
    await bus.close()


async def policies(home: Home, *, reorder_s: float = 5, **more: Any) -> None:
    for name, settings in POLICIES.items():
        await home.policy(name, tags=[name], reorder_s=reorder_s, partitions=1, **settings, **more)


async def publish(home: Home, policy: str, sent: Sent) -> None:
    """Under the tag of the policy's name; record n of message m holds 100 m + n."""
    if sent.flushes_s is not None:
        chunk = flush_message(policy, (BASE_S + sent.flushes_s) * 10**9, published_ns=sent.number)
    else:
        values = [sent.number * 100 + n for n in range(len(sent.times_s))]
        records: list[Any] = (
            [value.to_bytes(2, "little") for value in values]
            if policy == "raw"
            else [{"n": value} for value in values]
        )
        events = zip(sent.times_s, records, strict=True)
        payload = b"".join(msgpack.packb([BASE_S + time_s, record]) for time_s, record in events)
        identifier = b"%d" % sent.number
        chunk = ChunkMessage(policy, "s", identifier, sent.number, len(sent.times_s), payload)
    await home.producer.publish(policy, policy.encode(), *encode_chunk(chunk))


def chunks_of(messages: Sequence[Sent]) -> int:
    return sum(sent.flushes_s is None for sent in messages)


async def work(home: Home, messages: Sequence[Sent], *, known: int = 0) -> None:
    """Publishes them for each policy, and waits until the worker has processed them and all earlier ones."""
    for policy in POLICIES:
        for sent in messages:
            await publish(home, policy, sent)
    await home.until_stored(len(POLICIES) * (known + chunks_of(messages)))
    if messages and messages[-1].flushes_s is not None:  # no counter shows it
        await until_offset(home, messages[-1].number + 1)


async def until_offset(home: Home, offset: int) -> None:
    async with asyncio.timeout(30):
        while True:
            await home.worker.checkpoint()
            with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
                positions = checkpoints.positions()
            if all(positions.get((policy, 0), 0) >= offset for policy in POLICIES):
                return


def results(home: Home) -> dict[str, Any]:
    """Everything that a user can see of the streams, and the buffered chunks."""
    found: dict[str, Any] = {}
    for policy in POLICIES:
        stream = home.store.stream(policy)
        found[policy] = (
            stream.read(0, stream.size),
            stream.arrivals[:].tobytes(),
            stream.event_times(0, stream.size).tobytes(),
        )
        for array in home.store.arrays(policy):
            rows = home.store.array(array)
            found[array] = rows[:].tobytes(), rows.times_ns[:].tolist()
        checkpoint = committed(home, policy)
        held = [chunk._replace(log="of each home") for chunk in checkpoint.held]
        found[f"{policy} held"] = checkpoint.order, held
    return found


def committed(home: Home, stream: str) -> StreamCheckpoint:
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        found = checkpoints.stream(stream)
    assert found is not None
    return found


def figures(home: Home, stream: str) -> OrderFigures:
    found = committed_figures(home.path / "checkpoints.sqlite", [stream])
    assert found is not None
    return found.get(stream, OrderFigures(stream))


def times_s(home: Home, array: str) -> list[int]:
    return [ns // 10**9 - BASE_S for ns in home.store.array(array).times_ns[:].tolist()]


# Out of order, overlapping, late, with flush messages in the middle, after which others are too late.
MESSAGES = [
    Sent(0, (10, 12)),
    Sent(1, (8, 9)),
    Sent(2, (11, 13)),
    Sent(3, (17,)),
    Sent(4, (14, 15)),
    Sent(5, flushes_s=17),
    Sent(6, (16, 18)),
    Sent(7, (24, 22)),
    Sent(8, (3, 23)),
    Sent(9, (21, 20)),
    Sent(10, flushes_s=99),
    Sent(11, (30, 31)),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    async def make() -> dict[str, Any]:
        async with opened(tmp_path_factory.mktemp("undisturbed")) as home:
            await policies(home)
            async with home.working():
                await work(home, MESSAGES)
            return results(home)

    return asyncio.run(make())


async def test_rows_are_stored_in_order_and_late_ones_counted(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, MESSAGES)
    expected = [8, 9, 10, 11, 12, 13, 14, 15, 17, 16, 18, 3, 20, 21, 22, 23, 24]
    assert times_s(home, "json:fields") == times_s(home, "msgpack:fields") == expected
    assert figures(home, "json").late_events == figures(home, "msgpack").late_events == 2
    # A raw chunk is a unit: (16, 18) and (3, 23) are late, the second as soon as it comes.
    assert times_s(home, "raw:samples") == [8, 9, 10, 12, 11, 13, 14, 15, 17, 16, 18, 3, 23, 21, 20, 24, 22]
    assert figures(home, "raw").held_chunks == figures(home, "json").held_chunks == 1
    assert home.store.stream("json").events == len(expected)
    assert home.letters.list() == []


@pytest.mark.parametrize("at", range(1, len(MESSAGES)))
async def test_a_kill_after_any_message_does_not_change_the_output(
    home: Home, undisturbed: dict[str, Any], at: int
) -> None:
    """Checkpoints before the kill: after half of the messages, and none."""
    await policies(home)
    before, behind = MESSAGES[: at // 2], MESSAGES[at // 2 : at]
    async with home.working(dies=True):
        await work(home, before)
        await home.worker.checkpoint()
        await work(home, behind, known=chunks_of(before))
    async with home.working():
        await work(home, MESSAGES[at:])
        await until_offset(home, len(MESSAGES))
    assert results(home) == undisturbed


async def test_a_kill_after_a_checkpoint_keeps_buffered_chunks(
    home: Home, undisturbed: dict[str, Any]
) -> None:
    await policies(home)
    for sent in MESSAGES:
        async with home.working(dies=True):
            await work(home, [sent])
            await until_offset(home, sent.number + 1)
    assert results(home) == undisturbed


async def test_the_last_checkpoint_of_a_stopping_worker_has_the_buffered_chunks(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, MESSAGES[:5])
    assert [chunk.sequence for chunk in committed(home, "json").held] == [2, 3, 4]
    assert figures(home, "json").held_chunks == 3


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_watch, "SILENCE_S", 0.1)


async def until_rows(home: Home, count: int) -> None:
    """Waits until each stream has this many, and the last checkpoint has no buffered chunks."""
    async with asyncio.timeout(30):
        while any(
            home.store.arrays(policy) == []
            or len(home.store.array(home.store.arrays(policy)[0])) < count
            or figures(home, policy).held_chunks
            for policy in POLICIES
        ):
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("hasty")
async def test_buffered_events_are_released_after_silence(home: Home) -> None:
    await policies(home, reorder_s=0.2)
    flusher = BusFlusher(home.bus)
    async with home.working(checkpoint_interval_s=0.05, flusher=flusher):
        await work(home, [Sent(0, (10,)), Sent(1, (11,))])
        await until_rows(home, 2)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [10, 11]


@pytest.mark.usefixtures("hasty")
async def test_a_started_worker_releases_buffered_chunks_without_new_chunks(home: Home) -> None:
    await policies(home, reorder_s=0.2)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (11,))])
    assert times_s(home, "json:fields") == [10]
    async with home.working(checkpoint_interval_s=0.05, flusher=BusFlusher(home.bus)):
        await until_rows(home, 2)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [10, 11]


class BrokenAtFirst(Flusher):
    """A gateway that is unavailable for a while."""

    def __init__(self, flusher: Flusher) -> None:
        self._flusher = flusher
        self.tries = 0

    async def publish(self, flushes: Sequence[Any]) -> None:
        self.tries += 1
        if self.tries < 3:
            raise OSError("no gateway of this home is running")
        await self._flusher.publish(flushes)


@pytest.mark.usefixtures("hasty")
async def test_a_flush_message_that_cannot_be_published_is_retried(home: Home) -> None:
    await policies(home, reorder_s=0.1)
    flusher = BrokenAtFirst(BusFlusher(home.bus))
    async with home.working(checkpoint_interval_s=0.05, flusher=flusher):
        await work(home, [Sent(0, (10,))])
        await until_rows(home, 1)
    assert flusher.tries >= 3
    assert times_s(home, "json:fields") == [10]


async def test_streams_and_policies_without_an_order_ignore_flush_messages(home: Home) -> None:
    await policies(home, reorder_s=0)
    async with home.working():
        await work(home, [Sent(0, flushes_s=5), Sent(1, (10,)), Sent(2, flushes_s=50), Sent(3, (9,))])
    assert "unheard-of" not in home.store.streams()
    for policy in POLICIES:
        assert (home.store.stream(policy).chunks, home.store.stream(policy).events) == (2, 2)
    assert home.letters.list() == []


async def test_a_stream_that_holds_chunks_is_not_late(home: Home) -> None:
    await policies(home)
    async with home.working(checkpoint_interval_s=0.02):
        await work(home, [Sent(0, (10,))])
        await until_offset(home, 1)
        made = home.telemetry.checkpoints_total
        async with asyncio.timeout(30):
            while home.telemetry.checkpoints_total < made + 5 or home.telemetry.lag_messages:
                await asyncio.sleep(0.01)
        status = home.telemetry.status()
        assert status.streams_behind == {}
        assert home.telemetry.health.listed() == []
        assert status.order["json"].held_chunks == 1


async def test_an_edit_that_switches_the_order_off_releases_buffered_chunks_first(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
        await policies(home, reorder_s=0)
        await until_policies(home, lambda policy: policy.reorder_s == 0)
        await work(home, [Sent(2, (1,))], known=2)
        assert figures(home, "json").held_chunks == 0
        await policies(home, reorder_s=5)
        await until_policies(home, lambda policy: policy.reorder_s == 5)
        await work(home, [Sent(3, (20,)), Sent(4, (19,)), Sent(5, flushes_s=20)], known=3)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [9, 10, 1, 19, 20]


async def test_chunks_buffered_when_the_order_is_switched_off_use_the_former_steps(
    home: Home,
) -> None:
    await policies(home)
    edited = {"format": "json", "pipeline": [{"operation": "fields", "name": "other"}]}
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
        await home.worker.checkpoint()
        await home.policy("json", tags=["json"], partitions=1, **edited)
        await until_policies(home, lambda policy: policy.reference != "json" or policy.reorder_s == 0)
        await work(home, [Sent(2, (11,))], known=2)
    assert (times_s(home, "json:fields"), times_s(home, "json:other")) == ([9, 10], [11])


async def test_an_edit_while_no_worker_runs_releases_buffered_chunks_first(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
    await policies(home, reorder_s=0)
    async with home.working():
        await work(home, [Sent(2, (1,))])
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [9, 10, 1]


async def until_policies(home: Home, holds: Callable[[Any], bool]) -> None:
    async with asyncio.timeout(30):
        while not all(map(holds, home.worker._catalog.policies.values())):
            await asyncio.sleep(0.02)


async def test_a_chunk_that_is_repeated_while_the_first_is_buffered_is_stored_once(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(0, (10,))])
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(3, flushes_s=10)])
        assert home.telemetry.repeated_total == len(POLICIES)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [10]


async def test_a_buffered_chunk_is_deduplicated_after_positions_and_ids_are_lost(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,))])
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        for policy in POLICIES:
            forgotten = replace(committed(home, policy), positions=())
            checkpoints.commit(positions={}, streams={policy: forgotten}, chunk_keys={}, window=0)
    with closing(sqlite3.connect(home.path / "checkpoints.sqlite")) as database, database:
        database.execute("UPDATE positions SET next_offset = -1")
        database.execute("DELETE FROM chunk_keys")
    async with home.working():
        await work(home, [Sent(2, flushes_s=10)], known=2)
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [9, 10]


async def test_an_event_that_cannot_be_archived_affects_no_event_merged_with_it(
    home: Home,
) -> None:
    await policies(home)
    never = b"\x92" + msgpack.packb(BASE_S + 12) + b"\x81\x91\x01\x02"  # a map whose key is a list
    broken = ChunkMessage("json", "s", b"b", 1, 1, never)
    async with home.working():
        await publish(home, "json", Sent(0, (10, 13, 14)))
        await publish(home, "json", Sent(1, (11, 15)))
        await home.producer.publish("json", b"json", *encode_chunk(broken))
        await publish(home, "json", Sent(3, (30,)))
        await home.until_stored(4)
    assert times_s(home, "json:fields") == [10, 11, 13, 14, 15]
    [letter] = home.letters.list()
    assert letter.code == "not-archived"
    assert home.letters.get(letter.id).payload == never


async def test_reprocessing_gives_the_same_rows_and_keeps_buffered_chunks(home: Home) -> None:
    await policies(home)
    async with home.working():
        await work(home, MESSAGES)
    before = results(home)
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        for name, settings in POLICIES.items():
            policy = policy_from_mapping({"reference": name, "tags": [name], "reorder_s": 5, **settings})
            with Reprocessing(home.store, name, policy, checkpoints) as again:
                again.put_in_place(lambda: None)
                assert not again.failed
    assert {name: found for name, found in results(home).items() if not name.endswith("~1")} == before
    async with home.working():
        await work(home, [Sent(12, flushes_s=99)])
    assert times_s(home, "json:fields")[-2:] == [30, 31]


async def test_the_bound_of_the_buffer_releases_the_oldest_events_early(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reorder_buffer, "MAX_BUFFERED_BYTES", 4000)
    await policies(home, reorder_s=1000)
    async with home.working():
        await work(home, [Sent(n, (100 + (n ^ 1),)) for n in range(8)])
    assert figures(home, "json").held_chunks == figures(home, "raw").held_chunks == 3
    assert figures(home, "json").early_events == figures(home, "raw").early_events == 5
    assert times_s(home, "json:fields") == times_s(home, "raw:samples") == [100, 101, 102, 103, 104]


async def test_samples_out_of_order_cause_a_warning(home: Home) -> None:
    await policies(home, reorder_s=0)
    async with home.working():
        await work(home, [Sent(0, (10, 11)), Sent(1, (12,)), Sent(2, (9,)), Sent(3, (13,))])
        warning = home.telemetry.status().order["raw"].warning
        assert "json" not in home.telemetry.status().order
    assert warning is not None
    assert "1 chunk of samples" in warning
    assert "policy 'raw'" in warning
    assert figures(home, "raw").warning == warning
    async with home.working():  # by another worker too, before a chunk comes
        async with asyncio.timeout(30):
            while "raw" not in home.telemetry.status().order:
                await asyncio.sleep(0.02)
    await policies(home, reorder_s=5)
    async with home.working():
        await work(home, [Sent(4, (14,))])
    assert (figures(home, "raw").inversions, figures(home, "raw").warning) == (1, None)


async def test_a_buffered_chunk_that_ended_two_workers_is_set_aside_and_the_others_continue(
    home: Home,
) -> None:
    await policies(home)
    async with home.working():
        await work(home, [Sent(0, (10,)), Sent(1, (9,)), Sent(2, (11,))])
    held = committed(home, "json").held[1]
    with closing(SqlCheckpointDatabase(home.path / "checkpoints.sqlite")) as checkpoints:
        for _ in range(2):
            checkpoints.blame(held.log, ("json", 0), [held.offset], "a fault")
        assert checkpoints.held_suspects(held.log, ("json", 0)) == {held.offset: "json"}
    async with home.working(checkpoint_interval_s=0.05):
        await work(home, [Sent(3, flushes_s=11)])
        await until_offset(home, 4)
    assert times_s(home, "json:fields") == [10, 11]
    assert times_s(home, "msgpack:fields") == [9, 10, 11]
    [letter] = home.letters.list()
    assert (letter.code, letter.tag) == ("ended-worker", "json")


async def test_workers_that_take_each_others_partitions_store_everything_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "RETAKE_AFTER_S", 0.05)
    chance = random.Random(3)
    random.seed(3)
    logs = Logs()
    bus = TurbulentBus(logs)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    group = Group(Home(tmp_path, bus, bus.producer(), catalog), logs)
    await policies(group.home, reorder_s=8)
    count = 80
    order = sorted(range(count), key=lambda n: n + chance.uniform(0, 7))

    async def publish_all() -> None:
        for n in order:
            for policy in POLICIES:
                for _ in range(chance.choice([1, 1, 2])):
                    await publish(group.home, policy, Sent(n, (n,)))
            await asyncio.sleep(0.005)

    def is_all_committed() -> bool:
        at = group.checkpoints.positions()
        return all(at.get(key, 0) == len(log) for key, log in logs.messages.items())

    async with group.member("a") as a, group.member("b") as b:
        publishing = asyncio.ensure_future(publish_all())
        while not publishing.done():
            for partition in logs.partitions():
                to = chance.choice([a, b]).consumer
                if chance.random() < 0.5:
                    await logs.hand_over(partition, to)
                else:
                    await logs.bereave(partition, to, told_after_s=chance.uniform(0, 0.02))
        for partition in logs.partitions():
            await logs.hand_over(partition, a.consumer)
        for policy in POLICIES:
            await publish(group.home, policy, Sent(count, flushes_s=count))
        await until(is_all_committed, a, b)
    for array in ("json:fields", "msgpack:fields", "raw:samples"):
        assert times_s(group.home, array) == list(range(count))
    assert group.home.letters.list() == []
    group.checkpoints.close()
    await catalog.close()


def test_a_chunk_is_not_a_flush_message() -> None:
    flush = flush_message("t", 5, published_ns=1)
    assert flushed_until_ns(flush) == 5
    for other in (
        ChunkMessage("t", "10.0.0.1", flush.chunk_id, 1, 0, b""),
        ChunkMessage("t", flush.sender, flush.chunk_id, 1, 1, b"x"),
        ChunkMessage("t", flush.sender, b"until:noon", 1, 0, b""),
        ChunkMessage("t", flush.sender, b"until:" + b"9" * 30, 1, 0, b""),
        ChunkMessage("t", flush.sender, None, 1, 0, b""),
    ):
        assert flushed_until_ns(other) is None


def test_there_are_no_order_figures_without_a_readable_database(tmp_path: Path) -> None:
    assert committed_figures(tmp_path / "none.sqlite", ["t"]) is None
    (tmp_path / "damaged.sqlite").write_bytes(np.random.default_rng(1).bytes(5000))
    assert committed_figures(tmp_path / "damaged.sqlite", ["t"]) is None
