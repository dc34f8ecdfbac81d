"""Large chunks delay only the chunks of their own tag, which keep their order."""

import asyncio
import gzip
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest
from windvane.config import GatewaySettings
from windvane.errors import BusUnavailable, ChunkRejected
from windvane.ingest.dead_letter_queue import DeadLetterQueue
from windvane.ingest.limits.off_loop import OffLoop, Turns, begin, give_way
from windvane.ingest.telemetry import GatewayTelemetry
from windvane.rejections import RejectionCode
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.ingest.forward.forward_site import forward_site, packed
from tests.ingest.test_gateway import EVENT
from tests.ingest.test_policies import POWER, House, chunk, event, house  # noqa: F401

LARGE = EVENT * 40_000  # 1.2 MB
ZIPPED = gzip.compress(LARGE, compresslevel=1)
MIXED = event({"kw": 1}) * 60_000 + event({}) + event({"kw": 1}) * 60_000


def _note(order: list[str], name: str, _: object) -> None:
    order.append(name)


async def test_while_a_large_chunk_is_unpacked_only_its_own_tag_waits(
    house: House,  # noqa: F811
) -> None:
    await house.policy("all", tags=["**"])
    gateway = await house.gateway()
    order: list[str] = []
    decisions = []
    for name, given in (
        ("large", chunk(ZIPPED, tag="a", compression="gzip", sender="10.7.0.1")),
        ("behind it", chunk(tag="a", sender="10.7.0.2")),
        ("also behind", chunk(gzip.compress(EVENT), tag="a", compression="gzip")),
        ("elsewhere", chunk(tag="b")),
    ):
        decisions.append(gateway.submit(given))
        decisions[-1].add_done_callback(partial(_note, order, name))
    await asyncio.gather(*decisions)
    assert order[0] == "elsewhere"
    stored = [message for message in await house.chunks("all") if message.tag == "a"]
    assert [message.events for message in stored] == [40_000, 1, 1]
    assert stored[0].payload == LARGE


async def test_while_a_large_chunk_is_checked_only_its_own_tag_waits(
    house: House,  # noqa: F811
) -> None:
    await house.policy("all", tags=["**"], schema=POWER)
    gateway = await house.gateway()
    mixed, behind = gateway.submit(chunk(MIXED, tag="a")), gateway.submit(chunk(event({"kw": 2}), tag="a"))
    await gateway.submit(chunk(event({"kw": 3}), tag="b"))
    assert not mixed.done()
    await asyncio.gather(mixed, behind)
    stored = [message for message in await house.chunks("all") if message.tag == "a"]
    assert [message.events for message in stored] == [120_000, 1]
    [letter] = house.kept()
    assert letter.payload == event({})
    assert "event 60000: kw: is missing" in letter.reason


async def test_a_large_rejected_chunk_does_not_block_the_next_ones(house: House) -> None:  # noqa: F811
    await house.policy("t", limits={"chunk_bytes": 500_000})
    gateway = await house.gateway()
    bomb = gateway.submit(chunk(gzip.compress(bytes(10_000_000)), compression="gzip"))
    broken = gateway.submit(chunk(ZIPPED[:-9], compression="gzip"))
    good = gateway.submit(chunk(chunk_id=b"good"))
    for rejected, code in ((bomb, "too-large"), (broken, "too-large")):
        with pytest.raises(ChunkRejected) as caught:
            await rejected
        assert caught.value.code == code
    await good
    assert [message.chunk_id for message in await house.chunks("t")] == [b"good"]


async def test_a_repetition_that_comes_while_the_first_is_unpacked_is_known(house: House) -> None:  # noqa: F811
    await house.policy("t")
    gateway = await house.gateway()
    given = chunk(ZIPPED, compression="gzip", chunk_id=b"id")
    await asyncio.gather(*(gateway.submit(given) for _ in range(5)))
    assert len(await house.chunks("t")) == 1
    assert gateway.telemetry.repeated_total == 4


