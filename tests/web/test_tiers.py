import gzip
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import numpy as np
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families
from windvane.runtime.statuses import TierStatus
from windvane.runtime.telemetry import add_status_routes, serve_on_socket

from tests.web.served_home import TOKEN, Client, Home, StartClient, problem

StartTier: TypeAlias = Callable[[str, web.Application], Awaitable[web.AppRunner]]

ROUTES = (
    "/ingest/{policy}",
    "/ingest/{policy}/{tag:.+}",
    "/erp5/portal_ingestion_policies/{policy}/ingest",
)


class NamedStatus(TierStatus, kw_only=True):
    events_total: int
    name: str


class SomeStatus(TierStatus, kw_only=True):
    events_total: int
    checkpoint_ns: int
    dead_lettered_by_code: dict[str, int]
    failures: list[dict[str, str]]


@pytest.fixture
async def start_tier(home: Home) -> StartTier:
    """Serves an application on the socket of a tier, as the tier itself does."""

    async def start_on_socket(tier: str, app: web.Application) -> web.AppRunner:
        runner = await serve_on_socket(app, home.run_dir / f"{tier}.sock")
        home.opened.push_async_callback(runner.cleanup)
        return runner

    return start_on_socket


class Gateway:
    """The gateway's side of the protocol: accepts posts, records the requests, responds with `status`."""

    def __init__(self, status: int = 204, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.app = web.Application(client_max_size=1024**3)
        self.app.router.add_post("/dead-letters/{id}/replay", self.ingest)
        for route in ROUTES:
            self.app.router.add_post(route, self.ingest)
        self._answer = (status, headers or {}, body)

    async def ingest(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.read())
        status, headers, body = self._answer
        return web.Response(status=status, headers=headers, body=body)


@pytest.mark.parametrize(
    "path", ["/ingest/voice", "/ingest/voice/app/log", "/erp5/portal_ingestion_policies/voice/ingest"]
)
async def test_a_chunk_reaches_the_gateway_unchanged(
    client: Client, start_tier: StartTier, path: str
) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    chunk = bytes(range(256)) * 100
    answer = await client.post(
        f"{path}?reference=a%26b%2Fc%20%C3%A9",
        data=chunk,
        headers={"Content-Type": "application/octet-stream"},
    )
    assert (answer.status, await answer.read()) == (204, b"")
    [request] = gateway.requests
    assert gateway.bodies == [chunk]
    assert (request.path, dict(request.query)) == (path, {"reference": "a&b/c é"})
    assert request.content_type == "application/octet-stream"
    assert request.headers["Content-Length"] == str(len(chunk))
    assert request.headers["X-Forwarded-For"] == "127.0.0.1"


async def test_a_replay_is_handed_on_to_the_gateway(client: Client, start_tier: StartTier) -> None:
    gateway = Gateway(422, {"Content-Type": "application/problem+json"}, b'{"status": 422}')
    await start_tier("gateway", gateway.app)
    answer = await client.post("/api/v1/dead-letters/7/replay")
    assert (answer.status, await answer.read()) == (422, b'{"status": 422}')
    assert [request.path for request in gateway.requests] == ["/dead-letters/7/replay"]
    await problem(await client.post("/api/v1/dead-letters/x%2F../replay"), 404)


async def test_the_credentials_end_at_the_web_tier(client: Client, start_tier: StartTier) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    answer = await client.post(
        f"/ingest/voice?reference=x&token={TOKEN}", data=b"", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert answer.status == 204
    [request] = gateway.requests
    assert TOKEN not in str(request.headers) + str(request.rel_url)


@pytest.mark.parametrize("authorization", ["Basic eDp5", "Bearer of a machine", ""])
async def test_credentials_of_machines_are_for_the_gateway_to_judge(
    client: Client, start_tier: StartTier, authorization: str
) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    headers = {"Authorization": authorization, "X-Windvane-Access": "token"}
    await client.post("/ingest/voice?reference=x", headers=headers)
    [request] = gateway.requests
    assert request.headers["Authorization"] == authorization
    assert "X-Windvane-Access" not in request.headers


async def test_the_gateway_learns_the_owner_of_the_token_and_clients_cannot_forge_it(
    client: Client, start_tier: StartTier
) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"X-Windvane-Access": "token"}):
        await client.post("/ingest/voice?reference=x", headers=headers)
    assert [request.headers.get("X-Windvane-Access") for request in gateway.requests] == ["token", None]


