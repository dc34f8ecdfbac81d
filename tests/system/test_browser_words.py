"""Failing steps, dead letters, unknown addresses, trends and commands in a real browser."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store

from tests.processes import Running
from tests.store.files.resumed import resumed
from tests.system.test_browser import SOON_MS, browser, page
from tests.system.test_browser_health import StatusServer, picture

__all__ = ["browser", "page"]
pytestmark = pytest.mark.browser

ROWS = 20_000
LONG_AGO_NS = 1_700_000_000_000_000_000
FAILURE = {
    "stream": "machine.a",
    "step": "model",
    "message": "negative dimensions are not allowed",
    "time_ns": LONG_AGO_NS,
    "times": 3,
    "recovered_ns": None,
}
STATUS: dict[str, Any] = {
    "checkpoint_age_s": 1.0,
    "lag_messages": 0,
    "failures": [
        FAILURE,
        {**FAILURE, "stream": "machine.b", "step": "bands", "recovered_ns": LONG_AGO_NS + 1},
    ],
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The web tier with two streams, one of which has more rows than a browser keeps."""
    home = tmp_path_factory.mktemp("words") / "home"
    home.mkdir(mode=0o700)
    with Store(home / "store", segment_bytes=1024 * 1024) as store:
        for reference in ("machine.a", "machine.b"):
            with resumed(store.stream_writer(reference, attrs={"tag": reference, "policy": "p"})) as stream:
                stream.append(b"abc", arrived_ns=LONG_AGO_NS, chunk_id=None, events=1)
            count = ROWS if reference == "machine.a" else 5
            rows = resumed(
                store.array_writer(
                    f"{reference}:features", dtype=np.dtype("<f4"), row_shape=(1,), attrs={"columns": ["rms"]}
                )
            )
            rows.append(
                np.sin(np.arange(count, dtype="<f4") / 500)[:, None], LONG_AGO_NS + np.arange(count) * 10**9
            )
            rows.close()
    with closing(SqlDeadLetters(home / "dead-letters.sqlite")) as letters:
        for code in ("no-policy", "step-failed"):
            letters.add(DeadLetter(code, f"the reason of {code}", "machine.a", "10.0.0.7", None, b"\xc0", 1))
    with Running("web", home) as running, StatusServer(home, STATUS) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield running
        server.shutdown()


def test_a_step_that_has_not_worked_since_an_old_failure_is_failing(site: Running, page: Page) -> None:
    page.goto(f"{site.ready['web']}/#/stream/machine.a")
    expect(page.get_by_test_id("failing")).to_have_text("1", timeout=SOON_MS)
    note = page.get_by_test_id("failing-step")
    expect(note).to_contain_text("Failing step: model. negative dimensions are not allowed.", timeout=SOON_MS)
    expect(note).to_contain_text("3 failures")
    entry = page.locator("[data-testid=stream]")
    expect(entry.filter(has_text="machine.a")).to_have_attribute("data-mark", "fault", timeout=SOON_MS)
    expect(entry.filter(has_text="machine.a")).to_contain_text("failing: model")
    expect(entry.filter(has_text="machine.b")).to_have_attribute("data-mark", "ok")
    page.get_by_test_id("failing").get_by_role("button").click()
    failures = page.get_by_role("list", name="Failing steps")
    expect(failures).to_contain_text("bands")
    expect(failures).to_contain_text("recovered since")
    page.goto(f"{site.ready['web']}/#/stream/machine.b")
    expect(page.get_by_test_id("stream-title")).to_have_text("machine.b")
    expect(note).to_have_count(0, timeout=SOON_MS)


def test_recovered_failures_are_counted_as_recovered(site: Running, page: Page) -> None:
    def recovered(route: Any) -> None:
        status = route.fetch().json()
        status["worker"]["failures"] = STATUS["failures"][1:]
        route.fulfill(json=status)

    page.route("**/api/v1/status", recovered)
    page.goto(f"{site.ready['web']}/#/stream/machine.b")
    expect(page.get_by_test_id("failing")).to_have_text("1 recovered", timeout=SOON_MS)


