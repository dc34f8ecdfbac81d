"""The ingestion policies in force, as the catalog has them."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..bus.interface import Bus
from ..errors import WindvaneError
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import Policy, policy_from_mapping
from ..store.catalog.policy_follower import PolicyFollower
from ..store.catalog.policy_rules import Admission
from ..store.catalog.policy_schema import parse_schema
from ..store.catalog.policy_table import PolicyTable
from .checks.schema import EventCheck
from .limits.rate_limit import Clock, RateLimit
from .telemetry import GatewayTelemetry

POLL_S = 0.25
TOPICS_INTERVAL_S = 5.0
"""How soon a topic that was deleted is created again."""
_MIN_REFRESH_INTERVAL_S = 0.05  # a flood of unknown tags must not become a flood of queries


class InForce(msgspec.Struct, frozen=True):
    """A policy, and what is made of it once: who may send, what events must be, how fast they may come."""

    policy: Policy
    admission: Admission
    check: EventCheck
    rate: RateLimit
    own_tags: PolicyTable
    """Matches a tag that one of the policy's own patterns matches, whatever other policies say."""


class PolicyBook:
    """Follows the catalog: a policy that was created or changed is in force within `POLL_S`.

    A catalog that cannot be read, or a document that is not a valid policy, changes nothing: what was in
    force stays. An edit leaves the tokens that were taken, and the chunks that wait for some, where they are.
    `clock` is what the rates are measured with, by default the running event loop.
    """

    def __init__(
        self, catalog: Catalog, bus: Bus, telemetry: GatewayTelemetry, *, clock: Clock | None = None
    ) -> None:
        self._bus = bus
        self._telemetry = telemetry
        self._clock = clock or asyncio.get_running_loop()
        self._table = PolicyTable(())
        self._in_force: Mapping[str, InForce] = {}
        self._follower: PolicyFollower[InForce] = PolicyFollower(
            catalog, self._make, prepare=self._make_topics
        )
        self._topics_due_s = 0.0
        self._refreshed_at = -_MIN_REFRESH_INTERVAL_S
        self._refreshing = asyncio.Lock()

    def match(self, tag: str) -> InForce | None:
        """The policy that matches `tag`."""
        policy = self._table.match(tag)
        return None if policy is None else self._in_force[policy.reference]

    def get(self, reference: str) -> InForce | None:
        """The policy of that name."""
        return self._in_force.get(reference)

    async def refresh(self) -> None:
        """Loads what changed in the catalog; concurrent callers share one read.

        On return the policies are at least as new as the call.
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
            if await self._follower.refresh():
                self._take()
            elif time.monotonic() >= self._topics_due_s:
                self._topics_due_s = time.monotonic() + TOPICS_INTERVAL_S
                await self._make_topics(list(self._in_force.values()))
        except WindvaneError as error:
            self._telemetry.policies_broken(error)
            return
        if self._follower.fallback_cause is not None:
            self._telemetry.policies_broken(self._follower.fallback_cause)

    def _take(self) -> None:
        before = self._in_force
        self._in_force = {made.policy.reference: made for made in self._follower.in_force.values()}
        self._table = PolicyTable((made.policy for made in self._in_force.values()), former=self._table)
        for reference, made in self._in_force.items():
            if before.get(reference) is not made:
                made.rate.change(made.policy.limits)

    async def _make_topics(self, in_force: Sequence[InForce]) -> None:
        """Create the topics that are missing, with as many partitions as their policies say."""
        for made in in_force:
            await self._bus.ensure_topic(made.policy.reference, partitions=made.policy.partitions)

    def _make(self, _reference: str, body: dict[str, Any], former: InForce | None) -> InForce | None:
        try:
            policy = policy_from_mapping(body)
            limits = policy.limits
            schema = None if policy.schema is None else parse_schema(policy.schema)
            check = EventCheck(
                schema,
                additional_fields=policy.additional_fields,
                max_future_s=limits.max_future_s,
                max_age_s=limits.max_age_s,
                raw_field=policy.field if policy.format == "raw" else None,
            )
        except WindvaneError as error:
            self._telemetry.policies_broken(error)
            return None
        return InForce(
            policy=policy,
            admission=Admission(policy.allow),
            check=check,
            rate=RateLimit(limits, self._clock) if former is None else former.rate,
            own_tags=PolicyTable([policy]),
        )

    async def follow(self) -> None:
        """Poll until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)
