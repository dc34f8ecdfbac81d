"""The ingestion policies in force, as the catalog has them."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from ..bus.interface import Bus
from ..errors import WindvaneError
from ..store.catalog.catalog import Catalog
from ..store.catalog.policy import Policy, policy_from_mapping
from ..store.catalog.policy_rules import Admission
from ..store.catalog.policy_schema import parse_schema
from ..store.catalog.policy_table import PolicyTable
from .checks.schema import EventCheck
from .limits.rate_limit import Clock, RateLimit
from .telemetry import GatewayTelemetry

POLL_S = 0.25
TOPICS_INTERVAL_S = 5.0
"""How soon a topic that somebody has deleted is made again."""
_MIN_REFRESH_INTERVAL_S = 0.05  # a flood of unknown tags must not become a flood of queries


class InForce(msgspec.Struct, frozen=True):
    """A policy, and what was made of it once: who may send, what events must be, how fast they may come."""

    policy: Policy
    admission: Admission
    check: EventCheck
    rate: RateLimit
    own_tags: PolicyTable


class PolicyBook:
    """Follows the catalog: a policy that was made or changed is in force within `POLL_S`.

    A catalog that is away, or a document that is no policy, changes nothing: what was in force stays. An edit
    leaves the tokens that were taken, and the chunks that wait for some, where they are. `clock` is what the
    rates are measured with, by default the running event loop.
    """

    def __init__(
        self, catalog: Catalog, bus: Bus, telemetry: GatewayTelemetry, *, clock: Clock | None = None
    ) -> None:
        self._catalog = catalog
        self._bus = bus
        self._telemetry = telemetry
        self._clock = clock or asyncio.get_running_loop()
        self._table = PolicyTable(())
        self._in_force: dict[str, InForce] = {}
        self._documents: dict[str, dict[str, Any]] = {}  # what the policies in force were made of
        self._revision = -1
        self._topics_due_s = 0.0
        self._refreshed_at = -_MIN_REFRESH_INTERVAL_S
        self._refreshing = asyncio.Lock()

    def match(self, tag: str) -> Policy | None:
        """The policy that takes `tag`."""
        return self._table.match(tag)

    def get(self, reference: str) -> Policy | None:
        """The policy of that name."""
        found = self._in_force.get(reference)
        return None if found is None else found.policy

    def in_force(self, policy: Policy) -> InForce:
        """What was made of a policy that `match` or `get` has given."""
        return self._in_force[policy.reference]

    def takes(self, policy: Policy, tag: str) -> bool:
        """Whether one of the policy's own patterns matches `tag`, whatever other policies say."""
        return self._in_force[policy.reference].own_tags.match(tag) is not None

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
                await self._make_topics(self._in_force.values())
                return
            bodies = {
                document.reference: document.body
                for document in await self._catalog.list("policy", limit=1_000_000)
            }
        except WindvaneError as error:
            self._telemetry.policies_broken(error)
            if self._in_force or not (last := self._catalog.fallback()):
                return
            # The start over a damaged catalog: what was in force last is in force.
            revision, bodies = -1, {str(body.get("reference")): body for body in last}
        await self._take(revision, bodies)

    async def _take(self, revision: int, bodies: dict[str, dict[str, Any]]) -> None:
        in_force: dict[str, InForce] = {}
        documents: dict[str, dict[str, Any]] = {}
        for reference, body in bodies.items():
            kept = self._in_force.get(reference)
            if kept is not None and self._documents.get(reference) == body:
                made: InForce | None = kept
            else:
                made = self._make(body) or kept
            if made is not None:
                in_force[made.policy.reference] = made
                documents[made.policy.reference] = body
        try:
            self._topics_due_s = 0.0
            await self._make_topics(in_force.values())
        except WindvaneError as error:
            self._telemetry.policies_broken(error)
            return
        self._table = PolicyTable(made.policy for made in in_force.values())
        changed = [made for reference, made in in_force.items() if self._in_force.get(reference) is not made]
        self._in_force, self._documents = in_force, documents
        self._revision = revision
        for made in changed:
            made.rate.change(made.policy.limits)
        if revision >= 0:
            await self._catalog.keep_copy(list(documents.values()))

    async def _make_topics(self, in_force: Iterable[InForce]) -> None:
        """Make the topics that are missing, with as many partitions as their policies say; now and then."""
        if time.monotonic() < self._topics_due_s:
            return
        for made in in_force:
            await self._bus.ensure_topic(made.policy.reference, partitions=made.policy.partitions)
        self._topics_due_s = time.monotonic() + TOPICS_INTERVAL_S

    def _make(self, body: dict[str, Any]) -> InForce | None:
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
        old = self._in_force.get(policy.reference)
        return InForce(
            policy=policy,
            admission=Admission(policy.allow),
            check=check,
            rate=RateLimit(limits, self._clock) if old is None else old.rate,
            own_tags=PolicyTable([policy]),
        )

    async def follow(self) -> None:
        """Polls until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(POLL_S)
