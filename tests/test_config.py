import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from windvane.addresses import format_address, is_loopback, parse_address
from windvane.config import load_settings
from windvane.errors import ConfigInvalid
from windvane.home import ensure_token, make_home, make_run_dir


def load(home: Path, toml: str = "", environment: Mapping[str, str] | None = None, **flags: Any) -> Any:
    home.mkdir(exist_ok=True)
    if toml:
        (home / "windvane.toml").write_text(toml)
    return load_settings(home=home, environment=environment or {}, flags=flags)


def test_the_later_source_wins(tmp_path: Path) -> None:
    toml = 'forward = "127.0.0.1:1"\nweb = "127.0.0.1:2"\nbus = "discard:"\n[worker]\npoll_bytes = 5\n'
    environment = {
        "WINDVANE_WEB": "127.0.0.1:3",
        "WINDVANE_BUS": "embedded:",
        "WINDVANE_WORKER_POLL_BYTES": "6",
    }
    settings = load(tmp_path, toml, environment, bus="kafka://broker:9092", web=None)
    assert settings.forward == "127.0.0.1:1"
    assert settings.web == "127.0.0.1:3"
    assert settings.bus == "kafka://broker:9092"
    assert settings.worker.poll_bytes == 6
    assert settings.worker.checkpoint_interval_s == 2.0


def test_home_comes_from_the_flag_then_the_environment_then_the_user_s_data_directory(tmp_path: Path) -> None:
    environment = {"WINDVANE_HOME": str(tmp_path / "e"), "XDG_DATA_HOME": str(tmp_path / "x")}
    assert load_settings(home=tmp_path / "f", environment=environment).home == tmp_path / "f"
    assert load_settings(environment=environment).home == tmp_path / "e"
    del environment["WINDVANE_HOME"]
    assert load_settings(environment=environment).home == tmp_path / "x" / "windvane"
    assert load_settings(environment={}).home == Path.home() / ".local" / "share" / "windvane"


def test_a_config_file_elsewhere_can_name_the_home_relative_to_itself(tmp_path: Path) -> None:
    config = tmp_path / "site.toml"
    config.write_text('home = "data"\ndead_letter_bytes = 7\n')
    settings = load_settings(config=config, environment={})
    assert settings.home == tmp_path / "data"
    assert settings.dead_letter_bytes == 7
    assert load_settings(config=config, home=tmp_path / "f", environment={}).home == tmp_path / "f"


@pytest.mark.parametrize(
    ("toml", "environment", "flags", "words"),
    [
        ('gatway = 1', {}, {}, ["windvane.toml", "`gatway`", "did you mean `gateway`"]),
        ("[gateway]\npending = 1", {}, {}, ["`gateway.pending`", "did you mean `gateway.pending_bytes`"]),
        ("[worker]\npoll_bytes = 0", {}, {}, ["worker.poll_bytes = 0", ">= 1"]),
        ('worker = 3', {}, {}, ["write [worker]"]),
        ('home = "/x"', {}, {}, ["cannot be set in the file that is found by it"]),
        ("forward = ", {}, {}, ["windvane.toml", "not valid TOML"]),
        ("", {"WINDVANE_WORKER_POLL_BYTES": "many"}, {}, ["variable WINDVANE_WORKER", "poll_bytes = 'many'"]),
        ("", {}, {"forward": "24224"}, ["--forward", "write HOST:PORT"]),
        ("", {}, {"web": "localhost:http"}, ["--web", "no port between 0 and 65535"]),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_rejected_with_its_source_and_what_is_allowed(
    tmp_path: Path, toml: str, environment: dict[str, str], flags: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigInvalid) as rejected:
        load(tmp_path, toml, environment, **flags)
    for word in words:
        assert word in str(rejected.value)


def test_variables_with_the_prefix_that_name_no_setting_are_left_alone(tmp_path: Path) -> None:
    settings = load(tmp_path, "", {"WINDVANE_PORT": "tcp://10.0.0.1:80", "WINDVANE_SERVICE_HOST": "10.0.0.1"})
    assert settings.forward == "127.0.0.1:24224"


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("::1", 24224), ("gateway.example", 65535)])
def test_addresses_survive_a_round_trip(address: tuple[str, int]) -> None:
    assert parse_address(format_address(*address)) == address


@pytest.mark.parametrize("text", ["::1:24224", ":24224", "host:", "host:65536", "host:-1", "host:²"])
def test_an_invalid_address_is_rejected(text: str) -> None:
    with pytest.raises(ConfigInvalid):
        parse_address(text)


def test_loopback_is_what_only_this_machine_can_reach() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.7", "gateway.example", ""))


def test_the_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    settings = load(tmp_path / "new")
    token = ensure_token(settings)
    assert len(token) >= 32
    assert ensure_token(settings) == token
    assert stat.S_IMODE(settings.token_file.stat().st_mode) == 0o600
    assert [path.name for path in settings.home.iterdir()] == ["token"]


def test_only_its_owner_may_enter_the_run_directory(tmp_path: Path) -> None:
    settings = load(tmp_path)
    settings.run_dir.mkdir(mode=0o755)
    assert stat.S_IMODE(make_run_dir(settings).stat().st_mode) == 0o700


def test_a_home_that_is_made_is_this_user_s_alone_and_one_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    made = make_home(load_settings(home=tmp_path / "new", environment={}))
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    made.chmod(0o750)
    make_home(load_settings(home=made, environment={}))
    assert stat.S_IMODE(made.stat().st_mode) == 0o750


def test_a_home_that_cannot_be_made_is_said_with_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigInvalid, match="cannot be created: Not a directory; give --home a folder"):
        make_run_dir(load_settings(home=tmp_path / "file" / "home", environment={}))


def test_an_address_without_a_host_is_answered_with_one_of_its_own_kind() -> None:
    with pytest.raises(ConfigInvalid, match=r"'8081' is not an address; .* 127\.0\.0\.1:8081 or \[::1"):
        load_settings(environment={}, flags={"web": "8081"})
    with pytest.raises(ConfigInvalid, match=r"for example 127\.0\.0\.1:8080 or"):
        load_settings(environment={}, flags={"web": "here"})


def test_kafka_is_set_by_file_and_environment_and_its_password_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "windvane.toml").write_text(
        '[kafka]\nsecurity = "sasl_ssl"\nusername = "w"\nca_file = "ca.pem"\n'
    )
    settings = load_settings(home=tmp_path, environment={"WINDVANE_KAFKA_PASSWORD": "s3cret"})
    assert (settings.kafka.security, settings.kafka.username) == ("sasl_ssl", "w")
    assert settings.kafka.ca_file == Path("ca.pem")
    assert settings.kafka.password == "s3cret"
    assert "s3cret" not in repr(settings)
    (tmp_path / "windvane.toml").write_text("[kafka]\npassword = 53278\n")
    with pytest.raises(ConfigInvalid, match=r"kafka\.password") as rejected:
        load_settings(home=tmp_path, environment={})
    assert "53278" not in str(rejected.value)
