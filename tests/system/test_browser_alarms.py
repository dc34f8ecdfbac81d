"""The alarms as people see them: they appear by themselves, are looked at, acknowledged, shelved, cleared."""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.processes import Running, windvane
from tests.processors.alarming import COURSE
from tests.system.disturbance import Chunk, Release, send_until_acked
from tests.system.test_alarms import POLICY, chunks_of
from tests.system.test_browser import SOON_MS
from tests.system.test_browser import browser as browser
from tests.system.test_browser import page as page

pytestmark = pytest.mark.browser

ROOT = Path(__file__).resolve().parents[2]


def send(site: Running, chunks: list[Chunk]) -> None:
    # In a thread: the browser's loop runs in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, send_until_acked(site, chunks, Release(len(chunks)))).result()


def act(card: Locator, action: str, **fields: str) -> None:
    """Presses a button, fills in the form, and sends it."""
    card.get_by_role("button", name=action, exact=True).click()
    form = card.locator("form")
    form.get_by_label("Your name").fill("ada")
    for label, value in fields.items():
        form.get_by_label(label).fill(value)
    form.get_by_role("button", name=action, exact=True).click()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    """All tiers over a home whose machines raise alarms."""
    home = tmp_path / "home"
    with Running("up", home, environ={"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "0.2"}) as running:
        (home / "policy.toml").write_text(POLICY)
        assert windvane(home, "apply", str(home / "policy.toml")).returncode == 0
        yield running


def test_an_alarm_appears_and_is_dealt_with(site: Running, page: Page, browser: Browser) -> None:
    page.goto(f"{site.ready['web']}/#/alarms")
    expect(page.get_by_test_id("alarm-list")).to_contain_text("No alarm is open", timeout=SOON_MS)
    # Up to where it is dangerous; nobody reloads the page.
    send(site, chunks_of("t1", 2)[: (len(COURSE) + 10) // 2])
    card = page.get_by_test_id("alarm").first
    expect(card).to_be_visible(timeout=SOON_MS)
    expect(card.get_by_test_id("alarm-grade")).to_have_text("danger", timeout=SOON_MS)
    expect(page.get_by_test_id("alarm-count")).to_have_text("1")
    card.get_by_role("link", name="Look").click()
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
    expect(page.get_by_test_id("alarm-count")).to_have_count(0, timeout=SOON_MS)
    act(card, "Comment", Text="outer race?")
    expect(card.get_by_test_id("alarm-detail")).to_contain_text("outer race?", timeout=SOON_MS)
    act(card, "Shelve")
    expect(card.get_by_test_id("alarm-state")).to_contain_text("shelved until", timeout=SOON_MS)
    page.screenshot(path=picture)
    act(card, "Clear", Text="replaced")
    expect(page.get_by_test_id("alarm-detail")).to_contain_text("cleared by ada: replaced", timeout=SOON_MS)
    page.get_by_text("All", exact=True).click()
    expect(page.get_by_test_id("alarm")).to_have_count(2, timeout=SOON_MS)
    card.get_by_role("link", name="t1").click()
    expect(page.get_by_test_id("stream-title")).to_have_text("t1", timeout=SOON_MS)
