"""The file with the secrets: what it may hold, who may read it, and that it never tells."""

from pathlib import Path

import pytest
from windvane.config import GatewaySettings, Settings
from windvane.errors import ConfigInvalid
from windvane.ingest.security import load_security, parse_security, require_guarded_port

from tests.ingest.forward_site import write_security

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "forward-security.toml"


def test_the_documented_example_is_what_it_says() -> None:
    security = parse_security(EXAMPLE.read_text())
    assert security.users.keys() == {"park-north", "park-south"}
    assert security.tokens.keys() == {"sensor-7"}
    assert len(security.clients) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither shared_key nor"),
        ('shared_key = ""', "is empty"),
        ('shared_key = "a"\nuser = 3', "user: expected `array`"),
        ('shared_key = "a"\n[[user]]\nname = "n"', "missing required field `password`"),
        ('shared_key = "a"\n[[user]]\nname = "n"\npassword = ""', r"user\[0\].password"),
        ('shared_key = "a"\nshard_key = "b"', "unknown field `shard_key`"),
        ('shared_key = "a"\n' + '[[user]]\nname = "n"\npassword = "p"\n' * 2, "'n' is there twice"),
        ('[[client]]\nhostname = "h"', r"client\[0\]: has no shared_key"),
        ('shared_key = "a"\n[[client]]', r"client\[0\]: names neither"),
        ('shared_key = "a"\n[[client]]\nnetworks = ["10.0.0.1/8"]', r"client\[0\].networks: .*host bits"),
        ('shared_key = "a"\n[[client]]\nnetworks = ["park"]', "write an address or a network"),
        ('shared_key = "a"\n[[client]]\nhostname = "h"\nusers = ["x"]', "no .*name 'x'"),
        ('shared_key = "secret-one\nx', "is no TOML"),
    ],
)
def test_a_broken_file_is_refused_by_the_place_and_no_secret_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said) as refused:
        parse_security(text)
    assert "secret-one" not in str(refused.value)


def test_an_empty_key_goes_with_users() -> None:
    assert parse_security('shared_key = ""\n[[user]]\nname = "n"\npassword = "p"').shared_key == b""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o700, 0o4600])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write_security(tmp_path, 'shared_key = "a"')
    path = tmp_path / "forward-security.toml"
    path.chmod(mode)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        load_security(path)


def test_no_file_is_no_security(tmp_path: Path) -> None:
    assert load_security(tmp_path / "forward-security.toml") is None
    with pytest.raises(ConfigInvalid, match=r"is no file|cannot be read"):
        load_security(tmp_path)


@pytest.mark.parametrize("address", ["0.0.0.0:24224", "[::]:24224", "10.1.1.1:24224", "park.example:24224"])
def test_the_port_opens_to_others_only_where_it_asks_for_credentials(tmp_path: Path, address: str) -> None:
    open_to_others = Settings(home=tmp_path, forward=address)
    with pytest.raises(ConfigInvalid, match="asks for no credentials"):
        require_guarded_port(open_to_others)
    # A certificate of its own says who the gateway is, not who the sender is.
    with pytest.raises(ConfigInvalid, match="asks for no credentials"):
        require_guarded_port(
            Settings(home=tmp_path, forward=address, gateway=GatewaySettings(tls_cert_file=Path("c.pem")))
        )
    require_guarded_port(
        Settings(home=tmp_path, forward=address, gateway=GatewaySettings(tls_client_ca_file=Path("ca.pem")))
    )
    write_security(tmp_path, 'shared_key = "a"')
    require_guarded_port(open_to_others)


@pytest.mark.parametrize("address", ["127.0.0.1:24224", "[::1]:0", "localhost:24224"])
def test_on_loopback_it_need_not(tmp_path: Path, address: str) -> None:
    require_guarded_port(Settings(home=tmp_path, forward=address))
