"""Hostile clients of the live feed do not affect other viewers."""

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType
from windvane.store.files.listing import StoreListing
from windvane.web.live.masked_websocket import MaskCheck
from windvane.web.live.subscriptions import LiveLimits
from windvane.web.telemetry import WebTelemetry

from tests.web.live.test_live import decode, live, numbered
from tests.web.served_home import Client, Home, StartClient, append

CLIENTS = 100
EACH = 256
SUBSCRIBE = '{"op": "subscribe", "id": %d, "array": "%s"}'


async def _told(websocket: ClientWebSocketResponse, count: int) -> set[str]:
    return {json.loads(await websocket.receive_str())["op"] for _ in range(count)}


class Viewer:
    """Watches an array to which rows are appended continuously, and records the longest time between two."""

    def __init__(self, client: Client, home: Home) -> None:
        self._client, self._home = client, home
        self.rows: list[int] = []
        self.worst_gap_s = 0.0
        self._enough = asyncio.Event()

    async def watch(self) -> None:
        writer = self._home.array("voice:rows", numbered(0, 1))
        async with live(self._client) as feed:
            await feed.subscribe("voice:rows")
            row, before_s = 1, time.perf_counter()
            while not self._enough.is_set() or row < 50:
                append(writer, numbered(row, row + 1))
                frame = decode((await feed.websocket.receive(timeout=60)).data)
                self.rows += frame.rows
                now_s = time.perf_counter()
                self.worst_gap_s, before_s = max(self.worst_gap_s, now_s - before_s), now_s
                row += 1

    def stop(self) -> None:
        self._enough.set()


async def test_25600_subscriptions_to_arrays_that_do_not_exist_cost_neighbours_nothing(
    start: StartClient, home: Home
) -> None:
    telemetry = WebTelemetry()
    client = await start(telemetry=telemetry, live_limits=LiveLimits(look_again_s=0.2))
    for stream in range(10):  # half of the arrays are outputs that existing streams do not have
        home.array(f"s{stream}:there", numbered(0, 1))
    viewer = Viewer(client, home)
    watching = asyncio.create_task(viewer.watch())
    async with (
        asyncio.timeout(110),
        ClientSession(connector=TCPConnector(limit=0)) as session,
        AsyncExitStack() as opened,
    ):
        address = client.make_url("/api/v1/live")
        websockets = [
            await opened.enter_async_context(session.ws_connect(address, max_msg_size=0))
            for _ in range(CLIENTS)
        ]

        async def subscribe(number: int, websocket: ClientWebSocketResponse) -> set[str]:
            for each in range(EACH):
                stream = f"s{each % 10}" if number % 2 else f"missing{number}"
                await websocket.send_str(SUBSCRIBE % (each, f"{stream}:{number}-{each}"))
            return await _told(websocket, EACH)

        told = await asyncio.gather(*(subscribe(*each) for each in enumerate(websockets)))
        assert all(each == {"waiting"} for each in told)
        rows_before, looks_before = len(viewer.rows), telemetry.looks_by_kind["name"]
        while telemetry.looks_by_kind["name"] < looks_before + 2 * CLIENTS * EACH:  # two whole rounds
            await asyncio.sleep(0.05)
        assert len(viewer.rows) > rows_before
        viewer.stop()
        await watching
    assert viewer.rows == sorted(set(viewer.rows))
    # Not one array was opened for them, and the directories that did not change were read a few times.
    assert telemetry.looks_by_kind["open"] <= 2
    assert telemetry.looks_by_kind["directory"] < telemetry.looks_by_kind["name"] / 20
    print(
        f"{CLIENTS} clients × {EACH} missing arrays: the viewer's worst gap was "
        f"{viewer.worst_gap_s * 1000:.0f} ms; {telemetry.looks_by_kind}"
    )


async def test_an_array_that_many_wait_for_is_opened_once_for_all(start: StartClient, home: Home) -> None:
    telemetry = WebTelemetry()
    client = await start(telemetry=telemetry, live_limits=LiveLimits(look_again_s=0.001))
    async with AsyncExitStack() as opened:
        feeds = [await opened.enter_async_context(live(client)) for _ in range(20)]
        for feed in feeds:
            assert (await feed.subscribe("late:rows"))["op"] == "waiting"
        home.array("late:rows", numbered(0, 3))
        for feed in feeds:
            assert (await feed.told())["op"] == "subscribed"
    # Its directory is there before the array is: so it may be tried a few times, but not once for each.
    assert telemetry.looks_by_kind["open"] < len(feeds)


