"""A receiver of webhooks, as a server of its own: what came, and answers as the test wants them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import unused_port


class Receiver:
    """`received` are the requests: id, headers and body. `answers` are the next statuses, then 204.

    `retry_after` is the value of that header in answers other than 204.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/alarms?key=k"
        self.received: list[tuple[str, dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.retry_after: str | None = None
        self._changed = asyncio.Condition()
        self._port = port

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.received.append((request.headers["Idempotency-Key"], dict(request.headers), body))
        async with self._changed:
            self._changed.notify_all()
        status = self.answers.pop(0) if self.answers else 204
        headers = {"Location": self.url} if status in (301, 307) else {}
        if status != 204 and self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        return web.Response(status=status, headers=headers, text="" if status == 204 else "not now")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Accepts requests within the context; outside it, connections are rejected."""
        app = web.Application()
        app.router.add_post("/alarms", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port, reuse_address=True).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until something holds of what came."""
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(holds)

    @property
    def ids(self) -> list[str]:
        """Of all requests, in order."""
        return [id for id, _, _ in self.received]

    @property
    def told(self) -> list[dict[str, Any]]:
        """What came, each once, in order."""
        first = {id: json.loads(body) for id, _, body in reversed(self.received)}
        return [first[id] for id in dict.fromkeys(self.ids)]


def receiver() -> Receiver:
    """On a free port of loopback."""
    return Receiver(unused_port())
