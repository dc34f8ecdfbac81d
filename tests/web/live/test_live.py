import json
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType
from numpy.typing import NDArray
from windvane.web.live.subscriptions import LiveLimits

from tests.web.served_home import Client, Home, StartClient, append

QUICK = LiveLimits(poll_interval_s=0.001, look_again_s=0.001)


@dataclass
class Frame:
    id: int
    first: int
    step: int
    length: int
    times_ns: NDArray[np.int64]
    data: bytes

    @property
    def rows(self) -> range:
        return range(self.first, self.first + len(self.times_ns) * self.step, self.step)


def decode(data: bytes) -> Frame:
    """Decodes a frame from its documented format alone."""
    number, count, first, step, row_bytes, length = struct.unpack("<IIQIIQ", data[:32])
    times_ns = np.frombuffer(data, "<i8", count, 32)
    body = data[32 + 8 * count :]
    assert len(body) == count * row_bytes
    return Frame(number, first, step, length, times_ns, body)


class Live:
    """A client of the live feed."""

    def __init__(self, websocket: ClientWebSocketResponse) -> None:
        self.websocket = websocket

    async def subscribe(self, array: str, number: int = 1, **more: Any) -> dict[str, Any]:
        await self.send(op="subscribe", id=number, array=array, **more)
        return await self.told()

    async def send(self, **message: Any) -> None:
        await self.websocket.send_str(json.dumps(message))

    async def told(self) -> dict[str, Any]:
        message = await self.websocket.receive(timeout=20)
        assert message.type is WSMsgType.TEXT, message
        found: dict[str, Any] = json.loads(message.data)
        return found

    async def frame(self) -> Frame:
        message = await self.websocket.receive(timeout=20)
        assert message.type is WSMsgType.BINARY, message
        return decode(message.data)

    async def frames_until(self, row: int) -> list[Frame]:
        """The frames up to the one that contains `row`."""
        found = [await self.frame()]
        while found[-1].rows[-1] < row:
            found.append(await self.frame())
        return found


@asynccontextmanager
async def live(client: Client) -> AsyncIterator[Live]:
    async with client.ws_connect("/api/v1/live", max_msg_size=0) as websocket:
        yield Live(websocket)


@pytest.fixture
async def client(start: StartClient) -> Client:
    return await start(live_limits=QUICK)


def numbered(start: int, stop: int) -> NDArray[np.float32]:
    """Rows of two values that identify the row."""
    return np.arange(2 * start, 2 * stop, dtype="<f4").reshape(-1, 2)


def joined(frames: list[Frame]) -> tuple[list[int], bytes, list[int]]:
    """Row numbers, bytes and times of several frames."""
    rows = [row for frame in frames for row in frame.rows]
    times = [int(time_ns) for frame in frames for time_ns in frame.times_ns]
    return rows, b"".join(frame.data for frame in frames), times


