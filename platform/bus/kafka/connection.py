"""The connection to a Kafka cluster, and error messages that explain why it fails."""

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

# aiokafka logs every retry of every connection, and at DEBUG the bytes of the authentication. This module
# reports as errors what a user has to know.
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
        """The cluster, as named in messages."""
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

    async def start_admin(self) -> AIOKafkaAdminClient:
        """A started client of the cluster's administration, which the caller closes. Raises KafkaError."""
        admin = AIOKafkaAdminClient(**self.options())
        try:
            await admin.start()
        except BaseException:
            await admin.close()
            raise
        return admin

    def to_kafka(self, name: str) -> str:
        """The name of a topic or a group on the cluster."""
        return self.settings.topic_prefix + name

    def from_kafka(self, name: str) -> str | None:
        """The inverse of `to_kafka`; None for a topic without the installation's prefix."""
        prefix = self.settings.topic_prefix
        own = name.removeprefix(prefix)
        is_ours = (
            name.startswith(prefix) and own not in ("", INSTALLATION_TOPIC) and not name.startswith("__")
        )
        return own if is_ours else None

    async def check(self) -> None:
        """Check that one of the servers accepts a connection and the login.

        Raises `ConfigInvalid` if a setting has to be changed, `BusUnavailable` if the cause may be temporary.
        """
        errors = []
        for server in self.servers:
            try:
                async with asyncio.timeout(CHECK_TIMEOUT_S):
                    await self._greet(*split_server(server))
                return
            except (OSError, EOFError, KafkaError, TimeoutError) as error:
                errors.append(self._explain_server(server, error))
        # An error that names a wrong setting is more useful than an unreachable server.
        raise next((error for error in errors if isinstance(error, ConfigInvalid)), errors[0])

    async def explain_silence(self, topics: Collection[str] = ()) -> WindvaneError:
        """The reason that requests for these topics get no answer; finds it by querying the cluster."""
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
            f"{self.where}: a request timed out, although brokers can be reached. Check the load and the "
            "logs of the brokers; pending messages are resent"
        )

    async def _look_at(self, topic: str) -> str | None:
        """The reason that the topic accepts no messages; None if its metadata shows none."""
        name = self.to_kafka(topic)
        admin = await self.start_admin()
        try:
            (found,) = await admin.describe_topics([name])
            if found["error_code"]:
                return self.reason(for_code(found["error_code"])(name), topic)
            partitions = found["partitions"]
            if headless := [each["partition"] for each in partitions if each["leader"] < 0]:
                return (
                    f"partition {headless[0]} of the topic {name!r} has no leader: all brokers with its "
                    "replicas are down. Start them"
                )
            in_sync = min(len(each["isr"]) for each in partitions)
            needed = None
            with suppress(KafkaError):  # it needs a permission of its own
                resource = ConfigResource(ConfigResourceType.TOPIC, name, {"min.insync.replicas": None})
                for answer in await admin.describe_configs([resource]):
                    for _, _, _, _, entries in answer.resources:
                        needed = next((int(each[1]) for each in entries if each[0] == _MIN_IN_SYNC), None)
            replicas = min(len(each["replicas"]) for each in partitions)
            if needed is not None and in_sync < needed:
                return (
                    f"only {in_sync} of {replicas} replicas of the topic {name!r} are in sync, but it needs "
                    f"{needed} ({_MIN_IN_SYNC}). Start the brokers that are down"
                )
            if needed is None and in_sync < replicas:
                return (
                    f"only {in_sync} of {replicas} replicas of the topic {name!r} are in sync. Start the "
                    "brokers that are down"
                )
            return None
        finally:
            await admin.close()

    def explain(self, error: BaseException, topic: str | None = None) -> BusUnavailable:
        """The error to report for a failed request; `topic` is a name of the bus, without prefix."""
        if isinstance(error, BusUnavailable):
            return error
        return BusUnavailable(f"{self.where}: {self.reason(error, topic)}")

    async def find_reason(
        self, error: BaseException, topic: str | None = None
    ) -> BusUnavailable | ConfigInvalid:
        """As `explain`; but if the brokers have not rejected the request, first checks the connection."""
        is_rejection = isinstance(error, KafkaError) and not error.retriable
        if not is_rejection and not isinstance(error, UnknownTopicOrPartitionError):
            try:
                await self.check()
            except (BusUnavailable, ConfigInvalid) as reason:
                return reason
        return self.explain(error, topic)

    def reason(self, error: BaseException, topic: str | None = None) -> str:
        """The text of `explain`, without the name of the cluster."""
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
                f"{self._who()} may not write to or create topics; give it READ, WRITE, DESCRIBE and CREATE "
                f"on topics with the prefix {self.settings.topic_prefix!r} (kafka-acls)"
            )
        elif isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            reason = (
                f"the topic {name!r} rejects messages of this size; raise its max.message.bytes, "
                f"or lower kafka.max_message_bytes ({self.settings.max_message_bytes})"
            )
        elif isinstance(error, NotEnoughReplicasError | NotEnoughReplicasAfterAppendError):
            reason = f"too few replicas of the topic {name!r} are in sync; start the brokers that are down"
        elif isinstance(error, UnknownTopicOrPartitionError):
            reason = f"there is no topic {name!r}; {MAKE_TOPICS}"
        elif isinstance(error, PolicyViolationError | InvalidReplicationFactorError):
            reason = f"the topic {name!r} cannot be created: {error}; see kafka.replication_factor"
        elif isinstance(error, TimeoutError):
            reason = "the request timed out; check the brokers"
        else:
            reason = str(error) or type(error).__name__
        return reason

    def _who(self) -> str:
        return "an anonymous client" if self.settings.username is None else repr(self.settings.username)

    async def _greet(self, host: str, port: int) -> None:
        """Connects, logs in and sends a request: servers that require a login answer none before it."""
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
            return BusUnavailable(f"Kafka at {server}: this host name cannot be resolved; correct --bus")
        if isinstance(error, ssl.SSLCertVerificationError):
            return ConfigInvalid(
                f"Kafka at {server}: its certificate is not trusted ({error.verify_message}); name the "
                "authority's certificate with kafka.ca_file, and the host in --bus as in the certificate"
            )
        if isinstance(error, ssl.SSLError):
            return ConfigInvalid(
                f"Kafka at {server}: the TLS handshake failed ({error.reason or error}); "
                f"kafka.security is {security!r}: is that the protocol of this port?"
            )
        if isinstance(error, UnsupportedSaslMechanismError):
            return ConfigInvalid(
                f"Kafka at {server}: it does not support {self.settings.sasl_mechanism}; set "
                "kafka.sasl_mechanism to one that it supports"
            )
        if isinstance(error, AuthenticationFailedError | SaslAuthenticationFailed):
            return ConfigInvalid(
                f"Kafka at {server}: the login of {self._who()} failed; correct "
                "kafka.username and kafka.password or kafka.password_file"
            )
        if isinstance(error, ConnectionRefusedError):
            return BusUnavailable(
                f"Kafka at {server}: no server listens on this port; start the broker or correct --bus"
            )
        if isinstance(error, TimeoutError):
            return BusUnavailable(
                f"Kafka at {server}: no answer within {CHECK_TIMEOUT_S:g} s; check the broker and the "
                f"network, or set kafka.security, which is {security!r}, to the protocol of this port"
            )
        if isinstance(error, KafkaError | EOFError | ConnectionResetError):
            return BusUnavailable(
                f"Kafka at {server}: it closed the connection; kafka.security is {security!r}: is that the "
                "protocol of this port?"
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
                f"kafka.username is set, but kafka.security = {settings.security!r} does not use it; set it "
                "to sasl_ssl or sasl_plaintext"
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
                raise ConfigInvalid(f"kafka.{name}: the file {path} does not exist")
        try:
            context = ssl.create_default_context(cafile=files["ca_file"])
            if files["cert_file"] is not None:
                context.load_cert_chain(files["cert_file"], files["key_file"])
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(f"kafka.{name} = {path}" for name, path in files.items() if path is not None)
            raise ConfigInvalid(
                f"{named}: not usable for TLS: {error}; check that they are PEM files"
            ) from None
        return context


def split_server(server: str) -> tuple[str, int]:
    """Split HOST:PORT, [IPv6]:PORT, or HOST with Kafka's default port. Raises `ValueError`.

    >>> split_server("kafka-1:19092")
    ('kafka-1', 19092)
    """
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        host, port = server, str(DEFAULT_PORT)
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or (":" in host and not bracketed) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{server!r} is not a valid HOST:PORT")
    return host, int(port)
