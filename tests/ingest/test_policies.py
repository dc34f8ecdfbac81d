"""What policies ask for: who may send, what records are, how fast they come, what is known already."""

import asyncio
import gc
import shutil
import struct
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import pytest
from windvane.bus import open_bus
from windvane.bus.interface import Bus
from windvane.bus.messages.chunks import ChunkMessage, decode_chunk
from windvane.config import GatewaySettings, Settings, WorkerSettings
from windvane.errors import ChunkRejected, RateExceeded
from windvane.ingest.chunk import IncomingChunk
from windvane.ingest.gateway import Gateway
from windvane.ingest.policy_book import PolicyBook
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.processors.operations.base.user_operations import UserOperations
from windvane.processors.worker.pipeline.catalog_link import CatalogLink
from windvane.processors.worker.pipeline.telemetry import WorkerTelemetry
from windvane.processors.worker.progress.ownership import repetition_key
from windvane.processors.worker.worker import Worker
from windvane.store.catalog.catalog import Catalog
from windvane.store.catalog.policy import policy_from_mapping, policy_to_mapping
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.databases.dead_letter import KeptDeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store
from windvane.store.model_files import ModelFiles

from tests.ingest.limits.test_rate_limit import MovedClock
from tests.ingest.test_gateway import EVENT, FromTheBeginning, packed, read_ack, running

NOW_S = 1_790_000_000
POWER = {"type": "record", "name": "Power", "fields": [{"name": "kw", "type": "double", "minimum": 0}]}


def event(record: Any, *, seconds: int = NOW_S, nanoseconds: int = 0) -> bytes:
    return bytes(msgpack.packb([msgpack.ExtType(0, struct.pack(">II", seconds, nanoseconds)), record]))


class House:
    """A home with a bus and a catalog, in which a test has gateways and workers come and go."""

    def __init__(self, home: Path, bus: Bus, catalog: Catalog) -> None:
        self.home = home
        self.bus = bus
        self.catalog = catalog
        self.clock = MovedClock()
        self.books: list[PolicyBook] = []
        self.letters = SqlDeadLetters(home / "dead-letters.sqlite")

    async def policy(self, reference: str, **settings: Any) -> None:
        body = policy_to_mapping(policy_from_mapping({"reference": reference, **settings}))
        await self.catalog.put("policy", reference, body=body)
        for book in self.books:
            await book.refresh()

    async def gateway(self, *, settings: GatewaySettings | None = None) -> Gateway:
        """A gateway that remembers nothing of those before."""
        telemetry = GatewayTelemetry()
        book = PolicyBook(self.catalog, self.bus, telemetry, clock=self.clock)
        await book.refresh()
        self.books.append(book)
        return Gateway(
            producer=self.bus.producer(),
            policies=book,
            dead_letters=self.letters,
            telemetry=telemetry,
            settings=settings or GatewaySettings(),
            now_ns=lambda: NOW_S * 10**9,
        )

    async def chunks(self, topic: str) -> list[ChunkMessage]:
        """All that is on the bus."""
        consumer = self.bus.consumer(f"test{len(self.books)}", FromTheBeginning())
        consumer.subscribe([topic])
        found = []
        while messages := await consumer.poll(timeout_s=0.2):
            found += [decode_chunk(message.value) for message in messages]
        await consumer.close()
        return found

    def kept(self) -> list[KeptDeadLetter]:
        return [self.letters.get(letter.id) for letter in reversed(self.letters.list())]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield House(tmp_path, bus, catalog)
    await catalog.close()
    await bus.close()


def chunk(payload: bytes | memoryview = EVENT, **more: Any) -> IncomingChunk:
    return IncomingChunk(**{"sender": "10.7.0.1", "tag": "t", "payload": payload, **more})


