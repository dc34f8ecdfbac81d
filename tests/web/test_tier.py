import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientSession
from windvane.config import HttpSettings, Settings
from windvane.errors import ConfigInvalid
from windvane.processors.operations.base.steps import check_pipeline
from windvane.store.files.store import Store
from windvane.web.tier import serve

from tests.ingest.test_gateway import running
from tests.store.files.resumed import resumed


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[str]:
    """The web tier over `settings`, as its process runs it; gives its address."""
    stop = asyncio.Event()
    ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(settings, ready=ready.set_result, stop=stop, check_policy=check_pipeline)
    )
    serving.add_done_callback(lambda _: None if ready.done() else ready.cancel())
    await asyncio.wait([ready])
    if ready.cancelled():
        await serving
    try:
        yield ready.result()["web"]
    finally:
        stop.set()
        await serving


async def test_the_tier_serves_its_home_until_it_is_stopped(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, web="127.0.0.1:0")
    async with served(settings) as address, ClientSession() as session:
        with Store(settings.store_dir) as store:
            writer = resumed(store.stream_writer("voice", attrs={"tag": "voice"}))
            writer.append(b"abc", arrived_ns=1, chunk_id=None, events=1)
            array = resumed(store.array_writer("voice:x", dtype=np.dtype("<f8"), row_shape=(), attrs={}))
            array.append(np.arange(3.0), np.arange(3))
        async with session.get(f"{address}/api/v1/streams/voice/data") as answer:
            assert await answer.read() == b"abc"
        policy = {"reference": "voice", "format": "raw", "pipeline": [{"operation": "wav"}]}
        async with session.post(f"{address}/api/v1/policies", json=policy) as answer:
            assert answer.status == 201
        async with session.get(f"{address}/api/v1/search?q=voice") as answer:
            assert [found["reference"] for found in await answer.json()] == ["voice"]
    async with ClientSession() as session:
        with pytest.raises(OSError, match="Connect"):
            await session.get(f"{address}/api/v1/health")


async def test_a_client_that_watches_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with ClientSession() as session:
        async with served(Settings(home=tmp_path, web="127.0.0.1:0")) as address:
            websocket = await session.ws_connect(f"{address}/api/v1/live")
            await websocket.send_str('{"op": "subscribe", "id": 1, "array": "a:b"}')
            assert (await websocket.receive_json())["op"] == "waiting"
        assert (await websocket.receive()).data == 1001


async def test_bound_to_more_than_loopback_the_token_of_the_home_is_required(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, web="0.0.0.0:0")
    async with served(settings) as bound, ClientSession() as session:
        address = f"http://127.0.0.1:{bound.rpartition(':')[2]}/api/v1/health"
        async with session.get(address) as answer:
            assert answer.status == 401
        token = settings.token_file.read_text().strip()
        async with session.get(address, headers={"Authorization": f"Bearer {token}"}) as answer:
            assert answer.status == 200


async def test_an_address_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigInvalid, match=address):
            async with served(Settings(home=tmp_path, web=address)):
                pass


async def test_a_body_that_stalls_on_its_way_to_the_gateway_is_given_up_on_both_ways(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, web="127.0.0.1:0", forward="127.0.0.1:0", http=HttpSettings(body_idle_timeout_s=0.5)
    )
    async with running(settings) as gateway, served(settings) as address:
        await gateway.policy("logs", tags=["app.**"])
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(
            b"POST /ingest/logs?reference=app.log HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Content-Length: 99\r\n\r\nsome"
        )
        async with asyncio.timeout(60):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"too slow" in answer
        writer.close()
        async with ClientSession() as session, session.get(f"{address}/metrics") as page:
            metrics = await page.text()
        # The first one to check ends it.
        assert re.search(r'windvane_http_timeouts_total{kind="body",tier="(web|gateway)"} 1.0', metrics)
        assert 'windvane_http_connections{tier="web"} 1.0' in metrics
