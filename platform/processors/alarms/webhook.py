"""Alarms to a webhook: at least once, in order, for as long as it takes, and never in anybody's way.

The catalog says what is to be told: each entry of an alarm's history is one delivery.
HOME/alarm-webhook.sqlite knows up to which revision the catalog was read, and which deliveries wait; it is
written before anything is sent, so that a crash at any moment sends again what may not have arrived, under
the same id. Of the workers over one home the one that holds HOME/run/alarm-webhook.lock sends; when it ends,
another takes over.

It runs in the worker tier, which is there wherever alarms are raised, and of which a second one may stand by;
the web tier may be away, or be restarted, without anybody missing an alarm.

Requests are signed as Standard Webhooks 1.0 says (webhook-id, webhook-timestamp, webhook-signature), so that
its libraries check them; the id is in Idempotency-Key too.
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
REFUSALS = 8
"""A delivery that the receiver refuses (4xx) so often is given up: it would hold up all others."""
MAX_ANSWER_BYTES = 1024
_SECRET_PREFIX = "whsec_"
_COME_AGAIN = (408, 425, 429)


class Sending(NamedTuple):
    """One request: its body, and the headers that say whose it is."""

    headers: dict[str, str]
    body: bytes


def delivery_id(reference: str, number: int) -> str:
    """The id of an entry of an alarm's history; the same for the same entry, always."""
    return f"alarm_{hashlib.blake2b(f'{reference}#{number}'.encode(), digest_size=16).hexdigest()}"


def payload(alarm: Alarm, entry: HistoryEntry) -> bytes:
    """What is told of an entry: the entry, and the alarm as it is now, without the rest of its history."""
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


def signed(id: str, body: bytes, *, secret: bytes | None, now_s: int) -> Sending:
    """The request with its headers; HMAC-SHA256 over `id.timestamp.body`, where there is a secret."""
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": id,
        "webhook-id": id,
        "webhook-timestamp": str(now_s),
    }
    if secret is not None:
        digest = hmac.digest(secret, b"%s.%d.%s" % (id.encode(), now_s, body), "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return Sending(headers, body)


def read_secret(path: Path) -> bytes:
    """The secret in a file: base64 behind `whsec_`, or any text. Raises ConfigInvalid."""
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
            f"alarms.webhook_secret_file: behind {_SECRET_PREFIX} {path} has no base64: {error}"
        ) from error


class AlarmWebhook:
    """Tells one address of all that happens to alarms, from when it was first set.

    Memory: one page of alarms. Disk: at most `webhook_queue` deliveries wait; over that the oldest are given
    up, and said to be in the log.
    """

    def __init__(self, settings: AlarmSettings, home: Path, catalog: Catalog) -> None:
        """Raises ConfigInvalid where the secret cannot be read, StoreFailed where the queue cannot."""
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
        """What has happened before the webhook is first set is not told. Raises CatalogUnavailable."""
        revision = await self._catalog.revision()
        await asyncio.to_thread(self._queue.begin, revision=revision, now_ns=time.time_ns())

    async def run(self) -> None:
        """Sends until cancelled, while no other worker does."""
        timeout = aiohttp.ClientTimeout(total=self._settings.webhook_timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                with _locked(self._lock_file) as has_lock:
                    while has_lock:
                        await self._turn(session)
                await asyncio.sleep(POLL_S)

    def close(self) -> None:
        """Lets go of the queue's file."""
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
        """Puts into the queue what the catalog has that was not in it before."""
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
                # Somebody else has put it there; it must not hold up the others.
                self._log.emit(AlarmDocumentInvalid(document.reference, str(error)))

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        id = delivery_id(delivery.reference, delivery.number)
        sending = signed(id, delivery.body, secret=self._secret, now_s=int(time.time()))
        refused, asked_s = False, None
        try:
            async with session.post(
                self._url, data=sending.body, headers=sending.headers, allow_redirects=False
            ) as answer:
                if 200 <= answer.status < 300:
                    await asyncio.to_thread(self._queue.delivered, delivery)
                    return
                said = (await answer.content.read(MAX_ANSWER_BYTES)).decode("utf-8", "replace")
                trouble = f"it answers {answer.status} {said[:200]!r}"
                asked_s = retry_after_s(answer.headers, now_s=time.time())
                refused = 400 <= answer.status < 500 and answer.status not in _COME_AGAIN
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            trouble = f"{type(error).__name__}: {error}".removesuffix(": ")
        refusals = delivery.refusals + refused
        if refusals >= REFUSALS:
            await asyncio.to_thread(self._queue.delivered, delivery)
            self._log.emit(DeliveryGivenUp(id, delivery.reference, refusals, trouble))
            return
        pause_s = self._pause_s(delivery.attempts, asked_s)
        due_ns = time.time_ns() + int(pause_s * 1e9)
        await asyncio.to_thread(self._queue.failed, delivery, due_ns=due_ns, refusals=refusals)
        self._log.emit(DeliveryDelayed(pause_s, trouble))

    def _pause_s(self, attempts: int, asked_s: float | None) -> float:
        """What the receiver asked for, but not less than the first pause.

        Where it asked for nothing twice as long each time, up to the bound; spread, so that not all
        installations come at once.
        """
        if asked_s is not None:
            return max(asked_s, self._settings.webhook_first_retry_s)
        longest = self._settings.webhook_last_retry_s
        pause_s = min(longest, self._settings.webhook_first_retry_s * 2.0 ** min(attempts, 30))
        return pause_s * random.uniform(0.8, 1.0)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether this process has the lock; the kernel lets go of it with the process, however that ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