@pytest.mark.parametrize(
    ("code", "tag", "content"),
    [
        ("no-policy", "unknown", EVENT),
        ("sender-not-allowed", "closed", EVENT),
        ("malformed", "t", b"\xc1"),
        ("too-many-events", "t", EVENT * 3),
    ],
)
async def test_a_rejected_chunk_is_let_go_without_a_search_for_cycles(
    house: House, code: str, tag: str, content: bytes
) -> None:
    await house.policy("t", limits={"events_per_chunk": 2})
    await house.policy("closed", allow=[{"identities": ["t07"]}])
    gateway = await house.gateway()
    gc.collect()
    gc.disable()
    try:
        payload = memoryview(bytearray(content))
        alive = weakref.ref(payload)
        decision = gateway.submit(chunk(payload, tag=tag))
        del payload
        ended = asyncio.Event()
        decision.add_done_callback(lambda _: ended.set())
        await ended.wait()
        rejection = decision.exception()
        assert isinstance(rejection, ChunkRejected)
        assert rejection.code == code
        del decision, rejection
        await asyncio.sleep(0)
        assert alive() is None
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        await gateway.close()


async def test_invalid_events_are_let_go_without_a_search_for_cycles(house: House) -> None:
    line = {"type": "record", "name": "Line", "fields": [{"name": "n", "type": "long"}]}
    await house.policy("t", schema=line)
    gateway = await house.gateway()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(50):
            await gateway.submit(chunk(EVENT * 3))
        gc.collect()
        # An error that its own traceback refers to is such a cycle.
        assert not [each for each in gc.garbage if isinstance(each, BaseException | TracebackType)]
        assert {letter.code for letter in house.kept()} == {"schema"}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        await gateway.close()


async def test_chunks_that_the_policy_does_not_allow_are_rejected_and_kept(house: House) -> None:
    await house.policy("t", allow=[{"identities": ["t07"], "networks": ["10.7.0.0/16"]}])
    gateway = await house.gateway()
    await gateway.submit(chunk(identity="t07"))
    for stranger in (chunk(identity="t08"), chunk(), chunk(identity="t07", sender="10.8.0.1")):
        with pytest.raises(ChunkRejected, match="policy 't' does not allow") as caught:
            await gateway.submit(stranger)
        assert caught.value.code == "sender-not-allowed"
        who = repr(stranger.identity) if stranger.identity else "the anonymous sender"
        assert f"does not allow {who} at {stranger.sender} to send 't'" in str(caught.value)
    assert len(await house.chunks("t")) == 1
    [letter, *_] = house.kept()
    assert (letter.code, letter.policy, letter.identity) == ("sender-not-allowed", "t", "t08")


