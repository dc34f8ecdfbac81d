"""The file with the secrets: what it may hold, who may read it, and that it never tells."""

from pathlib import Path

import pytest
from windvane.config import GatewaySettings, Settings
from windvane.errors import ConfigInvalid
from windvane.ingest.security.settings import load_security, parse_peer, parse_security, require_guarded_port

from tests.ingest.forward.forward_site import write_security

TWO_USERS = """[[user]]
name = "n1"
password = "p1"
[[user]]
name = "n2"
password = "p2"
"""
EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "forward-security.toml"


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
        ('shared_key = "secret-one\nx', "line 1: is not valid TOML"),
        (
            'shared_key = "a"\n\n[[user]]\nname = "n"\npassword = "secret-one',
            "line 5: is not valid TOML: U",
        ),
        ('shared_key = "a"\n[[user]\nname = "n"', "line 2: is not valid TOML"),
        ('shared_key = "a"\n[user', "line 2: is not valid TOML"),
        ('shared_key = "a"\nhostname = """\nx\ny\n', "line 2: is not valid TOML"),
        ('shared_key = "a"\r\nothers = 1\r\n', "line 2: others: expected `bool`"),
        (TWO_USERS + 'pasword = "x"\n', r"line 7: user\[1\]: object contains unknown field `pasword`"),
        (TWO_USERS.replace('"p2"', "7"), r"line 6: user\[1\].password: expected `str`, got `int`"),
        (TWO_USERS.replace('password = "p2"', ""), r"line 4: user\[1\]: .*missing required field `password`"),
        (TWO_USERS.replace('"n2"', '"n1"'), r"line 5: user\[1\].name: 'n1' is there twice"),
        ("shared_key = 'a'\nuser = [\n{name='n', password='p'},\n{name='m'}]", r"line 2: user\[1\]: "),
        ("shared_key = 'a'\nclient = 3", "line 2: client: expected `array`"),
        ("a.b = 1", "line 1: the file: object contains unknown field `a`"),
        ('[[token]]\nname = "n"\ntoken = "short"', r"line 3: token\[0\].token: "),
        ("# nothing\nothers = false\n", "neither shared_key nor"),
    ],
)
def test_the_error_of_an_invalid_file_names_the_line_and_contains_no_secret(text: str, said: str) -> None:
    with pytest.raises(ConfigInvalid, match=said) as rejected:
        parse_security(text)
    assert "secret-one" not in str(rejected.value)


def test_users_and_tokens_alone_are_for_http() -> None:
    for text in (TWO_USERS, '[[token]]\nname = "n"\ntoken = "0123456789abcdef"\n'):
        security = parse_security(f"# A comment\n\n{text}")
        assert security.has_logins
        assert not security.takes_forward
        assert "above line 3" in security.why_no_forward
        assert security.entry("any", parse_peer("10.0.0.7")) is None
    assert parse_security(f'shared_key = "k"\n{TWO_USERS}').takes_forward


def test_a_network_limits_logins_over_http_without_a_shared_key() -> None:
    text = TWO_USERS + '[[client]]\nnetworks = ["10.7.0.0/16"]\nusers = ["n1"]\n'
    security = parse_security(text + '[[client]]\nnetworks = ["10.8.0.0/16"]\nshared_key = "k"\n')
    assert security.lets_in("n1", parse_peer("10.7.0.3"))
    assert not security.lets_in("n2", parse_peer("10.7.0.3"))
    assert security.entry("any", parse_peer("10.7.0.3")) is None
    assert security.entry("any", parse_peer("10.8.0.3")) is not None
    assert security.takes_forward


def test_a_byte_order_mark_is_valid(tmp_path: Path) -> None:
    write_security(tmp_path, '\ufeffshared_key = "a"')
    assert load_security(tmp_path / "forward-security.toml") is not None


def test_bytes_that_are_not_utf8_are_an_error_with_their_line(tmp_path: Path) -> None:
    write_security(tmp_path, "")
    path = tmp_path / "forward-security.toml"
    path.write_bytes(b'shared_key = "a"\nhostname = "\xff"\n')
    with pytest.raises(ConfigInvalid, match="line 2: is not UTF-8"):
        load_security(path)


def test_an_empty_key_goes_with_users() -> None:
    assert parse_security('shared_key = ""\n[[user]]\nname = "n"\npassword = "p"').shared_key == b""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o700, 0o4600])
def test_a_file_that_others_may_read_is_rejected(tmp_path: Path, mode: int) -> None:
    write_security(tmp_path, 'shared_key = "a"')
    path = tmp_path / "forward-security.toml"
    path.chmod(mode)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        load_security(path)


def test_without_a_file_there_is_no_security(tmp_path: Path) -> None:
    assert load_security(tmp_path / "forward-security.toml") is None
    with pytest.raises(ConfigInvalid, match=r"is not a file|cannot be read"):
        load_security(tmp_path)


@pytest.mark.parametrize("address", ["0.0.0.0:24224", "[::]:24224", "10.1.1.1:24224", "park.example:24224"])
def test_the_port_opens_to_other_hosts_only_if_it_requires_credentials(tmp_path: Path, address: str) -> None:
    open_to_others = Settings(home=tmp_path, forward=address)
    with pytest.raises(ConfigInvalid, match="requires no credentials"):
        require_guarded_port(open_to_others)
    # A certificate of its own says who the gateway is, not who the sender is.
    with pytest.raises(ConfigInvalid, match="requires no credentials"):
        require_guarded_port(
            Settings(home=tmp_path, forward=address, gateway=GatewaySettings(tls_cert_file=Path("c.pem")))
        )
    require_guarded_port(
        Settings(home=tmp_path, forward=address, gateway=GatewaySettings(tls_client_ca_file=Path("ca.pem")))
    )
    for text in ('shared_key = "a"', TWO_USERS, "broken = [", ""):
        write_security(tmp_path, text)  # asks for credentials, or keeps the port shut
        require_guarded_port(open_to_others)


@pytest.mark.parametrize("address", ["127.0.0.1:24224", "[::1]:0", "localhost:24224"])
def test_on_loopback_it_need_not(tmp_path: Path, address: str) -> None:
    require_guarded_port(Settings(home=tmp_path, forward=address))
