"""The forward client against a receiver that the tests tell, message by message, what to do."""

import asyncio
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from windvane.errors import ConfigInvalid
from windvane.ingest.forward.client import ForwardClient
from windvane.ingest.forward.client_messages import pack_event
from windvane.records.events import iterate_events

from tests.ingest.receiver import TIMEOUT_S, Message, ack, receiving


async def send_numbers(client: ForwardClient, count: int) -> list[asyncio.Future[None]]:
    return [await client.send_events("t", [(n, {"n": n})]) for n in range(count)]


def numbers(messages: list[Message]) -> list[int]:
    return [record[b"n"] for m in messages for _, record in iterate_events(m.payload)]


async def test_every_chunk_is_packed_forward_with_an_id_of_its_own_and_done_when_acked() -> None:
    async with receiving() as receiver:
        async with ForwardClient(receiver.address) as client:
            acked = await client.send_events("voice", [(5, {"a": b"\xff"}), (1_700_000_000_123_456_789, "x")])
            await acked
            await client.send_events("voice", [])
        first, second = receiver.messages
    assert (first.tag, first.size, second.size) == (b"voice", 2, 0)
    assert list(iterate_events(first.payload)) == [(5, {b"a": b"\xff"}), (1_700_000_000_123_456_789, b"x")]
    assert len(first.chunk_id) == 24
    assert first.chunk_id != second.chunk_id


async def test_leaving_the_block_waits_until_all_is_acked() -> None:
    async with receiving() as receiver:
        async with ForwardClient(receiver.address) as client:
            futures = await send_numbers(client, 50)
        assert all(future.done() and not future.cancelled() for future in futures)
        assert numbers(receiver.messages) == list(range(50))
        statistics = client.statistics()
    assert (statistics.acked_chunks, statistics.acked_events, statistics.unacked_chunks) == (50, 50, 0)
    assert (statistics.unacked_bytes, statistics.silent_s) == (0, 0.0)


async def test_several_chunks_are_in_flight_before_the_first_ack() -> None:
    held: list[Message] = []

    def answer_five_at_once_in_reverse(message: Message) -> bytes:
        held.append(message)
        return b"".join(ack(m) for m in reversed(held)) if len(held) == 5 else b""

    async with receiving(answer_five_at_once_in_reverse) as receiver:
        async with ForwardClient(receiver.address) as client:
            await send_numbers(client, 5)
        assert receiver.connections == 1


async def test_after_a_lost_connection_unacked_chunks_are_resent_in_order_with_the_same_ids() -> None:
    def hang_up_at_the_fourth(message: Message) -> bytes | None:
        if message.connection > 1:
            return ack(message)
        position = len(receiver.messages)
        return None if position == 4 else ack(message) if position == 1 else b""

    async with receiving(hang_up_at_the_fourth) as receiver:
        async with ForwardClient(receiver.address, first_backoff_s=0.001) as client:
            await send_numbers(client, 6)
        again = [m for m in receiver.messages if m.connection == 2]
    ids = {n: m.chunk_id for m in receiver.messages if m.connection == 1 for n in numbers([m])}
    assert numbers(again) in (
        [1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    )  # the first ack may have died with the connection
    assert all(ids.get(n, m.chunk_id) == m.chunk_id for m in again for n in numbers([m]))


async def test_a_receiver_that_comes_later_and_elsewhere_is_found() -> None:
    async with receiving() as gone:
        old_address = gone.address
    places = [old_address]
    async with ForwardClient(lambda: places[-1], first_backoff_s=0.001) as client:
        await send_numbers(client, 3)
        while (problem := client.statistics().problem) is None:
            await asyncio.sleep(0)
        assert problem == f"{old_address}: connection refused"
        async with receiving() as receiver:
            places.append(receiver.address)
            await client.drain()
            assert client.statistics().problem is None
            assert numbers(receiver.messages) == [0, 1, 2]


async def test_only_the_chunk_whose_ack_is_missing_is_resent_while_others_are_acked() -> None:
    withheld_times = 0

    def withhold_two_acks_of_the_tag(message: Message) -> bytes:
        nonlocal withheld_times
        if message.tag == b"unknown" and withheld_times < 2:
            withheld_times += 1
            return b""
        return ack(message)

    async with receiving(withhold_two_acks_of_the_tag) as receiver:
        async with ForwardClient(receiver.address, ack_timeout_s=0.05) as client:
            waiting = await client.send_events("unknown", [(0, {"n": -1})])
            sent = 0
            while not waiting.done():
                await (await client.send_events("known", [(0, {"n": sent})]))
                sent += 1
        unknown = [m for m in receiver.messages if m.tag == b"unknown"]
        known = [m for m in receiver.messages if m.tag == b"known"]
    assert len(unknown) >= 3
    assert len({m.chunk_id for m in unknown}) == 1
    # A busy machine may take longer than the timeout to ack one of these too: it is resent, and not lost.
    assert list(dict.fromkeys(numbers(known))) == list(range(sent))


async def test_a_silent_receiver_is_left_for_a_new_connection() -> None:
    async with receiving(lambda m: ack(m) if m.connection >= 3 else b"") as receiver:
        async with ForwardClient(receiver.address, ack_timeout_s=0.02, first_backoff_s=0.001) as client:
            await send_numbers(client, 2)
        assert receiver.connections >= 3
        assert len({m.chunk_id for m in receiver.messages}) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"\xc1",
        b"HTTP/1.1 400 Bad Request\r\n",
        msgpack.packb(["HELO", {"nonce": b"x"}]),
        msgpack.packb({"ack": 7}),
    ],
)
async def test_a_peer_that_answers_anything_but_acks_is_hung_up_on_and_nothing_counts_as_acked(
    answer: bytes,
) -> None:
    async with receiving(lambda m: ack(m) if m.connection > 1 else answer) as receiver:
        async with ForwardClient(receiver.address, first_backoff_s=0.001) as client:
            await send_numbers(client, 1)
        assert receiver.connections == 2
        assert numbers(receiver.messages) == [0, 0]