async def test_a_deleted_topic_is_recreated_with_the_policys_partitions(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windvane.ingest.policy_book.TOPICS_INTERVAL_S", 0.0)
    await house.policy("t", partitions=3)
    gateway = await house.gateway()
    await gateway.submit(chunk())
    shutil.rmtree(house.home / "bus" / "t")
    await house.books[0].refresh()
    assert await house.bus.topics() == {"t": 3}
    await gateway.submit(chunk(chunk_id=b"after"))
    assert [each.chunk_id for each in await house.chunks("t")] == [b"after"]


async def test_a_sender_that_is_not_allowed_gets_no_ack_and_a_403(tmp_path: Path) -> None:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("t", allow=[{"networks": ["10.0.0.0/8"]}])
        await site.policy("open", allow=[{"networks": ["127.0.0.0/8"]}])
        async with site.connected() as (reader, writer):
            writer.write(packed("t", EVENT, chunk="stranger") + packed("open", EVENT, chunk="known"))
            assert await read_ack(reader) == "known"
        async with site.http() as http, http.post("/ingest/t?reference=t", data=EVENT) as answer:
            assert answer.status == 403
            assert (await answer.json())["code"] == "sender-not-allowed"
        assert await site.chunks("t") == []


async def test_only_the_invalid_records_go_to_the_dead_letters(house: House) -> None:
    await house.policy("t", schema=POWER)
    gateway = await house.gateway()
    good, bad, worse = event({"kw": 1}), event({"kw": -1}), event({"kW": 1})
    await gateway.submit(chunk(good + bad + good + worse + good, chunk_id=b"id"))
    [stored] = await house.chunks("t")
    assert (stored.payload, stored.events, stored.chunk_id) == (good * 3, 3, b"id")
    [letter] = house.kept()
    assert (letter.code, letter.payload, letter.policy, letter.chunk_id) == ("schema", bad + worse, "t", None)
    assert letter.reason.startswith("2 of 5 events are not what the policy asks for: ")
    assert "event 1: kw: must be a number >= 0.0; event 3: kW: is not in the schema" in letter.reason


@pytest.mark.parametrize(
    "policy",
    [
        {"schema": POWER, "invalid_records": "refuse"},
        {"limits": {"chunk_bytes": 100}},
    ],
)
async def test_of_joined_messages_only_the_invalid_ones_are_rejected(
    house: House, policy: dict[str, Any]
) -> None:
    await house.policy("t", **policy)
    gateway = await house.gateway()
    good = [event({"kw": float(i)}) for i in range(9)]
    bad = [event({"kw": letter * 100}) for letter in "xy"]
    run = [*good[:3], bad[0], *good[3:], bad[1]]
    with pytest.raises(ChunkRejected):
        await gateway.submit(chunk(b"".join(run), events=len(run), is_run=True))
    await gateway.close()
    stored = await house.chunks("t")
    assert b"".join(each.payload for each in stored) == b"".join(good)
    assert sum(each.events for each in stored) == len(good)
    assert [letter.payload for letter in house.kept()] == bad


async def test_joined_messages_are_not_counted_as_one_chunk(house: House) -> None:
    await house.policy("t", limits={"events_per_chunk": 2})
    gateway = await house.gateway()
    run = b"".join(event({"kw": float(i)}) for i in range(7))
    await gateway.submit(chunk(run, events=7, is_run=True))
    with pytest.raises(ChunkRejected, match="the chunk has 7 events"):
        await gateway.submit(chunk(run, events=7))
    assert b"".join(each.payload for each in await house.chunks("t")) == run
    assert len(house.kept()) == 1


async def test_a_chunk_of_invalid_records_alone_is_kept_and_acked(house: House) -> None:
    await house.policy("t", schema=POWER)
    gateway = await house.gateway()
    await gateway.submit(chunk(event({}) * 2))
    assert await house.chunks("t") == []
    assert [letter.payload for letter in house.kept()] == [event({}) * 2]


async def test_a_policy_may_reject_the_whole_chunk(house: House) -> None:
    await house.policy("t", schema=POWER, invalid_records="refuse")
    gateway = await house.gateway()
    payload = event({"kw": 1}) + event({})
    with pytest.raises(ChunkRejected, match=r"1 of 2 events .* event 1: kw: is missing") as caught:
        await gateway.submit(chunk(payload))
    assert caught.value.code == "schema"
    assert await house.chunks("t") == []
    assert [letter.payload for letter in house.kept()] == [payload]


async def test_what_comes_from_the_dead_letters_and_is_still_invalid_stays_there(house: House) -> None:
    await house.policy("t", schema=POWER)
    gateway = await house.gateway()
    with pytest.raises(ChunkRejected):
        await gateway.submit(chunk(event({}), is_replay=True))
    assert house.kept() == []


async def test_a_clock_that_is_wrong_makes_records_invalid(house: House) -> None:
    await house.policy("t", limits={"max_future_s": 60, "max_age_s": 3600})
    gateway = await house.gateway()
    old, now, ahead = (event({}, seconds=NOW_S + shift) for shift in (-3601, -3600, 61))
    await gateway.submit(chunk(old + now + ahead))
    assert [stored.payload for stored in await house.chunks("t")] == [now]
    [letter] = house.kept()
    assert letter.payload == old + ahead
    assert "event 0: its time lies 1 s beyond limits.max_age_s" in letter.reason


async def test_over_the_rate_a_chunk_waits_for_its_ack_and_is_not_lost(house: House) -> None:
    await house.policy("t", limits={"events_per_s": 10, "burst_s": 1})
    gateway = await house.gateway()
    await gateway.submit(chunk(EVENT * 10, chunk_id=b"1"))
    second, third = (gateway.submit(chunk(EVENT * 10, chunk_id=id)) for id in (b"2", b"3"))
    again = gateway.submit(chunk(EVENT * 10, chunk_id=b"2"))
    assert second.waits_for_rate
    house.clock.move(0.9)
    assert len(await house.chunks("t")) == 1
    house.clock.move(0.2)
    await asyncio.gather(second, again)
    assert not third.done()
    house.clock.move(1)
    await third
    assert [stored.chunk_id for stored in await house.chunks("t")] == [b"1", b"2", b"3"]
    assert house.kept() == []


async def test_over_the_rate_http_answers_with_retry_after(tmp_path: Path) -> None:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("t", limits={"events_per_s": 0.01, "burst_s": 100})
        async with site.http() as http:
            async with http.post("/ingest/t?reference=t", data=EVENT) as answer:
                assert answer.status == 204
            async with http.post("/ingest/t?reference=t", data=EVENT) as answer:
                assert answer.status == 429
                assert 1 <= int(answer.headers["Retry-After"]) <= 100
        assert len(await site.chunks("t")) == 1
        assert site.letters().list() == []


async def test_a_sender_over_its_rate_is_read_no_more_and_others_are_served(tmp_path: Path) -> None:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("slow", limits={"bytes_per_s": 1, "burst_s": 1})
        await site.policy("t")
        flood = packed("slow", EVENT * 3000) * 400  # without acks, and more than may wait
        async with site.connected() as (_, writer):
            writer.write(flood)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 1)
            assert await site.send(packed("t", EVENT, chunk="other")) == ["other"]
            writer.transport.abort()
        assert site.letters().list() == []