def test_only_replayable_letters_have_a_replay_button(site: Running, page: Page) -> None:
    page.goto(f"{site.ready['web']}/#/dead-letters")
    rows = page.get_by_test_id("dead-letters").get_by_role("row")
    for code, buttons in (("no-policy", 1), ("step-failed", 0)):
        row = rows.filter(has_text=f"the reason of {code}")
        expect(row.get_by_role("button", name="Discard")).to_be_visible(timeout=SOON_MS)
        expect(row.get_by_role("button", name="Replay")).to_have_count(buttons)
    rows.filter(has_text="step-failed").get_by_role("button", name="Show").click()
    expect(page.get_by_test_id("dead-letters")).to_contain_text("It cannot be replayed", timeout=SOON_MS)


@pytest.mark.parametrize("address", ["#/nowhere", "#/stream", "#/alarms/x/y", "#/plants?x=1"])
def test_an_unknown_address_shows_links_to_the_pages(site: Running, page: Page, address: str) -> None:
    page.goto(f"{site.ready['web']}/{address}")
    found = page.get_by_test_id("not-found")
    expect(found).to_contain_text(address, timeout=SOON_MS)
    expect(page.get_by_test_id("stream-title")).to_have_count(0)
    found.get_by_role("link", name="Alarms").click()
    expect(page.get_by_test_id("alarm-list")).to_be_visible()


def test_a_path_without_a_page_is_not_found(site: Running, browser: Browser) -> None:
    page = browser.new_page()
    answer = page.goto(f"{site.ready['web']}/machines/7")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading")).to_have_text("Page not found")
    page.get_by_role("link", name="Open the dashboard").click()
    expect(page.get_by_test_id("status")).to_be_visible(timeout=SOON_MS)
    page.close()


def test_a_trend_says_how_many_of_the_rows_it_shows(site: Running, page: Page) -> None:
    page.goto(f"{site.ready['web']}/#/stream/machine.a")
    panel = page.get_by_test_id("trend-panel")
    newest = panel.get_by_text("newest", exact=True)
    expect(newest).to_be_visible(timeout=SOON_MS)
    expect(panel.get_by_text("all", exact=True)).to_have_count(0)
    expect(panel.get_by_test_id("shortage")).to_have_count(0)  # ten minutes are there
    newest.click()
    expect(panel.get_by_test_id("shortage")).to_have_text("last 4,096 of 20,000 rows")
    page.goto(f"{site.ready['web']}/#/stream/machine.b")
    expect(panel.get_by_text("all", exact=True)).to_be_visible(timeout=SOON_MS)
    panel.get_by_text("all", exact=True).click()
    expect(panel.get_by_test_id("shortage")).to_have_count(0)


def test_copied_commands_name_the_home_of_this_server(site: Running, page: Page) -> None:
    page.goto(f"{site.ready['web']}/#/stream/machine.a")
    page.get_by_role("button", name="Download").click(timeout=SOON_MS)
    home = site.home.resolve()
    for words in (
        f"windvane cat machine.a --home {home} > machine.a",
        f"windvane export machine.a:features features.npy --home {home}",
        f'context = connect("{home}")',
    ):
        expect(page.get_by_label("Download")).to_contain_text(words, timeout=SOON_MS)
    page.goto(f"{site.ready['web']}/#/policies")
    expect(page.locator("wv-policy-page")).to_contain_text(f"windvane apply policies.toml --home {home}")


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_each_page_fits(site: Running, browser: Browser, theme: Any, width: int, height: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
    for name, address, wanted in (
        ("failing", "#/stream/machine.a", "failing-step"),
        ("dead-letters", "#/dead-letters", "dead-letters"),
        ("nowhere", "#/nowhere", "not-found"),
    ):
        page.goto(f"{site.ready['web']}/{address}")
        expect(page.get_by_test_id(wanted)).to_be_visible(timeout=SOON_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        picture(page, f"{name}-{theme}-{width}")
    page.close()