async def test_other_addresses_know_no_credentials_of_machines(client: Client, start_tier: StartTier) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    for method, path in (("POST", "/api/v1/dead-letters/7/replay"), ("GET", "/ingest/voice")):
        answer = await client.request(method, path, headers={"Authorization": "Basic eDp5"})
        await problem(answer, 401)
    answer = await client.post(
        "/ingest/voice?reference=x&token=wrong", headers={"Authorization": "Basic eDp5"}
    )
    await problem(answer, 401)
    assert gateway.requests == []


async def test_what_the_gateway_answers_is_what_the_sender_gets(
    client: Client, start_tier: StartTier
) -> None:
    body = b'{"title": "Too many", "status": 429}'
    headers = {"Retry-After": "7", "Content-Type": "application/problem+json"}
    await start_tier("gateway", Gateway(429, headers, body).app)
    answer = await client.post("/ingest/voice?reference=x", data=b"abc")
    assert (answer.status, answer.headers["Retry-After"], answer.content_type) == (
        429,
        "7",
        "application/problem+json",
    )
    assert await answer.read() == body


async def test_a_compressed_body_is_forwarded_unchanged(client: Client, start_tier: StartTier) -> None:
    gateway = Gateway()
    await start_tier("gateway", gateway.app)
    for body in (gzip.compress(b"chunk" * 1000), b"no gzip at all"):
        answer = await client.post(
            "/ingest/voice?reference=x", data=body, headers={"Content-Encoding": "gzip"}
        )
        assert answer.status == 204
        assert gateway.bodies.pop() == body
        assert gateway.requests.pop().headers["Content-Encoding"] == "gzip"


async def test_a_compressed_body_is_not_unpacked_for_the_api(client: Client) -> None:
    answer = await client.post(
        "/api/v1/policies", data=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}
    )
    await problem(answer, 415)


async def test_without_a_gateway_the_sender_gets_a_retry_after(client: Client) -> None:
    answer = await client.post("/ingest/voice?reference=x", data=b"chunk")
    members = await problem(answer, 503)
    assert int(answer.headers["Retry-After"]) > 0
    assert "gateway" in members["detail"]


async def test_after_the_gateway_came_back_chunks_pass_again(client: Client, start_tier: StartTier) -> None:
    for _ in range(2):
        runner = await start_tier("gateway", Gateway().app)
        assert (await client.post("/ingest/voice?reference=x", data=b"chunk")).status == 204
        await runner.cleanup()
        assert (await client.post("/ingest/voice?reference=x", data=b"chunk")).status == 503


async def test_a_gateway_that_dies_in_the_middle_is_a_503(client: Client, start_tier: StartTier) -> None:
    async def die(request: web.Request) -> web.Response:
        await request.content.readany()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/ingest/{policy}", die)
    await start_tier("gateway", app)
    await problem(await client.post("/ingest/voice?reference=x", data=b"x" * 1_000_000), 503)


async def test_a_large_body_passes_through_with_bounded_memory(client: Client, start_tier: StartTier) -> None:
    piece = np.random.default_rng(5).bytes(512 * 1024)
    received = hashlib.sha256()

    async def swallow(request: web.Request) -> web.Response:
        async for part in request.content.iter_any():
            received.update(part)
        return web.Response(status=204)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield piece

    app = web.Application()
    app.router.add_post("/ingest/{policy}", swallow)
    await start_tier("gateway", app)
    tracemalloc.start()
    try:
        answer = await client.post("/ingest/voice?reference=x", data=body())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 204
    assert received.digest() == hashlib.sha256(piece * 64).digest()
    assert peak_bytes < 8 * 1024 * 1024


def tier(name: str) -> web.Application:
    registry = CollectorRegistry()
    Counter("windvane_shared", "In every tier.", registry=registry).inc(3)
    Counter(f"windvane_{name}_things", "Of one tier.", ["kind"], registry=registry).labels("a").inc(5)
    app = web.Application()
    add_status_routes(app, status=lambda: NamedStatus(events_total=9, name=name), registry=registry)
    return app


async def test_the_status_shows_each_tier_and_null_for_an_unavailable_one(
    client: Client, start_tier: StartTier
) -> None:
    await start_tier("worker", tier("worker"))
    found = await (await client.get("/api/v1/status")).json()
    assert found["gateway"] is None
    assert (found["worker"]["events_total"], found["worker"]["troubles"]) == (9, [])
    assert found["web"]["requests_total"] == 0