async def test_too_much_that_waits_is_left_to_its_sender_or_kept(house: House) -> None:
    await house.policy("t", limits={"bytes_per_s": 1, "burst_s": 1})
    gateway = await house.gateway(settings=GatewaySettings(pending_bytes=12_000))
    await gateway.submit(chunk())
    held = gateway.submit(chunk(EVENT * 20))
    assert held.waits_for_rate
    with pytest.raises(RateExceeded):
        await gateway.submit(chunk(EVENT * 20, chunk_id=b"its sender waits for an ack"))
    assert house.kept() == []
    with pytest.raises(ChunkRejected) as caught:
        await gateway.submit(chunk(EVENT * 20))
    assert caught.value.code == "over-rate"
    assert [letter.payload for letter in house.kept()] == [EVENT * 20]
    gateway.stop_holding()
    await held
    assert len(await house.chunks("t")) == 2


async def test_an_edit_of_the_rate_holds_at_once_for_those_who_wait(house: House) -> None:
    await house.policy("t", limits={"bytes_per_s": 1, "burst_s": 1})
    gateway = await house.gateway()
    await gateway.submit(chunk())
    held = gateway.submit(chunk(chunk_id=b"1"))
    await house.policy("t", limits={})
    await held
    assert len(await house.chunks("t")) == 2


async def test_an_edit_that_is_broken_changes_nothing(house: House) -> None:
    await house.policy("t", schema=POWER)
    gateway = await house.gateway()
    body = policy_to_mapping(policy_from_mapping({"reference": "t", "schema": POWER}))
    body["schema"]["fields"][0]["type"] = "dubble"
    await house.catalog.put("policy", "t", body=body)
    await house.books[0].refresh()
    await gateway.submit(chunk(event({"kw": 1}) + event({})))
    assert [letter.code for letter in house.kept()] == ["schema"]
    assert len(await house.chunks("t")) == 1


@pytest.mark.parametrize("durability", ["fsync", "written"])
async def test_a_policy_says_what_an_ack_waits_for(house: House, durability: str) -> None:
    await house.policy("t", durability=durability)
    gateway = await house.gateway()
    await asyncio.gather(*(gateway.submit(chunk(chunk_id=b"%d" % i)) for i in range(20)))
    assert len(await house.chunks("t")) == 20


@pytest.mark.parametrize("chunk_id", [None, b"1"])
async def test_by_content_the_equal_parts_of_a_large_chunk_do_not_repeat_each_other(
    house: House, chunk_id: bytes | None
) -> None:
    await house.policy("t", suppress_repeats="content")
    for _ in range(2):  # the second one remembers nothing
        gateway = await house.gateway()
        gateway._producer.max_message_bytes = 100_000
        await gateway.submit(chunk(2 * event({"image": bytes(80_000)}), chunk_id=chunk_id))
    parts = await house.chunks("t")
    assert [part.events for part in parts] == [1, 1, 1, 1]
    first, second, *again = [repetition_key(part, by_content=True) for part in parts]
    assert None not in (first, second)
    assert first != second
    assert again == [first, second]


