"""The commands of the bus's topics: `topics list|apply|schema`."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config import Settings
from ..errors import ConfigInvalid
from ..home import make_home
from .common.homes import require_default_home
from .common.options import tier_options
from .data import require_home

if TYPE_CHECKING:
    from ..bus.topic_setup import TopicAdmin, TopicPlan, TopicState
    from ..store.catalog.policy import Policy

Result = TypeVar("Result")

_WORDS = {"made": ("made", "would make"), "changed": ("changed", "would change"), "same": ("same", "same")}


@click.group(short_help="List and set up the bus's topics; print their schemas.")
def topics() -> None:
    """Topics of the bus: what is on them, set up from the policies, and the schemas of their messages.

    \b
    Examples:
      windvane topics list
      windvane topics apply --dry-run
      windvane topics schema voice..rows.features
    """


@topics.command("list")
@tier_options("bus", "database", "catalog")
def list_topics(settings: Settings) -> None:
    """List the topics: name on the bus, what is on it, partitions, and on Kafka replicas and retention.

    \b
    Examples:
      windvane topics list
      windvane topics list --bus kafka://10.0.0.5:9092
    """
    _require_home(settings)

    async def read(admin: "TopicAdmin", policies: "list[Policy]") -> dict[str, "TopicState"]:
        return await admin.topics()

    policies, found = _with_admin(settings, read)
    planned = {plan.topic for plan in _plans(policies)}
    for topic, state in found.items():
        columns = [_shown(settings, topic), _content(topic), _plural(state.partitions, "partition")]
        if state.replicas is not None:
            columns.append(_plural(state.replicas, "replica"))
            columns += [f"{name} = {value}" for name, value in sorted(state.settings.items())]
        if topic not in planned:
            columns.append("no policy wants it now")
        click.echo("\t".join(columns))
    if not planned and not found:
        click.echo("no topics: there are no policies; create one with `windvane policy create`", err=True)
    for topic in sorted(planned - found.keys()):
        click.echo(f"{_shown(settings, topic)}\t{_content(topic)}\tnot made yet: windvane topics apply")


@topics.command("apply")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@tier_options("bus", "database", "catalog")
def apply_topics(settings: Settings, dry_run: bool) -> None:
    """Set the topics up as the policies want them: partitions, retention, size of messages, replicas.

    Makes those that are missing, adds partitions, changes settings that differ; never removes anything, and
    doing it again changes nothing. Replicas are set when a topic is made (kafka.replication_factor).

    \b
    Examples:
      windvane topics apply --dry-run
      windvane topics apply --bus kafka://10.0.0.5:9092
    """
    _require_home(settings)
    from ..bus.topic_setup import apply_plans

    async def apply(admin: "TopicAdmin", policies: "list[Policy]") -> None:
        plans = _plans(policies)
        for applied in await apply_plans(admin, plans, dry_run=dry_run):
            action = _WORDS[applied.action][dry_run]
            click.echo("\t".join([action, _shown(settings, applied.topic), *applied.details]))
        if not plans:
            click.echo(
                "there are no policies, so no topics; make one with `windvane policy create`", err=True
            )
        unset = [p.reference for p in policies if p.topic.retention_hours or p.topic.retention_bytes]
        if unset and not admin.knows_retention:
            click.echo(
                f"note: this bus has no retention by topic; [topic] of {', '.join(unset)} means nothing here",
                err=True,
            )

    _with_admin(settings, apply)


@topics.command("take-over")
@tier_options("bus")
def take_over(settings: Settings) -> None:
    """Make the topics on Kafka those of this home, whosever they were.

    For a home that was restored from a copy without its file `installation`, or that takes the place of
    another one. Stop the gateways and workers of the other home first: they are rejected from then on. The
    messages stay.

    \b
    Examples:
      windvane topics take-over --bus kafka://10.0.0.5:9092
    """
    if not settings.bus.startswith("kafka:"):
        raise ConfigInvalid(
            f"the bus {settings.bus!r} belongs to its home; only topics on Kafka are taken over"
        )
    require_default_home(settings)
    make_home(settings)
    from ..bus.kafka.bus import connection_to
    from ..bus.kafka.installation import KafkaInstallation

    async def run() -> None:
        installation = KafkaInstallation(connection_to(settings.bus, settings.home, settings.kafka))
        former = await installation.take_over()
        prefix = settings.kafka.topic_prefix
        if former is None:
            click.echo(
                f"the topics with the prefix {prefix!r} are those of this home ({installation.id}) already"
            )
        else:
            click.echo(
                f"the topics with the prefix {prefix!r} are those of this home ({installation.id}) now"
            )
            click.echo(f"they were those of {former}", err=True)

    asyncio.run(run())


@topics.command()
@click.argument("topic", metavar="TOPIC")
@tier_options("bus", "database", "catalog")
def schema(settings: Settings, topic: str) -> None:
    """Print the Avro schema of the messages on TOPIC, as JSON.

    Messages are in Avro single-object encoding: C3 01, eight bytes of fingerprint (CRC-64-AVRO of the schema,
    which is printed to standard error), and the body.

    \b
    Examples:
      windvane topics schema voice
      windvane topics schema voice..rows.features > rows.avsc
      windvane topics schema power..records
    """
    _require_home(settings)
    from ..bus.messages import alarms as alarm_messages
    from ..bus.messages import chunks as envelope
    from ..bus.messages import results as result_messages
    from ..bus.topic_names import parse_result_topic

    topic = topic.removeprefix(settings.kafka.topic_prefix)
    policies = {policy.reference: policy for policy in _read_policies(settings)}
    content = parse_result_topic(topic)
    reference = topic if content is None else content.policy
    policy = policies.get(reference)
    if policy is None:
        known = ", ".join(sorted(plan.topic for plan in _plans(policies.values()))[:20]) or "none"
        raise ConfigInvalid(f"no policy has the topic {topic!r}; there are {known}")
    found: dict[str, Any]
    if content is None:
        found = envelope.SCHEMA
    elif content.kind == "rows":
        if not any(step.name == content.step and step.publish for step in policy.pipeline):
            raise ConfigInvalid(
                f"policy {reference!r} publishes no step {content.step!r}; set publish = true in it"
            )
        found = result_messages.ROWS_SCHEMA
    elif content.kind == "alarms":
        if not policy.raises_alarms:
            raise ConfigInvalid(
                f"policy {reference!r} raises no alarms; give it a step of condition, or an [[alarm]]"
            )
        found = alarm_messages.ALARMS_SCHEMA
    else:
        if policy.schema is None or policy.encoding != "avro":
            raise ConfigInvalid(f'policy {reference!r} publishes no records; set encoding = "avro" in it')
        found = result_messages.records_schema(policy.schema)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    click.echo(f"messages begin with {envelope.prefix_of(found).hex(' ')}", err=True)


def _require_home(settings: Settings) -> None:
    # On Kafka, with a catalog elsewhere, nothing that is looked at lies in the home.
    require_home(settings, what="policies" if settings.bus.startswith("kafka:") else "topics")


def _plans(policies: "Iterable[Policy]") -> "list[TopicPlan]":
    from ..bus.topic_names import alarms_topic, records_topic, rows_topic
    from ..bus.topic_setup import TopicPlan

    plans = []
    for policy in policies:
        names = [policy.reference]
        names += [rows_topic(policy.reference, step.name) for step in policy.pipeline if step.publish]
        if policy.encoding == "avro":
            names.append(records_topic(policy.reference))
        if policy.raises_alarms:
            names.append(alarms_topic(policy.reference))
        hours = policy.topic.retention_hours
        plans += [
            TopicPlan(
                topic=name,
                partitions=policy.partitions,
                retention_ms=None if hours is None else round(hours * 3_600_000),
                retention_bytes=policy.topic.retention_bytes,
            )
            for name in names
        ]
    return plans


def _content(topic: str) -> str:
    from ..bus.topic_names import parse_result_topic

    content = parse_result_topic(topic)
    if content is None:
        return "chunks"
    return {"rows": f"rows of step {content.step}", "records": "records in Avro", "alarms": "alarms"}[
        content.kind
    ]


def _shown(settings: Settings, topic: str) -> str:
    """The name as others have to ask for it."""
    return settings.kafka.topic_prefix + topic if settings.bus.startswith("kafka:") else topic


def _plural(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _read_policies(settings: Settings) -> "list[Policy]":
    from ..store.catalog.catalog import Catalog
    from ..store.catalog.policy import policy_from_mapping

    async def read() -> "list[Policy]":
        catalog = await Catalog.open(settings.catalog_url)
        try:
            documents = await catalog.list("policy", limit=1_000_000)
        finally:
            await catalog.close()
        return [policy_from_mapping(document.body) for document in documents]

    # The installation's ID on Kafka lies there, also if the catalog does not.
    require_default_home(settings)
    make_home(settings)
    return asyncio.run(read())


def _with_admin(
    settings: Settings, use: "Callable[[TopicAdmin, list[Policy]], Awaitable[Result]]"
) -> "tuple[list[Policy], Result]":
    policies = _read_policies(settings)

    async def run() -> Result:
        from ..bus import open_topics

        admin = open_topics(settings.bus, settings.home, settings.kafka)
        try:
            return await use(admin, policies)
        finally:
            await admin.close()

    return policies, asyncio.run(run())
