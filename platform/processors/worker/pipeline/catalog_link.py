"""Connects the worker to the catalog: reads policies from it, and registers the outputs of pipelines in
it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec

from ....errors import DocumentNotFound, WindvaneError
from ....runtime.instrumentation import EventLog
from ....store.catalog.catalog import Catalog, Document
from ....store.catalog.policy import Policy, policy_from_mapping
from ....store.catalog.policy_follower import PolicyFollower
from ...operations.base.steps import check_pipeline
from .instrumentation import CatalogUnavailable, PipelineNotRunnable, PoliciesFromCopy, PolicyNotApplied

POLL_S = 0.25


class NewOutput(msgspec.Struct, frozen=True):
    """A data stream or data array that a pipeline has opened."""

    type: str
    reference: str
    body: dict[str, Any]


class CatalogLink:
    """Follows the policies, and registers outputs so that `search` and `ls` find them.

    If the catalog is unavailable, the policies in force stay in force, and outputs are registered later.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._follower: PolicyFollower[Policy] = PolicyFollower(catalog, self._make)
        self._read_s = float("-inf")
        self._log = EventLog(logging.getLogger("windvane.worker"))
        self.policies: Mapping[str, Policy] = {}
        """By reference; another object after each change."""
        self.new_outputs: deque[NewOutput] = deque()
        """The outputs to register; the pipelines' threads append to it."""

    async def follow(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                await self.refresh()
                await self._register()
            except WindvaneError as error:
                self._log.emit(CatalogUnavailable(str(error)))
            await asyncio.sleep(POLL_S)

    def is_newer_than(self, monotonic_s: float) -> bool:
        """Whether the policies were read after that time: the first chunk of a new policy can arrive before
        the next poll of the catalog.
        """
        return self._read_s > monotonic_s

    async def refresh(self) -> None:
        """Apply the policies that have changed in the catalog."""
        began_s = time.monotonic()
        if await self._follower.refresh():
            self.policies = {policy.reference: policy for policy in self._follower.in_force.values()}
        if (cause := self._follower.fallback_cause) is not None:
            # At a start with a damaged catalog, the policies that were last in force apply.
            self._log.emit(PoliciesFromCopy(str(cause)))
        self._read_s = began_s

    def read_again(self) -> None:
        """Makes the next `refresh` check all policies again, since the available operations have changed."""
        self._follower.make_all_again()

    def _make(self, reference: str, body: dict[str, Any], former: Policy | None) -> Policy | None:
        try:
            policy = policy_from_mapping(body)
        except WindvaneError as error:
            self._log.emit(PolicyNotApplied(reference, str(error)))
            return None
        try:
            check_pipeline(policy)
        except WindvaneError as error:
            self._log.emit(PipelineNotRunnable(policy.reference, str(error)))
            if former is not None and self._can_run(former):
                return former
        return policy

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
                known: Document | None = await self._catalog.get(output.type, output.reference)
            except DocumentNotFound:
                known = None
            # A registered output needs no write. Title and state belong to the users.
            if known is None or known.body != output.body:
                await self._catalog.put(
                    output.type,
                    output.reference,
                    title=output.reference if known is None else known.title,
                    body=output.body,
                    state=None if known is None else known.state,
                    action="registered",
                )
            self.new_outputs.popleft()
