"""Kafka with TLS or a login: accepted clients, and the errors of rejected ones."""

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from windvane.bus import Bus, TopicPartition, open_bus
from windvane.config import KafkaSettings
from windvane.errors import BusUnavailable, ConfigInvalid
from windvane.testing.bus import Assignments, poll_until, receive

from deploy.kafka.local.broker import free_port
from tests.kafka_broker import PASSWORD, STRANGER, USER, KafkaBroker

Opener = Callable[..., Bus]


@pytest.fixture
async def opener(kafka: KafkaBroker, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens a bus at a listener, with settings."""
    buses: list[Bus] = []

    def opened(listener: str, **settings: object) -> Bus:
        server = kafka.address(listener) if listener in kafka.ports else listener
        prefix = f"{kafka.prefix()}."
        given = KafkaSettings(**{"topic_prefix": prefix, "delivery_timeout_s": 30.0, **settings})  # type: ignore[arg-type]
        buses.append(open_bus(f"kafka://{server}", tmp_path, given))
        return buses[-1]

    yield opened
    for bus in buses:
        await bus.close()


async def check_delivery(bus: Bus) -> None:
    await bus.prepare(groups=[])
    await bus.ensure_topic("t", partitions=1)
    await bus.producer().publish("t", b"k", b"v")
    consumer = bus.consumer("g", Assignments())
    consumer.subscribe(["t"])
    assert [message.value for message in await receive(consumer, 1)] == [b"v"]
    await consumer.commit({TopicPartition("t", 0): 1})


LOGIN = {"username": USER, "password": PASSWORD}


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_user_logs_in_with_a_password(opener: Opener, mechanism: str) -> None:
    await check_delivery(
        opener("SASL_PLAINTEXT", security="sasl_plaintext", sasl_mechanism=mechanism, **LOGIN)
    )


async def test_messages_go_over_tls(opener: Opener, kafka: KafkaBroker) -> None:
    await check_delivery(opener("SSL", security="ssl", ca_file=kafka.ca_file))


async def test_a_user_logs_in_over_tls_with_a_password_from_a_file(
    opener: Opener, kafka: KafkaBroker, tmp_path: Path
) -> None:
    (tmp_path / "kafka-password").write_text(f"{PASSWORD}\n")
    bus = opener(
        "SASL_SSL",
        security="sasl_ssl",
        ca_file=kafka.ca_file,
        username=USER,
        password_file=Path("kafka-password"),
    )
    await check_delivery(bus)


@pytest.mark.parametrize(
    ("listener", "settings", "kind", "message"),
    [
        ("SASL_PLAINTEXT", {**LOGIN, "password": "wrong"}, ConfigInvalid, r"kafka\.password"),
        (
            "SASL_PLAINTEXT",
            {**LOGIN, "sasl_mechanism": "SCRAM-SHA-256"},
            ConfigInvalid,
            r"kafka\.sasl_mechanism",
        ),
        ("SASL_PLAINTEXT", {"security": "plaintext"}, BusUnavailable, r"kafka\.security is 'plaintext'"),
        ("SSL", {"security": "ssl"}, ConfigInvalid, r"not trusted .*kafka\.ca_file"),
        ("SSL", {"security": "plaintext"}, BusUnavailable, r"kafka\.security.* 'plaintext'"),
        ("PLAINTEXT", {"security": "ssl"}, (ConfigInvalid, BusUnavailable), r"kafka\.security is 'ssl'"),
        (
            "no-such-host.invalid:9092",
            {"security": "plaintext"},
            BusUnavailable,
            "no-such-host.*correct --bus",
        ),
        (
            f"127.0.0.1:{free_port()}",
            {"security": "plaintext"},
            BusUnavailable,
            "no server listens on this port",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
async def test_a_rejected_connection_reports_the_reason(
    opener: Opener,
    listener: str,
    settings: dict[str, object],
    kind: type[Exception] | tuple[type[Exception], ...],
    message: str,
) -> None:
    defaults = {"security": "sasl_plaintext", "sasl_mechanism": "PLAIN"}
    bus = opener(listener, **{**defaults, **settings}, delivery_timeout_s=2.0)
    with pytest.raises(kind, match=message) as error:
        await bus.prepare(groups=[])
    assert "wrong" not in str(error.value)
    with pytest.raises(kind, match=message):
        await bus.ensure_topic("t", partitions=1)
    with pytest.raises(BusUnavailable, match=message):
        await bus.producer().publish("t", b"k", b"v")
    consumer = bus.consumer("g", Assignments())
    consumer.subscribe(["t"])
    with pytest.raises(kind, match=message):
        await poll_until(consumer, lambda: False)


async def test_a_user_without_permissions_gets_an_error_that_names_them(
    opener: Opener, kafka: KafkaBroker
) -> None:
    prefix = f"{kafka.prefix()}."
    allowed = opener("PLAINTEXT", topic_prefix=prefix)
    await allowed.ensure_topic("t", partitions=1)
    bus = opener(
        "SASL_PLAINTEXT",
        security="sasl_plaintext",
        sasl_mechanism="PLAIN",
        username=STRANGER,
        password=PASSWORD,
        topic_prefix=prefix,
    )
    message = rf"'{STRANGER}' may not .*{prefix}.*kafka-acls"
    with pytest.raises(BusUnavailable, match=message):
        await bus.ensure_topic("other", partitions=1)
    with pytest.raises(BusUnavailable, match=message):
        await bus.producer().publish("t", b"k", b"v")
    consumer = bus.consumer("g", Assignments())
    consumer.subscribe(["t"])
    with pytest.raises(BusUnavailable, match=message):
        await poll_until(consumer, lambda: False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"security": "sasl_ssl"}, r"needs kafka\.username"),
        ({"security": "sasl_plaintext", "username": "u"}, r"kafka\.password_file"),
        ({"username": "u"}, "does not use it"),
        (
            {"security": "ssl", "ca_file": Path("absent.pem")},
            r"kafka\.ca_file: the file .*absent\.pem does not exist",
        ),
        (
            {"security": "sasl_plaintext", "username": "u", "password_file": Path("absent")},
            r"kafka\.password_file: .*absent cannot be read",
        ),
        ({"security": "ssl", "cert_file": Path("no.pem")}, r"no\.pem"),
    ],
)
async def test_invalid_settings_are_rejected_at_once(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigInvalid, match=message):
        open_bus("kafka://127.0.0.1:9092", tmp_path, KafkaSettings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "kafka:",
        "kafka://",
        "kafka://host:port",
        "kafka://host:0",
        "kafka://host/topic",
        "kafka://host?acks=1",
    ],
)
async def test_an_invalid_cluster_url_is_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigInvalid, match="kafka://HOST:PORT"):
        open_bus(url, tmp_path)


async def test_a_password_is_in_no_message_representation_or_log(
    opener: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigInvalid) as rejected:
        open_bus("kafka://user:s3cret@host:9092", tmp_path)
    assert "s3cret" not in str(rejected.value)
    settings = KafkaSettings(username="u", password="s3cret")
    assert "s3cret" not in repr(settings)
    assert "username='u'" in repr(settings)
    with caplog.at_level(logging.DEBUG):
        bus = opener("SASL_PLAINTEXT", security="sasl_plaintext", sasl_mechanism="PLAIN", **LOGIN)
        await check_delivery(bus)
        wrong = opener("SASL_PLAINTEXT", security="sasl_plaintext", username=USER, password="s3cret")
        with pytest.raises(ConfigInvalid):
            await wrong.prepare(groups=[])
    assert PASSWORD not in caplog.text
    assert "s3cret" not in caplog.text
