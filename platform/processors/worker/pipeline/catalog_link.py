"""The worker and the catalog: policies come from it, what the pipelines make is registered in it."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from ....errors import DocumentNotFound, WindvaneError
from ....runtime.telemetry import RateLimitedLog
from ....store.catalog.catalog import Catalog
from ....store.catalog.policy import Policy, policy_from_mapping
from ...operations.base.steps import check_pipeline

POLL_S = 0.25


class NewOutput(msgspec.Struct, frozen=True):
    """A data stream or data array that a pipeline has opened."""

    type: str
    reference: str
    body: dict[str, Any]


class CatalogLink:
    """Follows the policies, and registers outputs so that `search` and `ls` find them.

    A catalog that is away holds nothing up: the policies in force stay, outputs are registered later.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._revision = -1
        self._read_s = float("-inf")
        self._log = RateLimitedLog(logging.getLogger("windvane.worker"))
        self.policies: Mapping[str, Policy] = {}
        """By reference; another object whenever something has changed."""
        self.new_outputs: deque[NewOutput] = deque()
        """What is still to be registered; the pipelines' threads append."""

    async def follow(self) -> None:
        """Polls until cancelled."""
        while True:
            try:
                await self.refresh()
                await self._register()
            except WindvaneError as error:
                self._log.warning(("catalog",), f"the catalog cannot be used now: {error}")
            await asyncio.sleep(POLL_S)

    def is_newer_than(self, monotonic_s: float) -> bool:
        """Whether the policies were read after that time: a policy can be so new that its first chunk is
        quicker than the poll of the catalog.
        """
        return self._read_s > monotonic_s

    async def refresh(self) -> None:
        """Reads the policies where the catalog has changed."""
        began_s = time.monotonic()
        try:
            revision = await self._catalog.revision()
            if revision == self._revision:
                self._read_s = began_s
                return
            bodies = [
                (document.reference, document.body)
                for document in await self._catalog.list("policy", limit=1_000_000)
            ]
        except WindvaneError as error:
            if self.policies or not (last := self._catalog.fallback()):
                raise
            # The start over a damaged catalog: what was in force last is in force.
            self._log.warning(("copy",), f"working with the policies that were in force last: {error}")
            revision, bodies = -1, [(str(body.get("reference")), body) for body in last]
        policies: dict[str, Policy] = {}
        for reference, body in bodies:
            try:
                policy = policy_from_mapping(body)
            except WindvaneError as error:
                self._log.warning(("policy", reference), f"policy not taken: {error}")
                if kept := self.policies.get(reference):
                    policies[kept.reference] = kept
                continue
            policies[policy.reference] = policy
            try:
                check_pipeline(policy)
            except WindvaneError as error:
                self._log.warning(
                    ("pipeline", reference),
                    f"policy {policy.reference!r}: its pipeline cannot run: {error}",
                )
                if (kept := self.policies.get(reference)) and self._can_run(kept):
                    policies[kept.reference] = kept
        if policies != self.policies:
            self.policies = policies
        self._revision = revision
        self._read_s = began_s
        if revision >= 0:
            await self._catalog.keep_copy([body for _, body in bodies])

    def read_again(self) -> None:
        """The next `refresh` reads all policies: what they can name has changed."""
        self._revision = -1

    @staticmethod
    def _can_run(policy: Policy) -> bool:
        try:
            check_pipeline(policy)
        except WindvaneError:
            return False
        return True

    async def _register(self) -> None:
        while self.new_outputs:
            output = self.new_outputs[0]
            try:
                known = (await self._catalog.get(output.type, output.reference)).body
            except DocumentNotFound:
                known = None
            if known != output.body:
                await self._catalog.put(
                    output.type, output.reference, title=output.reference, body=output.body
                )
            self.new_outputs.popleft()
