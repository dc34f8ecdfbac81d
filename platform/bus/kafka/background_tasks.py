"""Handles errors of aiokafka's background tasks that are never awaited.

aiokafka drops failed tasks when it makes a new connection or stops, and asyncio then reports "Task exception
was never retrieved" with a traceback. The calls that wait for messages raise the errors that matter, so each
kind of error here is logged once, in one line.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import aiokafka
from aiokafka.errors import KafkaError

_Handler: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]

_AIOKAFKA = str(Path(aiokafka.__file__).parent)
_log = logging.getLogger(__name__)


class BackgroundErrors:
    """An exception handler of an event loop, which passes errors of other code to the previous handler."""

    def __init__(self, before: _Handler | None) -> None:
        self._before = before
        self._logged: set[type[BaseException]] = set()

    @classmethod
    def watch(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Install a handler on this loop, unless it has one."""
        before = loop.get_exception_handler()
        if not isinstance(before, cls):
            loop.set_exception_handler(cls(before))

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Called by the loop."""
        error = context.get("exception")
        if error is not None and "never retrieved" in context["message"] and _is_aiokafkas(error, context):
            if type(error) not in self._logged:
                self._logged.add(type(error))
                reason = str(error) or type(error).__name__
                _log.info("a background task of the Kafka client failed: %s; the client continues", reason)
        elif self._before is not None:
            self._before(loop, context)
        else:
            loop.default_exception_handler(context)


def _is_aiokafkas(error: BaseException, context: dict[str, Any]) -> bool:
    if isinstance(error, KafkaError):
        return True
    future = context.get("future")
    code = getattr(future.get_coro(), "cr_code", None) if isinstance(future, asyncio.Task) else None
    return code is not None and code.co_filename.startswith(_AIOKAFKA)
