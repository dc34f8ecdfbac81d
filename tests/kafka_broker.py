"""The real Apache Kafka that tests ask for: one broker a session, started when the first test needs it."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from deploy.kafka.local.broker import LocalBroker, missing

USER = "windvane"
PASSWORD = "a pass-word that must not be printed"
STRANGER = "stranger"
"""Is known to the broker, and may do nothing."""

_SASL_PLAIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    f'user_{USER}="{PASSWORD}" user_{STRANGER}="{PASSWORD}";'
)
_SASL_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class KafkaBroker(LocalBroker):
    """Listens with every security protocol. Who comes without a name, or as `USER`, may do everything.

    Names of topics and groups begin with a `prefix()` of the test's own; or the test has a bus of its own,
    with a topic prefix of its own. A test may `kill()` the broker and must `start()` it again before it ends;
    what it had taken is there again.
    """

    def __init__(self, data: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = data / "ca.pem"
        server = data / "server.pem"
        data.mkdir(parents=True)
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        # Java reads PKCS #8 alone.
        server.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + b"".join(certificate.bytes() for certificate in issued.cert_chain_pems)
        )
        sasl = {
            f"listener.name.{listener}.{name}": value
            for listener in ("sasl_plaintext", "sasl_ssl")
            for name, value in {
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
                "plain.sasl.jaas.config": _SASL_PLAIN,
                "scram-sha-512.sasl.jaas.config": _SASL_SCRAM,
            }.items()
        }
        super().__init__(
            data,
            listeners=["SASL_PLAINTEXT", "SSL", "SASL_SSL"],
            properties={
                **sasl,
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(server),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.ca_file),
                "ssl.client.auth": "requested",
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": f"User:ANONYMOUS;User:{USER}",
            },
            format_options=["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"],
        )

    @staticmethod
    def prefix() -> str:
        """A name that no other test has, for topics and groups."""
        return f"t{uuid.uuid4().hex[:12]}"

    def address(self, listener: str) -> str:
        """HOST:PORT of the listener of that security protocol."""
        return f"127.0.0.1:{self.ports[listener]}"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The broker; where Java or its jars lack, the test is skipped (with CI set it fails) and says so."""
    if lack := missing():
        if os.environ.get("CI"):
            pytest.fail(lack)
        pytest.skip(lack)
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka") / "broker")
    broker.start()
    yield broker
    broker.stop()
