"""A real home in a temporary folder, served by the real application on a real loopback socket."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from windvane.processors.operations.base.steps import check_pipeline
from windvane.runtime.disk_space import DiskWatch
from windvane.store.catalog.catalog import Catalog
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store
from windvane.web.app import create_app
from windvane.web.live.subscriptions import LiveLimits
from windvane.web.telemetry import WebTelemetry
from windvane.web.tier_client import TierClient

from tests.web.served_home import TOKEN, Client, Home, StartClient


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    async with AsyncExitStack() as opened:
        (tmp_path / "run").mkdir()
        store = opened.enter_context(Store(tmp_path / "store", segment_bytes=64 * 1024))
        catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
        opened.push_async_callback(catalog.close)
        dead_letters = SqlDeadLetters(tmp_path / "dead-letters.sqlite")
        opened.callback(dead_letters.close)
        yield Home(tmp_path, store, catalog, dead_letters, opened)


@pytest.fixture
async def start(home: Home) -> StartClient:
    """Starts the application over `home` and gives a client of it."""

    async def start_client(
        *,
        open_on_loopback: bool = True,
        live_limits: LiveLimits | None = None,
        telemetry: WebTelemetry | None = None,
    ) -> Client:
        app = create_app(
            home.store,
            home.catalog,
            check_policy=check_pipeline,
            dead_letters=home.dead_letters,
            tiers=TierClient(home.run_dir),
            disk=DiskWatch(home.path),
            token=TOKEN,
            ui=home.ui,
            open_on_loopback=open_on_loopback,
            live_limits=live_limits,
            telemetry=telemetry,
        )
        server = TestServer(app)
        await server.start_server(auto_decompress=False)  # as the web tier serves it
        client: Client = TestClient(server)
        await home.opened.enter_async_context(client)
        return client

    return start_client


@pytest.fixture
async def client(start: StartClient) -> Client:
    return await start()