async def test_from_a_row_on_all_rows_come_with_their_times(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", numbered(0, 10), attrs={"rate_hz": 4.0})
    async with live(client) as feed:
        assert await feed.subscribe("voice:spectrum", 7, **{"from": 4}) == {
            "op": "subscribed",
            "id": 7,
            "array": "voice:spectrum",
            "uid": writer.uid.hex(),
            "dtype": "<f4",
            "row_shape": [2],
            "attrs": {"rate_hz": 4.0},
            "next": 4,
        }
        before = await feed.frames_until(9)
        append(writer, numbered(10, 13))
        after = await feed.frames_until(12)
    rows, data, times = joined(before + after)
    assert rows == list(range(4, 13))
    assert data == numbered(4, 13).tobytes()
    assert times == [row * 1_000 for row in rows]
    assert {frame.id for frame in before + after} == {7}
    assert after[-1].length == 13


async def test_without_a_row_only_those_to_come_are_sent(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        assert (await feed.subscribe("voice:spectrum"))["next"] == 10
        append(writer, numbered(10, 12))
        assert joined(await feed.frames_until(11))[0] == [10, 11]


@pytest.mark.parametrize(("back", "first"), [(-3, 7), (-10, 0), (-99, 0)])
async def test_a_negative_row_counts_back_from_the_newest(
    client: Client, home: Home, back: int, first: int
) -> None:
    home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        assert (await feed.subscribe("voice:spectrum", **{"from": back}))["next"] == first
        assert joined(await feed.frames_until(9))[0] == list(range(first, 10))


async def test_a_client_that_comes_back_with_its_row_loses_none(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", numbered(0, 5))
    received, next_row = b"", 0
    for round_number in range(1, 6):
        async with live(client) as feed:
            await feed.subscribe("voice:spectrum", **{"from": next_row})
            append(writer, numbered(10 * round_number - 5, 10 * round_number))
            frame = await feed.frame()
            received += frame.data
            next_row = frame.rows[-1] + 1
        append(writer, numbered(10 * round_number, 10 * round_number + 5))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum", **{"from": next_row})
        rest = await feed.frames_until(54)
    assert received + joined(rest)[1] == numbered(0, 55).tobytes()


async def test_an_array_that_does_not_exist_yet_is_waited_for_and_none_of_its_rows_is_missed(
    client: Client, home: Home
) -> None:
    async with live(client) as feed:
        assert await feed.subscribe("late:spectrum", 3) == {"op": "waiting", "id": 3}
        home.array("late:spectrum", numbered(0, 6))
        told = await feed.told()
        assert (told["op"], told["id"], told["next"]) == ("subscribed", 3, 0)
        assert joined(await feed.frames_until(5))[1] == numbered(0, 6).tobytes()


async def test_when_an_array_is_recreated_the_client_is_notified_and_gets_the_new_one(
    client: Client, home: Home
) -> None:
    old = home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        first = await feed.subscribe("voice:spectrum")
        old.close()
        home.array("voice:spectrum", np.arange(4, dtype="<i2"))
        told = await feed.told()
        assert (told["op"], told["dtype"], told["row_shape"], told["next"]) == ("subscribed", "<i2", [], 0)
        assert told["uid"] != first["uid"]
        assert joined(await feed.frames_until(3))[1] == np.arange(4, dtype="<i2").tobytes()


async def test_rows_that_are_cut_back_and_written_again_come_once(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum", **{"from": 0})
        before = await feed.frames_until(9)
        writer.cut(5)
        append(writer, numbered(5, 14))
        after = await feed.frames_until(13)
    assert joined(before + after)[0] == list(range(14))
    assert joined(before + after)[1] == numbered(0, 14).tobytes()


async def test_a_row_that_does_not_exist_yet_is_waited_for(client: Client, home: Home) -> None:
    writer = home.array("voice:spectrum", numbered(0, 5))
    async with live(client) as feed:
        assert (await feed.subscribe("voice:spectrum", **{"from": 8}))["next"] == 8
        append(writer, numbered(5, 10))
        assert joined(await feed.frames_until(9))[0] == [8, 9]


async def test_rows_dropped_by_retention_are_left_out_and_the_next_row_says_so(
    client: Client, home: Home
) -> None:
    rows = np.arange(64 * 1024, dtype="<i8")
    home.array("old:rows", rows).drop_before(len(rows) // 2)
    kept_from = home.store.array("old:rows").start
    assert kept_from > 0
    async with live(client) as feed:
        assert (await feed.subscribe("old:rows", **{"from": 5}))["next"] == kept_from
        assert joined(await feed.frames_until(len(rows) - 1))[1] == rows[kept_from:].tobytes()


async def test_a_long_history_comes_whole_however_far_behind_the_client_begins(
    start: StartClient, home: Home
) -> None:
    limits = LiveLimits(poll_interval_s=0.001, frame_bytes=16 * 1024, max_lag_bytes=64 * 1024)
    client = await start(live_limits=limits)
    rows = numbered(0, 200_000)
    home.array("long:rows", rows)
    async with live(client) as feed:
        await feed.subscribe("long:rows", **{"from": 0})
        frames = await feed.frames_until(len(rows) - 1)
    assert {frame.step for frame in frames} == {1}
    assert joined(frames)[1] == rows.tobytes()


async def test_a_client_that_does_not_keep_up_gets_fewer_rows_and_costs_no_memory(
    start: StartClient, home: Home
) -> None:
    limits = LiveLimits(
        poll_interval_s=0.001, frame_bytes=32 * 1024, max_lag_bytes=256 * 1024, send_buffer_bytes=16 * 1024
    )
    client = await start(live_limits=limits)
    blocks = np.split(np.arange(4_000_000, dtype="<i8").reshape(-1, 64), 100)
    total = sum(map(len, blocks))
    writer = home.array("fast:rows", blocks[0])

    def slow_socket(address: Any) -> socket.socket:
        made = socket.socket(address[0], address[1])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        return made

    async with (
        ClientSession(connector=TCPConnector(socket_factory=slow_socket)) as session,
        session.ws_connect(client.make_url("/api/v1/live"), max_msg_size=0) as websocket,
    ):
        feed = Live(websocket)
        await feed.subscribe("fast:rows", **{"from": 0})
        found = await feed.frames_until(len(blocks[0]) - 1)
        tracemalloc.start()
        try:
            for block in blocks[1:]:
                append(writer, block)
                # An answer to another request: the feed has had its turn, and this client has read nothing.
                await (await client.get("/api/v1/health")).read()
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        found += await feed.frames_until(total - 1)
    assert sum(block.nbytes for block in blocks) > 30 * 1024 * 1024
    assert peak_bytes < 2 * 1024 * 1024
    assert max(frame.step for frame in found) > 1
    rows = joined(found)[0]
    assert rows == sorted(set(rows))
    assert len(rows) < total / 10
    assert rows[-1] == total - 1
    expected = np.concatenate(blocks)[rows]
    assert joined(found)[1] == expected.tobytes()


async def test_a_client_may_ask_for_fewer_rows(client: Client, home: Home) -> None:
    home.array("voice:spectrum", numbered(0, 1000))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum", **{"from": 0, "max_rows_per_s": 10})
        frame = await feed.frame()
    assert list(frame.rows) == list(range(99, 1000, 100))
    assert frame.data == numbered(0, 1000)[99::100].tobytes()


async def test_subscriptions_are_independent_and_end_one_by_one(client: Client, home: Home) -> None:
    left, right = home.array("x:left", numbered(0, 1)), home.array("x:right", numbered(0, 1))
    async with live(client) as feed, live(client) as other:
        await feed.subscribe("x:left", 1)
        await feed.subscribe("x:right", 2)
        await other.subscribe("x:left", 1)
        await feed.send(op="unsubscribe", id=1)
        assert (await feed.subscribe("x:right", 1, **{"from": 99}))["id"] == 1
        append(left, numbered(1, 3))
        append(right, numbered(1, 3))
        assert {frame.id for frame in await feed.frames_until(2)} == {2}
        assert joined(await other.frames_until(2))[0] == [1, 2]


@pytest.mark.parametrize(
    ("text", "number"),
    [("{", None), ('{"op": "subscribe", "id": 5}', 5), ('{"op": "dance", "id": 6}', 6), ("3", None)],
)
async def test_what_is_not_understood_is_said_and_the_connection_stays(
    client: Client, home: Home, text: str, number: int | None
) -> None:
    home.array("voice:spectrum", numbered(0, 3))
    async with live(client) as feed:
        await feed.websocket.send_str(text)
        told = await feed.told()
        assert (told["op"], told["id"]) == ("error", number)
        assert told["detail"]
        await feed.websocket.send_bytes(b"binary")
        assert (await feed.told())["op"] == "error"
        assert (await feed.subscribe("voice:spectrum"))["op"] == "subscribed"


async def test_an_id_serves_one_subscription_and_their_number_is_bounded(
    start: StartClient, home: Home
) -> None:
    client = await start(live_limits=LiveLimits(max_subscriptions=2))
    home.array("voice:spectrum", numbered(0, 3))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum", 1)
        assert (await feed.subscribe("voice:spectrum", 1))["title"] == "Id in use"
        await feed.subscribe("voice:spectrum", 2)
        assert (await feed.subscribe("voice:spectrum", 3))["title"] == "Too many subscriptions"
        await feed.send(op="unsubscribe", id=2)
        assert (await feed.subscribe("voice:spectrum", 3))["op"] == "subscribed"


async def test_what_cannot_be_an_array_is_waited_for_like_any_other(client: Client) -> None:
    async with live(client) as feed:
        assert (await feed.subscribe("no output named"))["op"] == "waiting"
        assert (await feed.subscribe("../../etc:passwd", 2))["op"] == "waiting"


async def test_the_status_counts_connections_subscriptions_and_rows(client: Client, home: Home) -> None:
    async def status() -> dict[str, int]:
        found: dict[str, Any] = await (await client.get("/api/v1/status")).json()
        counts: dict[str, int] = found["web"]
        return counts

    home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum", **{"from": 0})
        await feed.frames_until(9)
        counts = await status()
        assert (counts["live_connections"], counts["live_subscriptions"]) == (1, 1)
    while (counts := await status())["live_connections"]:
        pass
    assert (counts["live_subscriptions"], counts["rows_sent_total"]) == (0, 10)


async def test_a_stopping_server_makes_clients_reconnect(client: Client, home: Home) -> None:
    home.array("voice:spectrum", numbered(0, 10))
    async with live(client) as feed:
        await feed.subscribe("voice:spectrum")
        await client.server.close()
        message = await feed.websocket.receive(timeout=20)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1001)