async def test_what_is_unpacked_is_bounded_and_all_of_it_arrives(house: House) -> None:  # noqa: F811
    await house.policy("all", tags=["**"])
    gateway = await house.gateway(settings=GatewaySettings(pending_bytes=1_000_000))
    most = 0

    def look(_: object) -> None:
        nonlocal most
        most = max(most, gateway.telemetry.pending_bytes())

    decisions = [gateway.submit(chunk(ZIPPED, tag=f"t{i}", compression="gzip")) for i in range(20)]
    for decision in decisions:
        decision.add_done_callback(look)
    await asyncio.gather(*decisions)
    assert len(await house.chunks("all")) == 20
    assert most <= 20 * (len(ZIPPED) + 2048) + 3 * len(LARGE)


async def test_stopping_waits_for_what_is_being_unpacked(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site, site.connected() as peer:
        await peer.send(packed("t", ZIPPED, compressed="gzip", chunk="id"))
        await site.until(lambda: site.chunks)
        await site.server.close(timeout_s=20)
        assert await peer.value() == {b"ack": b"id"}


async def test_all_that_a_connection_sent_before_it_was_cut_off_is_decided(tmp_path: Path) -> None:
    async with forward_site(tmp_path) as site:
        async with site.connected() as peer:
            await peer.send(packed("t", ZIPPED, compressed="gzip") + packed("t", EVENT) * 3)
            await site.until(lambda: site.chunks)
            peer.writer.transport.abort()
        await site.until(lambda: site.telemetry.events_total == 40_003)
        assert site.gateway.budget.receiving.used_bytes == 0


async def test_what_cannot_be_published_after_its_wait_does_not_hold_up_the_line(house: House) -> None:  # noqa: F811
    await house.policy("t", limits={"events_per_s": 1, "burst_s": 1})
    gateway = await house.gateway()
    await gateway.submit(chunk())
    unspeakable = gateway.submit(chunk(sender="\udcff"))  # no envelope can hold that
    behind = gateway.submit(chunk(chunk_id=b"behind"))
    house.clock.move(1.1)
    with pytest.raises(BusUnavailable):
        await unspeakable
    house.clock.move(1.1)
    await behind
    assert len(await house.chunks("t")) == 2


async def test_a_flood_of_letters_that_senders_keep_leaves_room_for_the_others(tmp_path: Path) -> None:
    letters, telemetry = SqlDeadLetters(tmp_path / "letters.sqlite"), GatewayTelemetry()
    queue = DeadLetterQueue(letters, telemetry, limit_bytes=100_000)

    def letter(code: RejectionCode, i: int) -> DeadLetter:
        return DeadLetter(code, "why", "t", "10.0.0.1", None, b"%04d" % i * 100, time_ns=i)

    flood = [queue.keep(letter("sender-not-allowed", i)) for i in range(1000)]
    needed = [queue.keep(letter("schema", i)) for i in range(20)]
    await asyncio.gather(*flood, *needed)
    await queue.close()
    assert len(letters.list(code="schema")) == 20
    strangers = len(letters.list(code="sender-not-allowed", limit=1000))
    assert 0 < strangers < 10
    assert telemetry.letters_left_out_total == 1000 - strangers


async def test_what_does_not_give_way_is_done_at_once() -> None:
    done: list[str] = []

    async def work(*, long: bool) -> None:
        if long:
            await give_way()
            await asyncio.sleep(0.001)
        done.append("long" if long else "short")

    task = begin(work(long=True))
    assert begin(work(long=False)) is None
    assert done == ["short"]
    assert task is not None
    await task
    assert done == ["short", "long"]


async def test_turns_of_a_tag_are_forgotten_when_they_are_over() -> None:
    turns, came = Turns(), list[int]()

    async def one(number: int) -> None:
        turn = turns.turn("t")
        try:
            await turn.come()
            turn.keep()
            await give_way()
            came.append(number)
        finally:
            turn.end()

    tasks = [begin(one(number)) for number in range(10)]
    await asyncio.gather(*(task for task in tasks if task is not None))
    assert came == list(range(10))
    assert turns._last == {}


async def test_slices_of_several_take_turns_and_short_ones_take_none() -> None:
    off_loop, long = OffLoop(), list[int]()

    def slices(number: int, count: int) -> Generator[None, None, int]:
        for _ in range(count):
            yield
        return number

    found = [off_loop.in_slices(slices(i, i), who="a", on_long=partial(long.append, i)) for i in range(4)]
    assert await asyncio.gather(*found) == [0, 1, 2, 3]
    assert long == [1, 2, 3]
    await off_loop.close()
