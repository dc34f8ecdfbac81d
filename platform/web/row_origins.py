"""Asks `windvane explain` where a row came from: a process of its own, since it computes and runs operations.

So the API answers what the command line does, and a replay that is long, or an operation of the installation
that misbehaves, keeps no request waiting.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Self

import msgspec

from ..config import Settings
from ..store.row_origin import RowOrigin
from .problems import RequestRejected

TIMEOUT_S = 60.0
AT_ONCE = 2


class RowOrigins:
    """At most `AT_ONCE` processes run at a time; further requests wait for them.

    A request that is cancelled, or waits for `TIMEOUT_S`, ends its process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` are the settings of the process, as WINDVANE_* variables."""
        self._environment = environment
        self._turns = asyncio.Semaphore(AT_ONCE)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the home, and of the databases, that the settings name."""
        given = {
            "HOME": str(settings.home),
            "STORE": settings.store,
            "DATABASE": settings.database,
            "CATALOG": settings.catalog,
        }
        return cls({f"WINDVANE_{name}": value for name, value in given.items() if value})

    async def find(self, array: str, row: int) -> RowOrigin:
        """The origin of a row. Raises RequestRejected if it is not known, or takes too long to find."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._turns:
                found, reason = await self._run(array, row)
        except TimeoutError:
            raise RequestRejected(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The stream could not be replayed up to row {row} within {TIMEOUT_S:.0f} s; "
                f"run `windvane explain {array} {row}` on the server.",
            ) from None
        try:
            return msgspec.json.decode(found, type=RowOrigin)
        except msgspec.DecodeError:
            raise RequestRejected(HTTPStatus.CONFLICT, f"{reason.strip() or 'The process ended.'}") from None

    async def _run(self, array: str, row: int) -> tuple[bytes, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "windvane.cli", "explain", "--json", "--", array, str(row)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
        )
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return output, errors.decode(errors="replace")
