"""Topics made and changed as the policies want them, at somebody's word: nothing is ever removed.

Gateways and workers make the topics that they need by themselves (`Bus.ensure_topic`), with the bus's
defaults. `apply_plans` goes over all of them, and also sets how long their messages stay. `topics.py`
is the administration of a Kafka cluster; the embedded bus has only partitions to set.
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
    """A topic as it is wanted; where a bound is None, that of the bus stays."""

    topic: str
    partitions: int
    retention_ms: int | None = None
    retention_bytes: int | None = None


class TopicState(msgspec.Struct, frozen=True):
    """A topic as it is. `settings` are those in force that a plan can speak of, by Kafka's names, as text."""

    partitions: int
    replicas: int | None = None
    settings: Mapping[str, str] = {}


class Applied(msgspec.Struct, frozen=True):
    """What became of one plan, or would; `details` say each change."""

    topic: str
    action: Action
    details: tuple[str, ...]


class TopicAdmin(ABC):
    """Administration of one bus's topics."""

    min_message_bytes: int | None = None
    """What a topic must take so that every message fits; None where the bus has no such setting by topic."""
    knows_retention: bool = False
    """Whether how long messages stay can be set by topic."""

    @abstractmethod
    async def topics(self) -> dict[str, TopicState]:
        """All topics, of whatever kind, of this installation."""

    @abstractmethod
    async def make(self, topic: str, *, partitions: int, settings: Mapping[str, str]) -> None:
        """Make a topic that does not exist."""

    @abstractmethod
    async def grow(self, topic: str, *, partitions: int) -> None:
        """Add partitions, up to that number."""

    @abstractmethod
    async def change(self, topic: str, settings: Mapping[str, str]) -> None:
        """Set these settings; all others stay."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections."""


class EmbeddedTopics(TopicAdmin):
    """The topics of the embedded bus, or of one that discards."""

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
        """There is nothing to set."""

    async def close(self) -> None:
        """See `TopicAdmin.close`."""
        await self._bus.close()


async def apply_plans(admin: TopicAdmin, plans: Sequence[TopicPlan], *, dry_run: bool) -> list[Applied]:
    """Makes what is missing, adds partitions, changes settings that differ; with `dry_run` only says it.

    Doing it again changes nothing. More partitions than planned stay, and so do settings of which a plan says
    nothing, and a limit of messages that is higher than it has to be.
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
