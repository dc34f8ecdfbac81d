"""`windvane doctor`: what is wrong is named with its fix, what is well is not, and no secret is shown."""

import datetime
import json
import os
import signal
import socket
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest
import trustme
from windvane.commands.diagnosis.kafka import Cluster, TopicReplicas, check_cluster
from windvane.commands.diagnosis.machine import check_files, check_mappings, check_year
from windvane.store.databases.checkpoint import SqlCheckpointDatabase
from windvane.store.files.store import Store

from tests.cli.conftest import Run
from tests.kafka_broker import PASSWORD, USER, KafkaBroker
from tests.processes import Running, windvane
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.system

ANY_PORTS = ("--forward", "127.0.0.1:0", "--web", "127.0.0.1:0")
CLOCKS = {"clock", "clock synchronization"}  # of the machine that runs the tests


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    return path


def findings(run: Run, *options: str, exit_code: int = 0) -> dict[str, dict[str, str]]:
    """By check; of several with one name the worst."""
    listed = json.loads(run("doctor", *ANY_PORTS, "--json", *options, exit_code=exit_code).stdout)
    found: dict[str, dict[str, str]] = {}
    for each in sorted(listed, key=lambda each: ["skipped", "ok", "warning", "failure"].index(each["state"])):
        assert sorted(each) == ["check", "fix", "message", "state"]
        assert (each["state"] in ("warning", "failure")) == bool(each["fix"])
        found[each["check"]] = each
    return found


