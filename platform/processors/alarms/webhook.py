"""Delivers alarms to a webhook: at least once, in order, retried until accepted, apart from the pipelines.

Each entry of an alarm's history in the catalog is one delivery. HOME/alarm-webhook.sqlite stores the last
revision that was read from the catalog, and the pending deliveries. It is written before anything is sent.
After a crash, deliveries that may not have arrived are resent with the same ID. Of the workers of one
home, the one that holds HOME/run/alarm-webhook.lock sends; when it ends, another takes over.

The webhook runs in the worker tier, since that tier raises the alarms and may have a standby. The web tier
may be down or restart without delaying an alarm.

Requests are signed as Standard Webhooks 1.0 specifies (webhook-id, webhook-timestamp, webhook-signature), so
that its libraries can verify them. The ID is also in Idempotency-Key.
"""

import asyncio
import base64
import binascii
import fcntl
import hashlib
import hmac
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec

from ...config import AlarmSettings
from ...errors import ConfigInvalid, WindvaneError
from ...runtime.instrumentation import EventLog
from ...store.catalog.alarm_book import ALARM, alarm_of
from ...store.catalog.alarms import Alarm, HistoryEntry
from ...store.catalog.catalog import Catalog, Document
from .instrumentation import (
    AlarmDocumentInvalid,
    DeliveriesGivenUp,
    DeliveryDelayed,
    DeliveryGivenUp,
    WebhookDelayed,
)
from .retry_after import retry_after_s
from .webhook_queue import Delivery, WebhookQueue

POLL_S = 0.5
PAGE = 200
MAX_REJECTIONS = 8
"""A delivery is given up after so many rejections (4xx): it would block all others."""
MAX_ANSWER_BYTES = 1024
_SECRET_PREFIX = "whsec_"
_RETRYABLE_STATUSES = (408, 425, 429)


class SignedRequest(NamedTuple):
    """One request: its body, and its headers with ID and signature."""

    headers: dict[str, str]
    body: bytes


def delivery_id(reference: str, number: int) -> str:
    """Returns the ID of an entry of an alarm's history; the same entry always has the same ID."""
    return f"alarm_{hashlib.blake2b(f'{reference}#{number}'.encode(), digest_size=16).hexdigest()}"


def payload(alarm: Alarm, entry: HistoryEntry) -> bytes:
    """Returns the JSON of an entry: the entry, and the current alarm without the rest of its history."""
    described: dict[str, Any] = msgspec.to_builtins(alarm)
    del described["history"]
    return msgspec.json.encode(
        {
            "type": f"alarm.{entry.action}",
            "id": delivery_id(alarm.reference, entry.number),
            "entry": msgspec.to_builtins(entry),
            "alarm": described,
        }
    )


