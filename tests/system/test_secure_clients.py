"""Third-party clients, and our own, at a port with TLS and users, with all tiers."""

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fluent.sender import FluentSender
from windvane.ingest.security.tls import make_client_context
from windvane.lab import connect

from tests.ingest.forward.forward_site import Authority, write_security
from tests.processes import Running, wait_until, what_send_says, windvane
from tests.system.test_real_clients import CLIENTS, create, wait_for_bytes

KEY, PASSWORD = "the shared key", "pässword"
TOKEN = "the token of a machine"
SECURITY = f'''
shared_key = "{KEY}"
[[user]]
name = "north"
password = "{PASSWORD}"
[[token]]
name = "sensor"
token = "{TOKEN}"
'''
CLIENT = {"clientHostname": "node.park", "sharedKey": KEY, "username": "north", "password": PASSWORD}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("secure") / "home"
    home.mkdir()
    Authority(home).issue("gateway", "127.0.0.1")
    write_security(home, SECURITY)
    (home / "windvane.toml").write_text(
        '[gateway]\ntls_cert_file = "gateway.pem"\ntls_key_file = "gateway.key"\n'
    )
    for name, secret in (("key", KEY), ("password", PASSWORD)):
        (home / name).write_text(secret + "\n")
    return home


@pytest.fixture(scope="module")
def site(home: Path) -> Iterator[Running]:
    with Running("up", home, "--demo") as running:
        yield running


def node(site: Running, tag: str, file: Path, mode: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.which("node")
    assert program is not None, "make test brings Node.js where the machine has none"
    return subprocess.run(
        [program, "send.mjs", str(site.forward[1]), tag, str(file), "2048", mode, *more],
        cwd=CLIENTS,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("mode", ["Message", "Forward", "PackedForward", "CompressedPackedForward"])
def test_fluent_org_logger_of_node_with_authentication_tls_and_acks(
    site: Running, home: Path, speech: Path, mode: str
) -> None:
    tag = f"secure.{mode}"
    create(site, tag)
    sent = node(site, tag, speech, mode, json.dumps(CLIENT), str(home / "ca.pem"))
    assert sent.returncode == 0, sent.stderr.decode()
    assert sent.stdout.decode().strip() == f"{-(-speech.stat().st_size // 2048)} acked"
    wait_for_bytes(site, tag, speech.read_bytes())


@pytest.mark.parametrize("wrong", ["sharedKey", "password", "username"])
def test_fluent_org_logger_with_wrong_credentials_is_not_authenticated(
    site: Running, home: Path, speech: Path, wrong: str
) -> None:
    sent = node(site, "t", speech, "PackedForward", json.dumps({**CLIENT, wrong: "x"}), str(home / "ca.pem"))
    assert sent.returncode != 0
    assert b"mismatch" in sent.stderr


def test_fluent_logger_of_python_by_the_socket(site: Running, home: Path, speech: Path) -> None:
    """It supports neither TLS nor a handshake; a process that may open this home's socket needs none."""
    create(site, "python.local")
    sender = FluentSender(
        "python.local", host=f"unix://{home}/run/forward.sock", msgpack_kwargs={"use_bin_type": True}
    )
    content = speech.read_bytes()
    for at in range(0, len(content), 2048):
        assert sender.emit(None, {"message": content[at : at + 2048]}), sender.last_error
    sender.close()
    wait_for_bytes(site, "python.local", content)


def test_quick_clients_are_all_authenticated(site: Running, home: Path) -> None:
    context = make_client_context(ca=home / "ca.pem")
    for _ in range(50):
        with (
            socket.create_connection(site.forward, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as peer,
        ):
            assert peer.recv(4096).startswith(b"\x92\xa4HELO")


def test_windvane_send_with_key_user_and_authority(
    site: Running, home: Path, speech: Path, tmp_path: Path
) -> None:
    create(site, "sent.far")
    port = site.ready["forward"]
    options = ["--shared-key-file", str(home / "key"), "--user", "north"]
    options += ["--password-file", str(home / "password"), "--tls-ca", str(home / "ca.pem")]
    sent = windvane(tmp_path, "send", "sent.far", str(speech), "--to", port, *options)
    assert sent.returncode == 0, sent.stderr.decode()
    wait_for_bytes(site, "sent.far", speech.read_bytes())
    for secret in (KEY, PASSWORD):
        assert secret not in sent.stderr.decode()


def test_windvane_send_without_tls_says_that_the_port_may_take_tls_only(
    site: Running, tmp_path: Path
) -> None:
    said = what_send_says(tmp_path / "other", site.ready["forward"], tmp_path)
    assert "Perhaps the port accepts TLS only" in said, said


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_logs_in_over_http_and_is_who_the_policy_asks_for(
    site: Running, home: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "north.toml"
    policy.write_text(
        '[[policy]]\nreference = "of.north"\nformat = "json"\n[[policy.allow]]\nidentities = ["north"]\n'
    )
    applied = windvane(home, "apply", str(policy))
    assert applied.returncode == 0, applied.stderr.decode()
    access = (home / "token").read_text().strip()
    for given, status in (
        (["-u", f"north:{PASSWORD}"], 204),
        (["-H", f"Authorization: Bearer {TOKEN}"], 403),  # a machine, but another one
        (["-u", f"anybody:{access}"], 403),  # is accepted, and gives no name
        (["-u", "north:wrong"], 401),
        ([], 401),
    ):
        body = ("-H", "Content-Type: application/json", "-d", '{"n": 1}')
        to = ("--output", str(tmp_path / "answer"), f"{site.ready['web']}/ingest/of.north/of.north")
        posted = subprocess.run(
            ["curl", "--silent", "--write-out", "%{http_code}", *given, *body, *to],
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert int(posted.stdout) == status, given
    assert "forward-security.toml" in json.loads((tmp_path / "answer").read_text())["detail"]
    wait_until(lambda: "of.north" in connect(home).streams, "what was accepted is stored")


def test_windvane_send_to_its_own_home_needs_no_key(site: Running, home: Path, speech: Path) -> None:
    create(site, "sent.here")
    sent = windvane(home, "send", "sent.here", str(speech))
    assert sent.returncode == 0, sent.stderr.decode()
    wait_for_bytes(site, "sent.here", speech.read_bytes())


def test_the_demo_sends_next_to_them(site: Running, home: Path) -> None:
    wait_until(lambda: "turbine.t01.scada" in connect(home).streams, "the wind park is stored")


def test_no_log_and_no_answer_shows_a_secret(site: Running) -> None:
    log = site.log.read_text()
    assert "rejected connection from" in log
    for secret in (KEY, PASSWORD, TOKEN):
        assert secret not in log