def wrong(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {
        name: each["state"]
        for name, each in found.items()
        if each["state"] in ("warning", "failure") and name not in CLOCKS
    }


def test_an_empty_home_and_none_at_all_have_nothing_wrong(run: Run, home: Path) -> None:
    assert wrong(findings(run)) == {}
    home.rmdir()
    assert wrong(findings(run)) == {}
    assert not home.exists()


def test_a_running_installation_has_nothing_wrong_and_its_ports_are_ours(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home") as site:
        ports = ("--forward", site.ready["forward"], "--web", site.ready["web"].removeprefix("http://"))
        ended = windvane(site.home, "doctor", "--json", *ports)
        found = {each["check"]: each for each in json.loads(ended.stdout)}
        assert (ended.returncode, wrong(found)) == (0, {})
        for name in ("forward", "web"):
            assert "ours" in found[f"{name} port"]["message"]
        for name in ("catalog", "checkpoints", "dead-letters"):
            assert found[f"database {name}.sqlite"]["message"].startswith("whole (integrity_check")
        assert found["tier worker"]["message"].endswith("0 restarts")
        shown = windvane(site.home, "doctor", *ports)
        assert shown.returncode == 0
        assert site.ready["token"] not in shown.stdout.decode()
        print(shown.stdout.decode())
        site_modes = {path: path.stat().st_mode for path in site.home.glob("*.sqlite*")}
    assert all(stat.S_IMODE(mode) == 0o600 for mode in site_modes.values())


def child_pid(site: Running, command: bytes) -> int:
    children = Path(f"/proc/{site.pid}/task/{site.pid}/children").read_text().split()
    [found] = [
        each for each in children if command in Path(f"/proc/{each}/cmdline").read_bytes().split(b"\0")
    ]
    return int(found)


def test_a_worker_that_is_stopped_is_not_called_running(tmp_path: Path) -> None:
    with Running("up", tmp_path / "home") as site:
        worker = child_pid(site, b"worker")
        os.kill(worker, signal.SIGSTOP)
        try:
            listed = json.loads(windvane(site.home, "doctor", "--json").stdout)
        finally:
            os.kill(worker, signal.SIGCONT)
        found = {each["check"]: each for each in listed}
        assert found["tier worker"]["state"] == "failure"
        assert "has not answered" in found["tier worker"]["message"]
        assert found["tier gateway"]["state"] == "ok"


def test_checkpoints_that_are_missing_next_to_streams_are_a_failure(run: Run, home: Path) -> None:
    with Store(home / "store") as store, store.stream_writer("t", attrs={"tag": "t"}) as writer:
        writer.resume(None, database_id=b"d" * 16)
        writer.append(b"abc", arrived_ns=1, chunk_id=b"1", events=1)
    found = findings(run, exit_code=1)["database checkpoints.sqlite"]
    assert found["state"] == "failure"
    assert "is missing, and the store has 1 stream:" in found["message"]
    assert "restore the latest copy first" in found["fix"]
    SqlCheckpointDatabase(home / "checkpoints.sqlite").close()
    assert findings(run)["database checkpoints.sqlite"]["state"] == "ok"


def test_a_port_that_another_program_has_is_a_failure(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = findings(run, "--web", address, exit_code=1)["web port"]
    assert found["message"] == f"{address} cannot be bound: Address already in use"
    assert "--web HOST:PORT" in found["fix"]


def test_a_port_open_to_others_without_credentials_is_a_failure(run: Run) -> None:
    assert wrong(findings(run, "--forward", "0.0.0.0:0", exit_code=1)) == {"forward access": "failure"}


def make_database(path: Path, *, version: int = 1) -> bytes:
    database = sqlite3.connect(path)
    database.executescript(f"CREATE TABLE t (x); CREATE INDEX i ON t (x); PRAGMA user_version = {version}")
    database.executemany("INSERT INTO t VALUES (?)", [(f"{number:08}" * 10,) for number in range(1000)])
    database.commit()
    database.close()
    path.chmod(0o600)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["header", "page", "bit", "cut"])
def test_a_damaged_database_is_named_and_not_touched(run: Run, home: Path, damage: str) -> None:
    path = home / "catalog.sqlite"
    content = bytearray(make_database(path))
    if damage == "header":
        content[:16] = bytes(16)
    elif damage == "bit":  # of a value that is in the table and in the index
        content[content.rindex(b"00000500")] ^= 1
    elif damage == "page":
        content[4096 * 3 : 4096 * 4] = b"\xff" * 4096
    else:
        del content[4096 * 3 :]
    path.write_bytes(content)
    found = findings(run, exit_code=1)
    assert wrong(found) == {"database catalog.sqlite": "failure"}
    assert str(path) in found["database catalog.sqlite"]["message"]
    assert "restore it from a copy" in found["database catalog.sqlite"]["fix"]
    assert path.read_bytes() == content
    assert [each.name for each in home.iterdir()] == ["catalog.sqlite"]


def test_a_database_of_a_newer_windvane_is_a_failure(run: Run, home: Path) -> None:
    make_database(home / "checkpoints.sqlite", version=999)
    found = findings(run, exit_code=1)["database checkpoints.sqlite"]
    assert "has format 999" in found["message"]


def test_modes_that_allow_others_are_failures_with_the_command_that_fixes_them(run: Run, home: Path) -> None:
    make_database(home / "dead-letters.sqlite")
    (home / "operations").mkdir()
    (home / "operations" / "own.py").touch()
    (home / "token").write_text("a-token-that-nobody-may-print")
    loose = {
        home: 0o755,
        home / "dead-letters.sqlite": 0o644,
        home / "token": 0o640,
        home / "operations": 0o755,
        home / "operations" / "own.py": 0o666,
    }
    for path, mode in loose.items():
        path.chmod(mode)
    shown = run("doctor", *ANY_PORTS, exit_code=1).stdout
    assert "a-token-that-nobody-may-print" not in shown
    fixes = [
        line.split("fix: ")[1].split(";")[0].split(",")[0] for line in shown.splitlines() if "fix: ch" in line
    ]
    assert fixes == [
        f"chmod 0700 {home}",
        f"chmod 0600 {home}/dead-letters.sqlite",
        f"chmod 0600 {home}/token",
        f"chmod go-w {home}/operations/own.py",
    ]
    for fix in fixes:  # as a reader would
        os.system(fix)
    assert wrong(findings(run)) == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to another user")
def test_files_of_another_user_are_a_failure(run: Run, home: Path) -> None:
    (home / "store").mkdir()
    os.chown(home / "store", 65534, 65534)
    found = findings(run, exit_code=1)["owners"]
    assert f"such as {home}/store" in found["message"]
    (home / "windvane.toml").write_text('home_mode = "0770"\n')
    assert wrong(findings(run)) == {}


class Certificates:
    """Files that trustme makes, and the settings that name them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.authority = trustme.CA()

    def write(self, *, days: float = 90, key_of_another: bool = False, key_mode: int = 0o600) -> None:
        ends = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        begins = ends - datetime.timedelta(days=365)
        issued = self.authority.issue_cert("localhost", not_before=begins, not_after=ends)
        other = self.authority.issue_cert("localhost") if key_of_another else issued
        (self.home / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        (self.home / "key.pem").write_bytes(other.private_key_pem.bytes())
        (self.home / "key.pem").chmod(key_mode)
        (self.home / "windvane.toml").write_text(
            '[gateway]\ntls_cert_file = "cert.pem"\ntls_key_file = "key.pem"\n'
        )


@pytest.mark.parametrize(
    ("written", "expected", "words"),
    [
        ({}, {}, ""),
        ({"days": -1}, {"certificate": "failure"}, "ended on"),
        ({"days": 400}, {"certificate": "failure"}, "on"),
        ({"days": 10}, {"certificate": "warning"}, "ends in 10 days"),
        ({"key_of_another": True}, {"certificate": "failure"}, "do not belong together"),
        ({"key_mode": 0o644}, {"certificate: key": "failure"}, "every user may use it"),
        ({"key_mode": 0o640}, {"certificate: key": "warning"}, "its group may use it"),
    ],
)
def test_certificates(
    run: Run, home: Path, written: dict[str, Any], expected: dict[str, str], words: str
) -> None:
    Certificates(home).write(**written)
    found = findings(run, exit_code=1 if "failure" in expected.values() else 0)
    assert wrong(found) == expected
    for name in expected:
        assert words in found[name]["message"]
    if not expected:
        assert (
            "holds for 9" in found["certificate"]["message"]
            or "holds for 89" in found["certificate"]["message"]
        )


def test_secrets_that_cannot_be_used_are_a_failure_and_not_shown(run: Run, home: Path) -> None:
    path = home / "forward-security.toml"
    for text in ('shared_key = "do-not-print-me', 'shared_key = "do-not-print-me"\nuser = "do-not-print-me"'):
        path.write_text(text)
        path.chmod(0o600)
        result = run("doctor", *ANY_PORTS, exit_code=1)
        assert "✗ failure  forward-security.toml" in result.output
        assert "do-not-print-me" not in result.output
    path.write_text('shared_key = "do-not-print-me"\n[[user]]\nname = "u"\npassword = "do-not-print-me"\n')
    result = run("doctor", *ANY_PORTS)
    assert "can be used: 1 users, 0 tokens, 0 clients" in result.output
    assert "do-not-print-me" not in result.output


def test_a_full_disk_is_a_failure(run: Run, home: Path) -> None:
    with small_disk(home / "disk", size="8m") as disk:
        inside = disk / "home"
        inside.mkdir(mode=0o700)
        assert wrong(findings(run, "--home", str(inside))) == {}
        fill(disk, leave_bytes=2_000_000)
        assert wrong(findings(run, "--home", str(inside))) == {"disk": "warning"}
        fill(disk)
        found = findings(run, "--home", str(inside), exit_code=1)
        assert wrong(found) == {"disk": "failure"}
        assert "nothing is stored" in found["disk"]["message"]


@pytest.mark.parametrize(
    ("outputs", "limit", "state"),
    [(0, 1000, "failure"), (0, 1024, "ok"), (1000, 1024, "warning"), (1000, -1, "ok")],
)
def test_open_files(outputs: int, limit: int, state: str) -> None:
    assert check_files(outputs, limit).state == state


@pytest.mark.parametrize(("outputs", "state"), [(0, "ok"), (30_000, "ok"), (40_000, "warning")])
def test_memory_mappings(outputs: int, state: str) -> None:
    found = check_mappings(outputs, 65_530)
    assert found.state == state
    assert ("sysctl -w vm.max_map_count=262144" in found.fix) == (state == "warning")


@pytest.mark.parametrize(("year", "state"), [(1970, "failure"), (2026, "ok"), (2200, "failure")])
def test_the_year(year: int, state: str) -> None:
    assert check_year(datetime.datetime(year, 6, 1, tzinfo=datetime.UTC)).state == state


@pytest.mark.parametrize(
    ("replicas", "in_sync", "min_isr", "expected"),
    [
        (3, 3, 2, {"kafka replicas": "ok"}),
        (3, 2, 2, {"kafka replicas": "ok"}),
        (3, 1, 2, {"kafka in sync": "failure"}),
        (1, 1, 1, {"kafka replicas": "warning"}),
        (3, 3, 1, {"kafka min ISR": "warning"}),
        (3, 3, 3, {"kafka min ISR": "warning"}),
    ],
)
def test_replicas(replicas: int, in_sync: int, min_isr: int, expected: dict[str, str]) -> None:
    cluster = Cluster(3, "", None, (TopicReplicas("windvane.x", replicas, in_sync, min_isr),))
    assert {each.check: each.state for each in check_cluster(cluster, wanted_replicas=None)} == expected


@pytest.fixture
def on_kafka(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("WINDVANE_KAFKA_TOPIC_PREFIX", f"{kafka.prefix()}.")
    return f"kafka://{kafka.address('PLAINTEXT')}"


def test_a_cluster_that_lets_us_in_says_its_version_and_its_replicas(run: Run, on_kafka: str) -> None:
    found = findings(run, "--bus", on_kafka)
    assert "lets us in; brokers: 1; protocol: Produce 0-" in found["kafka"]["message"]
    assert wrong(found) == {}
    assert wrong(findings(run, "--bus", f"{on_kafka},127.0.0.1:1")) == {"kafka brokers": "warning"}
    run("policy", "create", "voice", "--tag", "voice")
    run("topics", "apply", "--bus", on_kafka)
    found = findings(run, "--bus", on_kafka)
    assert wrong(found) == {"kafka replicas": "warning"}  # one broker has one replica
    print(found["kafka"]["message"], "|", found["kafka replicas"]["message"])


def test_a_cluster_that_cannot_be_used_is_a_failure_in_words_without_the_password(
    run: Run, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = closed.getsockname()[1]
    found = findings(run, "--bus", f"kafka://127.0.0.1:{nobody}", exit_code=1)
    assert "no server listens on this port" in found["kafka"]["message"]
    wrong_password = PASSWORD + "-and-more"
    for name, value in {"SECURITY": "sasl_plaintext", "USERNAME": USER, "PASSWORD": wrong_password}.items():
        monkeypatch.setenv(f"WINDVANE_KAFKA_{name}", value)
    monkeypatch.setenv("WINDVANE_KAFKA_SASL_MECHANISM", "PLAIN")
    result = run("doctor", *ANY_PORTS, "--bus", f"kafka://{kafka.address('SASL_PLAINTEXT')}", exit_code=1)
    assert "the login of 'windvane' failed" in result.output
    assert wrong_password not in result.output
