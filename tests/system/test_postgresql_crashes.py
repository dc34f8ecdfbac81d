"""Checkpoints, dead letters and catalog on PostgreSQL: kills and lost sessions change no result."""

import asyncio
import json
import random
import socket
from pathlib import Path
from urllib.request import urlopen

import msgpack

from tests.postgresql_server import PostgreSQL
from tests.processes import Running, windvane
from tests.system.disturbance import (
    FAST_CHECKPOINTS,
    Release,
    chunks_of,
    make_policy,
    results,
    send_until_acked,
    sizes_of,
    undisturbed_results,
    wait_until_stored,
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
    gateway.start()
    worker.start()
    release = Release(0)
    sending = [
        asyncio.ensure_future(send_until_acked(gateway, of_tag, release)) for of_tag in chunks.values()
    ]
    chance = random.Random(7)
    for turn in range(1, ROUNDS + 1):
        await release.allow(CHUNKS * turn // (ROUNDS + 1))
        await asyncio.sleep(chance.uniform(0.0, 0.4))
        if turn % 4 == 0:
            await asyncio.to_thread(postgresql.run, END_ALL_SESSIONS)
        victims = chance.choice([[gateway], [worker], [gateway, worker]])
        for victim in victims:
            victim.kill()
        for victim in victims:
            await asyncio.to_thread(victim.start)
    # Some are sent after the last kill: without an append a stream shows the length before the kill.
    await release.allow(CHUNKS)
    await asyncio.gather(*sending)
    await asyncio.to_thread(wait_until_stored, [worker], disturbed, sizes_of(chunks))
    assert gateway.stop() == 0
    assert worker.stop() == 0
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
