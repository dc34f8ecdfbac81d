"""The webhook over a real receiver: signed, in order, again until it arrives, by one worker at a time."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from windvane.config import AlarmSettings
from windvane.errors import ConfigInvalid
from windvane.processors.alarms.retry_after import MAX_RETRY_AFTER_S
from windvane.processors.alarms.webhook import MAX_REJECTIONS, AlarmWebhook, delivery_id, read_secret
from windvane.processors.alarms.webhook_queue import WebhookQueue
from windvane.store.catalog.alarm_book import AlarmBook
from windvane.store.catalog.alarms import acknowledge, comment
from windvane.store.catalog.catalog import Catalog

from tests.processors.alarms.webhook_receiver import Receiver, receiver
from tests.store.catalog.test_alarms import REFERENCE, event

pytestmark = pytest.mark.slow


class WebhookSite:
    """A home with a catalog, and a receiver."""

    def __init__(self, home: Path, catalog: Catalog) -> None:
        self.home = home
        self.catalog = catalog
        self.book = AlarmBook(catalog)
        self.receiver: Receiver = receiver()

    @asynccontextmanager
    async def sending(self, **settings: Any) -> AsyncIterator[AlarmWebhook]:
        given = {
            "webhook_url": self.receiver.url,
            "webhook_first_retry_s": 0.01,
            "webhook_last_retry_s": 0.05,
            **settings,
        }
        webhook = AlarmWebhook(msgspec.convert(given, AlarmSettings), self.home, self.catalog)
        await webhook.begin()
        running = asyncio.create_task(webhook.run())
        try:
            yield webhook
        finally:
            running.cancel()
            await asyncio.wait([running])
            webhook.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[WebhookSite]:
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    yield WebhookSite(tmp_path, catalog)
    await catalog.close()


async def test_each_entry_is_delivered_in_order_signed_and_with_its_own_key(site: WebhookSite) -> None:
    (site.home / "secret").write_text("whsec_" + base64.b64encode(b"our secret").decode() + "\n")
    async with (
        site.receiver.listening(),
        site.sending(webhook_secret_file=Path("secret")),
    ):
        await site.book.record(event(0, "raised", 1))
        await site.book.change(REFERENCE, partial(acknowledge, by="ada", text="ü", now_ns=time.time_ns()))
        await site.book.record(event(1, "cleared", 0))
        await site.receiver.until(lambda: len(site.receiver.ids) == 3)
    assert [told["type"] for told in site.receiver.told] == [
        "alarm.raised",
        "alarm.acknowledged",
        "alarm.cleared",
    ]
    assert site.receiver.ids == [delivery_id(REFERENCE, number) for number in range(3)]
    assert site.receiver.told[1]["entry"]["text"] == "ü"
    assert site.receiver.told[2]["alarm"]["reference"] == REFERENCE
    for id, headers, body in site.receiver.received:
        assert headers["webhook-id"] == id
        signed = b".".join([id.encode(), headers["webhook-timestamp"].encode(), body])
        signature = base64.b64encode(hmac.new(b"our secret", signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{signature}"
        assert headers["Content-Type"] == "application/json"


async def test_a_failed_delivery_is_retried_with_the_same_key_before_any_other(
    site: WebhookSite,
) -> None:
    async with site.sending():
        await site.book.record(event(0, "raised", 1))
        await site.book.record(event(1, "escalated", 2))
        site.receiver.answers = [500, 429, 307]
        async with site.receiver.listening():
            await site.receiver.until(lambda: len(site.receiver.ids) == 5)
    first, second = delivery_id(REFERENCE, 0), delivery_id(REFERENCE, 1)
    assert site.receiver.ids == [first] * 4 + [second]


@pytest.mark.parametrize("status", [429, 503, 307, 400])
@pytest.mark.parametrize(("asked", "wait_s"), [("1000", 1000), ("86400", MAX_RETRY_AFTER_S)])
async def test_retry_after_is_obeyed_also_after_a_restart(
    site: WebhookSite, status: int, asked: str, wait_s: float
) -> None:
    site.receiver.answers, site.receiver.retry_after = [status], asked
    before_ns = time.time_ns()
    async with site.receiver.listening(), site.sending():
        await site.book.record(event(0, "raised", 1))
        await site.receiver.until(lambda: site.receiver.ids)
        queue = WebhookQueue(site.home / "alarm-webhook.sqlite", max_waiting=1)
        async with asyncio.timeout(60):
            while not (first := queue.first()) or not first.attempts:
                await asyncio.sleep(0)
        queue.close()
    assert len(site.receiver.ids) == 1
    assert before_ns + wait_s * 1e9 <= first.due_ns <= time.time_ns() + wait_s * 1e9


async def test_a_retry_after_shorter_than_the_backoff_is_obeyed(site: WebhookSite) -> None:
    # Twice as long each time it would be eleven minutes before the last.
    site.receiver.answers, site.receiver.retry_after = [503] * 16, "0"
    async with site.receiver.listening(), site.sending(webhook_last_retry_s=3600.0):
        await site.book.record(event(0, "raised", 1))
        await site.receiver.until(lambda: len(site.receiver.ids) == 17)
    assert len(set(site.receiver.ids)) == 1


async def test_a_restart_continues_the_queue_and_delivers_nothing_twice(site: WebhookSite) -> None:
    await site.book.record(event(0, "raised", 1))
    async with site.sending():  # set for the first time: what was before is not told
        pass
    await site.book.change(REFERENCE, partial(comment, by="ada", text="one", now_ns=time.time_ns()))
    async with site.receiver.listening():
        async with site.sending():
            await site.receiver.until(lambda: len(site.receiver.ids) >= 1)
        await site.book.change(REFERENCE, partial(comment, by="ada", text="two", now_ns=time.time_ns()))
        async with site.sending():
            await site.receiver.until(lambda: delivery_id(REFERENCE, 2) in site.receiver.ids)
    assert [told["entry"]["text"] for told in site.receiver.told] == ["one", "two"]


async def test_of_two_workers_one_sends_and_the_other_takes_over(site: WebhookSite) -> None:
    async with site.receiver.listening(), site.sending():
        async with site.sending():
            await site.book.record(event(0, "raised", 1))
            await site.receiver.until(lambda: len(site.receiver.ids) == 1)
        await site.book.record(event(1, "escalated", 2))
        await site.receiver.until(lambda: delivery_id(REFERENCE, 1) in site.receiver.ids)
    assert len(set(site.receiver.ids)) == 2


async def test_a_permanently_rejected_delivery_is_dropped_and_does_not_block_others(
    site: WebhookSite, caplog: pytest.LogCaptureFixture
) -> None:
    site.receiver.answers = [400] * MAX_REJECTIONS
    async with site.receiver.listening(), site.sending():
        await site.book.record(event(0, "raised", 1))
        await site.book.record(event(1, "escalated", 2))
        await site.receiver.until(lambda: delivery_id(REFERENCE, 1) in site.receiver.ids)
    assert site.receiver.ids.count(delivery_id(REFERENCE, 0)) == MAX_REJECTIONS
    assert "is given up: the webhook has rejected it 8 times, its response was 400 'not now'" in caplog.text
    assert "key=k" not in caplog.text, "addresses hold secrets"


async def test_the_queue_is_bounded(site: WebhookSite, caplog: pytest.LogCaptureFixture) -> None:
    async with site.sending(webhook_queue=3):
        await site.book.record(event(0, "raised", 1))
        for number in range(5):
            await site.book.change(
                REFERENCE, partial(comment, by="ada", text=str(number), now_ns=time.time_ns())
            )
        async with site.receiver.listening():
            await site.receiver.until(lambda: delivery_id(REFERENCE, 5) in site.receiver.ids)
    assert "deliveries behind: the oldest" in caplog.text
    assert [told["entry"]["text"] for told in site.receiver.told][-3:] == ["2", "3", "4"]


def test_an_invalid_secret_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_secret(tmp_path / "no")
    (tmp_path / "s").write_text("whsec_???")
    with pytest.raises(ConfigInvalid, match="must have base64"):
        read_secret(tmp_path / "s")
    (tmp_path / "s").write_text("\n")
    with pytest.raises(ConfigInvalid, match="is empty"):
        read_secret(tmp_path / "s")
    (tmp_path / "s").write_text("plain text\n")
    assert read_secret(tmp_path / "s") == b"plain text"


def test_no_repr_contains_the_webhook_address() -> None:
    shown = repr(msgspec.convert({"webhook_url": "https://x.example/T0/secret"}, AlarmSettings))
    assert "secret" not in shown.replace("webhook_secret_file", "")
