"""Connections that wait forever, are too many or too slow are closed; other clients are not affected."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import aiohttp
import pytest
from aiohttp import web
from windvane.config import HttpSettings
from windvane.runtime.http_connections import ConnectionGuard

from tests.waiting import until

pytestmark = pytest.mark.slow

Peer: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEADER = b"POST /count HTTP/1.1\r\nHost: windvane\r\n"
NEVER_S = 600.0
"""A limit that no test reaches."""


def limits(**chosen: float) -> HttpSettings:
    """Limits that nothing reaches, but for those that are chosen."""
    times = dict.fromkeys(
        ("header_timeout_s", "idle_timeout_s", "body_idle_timeout_s", "body_timeout_s", "send_timeout_s"),
        NEVER_S,
    )
    return HttpSettings(**{**times, **chosen})  # type: ignore[arg-type]


@dataclass
class Listener:
    """A guarded server with an application of a few handlers, on TCP or on a Unix socket."""

    guard: ConnectionGuard
    path: Path | None
    port: int = 0
    peers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> Peer:
        if self.path is not None:
            reader, writer = await asyncio.open_unix_connection(str(self.path))
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.peers.append(writer)
        return reader, writer

    async def send(self, data: bytes) -> Peer:
        """A connection on which `data` was sent."""
        reader, writer = await self.connect()
        writer.write(data)
        await writer.drain()
        return reader, writer

    def close(self) -> None:
        for writer in self.peers:
            writer.close()

    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self.path)) if self.path is not None else None
        return aiohttp.ClientSession(f"http://127.0.0.1:{self.port or 80}", connector=connector)


Listen: TypeAlias = Callable[[HttpSettings], Awaitable[Listener]]


@pytest.fixture(params=["tcp", "unix"])
async def listen(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Listen]:
    async with AsyncExitStack() as opened:

        async def start(settings: HttpSettings) -> Listener:
            tcp = request.param == "tcp"
            guard = ConnectionGuard(settings, limits_addresses=tcp)
            runner = web.AppRunner(application(tmp_path), lingering_time=2.0, shutdown_timeout=1.0)
            opened.push_async_callback(runner.cleanup)
            if tcp:
                await guard.serve_tcp(runner, "127.0.0.1", 0)
                listener = Listener(guard, None, runner.addresses[0][1])
            else:
                await guard.serve_unix(runner, tmp_path / "http.sock")
                listener = Listener(guard, tmp_path / "http.sock")
            opened.callback(listener.close)
            return listener

        yield start


GO = web.AppKey("go", asyncio.Event)


def application(folder: Path) -> web.Application:
    """`/count` reads a body, `/wait` answers when GO is set, `/rows` and `/file` are long, `/live` is a
    WebSocket."""
    (folder / "file").write_bytes(bytes(24 * 1024 * 1024))
    app = web.Application(client_max_size=1024**3)
    app[GO] = asyncio.Event()

    async def count(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    async def wait(request: web.Request) -> web.Response:
        await request.app[GO].wait()
        return web.Response(text=str(len(await request.read())))

    async def go(request: web.Request) -> web.Response:
        request.app[GO].set()
        return web.Response()

    async def rows(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(200):
            await response.write(bytes(128 * 1024))
        await response.write_eof()
        return response

    async def live(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            await websocket.send_str(message.data)
        return websocket

    async def file(_request: web.Request) -> web.FileResponse:
        return web.FileResponse(folder / "file")

    app.add_routes(
        [web.get("/count", count), web.post("/count", count), web.post("/wait", wait), web.get("/wait", wait)]
    )
    app.add_routes(
        [web.get("/go", go), web.get("/rows", rows), web.get("/live", live), web.get("/file", file)]
    )
    return app


async def all_ended(peers: list[Peer]) -> list[bytes]:
    """What each of the connections still gave before it ended."""

    async def rest(reader: asyncio.StreamReader) -> bytes:
        with suppress(ConnectionResetError):
            return await reader.read()
        return b""

    async with asyncio.timeout(60):
        return await asyncio.gather(*(rest(reader) for reader, _ in peers))


async def served_until(listener: Listener, done: asyncio.Future[list[bytes]]) -> float:
    """Asks one request after the other on one connection until `done`; the longest time an answer took."""
    worst_s, served = 0.0, 0
    async with listener.session() as session:
        while not done.done() or served < 10:
            began_s = time.perf_counter()
            async with session.get("/count") as answer:
                assert answer.status == 200
            worst_s = max(worst_s, time.perf_counter() - began_s)
            served += 1
            await asyncio.sleep(0.005)
    return worst_s


async def test_silence_half_headers_and_stalled_bodies_end_next_to_a_served_neighbour(
    listen: Listen,
) -> None:
    listener = await listen(limits(header_timeout_s=1.0, body_idle_timeout_s=1.0))
    silent = [await listener.connect() for _ in range(100)]
    half = [await listener.send(HEADER + b"X-Long: ") for _ in range(100)]
    stalled = [await listener.send(HEADER + b"Content-Length: 1000\r\n\r\nsome") for _ in range(100)]
    ended = asyncio.ensure_future(all_ended(silent + half + stalled))
    worst_s = await served_until(listener, ended)
    answers = await ended
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers[:200])
    assert listener.guard.timeouts_by_kind == {"header": 200, "body": 100}
    print(f"300 connections that wait: the neighbour's longest answer took {worst_s * 1000:.0f} ms")


async def test_a_header_that_drips_ends_although_bytes_come(listen: Listen) -> None:
    listener = await listen(limits(header_timeout_s=0.5))
    reader, writer = await listener.send(HEADER)

    async def drip() -> None:
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"X-Drop: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    await all_ended([(reader, writer)])  # the 408 may be lost: unread bytes reset a connection
    writer.close()
    await dripping
    assert listener.guard.timeouts_by_kind == {"header": 1}


async def test_a_connection_that_asks_nothing_more_ends(listen: Listen) -> None:
    listener = await listen(limits(idle_timeout_s=0.3))
    peer = await listener.send(b"GET /count HTTP/1.1\r\nHost: windvane\r\n\r\n")
    assert (await all_ended([peer]))[0].endswith(b"\r\n\r\n0")
    assert listener.guard.timeouts_by_kind == {"idle": 1}


async def slow_upload(listener: Listener, piece: bytes, *, for_s: float) -> tuple[int, str]:
    """Uploads `piece` again and again for so long; status and text of the answer."""
    end_s = time.monotonic() + for_s

    async def pieces() -> AsyncIterator[bytes]:
        while time.monotonic() < end_s:
            yield piece
            await asyncio.sleep(0.02)

    async with listener.session() as session, session.post("/count", data=pieces()) as answer:
        return answer.status, await answer.text()


async def test_a_slow_upload_continues_as_long_as_it_keeps_up_the_floor(listen: Listen) -> None:
    # Each piece pays for a thousand seconds, so that a busy machine makes no difference.
    listener = await listen(limits(body_timeout_s=0.2, body_bytes_per_s=1))
    status, size = await slow_upload(listener, bytes(1000), for_s=1.5)
    assert (status, int(size) % 1000) == (200, 0)
    assert int(size) > 0
    assert not listener.guard.timeouts_by_kind


async def test_an_upload_below_the_floor_ends_although_bytes_come(listen: Listen) -> None:
    listener = await listen(limits(body_timeout_s=0.2, body_bytes_per_s=10**9))
    with suppress(aiohttp.ClientError):  # the answer may be overtaken by the end of the connection
        status, _ = await slow_upload(listener, b"x", for_s=60)
        assert status >= 400
    assert listener.guard.timeouts_by_kind == {"body": 1}


async def test_time_in_which_the_server_does_not_read_is_not_the_clients(listen: Listen) -> None:
    listener = await listen(limits(body_timeout_s=0.2, body_idle_timeout_s=0.2, body_bytes_per_s=10**12))
    async with listener.session() as session:
        body = bytes(16 * 1024 * 1024)
        posted = asyncio.create_task(session.post("/wait", data=body))
        await asyncio.sleep(1.0)  # five times as long as the client itself may take
        assert not posted.done()
        assert not listener.guard.timeouts_by_kind
        async with session.get("/go") as answer:
            assert answer.status == 200
        async with await posted as answer:
            assert answer.status in (200, 500)  # how fast it is read now depends on the machine


@pytest.mark.parametrize("path", ["/rows", "/file"])
async def test_a_long_download_continues(listen: Listen, path: str) -> None:
    listener = await listen(limits(header_timeout_s=0.2, idle_timeout_s=0.2))
    async with listener.session() as session, session.get(path) as answer:
        size = 0
        async for piece in answer.content.iter_chunked(512 * 1024):
            size += len(piece)
            await asyncio.sleep(0.03)
    assert size >= 24 * 1024 * 1024
    # Once the rest is in the buffers of the socket the connection is idle, while the client still reads.
    assert listener.guard.timeouts_by_kind.keys() <= {"idle"}


async def test_a_download_that_no_client_reads_ends(listen: Listen) -> None:
    listener = await listen(limits(send_timeout_s=0.5))
    await listener.send(b"GET /rows HTTP/1.1\r\nHost: windvane\r\n\r\n")
    await until(lambda: bool(listener.guard.timeouts_by_kind))
    assert listener.guard.timeouts_by_kind == {"send": 1}


async def test_a_websocket_may_be_silent(listen: Listen) -> None:
    listener = await listen(limits(header_timeout_s=0.1, idle_timeout_s=0.1, body_idle_timeout_s=0.1))
    async with listener.session() as session, session.ws_connect("/live") as websocket:
        idle = await listener.connect()
        await all_ended([idle])  # as long as others may be
        await asyncio.sleep(0.5)
        await websocket.send_str("still here")
        assert await websocket.receive_str() == "still here"


async def test_over_the_limit_idle_connections_make_room_and_busy_ones_stay(listen: Listen) -> None:
    listener = await listen(limits(max_connections=4))
    busy = [await listener.send(b"GET /wait HTTP/1.1\r\nHost: windvane\r\n\r\n") for _ in range(3)]
    idle = await listener.send(b"GET /count HTTP/1.1\r\nHost: windvane\r\n\r\n")
    await idle[0].readuntil(b"\r\n\r\n0")
    another = await listener.send(b"GET /wait HTTP/1.1\r\nHost: windvane\r\n\r\n")
    assert await idle[0].read() == b""
    too_many = await listener.connect()
    [rejected] = await all_ended([too_many])
    assert rejected.startswith(b"HTTP/1.1 503 ")
    assert b"http.max_connections" in rejected
    assert listener.guard.rejected_total == 1
    busy[0][1].close()
    await until(lambda: listener.guard.connections <= 3)
    async with listener.session() as session, session.get("/go") as answer:
        assert answer.status == 200
    for reader, _ in [*busy[1:], another]:
        assert (await reader.readuntil(b"\r\n\r\n0")).startswith(b"HTTP/1.1 200 ")


async def test_one_address_has_its_own_limit(tmp_path: Path) -> None:
    guard = ConnectionGuard(limits(max_connections=100, max_connections_per_address=2), limits_addresses=True)
    runner = web.AppRunner(application(tmp_path), shutdown_timeout=1.0)
    await guard.serve_tcp(runner, "127.0.0.1", 0)
    try:
        listener = Listener(guard, None, runner.addresses[0][1])
        request = b"GET /wait HTTP/1.1\r\nHost: windvane\r\n\r\n"
        for _ in range(2):
            await listener.send(request)
        await until(lambda: guard.connections == 2)
        [rejected] = await all_ended([await listener.connect()])
        assert rejected.startswith(b"HTTP/1.1 503 ")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", listener.port, local_addr=("127.0.0.2", 0)
        )
        writer.write(b"GET /go HTTP/1.1\r\nHost: windvane\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
    finally:
        await runner.cleanup()
