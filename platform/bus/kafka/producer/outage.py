"""Finds and logs the reason that the brokers do not answer a producer."""

import asyncio
import logging
from collections.abc import Callable, Collection

from ....errors import BusUnavailable, WindvaneError
from ..connection import KafkaConnection
from .pending_messages import PendingMessages

SILENCE_S = 5.0
"""After this long without an answer, the producer finds the reason and logs it."""

_log = logging.getLogger(__name__)


class Outage:
    """The current outage, if there is one: it is logged once when it begins, and once when it ends."""

    def __init__(
        self,
        connection: KafkaConnection,
        pending: PendingMessages,
        waiting_topics: Callable[[], Collection[str]],
    ) -> None:
        self._connection = connection
        self._pending = pending
        self._waiting_topics = waiting_topics
        self._reason: WindvaneError | None = None
        self._is_logged = False
        self._diagnosing: asyncio.Task[None] | None = None

    def begin(self, reason: WindvaneError, *, is_logged: bool = True) -> None:
        """The brokers do not accept messages, for this reason."""
        self._reason = reason
        if is_logged and not self._is_logged:
            self._is_logged = True
            _log.warning("%s; %d bytes are waiting", reason, self._pending.bytes)

    def end(self) -> None:
        """The brokers have answered."""
        self._reason = None
        if self._is_logged:
            self._is_logged = False
            _log.info("%s accepts messages again", self._connection.where)

    def diagnose(self) -> None:
        """Query the cluster in the background for the reason of a silence."""
        if self._diagnosing is None or self._diagnosing.done():
            self._diagnosing = asyncio.get_running_loop().create_task(self._find_reason())

    def timed_out(self) -> BusUnavailable:
        """The error of messages that have reached their deadline."""
        reason = self._reason or f"{self._connection.where} does not answer"
        timeout_s = self._connection.settings.delivery_timeout_s
        return BusUnavailable(f"{reason} (waited up to {timeout_s:g} s)")

    async def close(self) -> None:
        """End the query."""
        if self._diagnosing is not None:
            self._diagnosing.cancel()
            await asyncio.wait([self._diagnosing])

    async def _find_reason(self) -> None:
        self.begin(await self._connection.explain_silence(self._waiting_topics()))
        await asyncio.sleep(SILENCE_S)
