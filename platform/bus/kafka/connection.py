"""How a Kafka cluster is reached, and in words why it is not."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasAfterAppendError,
    NotEnoughReplicasError,
    PolicyViolationError,
    RecordListTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
    for_code,
)
from aiokafka.protocol.metadata import MetadataRequest

from ...config import KafkaSettings
from ...errors import BusUnavailable, ConfigInvalid, WindvaneError
from ..interface import MAKE_TOPICS
from ..topic_names import INSTALLATION_TOPIC

DEFAULT_PORT = 9092
CHECK_TIMEOUT_S = 5.0

_MIN_IN_SYNC = "min.insync.replicas"

# It logs every retry of every connection, and at DEBUG the bytes of the authentication. What a user has to
# know comes out of here as errors.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class KafkaConnection:
    """The addresses, the security and the names of one installation on a cluster."""

    def __init__(self, servers: Sequence[str], settings: KafkaSettings, home: Path) -> None:
        """Reads the files that the settings name. Raises `ConfigInvalid`."""
        self.servers = list(servers)
        self.settings = settings
        self.home = home
        self._security = self._security_options()

    @property
    def where(self) -> str:
        """The cluster, for messages."""
        return f"Kafka at {','.join(self.servers)}"

    def options(self) -> dict[str, Any]:
        """Arguments of every aiokafka client."""
        return {
            "bootstrap_servers": self.servers,
            "client_id": "windvane",
            "request_timeout_ms": int(self.settings.request_timeout_s * 1000),
            "retry_backoff_ms": 100,
            **self._security,
        }

    def to_kafka(self, name: str) -> str:
        """What a topic or a group is called on the cluster."""
        return self.settings.topic_prefix + name

    def from_kafka(self, name: str) -> str | None:
        """The inverse of `to_kafka`; None for a topic that is not of this installation."""
        prefix = self.settings.topic_prefix
        own = name.removeprefix(prefix)
        is_ours = (
            name.startswith(prefix) and own not in ("", INSTALLATION_TOPIC) and not name.startswith("__")
        )
        return own if is_ours else None

    async def check(self) -> None:
        """Whether one of the servers lets this installation in.

        Raises `ConfigInvalid` where a setting has to be changed, `BusUnavailable` where it may get better by
        itself.
        """
        errors = []
        for server in self.servers:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    await self._greet(*split_server(server))
                return
            except (OSError, EOFError, KafkaError, TimeoutError) as error:
                errors.append(self._explain_server(server, error))
        # One that says what to mend says more than one that is away.
        raise next((error for error in errors if isinstance(error, ConfigInvalid)), errors[0])

    async def explain_silence(self, topics: Collection[str] = ()) -> WindvaneError:
        """Why the cluster does not do what it was asked for with these topics: it is asked again."""
        try:
            await self.check()
            for topic in sorted(topics):
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    if reason := await self._look_at(topic):
                        return BusUnavailable(f"{self.where}: {reason}")
        except (BusUnavailable, ConfigInvalid) as error:
            return error
        except (KafkaError, OSError, TimeoutError) as error:
            return self.explain(error)
        return BusUnavailable(
            f"{self.where}: a request was not answered in time, though brokers can be reached. Look at the "
            "load and the logs of the brokers; what waits is sent again"
        )

    async def _look_at(self, topic: str) -> str | None:
        """What keeps the topic from taking messages; None if nothing can be seen from here."""
        name = self.to_kafka(topic)
        admin = AIOKafkaAdminClient(**self.options())
        await admin.start()
        try:
            (found,) = await admin.describe_topics([name])
            if found["error_code"]:
                return self.reason(for_code(found["error_code"])(name), topic)
            partitions = found["partitions"]
            if headless := [each["partition"] for each in partitions if each["leader"] < 0]:
                return (
                    f"partition {headless[0]} of the topic {name!r} has no leader: all brokers with its "
                    "replicas are away. Start them"
                )
            in_sync = min(len(each["isr"]) for each in partitions)
            needed = None
            with suppress(KafkaError):  # it takes a permission of its own
                resource = ConfigResource(ConfigResourceType.TOPIC, name, {"min.insync.replicas": None})
                for answer in await admin.describe_configs([resource]):
                    for _, _, _, _, entries in answer.resources:
                        needed = next((int(each[1]) for each in entries if each[0] == _MIN_IN_SYNC), None)
            replicas = min(len(each["replicas"]) for each in partitions)
            if needed is not None and in_sync < needed:
                return (
                    f"only {in_sync} of {replicas} replicas of the topic {name!r} are in sync, and it takes "
                    f"messages with {needed} ({_MIN_IN_SYNC}). Start the brokers that are away"
                )
            if needed is None and in_sync < replicas:
                return (
                    f"only {in_sync} of {replicas} replicas of the topic {name!r} are in sync. Start the "
                    "brokers that are away"
                )
            return None
        finally:
            await admin.close()

    def explain(self, error: BaseException, topic: str | None = None) -> BusUnavailable:
        """A failed request in words; `topic` as the bus calls it."""
        if isinstance(error, BusUnavailable):
            return error
        return BusUnavailable(f"{self.where}: {self.reason(error, topic)}")

    def reason(self, error: BaseException, topic: str | None = None) -> str:
        """As `explain`, without naming the cluster."""
        name = None if topic is None else self.to_kafka(topic)
        if isinstance(error, TopicAuthorizationFailedError):
            reason = (
                f"{self._who()} may not use the topic {name!r}; give it READ, WRITE, DESCRIBE and CREATE "
                f"on topics with the prefix {self.settings.topic_prefix!r} (kafka-acls)"
            )
        elif isinstance(error, GroupAuthorizationFailedError):
            reason = (
                f"{self._who()} may not read as a consumer group; give it READ on groups with the prefix "
                f"{self.settings.topic_prefix!r} (kafka-acls)"
            )
        elif isinstance(error, ClusterAuthorizationFailedError):
            reason = (
                f"{self._who()} may not write or make topics; give it READ, WRITE, DESCRIBE and CREATE on "
                f"topics with the prefix {self.settings.topic_prefix!r} (kafka-acls)"
            )
        elif isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            reason = (
                f"the topic {name!r} takes no message of this size; raise its max.message.bytes, or lower "
                f"kafka.max_message_bytes ({self.settings.max_message_bytes})"
            )
        elif isinstance(error, NotEnoughReplicasError | NotEnoughReplicasAfterAppendError):
            reason = f"too few replicas of the topic {name!r} are in sync; start the brokers that are away"
        elif isinstance(error, UnknownTopicOrPartitionError):
            reason = f"there is no topic {name!r}; {MAKE_TOPICS}"
        elif isinstance(error, PolicyViolationError | InvalidReplicationFactorError):
            reason = f"the topic {name!r} cannot be made: {error}; see kafka.replication_factor"
        elif isinstance(error, TimeoutError):
            reason = "no answer in time; look at the brokers"
        else:
            reason = str(error) or type(error).__name__
        return reason

    def _who(self) -> str:
        return "nobody in particular" if self.settings.username is None else repr(self.settings.username)

    async def _greet(self, host: str, port: int) -> None:
        """Connects, logs in and asks something: servers that want a login answer nothing before it."""
        connection = await create_conn(
            host, port, client_id="windvane", request_timeout_ms=int(CHECK_TIMEOUT_S * 1000), **self._security
        )
        try:
            await connection.send(MetadataRequest([]))
        finally:
            connection.close()

    def _explain_server(self, server: str, error: BaseException) -> WindvaneError:
        security = self.settings.security
        if isinstance(error, socket.gaierror):
            return BusUnavailable(f"Kafka at {server}: nobody knows this host name; correct --bus")
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigInvalid(
                f"Kafka at {server}: its certificate is not trusted ({error.verify_message}); name the "
                "authority's certificate with kafka.ca_file, and the host in --bus as in the certificate"
            )
        if isinstance(error, ssl.SSLError):
            return ConfigInvalid(
                f"Kafka at {server}: no TLS can be spoken ({error.reason or error}); "
                f"kafka.security is {security!r}, is that what this port wants?"
            )
        if isinstance(error, UnsupportedSaslMechanismError):
            return ConfigInvalid(
                f"Kafka at {server}: it has no {self.settings.sasl_mechanism}; set kafka.sasl_mechanism to "
                "one that it has"
            )
        if isinstance(error, AuthenticationFailedError | SaslAuthenticationFailed):
            return ConfigInvalid(
                f"Kafka at {server}: it does not let {self._who()} in with this password; correct "
                "kafka.username and kafka.password or kafka.password_file"
            )
        if isinstance(error, ConnectionRefusedError):
            return BusUnavailable(
                f"Kafka at {server}: nobody listens there; start the broker or correct --bus"
            )
        if isinstance(error, TimeoutError):
            return BusUnavailable(
                f"Kafka at {server}: no answer within {CHECK_TIMEOUT_S:g} s; look after the broker and the "
                f"way to it, or set kafka.security, which is {security!r}, to what this port wants"
            )
        if isinstance(error, KafkaError | EOFError | ConnectionResetError):
            return BusUnavailable(
                f"Kafka at {server}: it closed the connection; kafka.security is {security!r}, is that what "
                "this port wants?"
            )
        return BusUnavailable(f"Kafka at {server}: {error}")

    def _security_options(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {"security_protocol": settings.security.upper()}
        if settings.security in ("ssl", "sasl_ssl"):
            options["ssl_context"] = self._ssl_context()
        if settings.security in ("sasl_plaintext", "sasl_ssl"):
            password = self._password()
            if settings.username is None or password is None:
                raise ConfigInvalid(
                    f"kafka.security = {settings.security!r} needs kafka.username, and kafka.password or "
                    "kafka.password_file"
                )
            options["sasl_mechanism"] = settings.sasl_mechanism
            options["sasl_plain_username"] = settings.username
            options["sasl_plain_password"] = password
        elif settings.username is not None:
            raise ConfigInvalid(
                f"kafka.username is set, but kafka.security = {settings.security!r} has no login; set it to "
                "sasl_ssl or sasl_plaintext"
            )
        return options

    def _password(self) -> str | None:
        if self.settings.password is not None or self.settings.password_file is None:
            return self.settings.password
        path = self.home / self.settings.password_file
        try:
            return path.read_text(encoding="utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigInvalid(f"kafka.password_file: {path} cannot be read: {error}") from None

    def _ssl_context(self) -> ssl.SSLContext:
        settings = self.settings
        files: Mapping[str, Path | None] = {
            name: None if path is None else self.home / path
            for name, path in (
                ("ca_file", settings.ca_file),
                ("cert_file", settings.cert_file),
                ("key_file", settings.key_file),
            )
        }
        for name, path in files.items():
            if path is not None and not path.is_file():
                raise ConfigInvalid(f"kafka.{name}: there is no file {path}")
        try:
            context = ssl.create_default_context(cafile=files["ca_file"])
            if files["cert_file"] is not None:
                context.load_cert_chain(files["cert_file"], files["key_file"])
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(f"kafka.{name} = {path}" for name, path in files.items() if path is not None)
            raise ConfigInvalid(f"{named}: cannot be used for TLS: {error}; are they PEM files?") from None
        return context


def split_server(server: str) -> tuple[str, int]:
    """HOST:PORT, [IPv6]:PORT or HOST alone, which has Kafka's usual port. Raises `ValueError`.

    >>> split_server("kafka-1:19092")
    ('kafka-1', 19092)
    """
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or (":" in host and not bracketed) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{server!r} is no HOST:PORT")
    return host, int(port)
