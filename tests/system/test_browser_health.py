"""Health in a real browser: conditions are red, with their cause and the next step. And long lists."""

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect
from windvane.store.files.store import Store

from tests.processes import Running
from tests.store.files.resumed import resumed
from tests.system.test_browser import FLAGS, SOON_MS, browser, page

__all__ = ["FLAGS", "browser", "page"]

STREAMS = 600
LATE = "park.t0000.blade"
STATUS: dict[str, Any] = {
    "checkpoint_age_s": 1.2,
    "lag_messages": 608,
    "failures": [],
    "streams_behind": {
        LATE: {
            "checkpoint_age_s": 41.0,
            "lag_chunks": 608,
            "behind": {"step": "condition", "reason": "the step takes 1.1 s a chunk"},
        }
    },
}
UNHEALTHY = {
    "status": "unhealthy",
    "reasons": [
        {
            "tier": "worker",
            "code": "checkpoint-late",
            "detail": "its oldest checkpoint is 41 s old, 6 s are allowed",
        },
        {
            "tier": "gateway",
            "code": "disk-full",
            "detail": "0 B free on /var/lib/windvane, 64 MiB are needed",
        },
        {"tier": "worker", "code": "crash-loop", "detail": "it was restarted 7 times in 2 minutes"},
    ],
}


class _Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, StatusServer)
        body = json.dumps(self.server.status).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "web"

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the status is read each second."""


class StatusServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A worker's status socket that always answers the same."""

    daemon_threads = True

    def __init__(self, home: Path, status: dict[str, Any]) -> None:
        super().__init__(str(home / "run" / "worker.sock"), _Status)
        self.status = status