def signed(id: str, body: bytes, *, secret: bytes | None, now_s: int) -> SignedRequest:
    """Returns the request with its headers; HMAC-SHA256 over `id.timestamp.body` if there is a secret."""
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": id,
        "webhook-id": id,
        "webhook-timestamp": str(now_s),
    }
    if secret is not None:
        digest = hmac.digest(secret, b"%s.%d.%s" % (id.encode(), now_s, body), "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return SignedRequest(headers, body)


def read_secret(path: Path) -> bytes:
    """Reads the secret from a file: `whsec_` and base64, or any text. Raises ConfigInvalid."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid(f"alarms.webhook_secret_file: {path} cannot be read: {error}") from error
    if not text:
        raise ConfigInvalid(f"alarms.webhook_secret_file: {path} is empty; put a secret into it")
    if not text.startswith(_SECRET_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise ConfigInvalid(
            f"alarms.webhook_secret_file: {path} must have base64 after {_SECRET_PREFIX}: {error}"
        ) from error


class AlarmWebhook:
    """Sends all changes of alarms to one URL, from when the webhook was first configured.

    Memory: one page of alarms. Disk: at most `webhook_queue` deliveries wait. Beyond that, the oldest are
    given up and the log says so.
    """

    def __init__(self, settings: AlarmSettings, home: Path, catalog: Catalog) -> None:
        """Raises ConfigInvalid if the secret cannot be read, StoreFailed if the queue cannot be opened."""
        assert settings.webhook_url is not None
        self._settings = settings
        self._url = settings.webhook_url
        file = settings.webhook_secret_file
        self._secret = None if file is None else read_secret(home / file)
        self._catalog = catalog
        self._queue = WebhookQueue(home / "alarm-webhook.sqlite", max_waiting=settings.webhook_queue)
        self._lock_file = home / "run" / "alarm-webhook.lock"
        self._log = EventLog(logging.getLogger("windvane.worker"))
        self._looked_at = -1  # the catalog's revision

    async def begin(self) -> None:
        """Skips changes from before the webhook was first configured. Raises CatalogUnavailable."""
        revision = await self._catalog.revision()
        await asyncio.to_thread(self._queue.begin, revision=revision, now_ns=time.time_ns())

    async def run(self) -> None:
        """Sends until cancelled, while this worker holds the lock."""
        timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                with _locked(self._lock_file) as has_lock:
                    while has_lock:
                        await self._turn(session)
                await asyncio.sleep(POLL_S)

    def close(self) -> None:
        """Closes the file of the queue."""
        self._queue.close()

    async def _turn(self, session: aiohttp.ClientSession) -> None:
        try:
            await self._collect()
            delivery = await asyncio.to_thread(self._queue.first)
            if delivery is not None and delivery.due_ns <= time.time_ns():
                await self._deliver(session, delivery)
                return
        except WindvaneError as error:
            self._log.emit(WebhookDelayed(str(error)))
        await asyncio.sleep(POLL_S)

    async def _collect(self) -> None:
        """Adds new changes in the catalog to the queue."""
        newest = await self._catalog.revision()
        if newest == self._looked_at:
            return
        while True:
            seen, begun_ns = await asyncio.to_thread(self._queue.progress)
            documents = await self._catalog.by_change(ALARM, after_revision=seen, limit=PAGE)
            if not documents:
                self._looked_at = newest
                return
            entries = [
                (alarm.reference, entry.number, payload(alarm, entry))
                for alarm in self._alarms_in(documents)
                for entry in alarm.history
                if entry.at_ns >= begun_ns
            ]
            given_up = await asyncio.to_thread(self._queue.put, entries, revision=documents[-1].revision)
            if given_up:
                self._log.emit(DeliveriesGivenUp(self._settings.webhook_queue, given_up))

    def _alarms_in(self, documents: Sequence[Document]) -> Iterator[Alarm]:
        for document in documents:
            try:
                yield alarm_of(document)
            except msgspec.ValidationError as error:
                # Another program wrote it; it must not block the others.
                self._log.emit(AlarmDocumentInvalid(document.reference, str(error)))

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        id = delivery_id(delivery.reference, delivery.number)
        request = signed(id, delivery.body, secret=self._secret, now_s=int(time.time()))
        rejected, asked_s = False, None
        try:
            async with session.post(
                self._url, data=request.body, headers=request.headers, allow_redirects=False
            ) as answer:
                if 200 <= answer.status < 300:
                    await asyncio.to_thread(self._queue.delivered, delivery)
                    return
                text = (await answer.content.read(MAX_ANSWER_BYTES)).decode("utf-8", "replace")
                failure = f"its response was {answer.status} {text[:200]!r}"
                asked_s = retry_after_s(answer.headers, now_s=time.time())
                rejected = 400 <= answer.status < 500 and answer.status not in _RETRYABLE_STATUSES
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            failure = f"{type(error).__name__}: {error}".removesuffix(": ")
        rejections = delivery.rejections + rejected
        if rejections >= MAX_REJECTIONS:
            await asyncio.to_thread(self._queue.delivered, delivery)
            self._log.emit(DeliveryGivenUp(id, delivery.reference, rejections, failure))
            return
        pause_s = self._pause_s(delivery.attempts, asked_s)
        due_ns = time.time_ns() + int(pause_s * 1e9)
        await asyncio.to_thread(self._queue.failed, delivery, due_ns=due_ns, rejections=rejections)
        self._log.emit(DeliveryDelayed(pause_s, failure))

    def _pause_s(self, attempts: int, asked_s: float | None) -> float:
        """Returns the pause that the receiver asked for, but at least the first pause.

        Otherwise the pause doubles each time up to the bound, with jitter, so that installations do not retry
        at the same moment.
        """
        if asked_s is not None:
            return max(asked_s, self._settings.webhook_first_retry_s)
        longest = self._settings.webhook_last_retry_s
        pause_s = min(longest, self._settings.webhook_first_retry_s * 2.0 ** min(attempts, 30))
        return pause_s * random.uniform(0.8, 1.0)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Yields whether this process holds the lock; the kernel releases it when the process ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
