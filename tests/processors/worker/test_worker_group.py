"""Workers that share a home: partitions change hands, and everything is stored once and in order."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from windvane.bus.interface import TopicPartition
from windvane.config import WorkerSettings
from windvane.errors import StoreFailed, StoreLocked
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.processors.worker.pipeline.catalog_link import CatalogLink
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.processors.worker.progress import ownership
from windvane.processors.worker.worker import Worker
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store
from windvane.store.model_files import ModelFiles

from tests import waiting
from tests.processors.worker.test_worker import PCM, SPECTRUM, Home
from tests.processors.worker.turbulent_bus import Logs, TurbulentBus, TurbulentConsumer
from tests.store.files.resumed import resumed

BOUND_S = 60  # only ends a test that hangs


class Group:
    """Workers of one group over one home, all in this process, on a bus that the test disturbs."""

    def __init__(self, home: Home, logs: Logs) -> None:
        self.home = home
        self.logs = logs
        self.checkpoints = SqlCheckpointDatabase(home.path / "checkpoints.sqlite")

    @asynccontextmanager
    async def member(self, name: str, **settings: float) -> AsyncIterator["Member"]:
        member = Member(self, name, settings)
        try:
            yield member
            await member.stop()
        finally:
            await member.clean_up()

    def committed(self, topic: str, partition: int = 0) -> int:
        return self.checkpoints.positions().get((topic, partition), 0)


class Member:
    """One worker at work."""

    def __init__(self, group: Group, name: str, settings: dict[str, float]) -> None:
        path = group.home.path
        self.telemetry = WorkerTelemetry()
        self.letters = SqlDeadLetters(path / "dead-letters.sqlite")
        self._bus = TurbulentBus(group.logs)
        self._link = CatalogLink(group.home.catalog)
        self._checkpoints = SqlCheckpointDatabase(path / "checkpoints.sqlite")
        self.worker = Worker(
            bus=self._bus,
            store=Store(path / "store"),
            checkpoints=self._checkpoints,
            dead_letters=self.letters,
            settings=msgspec.structs.replace(WorkerSettings(checkpoint_interval_s=0.02), **settings),
            catalog=self._link,
            telemetry=self.telemetry,
            operations=UserOperations(path / "operations"),
            models=ModelFiles(path / "models"),
            name=name,
        )
        self.consumer: TurbulentConsumer = group.logs.consumers[-1]
        self._stop = asyncio.Event()
        self._following = asyncio.ensure_future(self._link.follow())
        self.running = asyncio.ensure_future(self.worker.run(self._stop))

    async def stop(self) -> None:
        self._stop.set()
        await self.running

    async def clean_up(self) -> None:
        self._stop.set()
        self._following.cancel()
        await asyncio.wait([self._following, self.running])
        self.running.exception()
        self._checkpoints.close()
        await self._bus.close()


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    logs = Logs()
    bus = TurbulentBus(logs)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    found = Group(Home(tmp_path, bus, bus.producer(), catalog), logs)
    yield found
    found.checkpoints.close()
    await catalog.close()


async def until(holds: Callable[[], object], *running: Member) -> None:
    """Waits until `holds()` is true; a worker that ends first ends the wait with what it raised."""

    def holds_or_raises() -> object:
        for member in running:
            if member.running.done():
                member.running.result()
        return holds()

    await waiting.until(holds_or_raises, timeout_s=BOUND_S)


def locked(store: Store, stream: str) -> bool:
    try:
        store.stream_writer(stream, attrs=store.stream(stream).attrs).close()
    except StoreLocked:
        return True
    return False


P0, P1 = TopicPartition("p", 0), TopicPartition("q", 0)


async def two_policies(group: Group) -> None:
    """Two partitions; keys are not distributed over them."""
    await group.home.policy("p", tags=["p.*"], format="raw", partitions=1)
    await group.home.policy("q", tags=["q.*"], format="raw", partitions=1)


async def test_a_worker_that_lost_a_partition_commits_the_rest_and_closes_its_streams(group: Group) -> None:
    await two_policies(group)
    async with group.member("a") as a:
        await a.consumer.give(P0)
        await a.consumer.give(P1)
        for topic in ("p", "q"):
            await group.home.publish(topic, "1", tag=f"{topic}.t")
        await until(lambda: group.committed("p") == group.committed("q") == 1, a)
        assert locked(group.home.store, "p.t")
        group.checkpoints.take([P0], owner="b")
        for topic in ("p", "q"):
            await group.home.publish(topic, "2", tag=f"{topic}.t")
        await until(lambda: a.telemetry.lost_total == 1 and group.committed("q") == 2, a)
        assert not locked(group.home.store, "p.t")
        assert locked(group.home.store, "q.t")
        assert a.telemetry.status().partitions == 1
    assert group.committed("p") == 1
    assert group.home.stream("q.t") == b"12"


async def test_a_partition_that_the_bus_never_revokes_is_retaken(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "RETAKE_AFTER_S", 0.05)
    await two_policies(group)
    async with group.member("a") as a:
        await a.consumer.give(P0)
        for number in range(20):
            await group.home.publish("p", f"{number:03}", tag="p.t")
            if number % 5 == 2:
                group.checkpoints.take([P0], owner="one who came late")
            await asyncio.sleep(0.01)
        await until(lambda: group.committed("p") == 20, a)
        assert a.telemetry.lost_total >= 1
    assert group.home.stream("p.t") == b"".join(b"%03d" % number for number in range(20))


async def test_a_stream_that_another_still_writes_stops_its_partition_alone(group: Group) -> None:
    await two_policies(group)
    async with group.member("a") as a:
        await a.consumer.give(P0)
        await group.home.publish("p", "1", tag="p.t")
        await until(lambda: group.committed("p") == 1, a)
    # A worker that does not know that it lost its partition: it continues to write, and commits nothing.
    zombie = resumed(group.home.store.stream_writer("p.t", attrs=group.home.store.stream("p.t").attrs))
    zombie.append(b"never committed", arrived_ns=1, chunk_id=None, events=1)
    async with group.member("b", stream_wait_s=0.01) as b:
        await b.consumer.give(P0)
        await b.consumer.give(P1)
        for number in range(2, 12):
            await group.home.publish("p", f"{number}", tag="p.t")
            await group.home.publish("q", f"{number}", tag="q.t")
        await until(lambda: group.committed("q") == 10, b)
        await until(lambda: b.telemetry.status().waits, b)
        [waits] = b.telemetry.status().waits
        assert (waits.stream, waits.writer) == ("p.t", "a")
        assert group.committed("p") == 1
        zombie.close()
        await until(lambda: group.committed("p") == 11, b)
        assert b.telemetry.status().waits == []
    assert group.home.stream("p.t") == b"1234567891011"
    assert group.home.letters.list() == []


async def test_a_waiting_partition_is_handed_over_at_its_position(group: Group) -> None:
    await two_policies(group)
    async with group.member("a") as a:
        await a.consumer.give(P0)
        await group.home.publish("p", "1", tag="p.t")
        await until(lambda: group.committed("p") == 1, a)
    zombie = resumed(group.home.store.stream_writer("p.t", attrs=group.home.store.stream("p.t").attrs))
    async with group.member("b") as b, group.member("c") as c:
        await b.consumer.give(P0)
        await group.home.publish("p", "2", tag="p.t")
        await until(lambda: b.telemetry.status().waits, b)
        await group.logs.hand_over(P0, c.consumer)
        await until(lambda: c.telemetry.status().waits, c)
        zombie.close()
        await until(lambda: group.committed("p") == 2, c)
    assert group.home.stream("p.t") == b"12"


async def test_a_tag_of_two_policies_in_two_workers_goes_to_the_dead_letters_of_one(group: Group) -> None:
    await two_policies(group)
    async with group.member("a") as a, group.member("b", stream_wait_s=0.05) as b:
        await a.consumer.give(P0)
        await b.consumer.give(P1)
        await group.home.publish("p", "1", tag="t")
        await until(lambda: group.committed("p") == 1, a)
        await group.home.publish("q", "lost", tag="t", chunk_id=b"7")
        await group.home.publish("q", "fine", tag="q.t")
        await until(lambda: group.committed("q") == 2, b)
        [letter] = group.home.letters.list()
        assert (letter.code, letter.tag, letter.policy) == ("stream-held", "t", "q")
        assert "written by a, for policy 'p'" in letter.reason
    assert group.home.stream("t") == b"1"
    assert group.home.stream("q.t") == b"fine"


async def test_a_tag_whose_partition_has_changed_is_processed_once_the_other_worker_releases_it(
    group: Group,
) -> None:
    await group.home.policy("p", tags=["*"], format="raw", partitions=1)
    async with group.member("a", stream_wait_s=0.1) as a, group.member("b", stream_wait_s=0.1) as b:
        await a.consumer.give(P0)
        await group.home.publish("p", "1", tag="t")
        await until(lambda: group.committed("p") == 1, a)
        await group.home.policy("p", tags=["*"], format="raw", partitions=64)
        await b.consumer.give(where := group.logs.partition_of("p", b"t"))
        assert where != P0
        await group.home.publish("p", "2", tag="t")
        await until(lambda: group.committed(*where) == 1, a, b)
    assert group.home.stream("t") == b"12"
    assert group.home.letters.list() == []


async def test_a_checkpoint_that_fails_in_a_hand_over_ends_the_worker_and_commits_nothing(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    await two_policies(group)
    async with group.member("a", checkpoint_interval_s=1e9) as a:
        await a.consumer.give(P0)
        await a.consumer.give(P1)
        await group.home.publish("p", "1", tag="p.t")
        await group.home.publish("q", "1", tag="q.t")
        await until(lambda: a.telemetry.chunks_total == 2, a)

        def no_room(*_: object, **__: object) -> None:
            raise StoreFailed("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(SqlCheckpointDatabase, "commit", no_room)
            with pytest.raises(StoreFailed):
                await a.consumer.take_away(P0)
        with pytest.raises(StoreFailed, match="the disk is full"):
            await a.running
        await a.consumer.close()
        assert group.checkpoints.positions() == {}
        assert not locked(group.home.store, "q.t")
        a.running = asyncio.ensure_future(asyncio.sleep(0))
    async with group.member("b") as b:
        await b.consumer.give(P0)
        await b.consumer.give(P1)
        await until(lambda: group.committed("p") == group.committed("q") == 1, b)
    assert group.home.stream("p.t") == group.home.stream("q.t") == b"1"


STREAMS, CHUNKS = 6, 60


@pytest.mark.parametrize("seed", range(4))
async def test_continuous_rebalancing_neither_loses_nor_duplicates_rows(
    group: Group, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(ownership, "RETAKE_AFTER_S", 0.05)
    chance = random.Random(seed)
    random.seed(seed)
    await group.home.policy("p", tags=["*"], format="raw", pipeline=[PCM, SPECTRUM], partitions=4)
    pieces = np.random.default_rng(seed).integers(-9999, 9999, (STREAMS, CHUNKS, 77)).astype("<i2")

    async def publish_all() -> None:
        for number in range(CHUNKS):
            for stream in range(STREAMS):
                chunk_id = f"{stream}-{number}".encode()
                for _ in range(chance.choice([1, 1, 2])):  # an occasional retransmission
                    payload = pieces[stream, number].tobytes()
                    await group.home.publish("p", payload, tag=f"t{stream}", chunk_id=chunk_id)
            await asyncio.sleep(0.005)

    def is_all_committed() -> bool:
        at = group.checkpoints.positions()
        return all(
            at.get((key.topic, key.partition), 0) == len(log) for key, log in group.logs.messages.items()
        )

    async with (
        group.member("a", checkpoint_interval_s=0.01) as a,
        group.member("b", checkpoint_interval_s=0.01) as b,
        group.member("c", checkpoint_interval_s=0.01) as c,
    ):
        members = [a, b, c]
        for partition in group.logs.partitions():
            await chance.choice(members).consumer.give(partition)
        publishing = asyncio.ensure_future(publish_all())

        async def shake(partition: TopicPartition) -> None:
            while not publishing.done():
                to = chance.choice(members).consumer
                match chance.choice(["hand over", "bereave", "too late"]):
                    case "hand over":
                        await group.logs.hand_over(partition, to)
                    case "bereave":
                        await group.logs.bereave(partition, to, told_after_s=chance.uniform(0, 0.03))
                    case "too late":
                        await group.logs.give_too_late(partition, to)
                await asyncio.sleep(chance.uniform(0, 0.05))

        async with asyncio.timeout(BOUND_S):
            await asyncio.gather(publishing, *(shake(partition) for partition in group.logs.partitions()))
        await until(is_all_committed, *members)
        assert sum(member.telemetry.lost_total for member in members) > 0, "a member lost a partition"
    assert group.home.letters.list() == []
    for stream in range(STREAMS):
        sent = pieces[stream].reshape(-1)
        assert group.home.stream(f"t{stream}") == sent.tobytes()
        assert np.array_equal(group.home.store.array(f"t{stream}:samples")[:, 0], sent)
        assert len(group.home.store.array(f"t{stream}:spectrum")) == (len(sent) - 64) // 32 + 1