async def test_the_status_has_all_instances_of_a_tier_and_what_they_are_together(
    client: Client, start_tier: StartTier
) -> None:
    def worker(events: int, checkpoint_ns: int, codes: dict[str, int]) -> web.Application:
        app = web.Application()
        status = SomeStatus(
            events_total=events,
            checkpoint_ns=checkpoint_ns,
            dead_lettered_by_code=codes,
            failures=[{"stream": f"s{events}"}],
        )
        add_status_routes(app, status=lambda: status, registry=CollectorRegistry())
        return app

    await start_tier("worker", worker(5, 300, {"a": 1}))
    await start_tier("worker-b", worker(7, 200, {"a": 2, "b": 4}))
    await start_tier("worker-c", worker(0, 0, {}))
    found = await (await client.get("/api/v1/status")).json()
    assert {name: each["events_total"] for name, each in found["workers"].items()} == {"": 5, "b": 7, "c": 0}
    together = found["worker"]
    assert (together["events_total"], together["checkpoint_ns"]) == (12, 200)
    assert together["dead_lettered_by_code"] == {"a": 3, "b": 4}
    assert [each["stream"] for each in together["failures"]] == ["s5", "s7", "s0"]
    assert together["troubles"] == []
    assert (found["gateways"], found["gateway"]) == ({}, None)


async def test_chunks_go_to_any_gateway_that_lives(client: Client, start_tier: StartTier) -> None:
    gateways = [Gateway() for _ in range(3)]
    runners = [
        await start_tier(name, gateway.app)
        for name, gateway in zip(("gateway", "gateway-b", "gateway-c"), gateways, strict=True)
    ]
    for _ in range(6):
        assert (await client.post("/ingest/voice?reference=x", data=b"chunk")).status == 204
    assert [len(gateway.bodies) for gateway in gateways] == [2, 2, 2]
    await runners[0].cleanup()
    await runners[1].cleanup()
    for _ in range(3):
        assert (await client.post("/ingest/voice?reference=x", data=b"chunk")).status == 204
    assert gateways[2].bodies == [b"chunk"] * 5
    await runners[2].cleanup()
    await problem(await client.post("/ingest/voice?reference=x", data=b"chunk"), 503)


async def test_the_metrics_of_an_instance_have_its_name(client: Client, start_tier: StartTier) -> None:
    await start_tier("gateway", tier("gateway"))
    await start_tier("gateway-b", tier("gateway"))
    page = await (await client.get("/metrics")).text()
    assert 'windvane_shared_total{tier="gateway"} 3.0' in page
    assert 'windvane_shared_total{tier="gateway",tier_instance="b"} 3.0' in page


async def test_one_scrape_has_the_metrics_of_all_tiers(client: Client, start_tier: StartTier) -> None:
    await start_tier("gateway", tier("gateway"))
    await start_tier("worker", tier("worker"))
    await client.get("/api/v1/health")
    answer = await client.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(await answer.text())}

    def totals(name: str) -> list[tuple[dict[str, str], float]]:
        return [(each.labels, each.value) for each in families[name].samples if each.name.endswith("_total")]

    assert totals("windvane_shared") == [({"tier": "gateway"}, 3), ({"tier": "worker"}, 3)]
    assert totals("windvane_worker_things") == [({"kind": "a", "tier": "worker"}, 5)]
    health = {"method": "GET", "route": "/api/v1/health", "status": "200", "tier": "web"}
    assert (health, 1) in totals("windvane_web_requests")


async def test_a_tier_s_broken_page_does_not_spoil_the_scrape(client: Client, start_tier: StartTier) -> None:
    async def broken(_request: web.Request) -> web.Response:
        return web.Response(text="windvane_x{ 1 2 3\n")

    app = web.Application()
    app.router.add_get("/metrics", broken)
    await start_tier("gateway", app)
    await start_tier("worker", tier("worker"))
    page = await (await client.get("/metrics")).text()
    assert "windvane_worker_things_total" in page
    assert "windvane_x" not in page


async def test_paths_do_not_become_series(start: StartClient, home: Home) -> None:
    client = await start()
    for number in range(50):
        await client.get(f"/api/v1/streams/s{number}")
        await client.request("BREW", f"/somewhere/{number}")
    page = await (await client.get("/metrics")).text()
    counted = [line for line in page.splitlines() if line.startswith("windvane_web_requests_total")]
    assert len(counted) <= 4