async def test_with_too_many_subscriptions_in_all_each_connection_still_has_some(
    start: StartClient, home: Home
) -> None:
    client = await start(
        live_limits=LiveLimits(max_subscriptions=6, max_subscriptions_in_all=8, guaranteed_subscriptions=2)
    )

    async def subscriptions(feed: Any) -> int:
        told = [await feed.subscribe(f"missing:{number}", number) for number in range(10)]
        return sum(each["op"] == "waiting" for each in told)

    async with live(client) as first, live(client) as second, live(client) as third:
        assert [await subscriptions(feed) for feed in (first, second, third)] == [6, 2, 2]
        home.array("voice:rows", numbered(0, 3))
        for number in (0, 1):
            await third.send(op="unsubscribe", id=number)
        assert (await third.subscribe("voice:rows", 7))["op"] == "subscribed"


@pytest.mark.parametrize("depth", [65, 500, 990, 1010, 5_000, 20_000, 30_000])
@pytest.mark.parametrize("form", ['{"op": "subscribe", "id": 1, "array": %s}', '{"x": %s, "op": 3}', "%s"])
async def test_json_nested_deeply_ends_the_connection_with_a_reason(
    client: Client, form: str, depth: int
) -> None:
    async with live(client) as feed:
        await feed.websocket.send_str(form % ("[" * depth + "]" * depth))
        message = await feed.websocket.receive(timeout=20)
        if message.type is WSMsgType.TEXT:  # its form was wrong before its depth was reached
            assert json.loads(message.data)["op"] == "error"
        else:
            assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
            assert "within each other" in str(message.extra)
    async with live(client) as feed:
        assert (await feed.subscribe("still:there"))["op"] == "waiting"


async def _raw_websocket(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    assert client.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


def frame(text: bytes, *, mask: bytes) -> bytes:
    """A text frame (RFC 6455, 5.2) of fewer than 126 bytes; without a mask if `mask` is empty."""
    masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text)) if mask else text
    return bytes([0x81, (0x80 if mask else 0) | len(text)]) + mask + masked


async def test_a_frame_without_a_mask_is_a_protocol_error(client: Client) -> None:
    text = (SUBSCRIBE % (1, "a:b")).encode()
    reader, writer = await _raw_websocket(client)
    async with asyncio.timeout(20):
        writer.write(frame(text, mask=b"\1\2\3\4"))
        head = await reader.readexactly(2)
        assert b"waiting" in await reader.readexactly(head[1])
        writer.write(frame(text, mask=b""))
        head = await reader.readexactly(2)
        assert head[0] == 0x88  # close
        assert int.from_bytes((await reader.readexactly(head[1]))[:2]) == 1002
        writer.close()


@pytest.mark.parametrize("size", [0, 5, 125, 126, 65_535, 65_536])
def test_masks_are_seen_however_the_bytes_are_cut(size: int) -> None:
    length = (
        bytes([0x80 | size])
        if size < 126
        else b"\xfe" + size.to_bytes(2)
        if size < 65_536
        else b"\xff" + size.to_bytes(8)
    )
    masked = b"\x82" + length + b"mask" + b"\0" * size
    random = np.random.default_rng(size)
    for _ in range(20):
        data = masked * 3
        cuts = [0, *sorted(random.integers(0, len(data) + 1, 5)), len(data)]
        check = MaskCheck()
        assert all(check.feed(data[a:b]) for a, b in pairwise(cuts))
        assert not check.feed(b"\x82\x05hello")


def test_a_listing_sees_a_change_within_one_tick_of_the_clock(home: Home) -> None:
    home.array("s:first", numbered(0, 1))
    listing = StoreListing(home.store.root)
    arrays = home.store.root / "s" / "arrays"
    # The clock tick has not ended: the directory may still change without a later time.
    tick_ns = time.time_ns() + 3600 * 10**9
    os.utime(arrays, ns=(tick_ns, tick_ns))
    assert not listing.may_have_array("s:second")
    home.array("s:second", numbered(0, 1))
    os.utime(arrays, ns=(tick_ns, tick_ns))
    assert listing.may_have_array("s:second")


def test_a_listing_knows_an_array_as_soon_as_it_is_made(home: Home) -> None:
    listing = StoreListing(home.store.root)
    for number in range(50):
        reference = f"s{number % 5}:o{number}"
        assert not listing.may_have_array(reference)
        home.array(reference, numbered(0, 1))
        assert listing.may_have_array(reference)
    for nothing in ("", ":", "s0", "s0:", ":o0", "s0:" + "x" * 300, "\ud800:x", "../..:x"):
        assert not listing.may_have_array(nothing)
