"""Health: the expected tiers, the status of these and of their supervisors, and the result."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry
from windvane.runtime.announcements import announce
from windvane.runtime.health_conditions import HealthConditions
from windvane.runtime.statuses import TierStatus
from windvane.runtime.supervision import ChildState, LastExit, Supervision, supervision_file, write_whole
from windvane.runtime.telemetry import add_status_routes, serve_on_socket
from windvane.web.api import health as module

from tests.web.served_home import Client, Home

SUPERVISED = ("gateway", "web", "worker")


class SupervisedTiers:
    """Tiers on their sockets, and a supervisor (this process) that reports their states."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.health = {
            name: HealthConditions(logging.getLogger(f"windvane.{name}")) for name in ("gateway", "worker")
        }
        self.supervision = Supervision.of_this_process()
        for name in SUPERVISED:
            self.supervision.children[name] = ChildState.starting()

    async def start(self, tier: str, name: str = "") -> web.AppRunner:
        app = web.Application()
        add_status_routes(app, status=TierStatus, registry=CollectorRegistry(), health=self.health[tier])
        runner = await serve_on_socket(app, self.home.run_dir / f"{name or tier}.sock")
        self.home.opened.push_async_callback(runner.cleanup)
        return runner

    def say(self, **states: str) -> None:
        """Sets the state that the supervisor reports from now on."""
        for name, state in states.items():
            self.supervision.children[name].enter(state)  # type: ignore[arg-type]
        write_whole(supervision_file(self.home.run_dir, "up"), self.supervision)


@pytest.fixture
async def site(home: Home) -> SupervisedTiers:
    site = SupervisedTiers(home)
    for tier in site.health:
        await site.start(tier)
    site.say(gateway="running", worker="running", web="running")
    return site


async def reasons(client: Client) -> list[tuple[str, str]]:
    return [(each["tier"], each["code"]) for each in (await health(client))["reasons"]]


async def health(client: Client) -> dict[str, Any]:
    """The response, whose status code and `status` must agree."""
    answer = await client.get("/api/v1/health")
    found: dict[str, Any] = await answer.json()
    if answer.status == 200:
        assert found["status"] == "ok"
        assert "reasons" not in found
        return {**found, "reasons": []}
    assert answer.status == 503
    assert found["status"] == "unhealthy"
    assert answer.content_type == "application/json"
    for reason in found["reasons"]:
        assert sorted(reason) == ["code", "detail", "tier"]
        assert reason["detail"]
    return found


async def test_all_tiers_that_run_and_have_no_trouble_are_healthy(
    client: Client, site: SupervisedTiers
) -> None:
    assert await reasons(client) == []
    # A client that only requests the status code gets it too.
    assert (await client.head("/api/v1/health")).status == 200


async def test_a_web_tier_by_itself_is_healthy(client: Client) -> None:
    assert await reasons(client) == []


@pytest.mark.parametrize(
    "code",
    ["disk-full", "io-error", "bus-away", "checkpoint-late", "no-checkpoint", "settings-broken"],
)
async def test_a_trouble_of_a_tier_is_a_reason_until_it_is_cleared(
    client: Client, site: SupervisedTiers, code: Any
) -> None:
    site.health["worker"].report("key", code, "what happened, and what to do")
    assert (await health(client))["reasons"] == [
        {"tier": "worker", "code": code, "detail": "what happened, and what to do"}
    ]
    status = await (await client.get("/api/v1/status")).json()
    assert status["worker"]["troubles"] == [{"code": code, "detail": "what happened, and what to do"}]
    assert status["health"]["status"] == "unhealthy"
    page = await (await client.get("/metrics")).text()
    assert f'windvane_troubles{{code="{code}",tier="worker"}} 1.0' in page
    site.health["worker"].clear("key")
    assert await reasons(client) == []


async def test_a_supervised_tier_without_a_socket_is_unavailable_and_its_exit_is_named(
    client: Client, home: Home
) -> None:
    site = SupervisedTiers(home)
    await site.start("gateway")
    site.supervision.children["worker"].add_exit(LastExit.of(-11, restarts=0))
    site.say(gateway="running", worker="restarting", web="running")
    [reason] = (await health(client))["reasons"]
    assert (reason["tier"], reason["code"]) == ("worker", "tier-away")
    assert "killed by SIGSEGV" in reason["detail"]
    await site.start("worker")
    assert await reasons(client) == []


