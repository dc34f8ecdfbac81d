"""Creates and changes topics according to the policies when an operator asks for it; removes nothing.

Gateways and workers create the topics that they need themselves (`Bus.ensure_topic`), with the bus's
defaults. `apply_plans` covers all topics, and also sets their retention. `kafka/topics.py` administers a
Kafka cluster; other engines use `TopicsWithoutSettings`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from .interface import Bus

RETENTION_MS = "retention.ms"
RETENTION_BYTES = "retention.bytes"
MESSAGE_BYTES = "max.message.bytes"

Action: TypeAlias = Literal["made", "changed", "same"]


class TopicPlan(msgspec.Struct, frozen=True):
    """The planned state of a topic; a bound of None leaves that of the bus unchanged."""

    topic: str
    partitions: int
    retention_ms: int | None = None
    retention_bytes: int | None = None


class TopicState(msgspec.Struct, frozen=True):
    """The current state of a topic. `settings` has those that a plan can set, by Kafka's names, as text."""

    partitions: int
    replicas: int | None = None
    settings: Mapping[str, str] = {}


class Applied(msgspec.Struct, frozen=True):
    """The result of one plan, or of its dry run; `details` describes each change."""

    topic: str
    action: Action
    details: tuple[str, ...]


class TopicAdmin(ABC):
    """Administration of one bus's topics."""

    min_message_bytes: int | None = None
    """The message limit that a topic needs, so that every message fits; None if topics have none."""
    knows_retention: bool = False
    """Whether retention can be set for each topic."""

    @abstractmethod
    async def topics(self) -> dict[str, TopicState]:
        """All topics of this installation, of every kind."""

    @abstractmethod
    async def make(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> None:
        """Create a topic that does not exist."""

    @abstractmethod
    async def grow(self, topic: str, *, partitions: int) -> None:
        """Add partitions, up to `partitions` in total."""

    @abstractmethod
    async def change(self, topic: str, settings: Mapping[str, str]) -> None:
        """Change these settings; all others keep their values."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""


class TopicsWithoutSettings(TopicAdmin):
    """The topics of a bus that has no settings by topic: only their number of partitions can be set."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def topics(self) -> dict[str, TopicState]:
        """See `TopicAdmin.topics`."""
        return {topic: TopicState(partitions) for topic, partitions in (await self._bus.topics()).items()}

    async def make(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> None:
        """See `TopicAdmin.make`."""
        await self._bus.ensure_topic(topic, partitions=partitions)

    async def grow(self, topic: str, *, partitions: int) -> None:
        """See `TopicAdmin.grow`."""
        await self._bus.ensure_topic(topic, partitions=partitions)

    async def change(self, topic: str, settings: Mapping[str, str]) -> None:
        """Does nothing: this bus has no settings by topic."""

    async def close(self) -> None:
        """See `TopicAdmin.close`."""
        await self._bus.close()


async def apply_plans(admin: TopicAdmin, plans: Sequence[TopicPlan], *, dry_run: bool) -> list[Applied]:
    """Creates missing topics, adds partitions, changes settings that differ; `dry_run` only reports it.

    A second call changes nothing. Partitions in excess of the plan remain, as do settings that the plan does
    not mention, and a message limit that is higher than necessary.
    """
    existing = await admin.topics()
    return [await _apply(admin, plan, existing.get(plan.topic), dry_run=dry_run) for plan in plans]


async def _apply(admin: TopicAdmin, plan: TopicPlan, state: TopicState | None, *, dry_run: bool) -> Applied:
    wanted = _settings(admin, plan, state)
    if state is None:
        details = (f"{plan.partitions} partitions", *(f"{name} = {value}" for name, value in wanted.items()))
        if not dry_run:
            await admin.make(plan.topic, partitions=plan.partitions, settings=wanted)
        return Applied(plan.topic, "made", details)
    changes: list[str] = []
    if state.partitions < plan.partitions:
        changes.append(f"partitions {state.partitions} → {plan.partitions}")
        if not dry_run:
            await admin.grow(plan.topic, partitions=plan.partitions)
    differing = {name: value for name, value in wanted.items() if state.settings.get(name) != value}
    if differing:
        changes += [
            f"{name} {state.settings.get(name, 'unset')} → {value}" for name, value in differing.items()
        ]
        if not dry_run:
            await admin.change(plan.topic, differing)
    return Applied(plan.topic, "changed" if changes else "same", tuple(changes))


def _settings(admin: TopicAdmin, plan: TopicPlan, state: TopicState | None) -> dict[str, str]:
    wanted: dict[str, str] = {}
    if admin.knows_retention:
        if plan.retention_ms is not None:
            wanted[RETENTION_MS] = str(plan.retention_ms)
        if plan.retention_bytes is not None:
            wanted[RETENTION_BYTES] = str(plan.retention_bytes)
    if admin.min_message_bytes is not None:
        current = int(state.settings.get(MESSAGE_BYTES, 0)) if state is not None else 0
        wanted[MESSAGE_BYTES] = str(max(current, admin.min_message_bytes))
    return wanted