async def test_an_ack_of_a_chunk_that_is_not_ours_or_was_acked_before_changes_nothing() -> None:
    async with receiving(lambda m: msgpack.packb({"ack": "stranger"}) + ack(m) + ack(m)) as receiver:
        async with ForwardClient(receiver.address) as client:
            await send_numbers(client, 3)
        assert client.statistics().acked_chunks == 3
        assert receiver.connections == 1


async def test_sending_waits_while_the_bound_is_reached() -> None:
    release = asyncio.Event()

    def answer(message: Message) -> bytes:
        return ack(message) if release.is_set() else b""

    async with receiving(answer) as receiver:
        client = ForwardClient(
            receiver.address, max_unacked_chunks=3, ack_timeout_s=0.05, first_backoff_s=0.001
        )
        async with client:
            await send_numbers(client, 3)
            fourth = asyncio.create_task(client.send_events("t", [(0, {"n": 3})]))
            await receiver.until(3)
            assert not fourth.done()
            assert client.statistics().unacked_chunks == 3
            release.set()
            await (await fourth)
        assert len({m.chunk_id for m in receiver.messages}) == 4


async def test_a_chunk_larger_than_the_byte_bound_goes_alone() -> None:
    async with receiving() as receiver:
        async with ForwardClient(receiver.address, max_unacked_bytes=10) as client:
            for size in (8, 100, 70_000):
                acked = await client.send_events("t", [(0, b"x" * size)])
                assert client.statistics().unacked_chunks == 1
            await acked
        assert [len(m.payload) for m in receiver.messages] == [21, 113, 70_016]


async def test_an_invalid_address_raises_at_the_waiting_caller() -> None:
    with pytest.raises(ConfigInvalid, match="write HOST:PORT"):
        async with asyncio.timeout(TIMEOUT_S), ForwardClient("nowhere") as client:
            await client.send_events("t", [(0, {})])


async def test_closing_gives_up_what_is_unacked_and_says_so() -> None:
    async with receiving(lambda m: b"") as receiver, ForwardClient(receiver.address) as client:
        (unacked,) = await send_numbers(client, 1)
        await receiver.until(1)
        await client.close()
        assert unacked.cancelled()
        with pytest.raises(RuntimeError, match="not open"):
            await client.send_events("t", [])


@given(
    st.integers(0, 2**32 * 10**9 - 1),
    st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1) | st.binary()),
)
def test_a_packed_event_is_read_back_as_it_was(time_ns: int, record: dict[str, Any]) -> None:
    ((read_time_ns, read),) = iterate_events(pack_event(time_ns, record))
    assert read_time_ns == time_ns
    assert read == {key.encode(): value for key, value in record.items()}


@pytest.mark.parametrize("time_ns", [-1, 2**32 * 10**9])
def test_a_time_that_the_protocol_cannot_encode_is_rejected(time_ns: int) -> None:
    with pytest.raises(ValueError, match="between 1970 and 2106"):
        pack_event(time_ns, {})