async def test_by_content_a_repetition_is_known_whatever_its_id(house: House) -> None:
    await house.policy("t", suppress_repeats="content")
    gateway = await house.gateway()
    await gateway.submit(chunk(EVENT, chunk_id=b"1"))
    await gateway.submit(chunk(EVENT, chunk_id=b"2"))
    await gateway.submit(chunk(EVENT))
    await gateway.submit(chunk(EVENT, sender="10.7.0.2"))
    await gateway.submit(chunk(EVENT * 2, chunk_id=b"1"))
    assert [(stored.sender, stored.events) for stored in await house.chunks("t")] == [
        ("10.7.0.1", 1),
        ("10.7.0.2", 1),
        ("10.7.0.1", 2),
    ]


class Work:
    """A worker over the house, that is stopped in order or dies."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.telemetry = WorkerTelemetry()
        self._checkpoints = SqlCheckpointDatabase(house.home / "checkpoints.sqlite")
        self._bus = open_bus("embedded:", house.home)
        link = CatalogLink(house.catalog)
        self.worker = Worker(
            bus=self._bus,
            store=Store(house.home / "store"),
            checkpoints=self._checkpoints,
            dead_letters=house.letters,
            settings=WorkerSettings(checkpoint_interval_s=1e9),
            catalog=link,
            telemetry=self.telemetry,
            operations=UserOperations(house.home / "operations"),
            models=ModelFiles(house.home / "models"),
        )
        self._stop = asyncio.Event()
        self._running = asyncio.ensure_future(self.worker.run(self._stop))
        self._following = asyncio.ensure_future(link.follow())

    async def until_seen(self, chunks: int) -> "Work":
        async with asyncio.timeout(30):
            while self.telemetry.chunks_total + self.telemetry.repeated_total < chunks:
                await asyncio.sleep(0.01)
        return self

    async def stop(self) -> None:
        self._stop.set()
        await self._running
        await self._let_go()

    async def die(self) -> None:
        """Without a checkpoint of what came after the last."""
        self.worker._checkpointing.fail(RuntimeError("it has died"))
        await asyncio.wait([self._running], timeout=30)
        self._running.exception()
        await self._let_go()

    async def _let_go(self) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])
        await self._bus.close()
        self._checkpoints.close()


def stored_events(house: House) -> int:
    stream = Store(house.home / "store").stream("t")
    return stream.read(0, stream.size).count(b"\n")


@pytest.mark.parametrize(
    ("settings", "ids"),
    [({}, [b"1", b"1", b"1", b"1"]), ({"suppress_repeats": "content"}, [b"1", b"2", None, b"4"])],
    ids=["by chunk id", "by content"],
)
async def test_a_repetition_is_stored_once_across_gateways_restarts_and_a_crash_of_the_worker(
    house: House, settings: dict[str, Any], ids: list[bytes | None]
) -> None:
    await house.policy("t", **settings)
    # Two gateways that do not know of each other: each takes it, the worker stores it once.
    one, other = await house.gateway(), await house.gateway()
    await one.submit(chunk(EVENT, chunk_id=ids[0]))
    await other.submit(chunk(EVENT, chunk_id=ids[1]))
    work = Work(house)
    await work.until_seen(2)
    await work.worker.checkpoint()
    # A restarted gateway.
    restarted = await house.gateway()
    await restarted.submit(chunk(EVENT, chunk_id=ids[2]))
    await work.until_seen(3)
    await work.die()
    # The worker has forgotten all since its checkpoint, and reads that again.
    work = Work(house)
    await work.until_seen(1)
    again = await house.gateway()
    await again.submit(chunk(EVENT, chunk_id=ids[3]))
    await again.submit(chunk(EVENT * 2, chunk_id=b"another"))
    await work.until_seen(3)
    await work.stop()
    assert len(await house.chunks("t")) == 5
    assert stored_events(house) == 3
