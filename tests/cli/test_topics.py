"""`windvane topics`: set up as the policies say, again and again, on a real Kafka and on the embedded bus."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from windvane.bus import open_topics
from windvane.bus.topic_setup import TopicState
from windvane.config import KafkaSettings

from tests.kafka_broker import KafkaBroker
from tests.processes import windvane

POLICY = """
[[policy]]
reference = "power"
partitions = {partitions}
encoding = "avro"
schema = '{{"type": "record", "name": "Power", "fields": [{{"name": "kw", "type": "double"}}]}}'
topic = {{ {topic} }}

[[policy.pipeline]]
operation = "fields"
publish = true
"""
TOPICS = ["power", "power..records", "power..rows.fields"]


def run(home: Path, *arguments: str, fails: bool = False) -> list[list[str]]:
    """The lines that a command prints, in columns."""
    done = windvane(home, *arguments)
    assert (done.returncode != 0) == fails, done.stderr.decode()
    return [line.split("\t") for line in (done.stderr if fails else done.stdout).decode().splitlines()]


def with_policy(home: Path, *, partitions: int = 2, topic: str = "") -> None:
    file = home / "power.toml"
    home.mkdir(exist_ok=True)
    file.write_text(POLICY.format(partitions=partitions, topic=topic))
    run(home, "apply", str(file))


@pytest.fixture
def site(kafka: KafkaBroker, tmp_path: Path) -> tuple[Path, Callable[..., list[list[str]]], KafkaSettings]:
    settings = KafkaSettings(topic_prefix=f"{kafka.prefix()}.")
    home = tmp_path / "home"
    with_policy(home, topic="retention_hours = 24")
    (home / "windvane.toml").write_text(
        f'bus = "kafka://{kafka.bootstrap}"\n[kafka]\ntopic_prefix = "{settings.topic_prefix}"\n'
    )
    return home, lambda *arguments, **more: run(home, "topics", *arguments, **more), settings


async def on_the_broker(kafka: KafkaBroker, home: Path, settings: KafkaSettings) -> dict[str, TopicState]:
    admin = open_topics(f"kafka://{kafka.bootstrap}", home, settings)
    try:
        return await admin.topics()
    finally:
        await admin.close()


async def test_topics_are_made_grown_and_changed_and_nothing_twice(
    site: tuple[Path, Callable[..., list[list[str]]], KafkaSettings], kafka: KafkaBroker
) -> None:
    home, topics, settings = site
    shown = [settings.topic_prefix + topic for topic in TOPICS]

    dry = topics("apply", "--dry-run")
    assert [line[:2] for line in dry] == [["would make", name] for name in (shown[0], shown[2], shown[1])]
    assert await on_the_broker(kafka, home, settings) == {}

    made = topics("apply")
    assert [line[0] for line in made] == ["made"] * 3
    assert "retention.ms = 86400000" in made[0]
    found = await on_the_broker(kafka, home, settings)
    assert sorted(found) == TOPICS
    for state in found.values():
        assert (state.partitions, state.replicas) == (2, 1)
        assert state.settings["retention.ms"] == "86400000"
        assert int(state.settings["max.message.bytes"]) > settings.max_message_bytes

    assert [line[0] for line in topics("apply")] == ["same"] * 3
    assert await on_the_broker(kafka, home, settings) == found

    with_policy(home, partitions=3, topic="retention_bytes = 2000000")
    changed = topics("apply")
    assert [line[0] for line in changed] == ["changed"] * 3
    assert changed[0][2] == "partitions 2 → 3"
    after = await on_the_broker(kafka, home, settings)
    for state in after.values():
        assert state.partitions == 3
        # Of the age the policy says nothing now: what was set stays.
        assert (state.settings["retention.ms"], state.settings["retention.bytes"]) == ("86400000", "2000000")

    with_policy(home, partitions=1)
    assert [line[0] for line in topics("apply")] == ["same"] * 3, "partitions are never taken away"
    run(home, "policy", "delete", "power")
    assert topics("apply") == []
    assert await on_the_broker(kafka, home, settings) == after
    listed = topics("list")
    assert [line[0] for line in listed] == shown
    assert all("no policy wants it now" in line for line in listed)


async def test_settings_that_others_made_for_a_topic_stay(
    site: tuple[Path, Callable[..., list[list[str]]], KafkaSettings], kafka: KafkaBroker
) -> None:
    home, topics, settings = site
    admin = open_topics(f"kafka://{kafka.bootstrap}", home, settings)
    await admin.make(
        "power", partitions=5, settings={"retention.bytes": "7000000", "max.message.bytes": "99000000"}
    )
    topics("apply")
    state = (await admin.topics())["power"]
    await admin.close()
    assert state.partitions == 5
    assert state.settings == {
        "retention.ms": "86400000",
        "retention.bytes": "7000000",
        "max.message.bytes": "99000000",
    }


@pytest.mark.system
def test_a_cluster_that_is_unavailable_is_said_in_one_line(tmp_path: Path) -> None:
    with_policy(tmp_path)
    lines = run(tmp_path, "topics", "apply", "--bus", "kafka://127.0.0.1:1", fails=True)
    assert len(lines) == 1
    assert "127.0.0.1:1" in lines[0][0]


@pytest.mark.system
def test_the_embedded_bus_has_the_topics_too(tmp_path: Path) -> None:
    with_policy(tmp_path, topic="retention_hours = 1")
    assert [line[2] for line in run(tmp_path, "topics", "list")] == [
        "not made yet: windvane topics apply"
    ] * 3
    assert [line[:2] for line in run(tmp_path, "topics", "apply")] == [
        ["made", "power"],
        ["made", "power..rows.fields"],
        ["made", "power..records"],
    ]
    assert [line[0] for line in run(tmp_path, "topics", "apply")] == ["same"] * 3
    assert run(tmp_path, "topics", "list") == [
        ["power", "chunks", "2 partitions"],
        ["power..records", "records in Avro", "2 partitions"],
        ["power..rows.fields", "rows of step fields", "2 partitions"],
    ]
    assert "means nothing here" in windvane(tmp_path, "topics", "apply").stderr.decode()


@pytest.mark.system
def test_the_schema_of_each_topic_is_printed(tmp_path: Path) -> None:
    with_policy(tmp_path)
    for topic, name in (("power", "Chunk"), ("power..rows.fields", "Rows"), ("power..records", "Records")):
        done = windvane(tmp_path, "topics", "schema", f"windvane.{topic}")
        assert json.loads(done.stdout)["name"] == name
        assert b"messages begin with c3 01 " in done.stderr
    [[rejection]] = run(tmp_path, "topics", "schema", "power..rows.samples", fails=True)
    assert "publishes no step 'samples'" in rejection
    [[rejection]] = run(tmp_path, "topics", "schema", "voice", fails=True)
    assert "no policy has the topic 'voice'; there are power, power..records" in rejection
