"""Errors of aiokafka's background tasks that nobody awaits.

aiokafka drops tasks that have failed when it makes a new connection or stops, and asyncio then reports "Task
exception was never retrieved" with a traceback. What matters of them comes out of the calls that wait for
messages; so each kind is logged once, in one line.
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
    """An exception handler of an event loop, which hands all that is not aiokafka's to the one before."""

    def __init__(self, before: _Handler | None) -> None:
        self._before = before
        self._logged: set[type[BaseException]] = set()

    @classmethod
    def watch(cls, loop: asyncio.AbstractEventLoop) -> None:
        """Handle what happens on this loop from now on."""
        before = loop.get_exception_handler()
        if not isinstance(before, cls):
            loop.set_exception_handler(cls(before))

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Called by the loop."""
        error = context.get("exception")
        if error is not None and "never retrieved" in context["message"] and _is_aiokafkas(error, context):
            if type(error) not in self._logged:
                self._logged.add(type(error))
                said = str(error) or type(error).__name__
                _log.info("a background task of the Kafka client ended: %s; another one goes on", said)
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
