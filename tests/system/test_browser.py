"""The dashboard of the demo in a real browser."""

import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgpack
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.processes import Running, wait_until, windvane

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SOON_MS = 30_000


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """`windvane up --demo`, as `make run` starts it."""
    with Running("up", tmp_path_factory.mktemp("demo") / "home", "--demo") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    assert executable is not None, "`make browser` installs Chromium, or says how to"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page. An error in its console fails the test."""
    opened = browser.new_page(viewport={"width": 1440, "height": 900}, device_scale_factor=1)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if _is_unexpected_error(said) else None)
    yield opened
    opened.close()
    assert errors == []


def _is_unexpected_error(said: ConsoleMessage) -> bool:
    """An error, except for a 503 of the health route and for being offline, which browsers report too."""
    is_expected = str(said.location.get("url", "")).endswith("/api/v1/health") or said.text.endswith(
        "net::ERR_INTERNET_DISCONNECTED"
    )
    return said.type == "error" and not is_expected


def rows_drawn(page: Page) -> int:
    return int(page.get_by_test_id("waterfall").get_attribute("data-rows") or 0)


def test_the_demo_shows_live_spectra(demo: Running, page: Page) -> None:
    page.goto(demo.ready["web"])
    stream = page.locator('[data-testid=stream][data-ref$="gearbox"]').first
    stream.click(timeout=SOON_MS)
    expect(page.get_by_test_id("spectrum")).to_be_visible(timeout=SOON_MS)
    page.wait_for_function(ROWS_MORE_THAN, arg=120, timeout=2 * SOON_MS)
    before = rows_drawn(page)
    page.wait_for_function(ROWS_MORE_THAN, arg=before + 5, timeout=SOON_MS)
    expect(page.get_by_test_id("events-per-s")).not_to_have_text("0", timeout=SOON_MS)
    picture = Path(os.environ.get("WINDVANE_PICTURE", ROOT / "build" / "dashboard.png"))
    picture.parent.mkdir(exist_ok=True)
    page.screenshot(path=picture)


# The elements are in open shadow roots, which document.querySelector does not search.
ROWS_MORE_THAN = """
(least) => {
  const find = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.dataset?.testid === "waterfall") return element;
      const inside = element.shadowRoot && find(element.shadowRoot);
      if (inside) return inside;
    }
    return null;
  };
  return Number(find(document)?.dataset.rows ?? 0) > least;
}
"""


def test_the_dashboard_continues_after_the_server_was_unreachable(demo: Running, page: Page) -> None:
    page.goto(demo.ready["web"])
    page.locator('[data-testid=stream][data-ref$="gearbox"]').first.click(timeout=SOON_MS)
    page.wait_for_function(ROWS_MORE_THAN, arg=20, timeout=2 * SOON_MS)
    page.context.set_offline(True)
    before = rows_drawn(page)
    page.context.set_offline(False)
    page.wait_for_function(ROWS_MORE_THAN, arg=before + 5, timeout=2 * SOON_MS)


def test_a_new_policy_appears_in_the_list(demo: Running, page: Page) -> None:
    created = windvane(demo.home, "policy", "create", "logs", "--tag", "app.**", "--preset", "logs")
    assert created.returncode == 0, created.stderr.decode()
    page.goto(f"{demo.ready['web']}/#/policies")
    expect(page.locator('[data-testid=policy][data-ref="logs"]')).to_be_visible(timeout=SOON_MS)


def test_the_filter_finds_streams_by_their_policy(demo: Running, page: Page) -> None:
    page.goto(demo.ready["web"])
    streams = page.locator("[data-testid=stream]")
    expect(streams.first).to_be_visible(timeout=SOON_MS)
    policy = streams.first.locator(".second").inner_text()
    for words, least in ((policy.upper(), 1), ("nothing is called so", 0)):
        page.get_by_test_id("filter").fill(words)
        expect(page.get_by_text("found")).to_be_visible(timeout=SOON_MS)
        expect(streams.filter(has_not_text=policy)).to_have_count(0, timeout=SOON_MS)
        assert (streams.count() > 0) == (least > 0)
    page.get_by_test_id("filter").press("Escape")
    expect(streams.first).to_be_visible(timeout=SOON_MS)


def test_a_new_installation_shows_the_first_steps(site: Running, page: Page) -> None:
    page.goto(site.ready["web"])
    empty = page.get_by_test_id("empty")
    expect(empty).to_contain_text("windvane policy create", timeout=SOON_MS)
    # A copied command uses this installation, even if the machine has several homes and servers.
    command = f"windvane policy create voice --tag voice --preset audio --home {site.home.resolve()}"
    expect(empty).to_contain_text(command)
    host, port = site.ready["forward"].rsplit(":", 1)
    assert port != "24224"
    for forwarder in ("Fluent Bit", "fluentd"):
        empty.get_by_text(forwarder, exact=True).click()
        expect(empty.get_by_label("configuration", exact=True)).to_contain_text(port)
        expect(empty.get_by_label("configuration", exact=True)).to_contain_text(host)


def test_dead_letters_are_shown_decoded_replayed_and_discarded(site: Running, page: Page) -> None:
    event = bytes(msgpack.packb([1_790_000_000, {"message": "let me in"}]))
    with closing(SqlDeadLetters(site.home / "dead-letters.sqlite")) as letters:
        for tag in ("late.comer", "never.mind"):
            letters.add(DeadLetter("no-policy", f"no policy allows {tag}", tag, "10.0.0.7", None, event, 1))
    made = windvane(site.home, "policy", "create", "late", "--tag", "late.*", "--preset", "logs")
    assert made.returncode == 0, made.stderr.decode()
    page.goto(f"{site.ready['web']}/#/refused")  # the former address
    expect(page).to_have_url(re.compile("#/dead-letters$"), timeout=SOON_MS)
    for tag, button in (("late.comer", "Replay"), ("never.mind", "Discard")):
        row = page.get_by_test_id("dead-letters").get_by_role("row").filter(has_text=f"allows {tag}")
        row.get_by_role("button", name="Show").click(timeout=SOON_MS)
        expect(page.get_by_test_id("dead-letter-content")).to_contain_text("let me in", timeout=SOON_MS)
        row.get_by_role("button", name=button).click()
        if button == "Discard":
            row.get_by_role("button", name="Discard permanently?").click()
        expect(row).to_have_count(0, timeout=SOON_MS)
    expect(page.get_by_test_id("dead-letter-totals")).to_contain_text("0 kept", timeout=SOON_MS)
    wait_until(lambda: b"let me in" in windvane(site.home, "cat", "late.comer").stdout, "the event")


def test_the_page_fits_a_phone(demo: Running, browser: Browser) -> None:
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(demo.ready["web"])
    phone.locator("[data-testid=stream]").first.wait_for(timeout=SOON_MS)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_scripts_come_from_the_server_alone(demo: Running) -> None:
    with urllib.request.urlopen(demo.ready["web"]) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "script-src" not in policy or "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]
    assert "default-src 'self'" in policy
