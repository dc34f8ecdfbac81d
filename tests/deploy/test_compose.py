"""deploy/kafka/compose.yaml, which is not run here: all in it that can be held against something is."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import yaml
from windvane.bus.kafka.topic_creation import topic_message_bytes
from windvane.cli import main
from windvane.config import Settings, load_settings

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "deploy" / "kafka"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
TIERS = {name: service for name, service in SERVICES.items() if service["image"] == "windvane"}
BROKERS = {name: service for name, service in SERVICES.items() if service["image"].startswith("apache/kafka")}
SECRETS = dict(
    line.split("=")
    for line in (FOLDER / "compose.env.example").read_text().splitlines()
    if line and not line.startswith("#")
)


def filled_in(value: Any) -> str:
    """As compose gives it to the container: with the secrets of .env."""
    return re.sub(r"\$\{(\w+)(:\?[^}]*)?\}", lambda found: SECRETS[found[1]], str(value))


def settings_of(service: dict[str, Any]) -> Settings:
    environment = {name: filled_in(value) for name, value in service["environment"].items()}
    return load_settings(home=Path("/var/lib/windvane"), environment=environment)


def listeners(value: str) -> dict[str, tuple[str, int]]:
    found = {}
    for listener in value.split(","):
        name, _, address = listener.partition("://")
        host, _, port = address.rpartition(":")
        found[name] = (host, int(port))
    return found


@pytest.mark.parametrize("name", sorted(TIERS))
def test_every_command_is_one_of_the_command_line(name: str) -> None:
    context = click.Context(main)
    group: click.Command = main
    words = list(TIERS[name]["command"])
    while isinstance(group, click.Group):
        found, group_or_command, words = group.resolve_command(context, words)
        assert group_or_command is not None, found
        context, group = click.Context(group_or_command, info_name=found, parent=context), group_or_command
    group.make_context(group.name, list(words), parent=context.parent)


@pytest.mark.parametrize("name", sorted(TIERS))
def test_every_setting_exists_and_means_what_the_brokers_offer(name: str) -> None:
    environment = TIERS[name]["environment"]
    known = {"WINDVANE_" + field.name.upper() for field in msgspec.structs.fields(Settings)} | {
        f"WINDVANE_{section.name.upper()}_{field.name.upper()}"
        for section in msgspec.structs.fields(Settings)
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
        for field in msgspec.structs.fields(section.type)
    }
    assert set(environment) <= known
    settings = settings_of(TIERS[name])
    assert settings.bus == "kafka://" + ",".join(f"{broker}:9092" for broker in sorted(BROKERS))
    assert settings.kafka.replication_factor == len(BROKERS) == 3
    for broker in BROKERS.values():
        offered = broker["environment"]
        security = offered["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]
        assert f"INTERNAL:{settings.kafka.security.upper()}," in security
        assert settings.kafka.sasl_mechanism == offered["KAFKA_SASL_ENABLED_MECHANISMS"]
        assert f"User:{settings.kafka.username}" in offered["KAFKA_SUPER_USERS"].split(";")
        accounts = filled_in(offered["KAFKA_LISTENER_NAME_INTERNAL_PLAIN_SASL_JAAS_CONFIG"])
        assert f'user_{settings.kafka.username}="{settings.kafka.password}"' in accounts
        assert offered["KAFKA_MESSAGE_MAX_BYTES"] >= topic_message_bytes(settings.kafka)
        assert offered["KAFKA_REPLICA_FETCH_MAX_BYTES"] >= topic_message_bytes(settings.kafka)


def test_a_broker_can_be_unavailable_and_what_is_acked_is_on_two() -> None:
    voters = ",".join(f"{i}@kafka-{i}:9093" for i in (1, 2, 3))
    for number, (name, broker) in enumerate(sorted(BROKERS.items()), 1):
        environment = broker["environment"]
        assert environment["KAFKA_NODE_ID"] == number
        assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
        assert environment["KAFKA_MIN_INSYNC_REPLICAS"] == 2
        assert environment["KAFKA_UNCLEAN_LEADER_ELECTION_ENABLE"] == "false"
        replication = [value for key, value in environment.items() if key.endswith("REPLICATION_FACTOR")]
        assert set(replication) == {3}
        bound = listeners(environment["KAFKA_LISTENERS"])
        advertised = listeners(environment["KAFKA_ADVERTISED_LISTENERS"])
        assert advertised == {"INTERNAL": (name, bound["INTERNAL"][1])}
        assert environment["KAFKA_INTER_BROKER_LISTENER_NAME"] in bound
        assert environment["KAFKA_CONTROLLER_LISTENER_NAMES"] in bound
        assert len(environment["CLUSTER_ID"]) == 22
        # A volume of its own, where its log lies.
        assert broker["volumes"] == [f"{name}:{environment['KAFKA_LOG_DIRS']}"]


def test_the_brokers_are_of_the_version_that_the_tests_run() -> None:
    pom = ElementTree.parse(FOLDER / "local" / "pom.xml")
    version = pom.findtext("{*}properties/{*}kafka.version")
    assert {broker["image"] for broker in BROKERS.values()} == {f"apache/kafka:{version}"}


def test_only_the_forward_port_and_the_dashboard_can_be_reached() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"gateway": ["24224:24224"], "web": ["127.0.0.1:8080:8080"]}
    for name, ports in published.items():
        command = SERVICES[name]["command"]
        option = {"gateway": "--forward", "web": "--web"}[name]
        address = command[command.index(option) + 1]
        assert address.rpartition(":")[2] == ports[0].rpartition(":")[2]
    networks = COMPOSE["networks"]
    for name, service in SERVICES.items():
        reachable = [
            network for network in service["networks"] if not (networks[network] or {}).get("internal")
        ]
        assert bool(reachable) == (name in published)


def test_workers_have_names_of_their_own_and_share_the_home() -> None:
    workers = [service["command"] for service in TIERS.values() if service["command"][0] == "worker"]
    assert len({command[command.index("--instance") + 1] for command in workers}) == len(workers) == 2
    for service in TIERS.values():
        assert "home:/var/lib/windvane" in service["volumes"]


def test_volumes_networks_and_services_that_are_named_exist() -> None:
    for service in SERVICES.values():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith(".") or source in COMPOSE["volumes"]
    build = TIERS["gateway"]["build"]
    assert (FOLDER / build["context"] / build["dockerfile"]).is_file()


def test_the_image_copies_what_there_is_and_installs_extras_that_exist() -> None:
    dockerfile = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for source in line.split():
            assert (REPOSITORY / source).exists()
    [extra] = re.findall(r"'\.\[(\w+)\]'", dockerfile)
    assert f"\n{extra} = [" in (REPOSITORY / "pyproject.toml").read_text()
    assert re.search(r"ENV WINDVANE_HOME=(\S+)", dockerfile)[1] == "/var/lib/windvane"  # type: ignore[index]


def test_every_secret_has_a_place_in_the_example() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(SECRETS)
