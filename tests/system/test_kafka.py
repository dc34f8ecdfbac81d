"""The tiers over a real Kafka: results as over the embedded bus, also after the broker stops and restarts."""

import asyncio
import secrets
from pathlib import Path

import msgpack
from windvane.lab import connect

from tests.kafka_broker import KafkaBroker
from tests.processes import Running, wait_until, windvane
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

CHUNKS = 150  # of each stream
STREAMS = [f"park.t{i:02}" for i in range(4)]


async def test_a_broker_that_is_killed_under_load_and_comes_back_changes_nothing(
    kafka: KafkaBroker, tmp_path: Path
) -> None:
    chunks = {tag: chunks_of(tag, CHUNKS) for tag in STREAMS}
    expected = await undisturbed_results(tmp_path / "undisturbed", chunks)
    home = tmp_path / "disturbed"
    make_policy(home, partitions=2)
    environ = {**FAST_CHECKPOINTS, "WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}."}
    bus = ["--bus", f"kafka://{kafka.bootstrap}"]
    with (
        Running("gateway", home, *bus, environ=environ) as gateway,
        Running("worker", home, *bus, environ=environ) as worker,
    ):
        release = Release(0)
        sending = [
            asyncio.ensure_future(send_until_acked(gateway, of_tag, release)) for of_tag in chunks.values()
        ]
        await release.allow(CHUNKS // 3)
        await asyncio.to_thread(wait_until, lambda: taken(gateway) >= CHUNKS // 6, "some are taken")
        await asyncio.to_thread(kafka.kill)
        await release.allow(2 * CHUNKS // 3)
        await asyncio.to_thread(wait_until, lambda: gateway.status()["pending_bytes"] > 0, "one waits")
        waiting = gateway.status()
        await asyncio.to_thread(kafka.start)
        await release.allow(CHUNKS)
        await asyncio.gather(*sending)
        assert waiting["refused_total"] == 0
        await asyncio.to_thread(wait_until_stored, [worker], home, sizes_of(chunks))
    found = results(home)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def taken(gateway: Running) -> int:
    """Chunks that the gateway has on the bus."""
    total: int = gateway.status()["chunks_total"]
    return total


def test_up_runs_over_kafka_and_cuts_chunks_that_are_too_large(kafka: KafkaBroker, tmp_path: Path) -> None:
    home = tmp_path / "home"
    environ = {
        **FAST_CHECKPOINTS,
        "WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}.",
        "WINDVANE_KAFKA_MAX_MESSAGE_BYTES": "65536",
        "WINDVANE_KAFKA_COMPRESSION": "lz4",
    }
    created = windvane(home, "policy", "create", "big", "--format", "raw")
    assert created.returncode == 0, created.stderr.decode()
    pieces = [secrets.token_bytes(1000) for _ in range(500)]
    events = b"".join(msgpack.packb([number, {"message": piece}]) for number, piece in enumerate(pieces))
    too_large = msgpack.packb([1, {"message": bytes(70_000)}])
    with Running("up", home, "--bus", f"kafka://{kafka.bootstrap}", environ=environ) as up:
        for payload in (events, too_large, events):  # the first one again, with its ID
            send(up, "big", payload, chunk_id="one" if payload is events else "two")
        wait_until(lambda: stored(home) == b"".join(pieces), "all pieces are stored, once and in order")
        listed = windvane(home, "dead-letter", "list")
        assert b"event-too-large" in listed.stdout


def send(up: Running, tag: str, payload: bytes, *, chunk_id: str) -> None:
    """Sends one chunk until it is acked."""
    message = msgpack.packb([tag, payload, {"chunk": chunk_id}])

    async def until_acked() -> None:
        reader, writer = await asyncio.open_connection(*up.forward)
        writer.write(message)
        expected = msgpack.packb({"ack": chunk_id})
        assert await reader.readexactly(len(expected)) == expected
        writer.close()

    asyncio.run(until_acked())


def stored(home: Path) -> bytes:
    context = connect(home)
    return context.streams["big"][:] if "big" in context.streams else b""


def test_a_gateway_that_is_not_authenticated_says_why(kafka: KafkaBroker, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "password").write_text("not the one\n")
    config = tmp_path / "windvane.toml"
    config.write_text(
        f'bus = "kafka://{kafka.address("SASL_PLAINTEXT")}"\n'
        '[kafka]\nsecurity = "sasl_plaintext"\nusername = "windvane"\n'
        f'password_file = "{tmp_path / "password"}"\n'
    )
    ended = windvane(home, "gateway", "--config", str(config), "--forward", "127.0.0.1:0")
    said = ended.stderr.decode()
    assert ended.returncode != 0
    assert "'windvane'" in said
    assert "kafka.password_file" in said
    assert "not the one" not in said
    assert "Traceback" not in said
