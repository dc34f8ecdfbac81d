"""The ingestion policies in force, as the catalog has them."""

import asyncio
import time

from ..bus.interface import Bus
from ..errors import WindvaneError
from ..store.catalog import Catalog
from ..store.policy import Policy, PolicyTable, policy_from_mapping
from .telemetry import GatewayTelemetry

POLL_S = 0.25
_MIN_REFRESH_INTERVAL_S = 0.05  # a flood of unknown tags must not become a flood of queries


class PolicyBook:
    """Follows the catalog: a policy that was made or changed is in force within `POLL_S`.

    A catalog that is away, or a document that is no policy, changes nothing: what was in force stays.
    """

    def __init__(self, catalog: Catalog, bus: Bus, telemetry: GatewayTelemetry) -> None:
        self._catalog = catalog
        self._bus = bus
        self._telemetry = telemetry
        self._table = PolicyTable(())
        self._by_reference: dict[str, PolicyTable] = {}
        self._revision = -1
        self._refreshed_at = -_MIN_REFRESH_INTERVAL_S
        self._refreshing = asyncio.Lock()

    def match(self, tag: str) -> Policy | None:
        """The policy that takes `tag`."""
        return self._table.match(tag)

    def get(self, reference: str) -> Policy | None:
        """The policy of that name."""
        table = self._by_reference.get(reference)
        return None if table is None else table.policies[reference]

    def takes(self, policy: Policy, tag: str) -> bool:
        """Whether one of the policy's own patterns matches `tag`, whatever other policies say."""
        return self._by_reference[policy.reference].match(tag) is not None

    async def refresh(self) -> None:
        """Reads the catalog again if it changed; callers that come at once share one look.

        On return the policies are not older than the call.
        """
        called_at = time.monotonic()
        async with self._refreshing:
            if self._refreshed_at > called_at:
                return
            await asyncio.sleep(self._refreshed_at + _MIN_REFRESH_INTERVAL_S - called_at)
            self._refreshed_at = time.monotonic()
            await self._load()

    async def _load(self) -> None:
        try:
            revision = await self._catalog.revision()
            if revision == self._revision:
                return
            policies = []
            for document in await self._catalog.list("policy", limit=1_000_000):
                try:
                    policies.append(policy_from_mapping(document.body))
                except WindvaneError as error:
                    self._telemetry.policies_broken(error)
                    if kept := self.get(document.reference):
                        policies.append(kept)
            for policy in policies:
                await self._bus.ensure_topic(policy.reference, partitions=policy.partitions)
        except WindvaneError as error:
            self._telemetry.policies_broken(error)
            return
        self._table = PolicyTable(policies)
        self._by_reference = {policy.reference: PolicyTable([policy]) for policy in policies}
        self._revision = revision

    async def follow(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)
