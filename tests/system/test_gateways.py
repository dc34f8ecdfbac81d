"""Several gateways and workers over one home: behind one port, side by side, one after another."""

import asyncio
import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import msgpack
import pytest
from windvane.lab import connect

from tests.kafka_broker import KafkaBroker
from tests.processes import Running, wait_until, windvane
from tests.system.disturbance import Chunk, Release, chunks_of, make_policy, send_until_acked

pytestmark = pytest.mark.alone

DISCARD = {"WINDVANE_BUS": "discard:"}
GATEWAYS = 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gateways") / "home"
    make_policy(path, partitions=2)
    return path


@pytest.fixture(scope="module")
def pool(home: Path) -> Iterator[Running]:
    """Three gateways behind one port, on a bus that keeps nothing."""
    with Running("gateway", home, "--processes", str(GATEWAYS), environ=DISCARD) as running:
        yield running


def children(pool: Running) -> set[int]:
    """The process IDs of the gateways."""
    return {int(pid) for pid in Path(f"/proc/{pool.pid}/task/{pool.pid}/children").read_text().split()}


def chunks_taken(home: Path) -> list[int]:
    """By each gateway of the pool."""
    gateways = [Running("gateway", home, instance=str(number)) for number in range(1, GATEWAYS + 1)]
    return [int(gateway.status()["chunks_total"]) for gateway in gateways]


async def test_the_connections_of_one_port_are_shared_out_among_the_gateways(
    pool: Running, home: Path
) -> None:
    before = chunks_taken(home)
    senders = 48
    await asyncio.gather(
        *(send_until_acked(pool, chunks_of(f"park.s{n}", 2), Release(2)) for n in range(senders))
    )
    taken = [now - then for now, then in zip(chunks_taken(home), before, strict=True)]
    assert sum(taken) == 2 * senders
    assert min(taken) > 0, "the kernel chooses by a hash of the ports, so each has some of 48"


async def test_a_killed_gateway_restarts_while_the_others_continue(pool: Running) -> None:
    before = children(pool)
    victim = min(before)
    release = Release(0)
    sending = [
        asyncio.ensure_future(send_until_acked(pool, chunks_of(f"park.k{n}", 40), release)) for n in range(8)
    ]
    await release.allow(20)
    os.kill(victim, signal.SIGKILL)
    await release.allow(40)
    await asyncio.gather(*sending)
    others = before - {victim}

    def all_answer() -> bool:
        with suppress(OSError):
            return len(chunks_taken(pool.home)) == GATEWAYS
        return False

    await asyncio.to_thread(wait_until, all_answer, "three gateways answer again")
    assert children(pool) > others
    assert len(children(pool) - before) == 1


def test_who_looks_for_the_gateway_by_its_usual_names_finds_one(pool: Running, home: Path) -> None:
    assert pool.status()["chunks_total"] >= 0
    announced = json.loads((home / "run" / "gateway.json").read_text())
    assert announced == pool.ready
    assert (home / "run" / "forward.sock").is_socket()


def test_a_second_gateway_of_the_same_name_names_the_running_one(pool: Running, home: Path) -> None:
    rejected = windvane(home, "gateway", "--bus", "discard:", "--forward", "127.0.0.1:0")
    assert rejected.returncode != 0
    assert f"a gateway (process {pool.pid}) already runs over" in rejected.stderr.decode()
    assert "--instance NAME runs another one" in rejected.stderr.decode()


def test_a_port_is_not_shared_with_another_pool(pool: Running, home: Path) -> None:
    host, port = pool.forward
    second = windvane(
        home,
        "gateway",
        "--bus",
        "discard:",
        "--processes",
        "2",
        "--instance",
        "g2",
        "--forward",
        f"{host}:{port}",
    )
    assert second.returncode == 1
    assert "cannot be bound: Address already in use" in second.stderr.decode()


def test_the_status_shows_all_of_them_together_and_each(pool: Running, home: Path) -> None:
    with Running("gateway", home, environ=DISCARD, instance="b"), Running("web", home) as web:
        with urllib.request.urlopen(f"{web.ready['web']}/api/v1/status", timeout=30) as answer:
            status = json.load(answer)
        assert set(status["gateways"]) == {"1", "2", "3", "b"}
        totals = [each["chunks_total"] for each in status["gateways"].values()]
        assert status["gateway"]["chunks_total"] == sum(totals)
        assert status["workers"] == {}
        assert status["worker"] is None
        for _ in range(8):  # one after another, those of the pool and the separate one
            posted = urllib.request.Request(
                f"{web.ready['web']}/ingest/park?reference=park.http",
                data=msgpack.packb([1, {"message": b"12"}]),
                headers={"Content-Type": "application/octet-stream"},
            )
            with urllib.request.urlopen(posted, timeout=30) as answer:
                assert answer.status == 204


async def test_a_pool_drains_and_ends_as_one(home: Path) -> None:
    pool = Running("gateway", home, "--workers", "2", environ=DISCARD, instance="ends")
    pool.start()
    await send_until_acked(pool, chunks_of("park.t", 3), Release(3))
    pids = children(pool)
    assert len(pids) == 2
    assert pool.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    left = sorted(path.name for path in (home / "run").glob("*ends*.json"))
    assert left == ["gateway-ends-1.exit.json", "gateway-ends-2.exit.json"]


def test_the_embedded_bus_takes_one_gateway_and_says_so(tmp_path: Path) -> None:
    home = tmp_path / "home"
    rejected = windvane(home, "gateway", "--processes", "2", "--forward", "127.0.0.1:0")
    assert rejected.returncode != 0
    assert "the embedded bus supports one" in rejected.stderr.decode()
    with Running("gateway", home) as gateway:
        rejected = windvane(home, "gateway", "--instance", "b", "--forward", "127.0.0.1:0")
        assert rejected.returncode != 0
        assert f"a gateway (process {gateway.pid}) already runs over" in rejected.stderr.decode()
        assert "Kafka (--bus kafka://HOST:PORT) several" in rejected.stderr.decode()


async def test_a_chunk_that_comes_through_two_gateways_is_stored_once(
    tmp_path: Path, kafka: KafkaBroker
) -> None:
    home = tmp_path / "home"
    make_policy(home, partitions=2)
    environ = {
        "WINDVANE_BUS": f"kafka://{kafka.bootstrap}",
        "WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}.",
    }
    chunks: list[Chunk] = chunks_of("park.t", 10)
    with (
        Running("gateway", home, environ=environ, instance="a") as first,
        Running("gateway", home, environ=environ, instance="b") as second,
        Running("worker", home, environ=environ) as worker,
    ):
        for chunk in chunks:
            await asyncio.gather(
                send_until_acked(first, [chunk], Release(1)), send_until_acked(second, [chunk], Release(1))
            )
        await asyncio.to_thread(
            wait_until, lambda: worker.status()["repeated_total"] == len(chunks), "each repetition is seen"
        )
        assert worker.status()["chunks_total"] == len(chunks)
    stored = connect(home).streams["park.t"]
    assert stored[:] == b"".join(
        record["message"]
        for chunk in chunks
        for _, record in msgpack.Unpacker(_events(chunk), strict_map_key=False)
    )


def _events(chunk: Chunk) -> BytesIO:
    return BytesIO(msgpack.unpackb(chunk.message)[1])
