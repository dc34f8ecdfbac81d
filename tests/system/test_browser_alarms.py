"""Alarms in a real browser: they appear without a reload, and are acknowledged, shelved and cleared."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.processes import Running, windvane
from tests.processors.alarms.alarming import COURSE
from tests.system.disturbance import Chunk, Release, send_until_acked
from tests.system.test_alarms import POLICY, chunks_of
from tests.system.test_browser import SOON_MS
from tests.system.test_browser import browser as browser
from tests.system.test_browser import page as page
from tests.system.test_browser_health import picture

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


def send(site: Running, chunks: list[Chunk]) -> None:
    # In another thread: this one runs the browser's event loop.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, send_until_acked(site, chunks, Release(len(chunks)))).result()


def act(card: Locator, action: str, **fields: str) -> None:
    """Clicks a button, fills in the form and sends it."""
    card.get_by_role("button", name=action, exact=True).click()
    form = card.locator("form")
    form.get_by_label("Your name").fill("ada")
    for label, value in fields.items():
        form.get_by_label(label).fill(value)
    form.get_by_role("button", name=action, exact=True).click()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    """All tiers, with a policy whose machines raise alarms."""
    home = tmp_path / "home"
    with Running("up", home, environ={"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "0.2"}) as running:
        (home / "policy.toml").write_text(POLICY)
        assert windvane(home, "apply", str(home / "policy.toml")).returncode == 0
        yield running


def test_an_alarm_appears_and_operators_act_on_it(site: Running, page: Page, browser: Browser) -> None:
    page.goto(f"{site.ready['web']}/#/alarms")
    expect(page.get_by_test_id("alarm-list")).to_contain_text("No open alarms", timeout=SOON_MS)
    # Up to the danger level; the page is not reloaded.
    send(site, chunks_of("t1", 2)[: (len(COURSE) + 10) // 2])
    card = page.get_by_test_id("alarm").first
    expect(card).to_be_visible(timeout=SOON_MS)
    expect(card.get_by_test_id("alarm-grade")).to_have_text("danger", timeout=SOON_MS)
    count = page.get_by_test_id("alarm-count")
    expect(count).to_have_text("1")
    expect(count.get_by_role("img")).to_have_accessible_name("danger, 1 not acknowledged")
    card.get_by_role("link", name="Show details").click()
    expect(card.get_by_test_id("alarm-detail")).to_contain_text("t1:fields[", timeout=SOON_MS)
    expect(card.get_by_test_id("alarm-picture")).to_be_visible(timeout=SOON_MS)
    phone = browser.new_page(viewport={"width": 390, "height": 844})
    phone.goto(page.url)
    expect(phone.get_by_test_id("alarm-detail")).to_be_visible(timeout=SOON_MS)
    expect(phone.get_by_test_id("alarm-count")).to_be_visible(timeout=SOON_MS)
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    picture = Path(os.environ.get("WINDVANE_ALARM_PICTURE", ROOT / "build" / "alarms.png"))
    picture.parent.mkdir(exist_ok=True)
    phone.screenshot(path=picture.with_stem("alarms-phone"))
    phone.close()
    act(card, "Acknowledge", Text="on my way")
    expect(card.get_by_test_id("alarm-state")).to_have_text("acknowledged by ada", timeout=SOON_MS)
    expect(card.get_by_test_id("alarm-detail")).to_contain_text("on my way", timeout=SOON_MS)
    # Acknowledging hides nothing.
    expect(count.get_by_role("img")).to_have_accessible_name("danger, all acknowledged", timeout=SOON_MS)
    expect(count).to_have_text("1")
    act(card, "Comment", Text="outer race?")
    expect(card.get_by_test_id("alarm-detail")).to_contain_text("outer race?", timeout=SOON_MS)
    act(card, "Shelve")
    expect(card.get_by_test_id("alarm-state")).to_contain_text("shelved until", timeout=SOON_MS)
    expect(count).to_have_count(0, timeout=SOON_MS)
    page.screenshot(path=picture)
    act(card, "Clear", Text="replaced")
    expect(page.get_by_test_id("alarm-detail")).to_contain_text("cleared by ada: replaced", timeout=SOON_MS)
    page.get_by_text("All", exact=True).click()
    expect(page.get_by_test_id("alarm")).to_have_count(2, timeout=SOON_MS)
    card.get_by_role("link", name="t1").click()
    expect(page.get_by_test_id("stream-title")).to_have_text("t1", timeout=SOON_MS)


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_an_open_danger_is_seen_in_the_list_and_on_its_stream_until_it_is_cleared(
    site: Running, browser: Browser, width: int, height: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height})
    send(site, chunks_of("t1", 2)[: (len(COURSE) + 10) // 2])
    page.goto(f"{site.ready['web']}/#/stream/t1")
    notice = page.get_by_test_id("open-alarm").filter(has_text="fields")
    expect(notice).to_contain_text("Danger, not acknowledged.", timeout=SOON_MS)
    expect(notice).to_contain_text("peak rms 25")
    picture(page, f"danger-stream-{width}")
    page.goto(f"{site.ready['web']}/#/streams")
    entry = page.locator('[data-testid=stream][data-ref="t1"]')
    expect(entry).to_have_attribute("data-mark", "danger", timeout=SOON_MS)
    if width < 760:
        expect(entry).to_contain_text("Danger")
        picture(page, f"danger-list-{width}")
    [reference] = [
        line.split("\t")[0]
        for line in windvane(site.home, "alarm", "list").stdout.decode().splitlines()
        if ":fields:" in line
    ]
    assert windvane(site.home, "alarm", "acknowledge", reference).returncode == 0
    expect(entry).to_have_attribute("data-mark", "danger-seen", timeout=SOON_MS)
    expect(page.get_by_test_id("alarm-count")).to_be_visible()
    assert windvane(site.home, "alarm", "clear", reference).returncode == 0
    expect(entry).not_to_have_attribute("data-mark", "danger-seen", timeout=SOON_MS)
    page.goto(f"{site.ready['web']}/#/alarm/{reference}")
    card = page.locator(f'[data-testid=alarm][data-ref="{reference}"]')
    expect(card).to_have_attribute("data-state", "cleared", timeout=SOON_MS)
    expect(card).to_contain_text("peak rms 25 (warning from 10, danger from 20)")
    picture(page, f"cleared-alarm-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