async def test_a_starting_tier_is_unavailable_only_if_it_takes_long(
    client: Client, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    SupervisedTiers(home).say()
    assert await reasons(client) == []
    monkeypatch.setattr(module, "START_GRACE_S", 0.0)
    assert await reasons(client) == [("gateway", "tier-away"), ("worker", "tier-away")]


async def test_a_tier_that_announced_itself_and_is_gone_is_unavailable(client: Client, home: Home) -> None:
    announce(home.run_dir / "worker-b.json", {})
    for name in ("worker", "worker-b"):
        (home.run_dir / f"{name}.exit.json").write_text("{}")  # no announcement
    assert await reasons(client) == [("worker-b", "tier-away")]
    runner = await SupervisedTiers(home).start("worker", "worker-b")
    assert await reasons(client) == []
    await runner.cleanup()
    assert await reasons(client) == [("worker-b", "tier-away")]
    (home.run_dir / "worker-b.json").unlink()  # an orderly end
    assert await reasons(client) == []


async def test_a_supervisor_that_was_killed_expects_nothing(client: Client, home: Home) -> None:
    site = SupervisedTiers(home)
    site.supervision.process_start += 1
    site.say(gateway="running")
    assert await reasons(client) == []


async def test_a_crash_loop_is_one_while_a_process_runs_for_a_moment_too(
    client: Client, site: SupervisedTiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = site.supervision.children["worker"]
    for restarts in range(3):
        assert await reasons(client) == []
        worker.restarts = restarts
        worker.add_exit(LastExit.of(1, restarts=restarts))
        site.say(worker="running")
    [reason] = (await health(client))["reasons"]
    assert (reason["tier"], reason["code"]) == ("worker", "crash-loop")
    assert "ended 3 times" in reason["detail"]
    assert "exit code 1" in reason["detail"]
    status = await (await client.get("/api/v1/status")).json()
    assert status["tiers"]["worker"]["restarts"] == 2
    assert status["tiers"]["worker"]["last_exit"]["code"] == 1
    page = await (await client.get("/metrics")).text()
    assert 'windvane_tier_restarts_total{process="worker",tier="web"} 2.0' in page
    worker.exits_s = [at - 1000 for at in worker.exits_s]  # long ago
    site.say()
    assert await reasons(client) == []


async def test_a_tier_that_takes_connections_and_gives_no_answer_is_stuck(
    client: Client, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STUCK_S", 0.2)
    silent = home.opened.enter_context(socket.socket(socket.AF_UNIX))
    silent.bind(str(home.run_dir / "worker.sock"))
    silent.listen()
    announce(home.run_dir / "worker.json", {})
    began_s = time.monotonic()
    # Concurrent requests share one response.
    found = await asyncio.gather(*(reasons(client) for _ in range(20)))
    assert found == [[("worker", "stuck")]] * 20
    print(f"20 requests: {time.monotonic() - began_s:.2f} s with a bound of 0.2 s")


@pytest.mark.parametrize("body", ["[]", "{", '{"troubles": 7}', '{"troubles": [7, {"code": "io-error"}]}'])
async def test_a_tier_that_answers_nonsense_breaks_nothing(client: Client, home: Home, body: str) -> None:
    async def status(_request: web.Request) -> web.Response:
        return web.Response(text=body)

    app = web.Application()
    app.router.add_get("/status", status)
    runner = await serve_on_socket(app, home.run_dir / "worker.sock")
    home.opened.push_async_callback(runner.cleanup)
    announce(home.run_dir / "worker.json", {})
    answer = await client.get("/api/v1/health")
    assert answer.status in (200, 503)
    assert await answer.json()


async def test_the_metrics_say_how_much_room_the_disk_has(client: Client) -> None:
    page = await (await client.get("/metrics")).text()
    value: Callable[[str], float] = lambda name: next(  # noqa: E731
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith(f"windvane_disk_{name}_bytes{{")
    )
    status = await (await client.get("/api/v1/status")).json()
    assert 0 < value("free") <= value("size") == status["disk"]["size_bytes"]
    assert value("reserve") == status["disk"]["reserve_bytes"] > 0


def test_a_supervision_is_read_back_as_it_was_written(home: Home) -> None:
    written = Supervision.of_this_process()
    written.children["worker"] = ChildState.starting()
    written.children["worker"].add_exit(LastExit.of(-9, restarts=4))
    assert msgspec.json.decode(msgspec.json.encode(written), type=Supervision) == written
