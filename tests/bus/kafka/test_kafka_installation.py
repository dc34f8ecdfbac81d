"""Ownership of the topics of a prefix: the first installation, until another one takes over."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from windvane.bus import Bus, open_bus
from windvane.bus.kafka.bus import connection_to
from windvane.bus.kafka.installation import KafkaInstallation, _Claim, installation_id, owner_of
from windvane.config import KafkaSettings
from windvane.errors import ConfigInvalid
from windvane.testing.bus import Assignments, poll_until, receive

from tests.kafka_broker import KafkaBroker

Open = Callable[[str], Bus]


@pytest.fixture
def settings(kafka: KafkaBroker) -> KafkaSettings:
    return KafkaSettings(topic_prefix=f"{kafka.prefix()}.", session_timeout_s=2.0)


@pytest.fixture
async def opened(kafka: KafkaBroker, tmp_path: Path, settings: KafkaSettings) -> AsyncIterator[Open]:
    """Opens the bus of a home by its name."""
    buses: list[Bus] = []

    def open_home(name: str) -> Bus:
        (tmp_path / name).mkdir(exist_ok=True)
        buses.append(open_bus(f"kafka://{kafka.bootstrap}", tmp_path / name, settings))
        return buses[-1]

    yield open_home
    for bus in buses:
        await bus.close()


def installation_of(kafka: KafkaBroker, home: Path, settings: KafkaSettings) -> KafkaInstallation:
    return KafkaInstallation(connection_to(f"kafka://{kafka.bootstrap}", home, settings))


async def test_a_second_installation_gets_no_data_of_the_first_and_an_error_with_remedies(
    opened: Open, tmp_path: Path
) -> None:
    first, second = opened("first"), opened("second")
    await first.prepare(groups=[])
    await first.ensure_topic("t", partitions=4)
    listener = Assignments()
    reader = first.consumer("g", listener)
    reader.subscribe(["t"])
    await poll_until(reader, lambda: len(listener.now) == 4)
    with pytest.raises(ConfigInvalid, match=installation_id(tmp_path / "first")) as rejected:
        await second.prepare(groups=[])
    for remedy in ("kafka.topic_prefix", "kafka.installation", "windvane topics take-over"):
        assert remedy in str(rejected.value)
    stranger = second.consumer("g", Assignments())
    stranger.subscribe(["t"])
    with pytest.raises(ConfigInvalid, match="another installation"):
        await poll_until(stranger, lambda: False)
    producer = first.producer()
    await asyncio.gather(*(producer.publish("t", b"%d" % n, b"v") for n in range(100)))
    assert len(await receive(reader, 100)) == 100
    assert len(listener.now) == 4
    print("100 of 100 messages read by the installation that published them, 0 by the other")


async def test_tiers_of_one_home_and_hosts_with_its_id_share_the_topics(
    opened: Open, kafka: KafkaBroker, tmp_path: Path, settings: KafkaSettings
) -> None:
    await opened("home").prepare(groups=[])
    await opened("home").prepare(groups=[])
    (tmp_path / "host").mkdir()
    (tmp_path / "host/installation").write_text((tmp_path / "home/installation").read_text())
    await opened("host").prepare(groups=[])
    assert (await opened("home").topics()) == {}


async def test_after_a_take_over_the_new_home_is_accepted_and_the_old_one_rejected(
    opened: Open, kafka: KafkaBroker, tmp_path: Path, settings: KafkaSettings
) -> None:
    first = opened("first")
    await first.prepare(groups=[])
    await first.ensure_topic("t", partitions=2)
    before = Assignments()
    reader = first.consumer("g", before)
    reader.subscribe(["t"])
    await poll_until(reader, lambda: len(before.now) == 2)
    second = opened("second")
    installation = installation_of(kafka, tmp_path / "second", settings)
    assert await installation.take_over() == installation_id(tmp_path / "first")
    assert await installation.take_over() is None
    await second.prepare(groups=[])
    after = Assignments()
    successor = second.consumer("g", after)
    successor.subscribe(["t"])

    async def first_reads_on() -> None:
        await poll_until(reader, lambda: False)

    async with asyncio.timeout(60):
        # It detects the other one in the group, reads who owns the topics, and releases them.
        reading = asyncio.ensure_future(first_reads_on())
        while not reading.done():
            await successor.poll(timeout_s=0.05)
        with pytest.raises(ConfigInvalid, match=installation.id):
            await reading
        await reader.close()
        await poll_until(successor, lambda: len(after.now) == 2)
    with pytest.raises(ConfigInvalid):
        await opened("first").prepare(groups=[])


async def test_of_simultaneous_claims_one_is_accepted(
    kafka: KafkaBroker, tmp_path: Path, settings: KafkaSettings
) -> None:
    homes = [tmp_path / str(number) for number in range(5)]
    for home in homes:
        home.mkdir()
    installations = [installation_of(kafka, home, settings) for home in homes]
    claimed = await asyncio.gather(*(each.claim() for each in installations), return_exceptions=True)
    assert [type(each) for each in claimed].count(type(None)) == 1
    assert [type(each) for each in claimed].count(ConfigInvalid) == 4


@pytest.mark.parametrize(
    ("claims", "owner"),
    [
        ([], None),
        ([_Claim("a"), _Claim("b")], "a"),
        ([_Claim("a"), _Claim("b", "a"), _Claim("c", "a")], "b"),
        ([_Claim("a"), _Claim("b", "a"), _Claim("a", "b")], "a"),
        # Compacted: the first message of a was removed.
        ([_Claim("b", "a"), _Claim("a", "b")], "a"),
    ],
)
def test_the_owner_follows_from_the_claims(claims: list[_Claim], owner: str | None) -> None:
    assert owner_of(claims) == owner


def test_the_id_is_created_once_with_mode_0600_and_a_damaged_one_is_rejected(tmp_path: Path) -> None:
    made = installation_id(tmp_path)
    assert installation_id(tmp_path) == made
    path = tmp_path / "installation"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["installation"]
    path.write_text("?")
    with pytest.raises(ConfigInvalid, match="is damaged"):
        installation_id(tmp_path)
