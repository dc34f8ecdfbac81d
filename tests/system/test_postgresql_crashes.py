"""Checkpoints, dead letters and catalog on PostgreSQL: kills and lost sessions change no result."""

import json
import socket
from pathlib import Path
from urllib.request import urlopen

import msgpack

from tests.postgresql_server import PostgreSQL
from tests.processes import Running, windvane
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    chunks_of,
    kill_while_sending,
    make_policy,
    results,
    undisturbed_results,
)

ROUNDS = 8
CHUNKS = 200  # of each stream
STREAMS = [f"park.t{i:02}" for i in range(3)]
END_ALL_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def test_kills_and_lost_sessions_change_nothing(tmp_path: Path, postgresql: PostgreSQL) -> None:
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in STREAMS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)

    disturbed = tmp_path / "disturbed"
    disturbed.mkdir()
    (disturbed / "windvane.toml").write_text(f'database = "{postgresql.url}"\n')
    make_policy(disturbed, partitions=2)
    gateway = Running("gateway", disturbed)
    worker = Running("worker", disturbed, environ=FAST_CHECKPOINTS)

    def end_all_sessions(turn: int) -> None:
        if turn % 4 == 0:
            postgresql.run(END_ALL_SESSIONS)

    await kill_while_sending(gateway, worker, chunks, rounds=ROUNDS, seed=7, disturb=end_all_sessions)
    found = results(disturbed)
    assert [name for name in expected if found.get(name) != expected[name]] == []
    assert not list(disturbed.glob("*.sqlite"))
    doctor = windvane(disturbed, "doctor")
    assert doctor.returncode == 0, doctor.stdout.decode()
    assert "3 checkpoints, 0 dead letters" in doctor.stdout.decode()
    verified = windvane(disturbed, "verify")
    assert verified.returncode == 0, verified.stderr.decode()


def test_the_flag_of_up_reaches_every_tier(tmp_path: Path, postgresql: PostgreSQL) -> None:
    home = tmp_path / "home"
    flag = ("--database", postgresql.url)
    with Running("up", home, *flag) as site:
        with socket.create_connection(site.forward, timeout=30) as peer:
            peer.sendall(msgpack.packb(["no.policy", [[1, {"a": 1}]], {"chunk": "c"}]))
            with urlopen(f"{site.ready['web']}/api/v1/status", timeout=30) as answer:
                assert json.load(answer)["dead_letters"] is not None
        doctor = windvane(home, "doctor", *flag)
        assert "database server" in doctor.stdout.decode()
    assert not list(home.glob("*.sqlite"))


def test_damage_that_cannot_be_looked_for_is_not_called_none(tmp_path: Path, postgresql: PostgreSQL) -> None:
    home = tmp_path / "home"
    with Running("worker", home, "--database", postgresql.url):
        pass
    postgresql.run("UPDATE windvane_checkpoints.schema_version SET version = 99")
    verified = windvane(home, "verify", "--database", postgresql.url)
    assert verified.returncode != 0
    assert "format 99" in verified.stderr.decode()
    assert "no damage" not in verified.stdout.decode() + verified.stderr.decode()