@pytest.fixture(scope="module")
def park(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The web tier with many streams, and a worker's status socket that reports one of them as behind."""
    home = tmp_path_factory.mktemp("park") / "home"
    home.mkdir(mode=0o700)
    with Store(home / "store", segment_bytes=64 * 1024) as store:
        for number in range(STREAMS):
            reference = f"park.t{number:04d}.blade"
            attrs = {"tag": reference, "policy": "park"}
            with resumed(store.stream_writer(reference, attrs=attrs)) as stream:
                stream.append(b"abc", arrived_ns=1, chunk_id=None, events=1)
        rows = resumed(
            store.array_writer(
                f"{LATE}:features", dtype=np.dtype("<f4"), row_shape=(2,), attrs={"columns": ["rms", "peak"]}
            )
        )
        rows.append(np.zeros((4, 2), "<f4"), np.arange(4) * 1_000_000_000)
        rows.close()
    with Running("web", home) as running, StatusServer(home, STATUS) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield running
        server.shutdown()


def answer_unhealthy(page: Page) -> None:
    """Answers as an unhealthy server does (docs/http.md)."""

    def answer(route: Route) -> None:
        # With the real 503 the browser would write an error to its console, which fails the test.
        route.fulfill(status=200, content_type="application/json", body=json.dumps(UNHEALTHY))

    page.route("**/api/v1/health", answer)


def picture(page: Page, name: str) -> None:
    folder = os.environ.get("WINDVANE_PICTURES")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png")


def test_a_stream_that_is_behind_names_its_step_in_the_list_and_on_its_page(
    park: Running, page: Page
) -> None:
    page.goto(f"{park.ready['web']}/#/stream/{LATE}")
    entry = page.locator(f'[data-testid=stream][data-ref="{LATE}"]')
    expect(entry).to_contain_text("behind: condition", timeout=SOON_MS)
    note = page.get_by_test_id("behind")
    expect(note).to_contain_text("608 chunks wait for the step condition: the step takes 1.1 s a chunk")
    expect(page.locator('[data-testid=stream][data-ref="park.t0001.blade"]')).not_to_contain_text("behind")
    expect(page.get_by_test_id("connection")).to_have_text("Live", timeout=SOON_MS)
    expect(page.get_by_test_id("health")).to_have_count(0)


def test_an_unhealthy_installation_is_red_with_the_cause_and_the_next_step(park: Running, page: Page) -> None:
    answer_unhealthy(page)
    page.goto(f"{park.ready['web']}/#/stream/{LATE}")
    badge = page.get_by_test_id("connection")
    expect(badge).to_have_attribute("data-state", "unhealthy", timeout=SOON_MS)
    expect(badge).to_have_text("3 problems")
    banner = page.get_by_test_id("health")
    expect(banner).to_contain_text("The disk is full. Gateway: 0 B free on /var/lib/windvane")
    expect(banner).to_contain_text("Acknowledged data is safe.")
    banner.get_by_role("button", name="Show 1 more").click()
    expect(banner).to_contain_text("Checkpoints are late.")
    page.unroute("**/api/v1/health")
    page.route("**/api/v1/health", lambda route: route.fulfill(json={"status": "ok"}))
    expect(badge).to_have_text("Live", timeout=SOON_MS)
    expect(banner).to_have_count(0)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_health_conditions_fit_the_page(
    park: Running, browser: Browser, theme: Any, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    answer_unhealthy(page)
    for name, path in (("list", "#/streams"), ("stream", f"#/stream/{LATE}")):
        page.goto(f"{park.ready['web']}/{path}")
        expect(page.get_by_test_id("health")).to_be_visible(timeout=SOON_MS)
        expect(page.get_by_test_id("connection")).to_have_text("3 problems")
        if name == "stream":
            expect(page.get_by_test_id("behind")).to_be_visible(timeout=SOON_MS)
        else:
            expect(page.locator("[data-testid=stream]").first).to_be_attached(timeout=SOON_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture(page, f"{name}-{theme}-{width}")
        page.reload()
    page.close()


def test_a_long_list_is_read_as_far_as_it_is_in_view(park: Running, page: Page) -> None:
    asked: list[str] = []
    page.on(
        "request", lambda request: asked.append(request.url) if "/api/v1/streams?" in request.url else None
    )
    page.goto(f"{park.ready['web']}/#/stream/{LATE}")
    streams = page.locator("[data-testid=stream]")
    expect(streams.first).to_be_visible(timeout=SOON_MS)
    expect(page.get_by_text(f"{STREAMS} streams")).to_be_visible()
    assert streams.count() < 100
    assert all("limit=100" in url for url in asked)
    last = page.locator(f'[data-testid=stream][data-ref="park.t{STREAMS - 1:04d}.blade"]')
    streams.first.hover()
    for _ in range(400):
        page.mouse.wheel(0, 4_000)
        if last.count():
            break
        page.wait_for_timeout(50)
    expect(last).to_be_visible(timeout=SOON_MS)
    assert streams.count() < 100
    page.get_by_test_id("filter").fill("T0042")
    expect(streams).to_have_count(1, timeout=SOON_MS)
    expect(streams).to_have_attribute("data-ref", "park.t0042.blade")
    expect(page.get_by_text("1 stream found")).to_be_visible()


def test_a_tier_that_was_killed_is_named_until_it_runs_again(tmp_path: Path, browser: Browser) -> None:
    home = tmp_path / "home"
    with (
        Running("gateway", home) as gateway,
        Running("worker", home) as worker,
        Running("web", home) as site,
    ):
        page = browser.new_page()
        page.goto(site.ready["web"])
        badge, banner = page.get_by_test_id("connection"), page.get_by_test_id("health")
        expect(badge).to_have_text("Live", timeout=SOON_MS)
        expect(banner).to_have_count(0)
        worker.kill()
        expect(banner).to_contain_text("The worker is not running", timeout=SOON_MS)
        gateway.kill()
        expect(banner).to_contain_text("The gateway is not running", timeout=SOON_MS)
        worker.start()
        expect(banner).not_to_contain_text("The worker is not running", timeout=SOON_MS)
        gateway.start()
        expect(banner).to_have_count(0, timeout=SOON_MS)
        expect(badge).to_have_text("Live")
        page.close()
