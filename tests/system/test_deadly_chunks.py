"""Chunks that crash the worker process, with a second stream, under a real supervisor."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import msgpack
import pytest
from windvane.store.databases.dead_letters import SqlDeadLetters
from windvane.store.files.store import Store

from tests.processes import Running, wait_until, windvane

Figure = Callable[[str], None]
OPERATION = """
import ctypes
import os
import time

from windvane.processors.block import Block
from windvane.processors.operation import Operation, operation

@operation("deadly")
class Deadly(Operation):
    "Ends the process for some values."

    input = "samples"
    output = "values"

    def process(self, block):
        if block.rows[0, 0] == 66:
            ctypes.string_at(0)
        if block.rows[0, 0] == 67:
            os._exit(3)
        if block.rows[0, 0] == 68:
            time.sleep(1.5)
        return Block(block.rows.astype(float), block.first, block.times, block.rate_hz)

    def state(self):
        return None

    def restore(self, state):
        pass
"""
POLICIES = """
[[policy]]
reference = "deadly"
tags = ["d.*"]
format = "raw"
partitions = 1
pipeline = [
  { operation = "pcm", name = "samples", dtype = "int16", rate_hz = 100.0 },
  { operation = "deadly" },
]

[[policy]]
reference = "sorted"
tags = ["s.*"]
format = "raw"
partitions = 1
reorder_s = 0.1
pipeline = [
  { operation = "pcm", name = "samples", dtype = "int16", rate_hz = 100.0 },
  { operation = "deadly" },
]

[[policy]]
reference = "calm"
tags = ["n"]
format = "raw"
partitions = 1
"""


def send(site: Running, tag: str, *values: int) -> None:
    """Each value is a chunk of one sample, acked."""
    with socket.create_connection(site.forward, timeout=30) as connection:
        for value in values:
            event = msgpack.packb([int(time.time()), {"message": value.to_bytes(2, "little")}])
            chunk = f"{tag}-{value}-{time.monotonic_ns()}"
            connection.sendall(msgpack.packb([tag, event, {"chunk": chunk}]))
            expected = msgpack.packb({"ack": chunk})
            got = b""
            while len(got) < len(expected):
                got += connection.recv(len(expected) - len(got))
            assert got == expected


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Running]:
    home = tmp_path / "home"
    (home / "operations").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    operation = home / "operations" / "deadly.py"
    operation.write_text(OPERATION)
    operation.chmod(0o600)
    policies = tmp_path / "policies.toml"
    policies.write_text(POLICIES)
    applied = windvane(home, "apply", str(policies))
    assert applied.returncode == 0, applied.stderr.decode()
    with Running("up", home, environ={"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "0.3"}) as running:
        yield running


def worker_of(site: Running) -> int | None:
    """The worker's process ID; None between two of them."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            arguments = stat.with_name("cmdline").read_bytes().split(b"\0")
            if parent == site.pid and b"worker" in arguments:
                return int(stat.parent.name)
    return None


def has_another_worker(site: Running, before: int) -> bool:
    return worker_of(site) not in (None, before)


def stored(site: Running, stream: str) -> bytes:
    store = Store(site.home / "store")
    if stream not in store.streams():
        return b""
    with store.stream(stream) as found:
        return found.read(0, found.size)


def letters(site: Running, code: str) -> list[str]:
    with closing(SqlDeadLetters(site.home / "dead-letters.sqlite")) as dead:
        return [letter.reason for letter in dead.list(limit=100) if letter.code == code]


@pytest.mark.parametrize(("value", "how"), [(66, "Segmentation fault"), (67, "code 3")])
def test_a_chunk_that_crashes_the_worker_twice_is_set_aside(
    site: Running, figure: Figure, value: int, how: str
) -> None:
    send(site, "n", 1)
    send(site, "d.a", 1, value, 2)
    wait_until(lambda: stored(site, "d.a") == b"\1\0\2\0", "the chunks around it are stored", timeout_s=120)
    send(site, "n", 2)
    wait_until(lambda: stored(site, "n") == b"\1\0\2\0", "the neighbour continues", timeout_s=120)
    [reason] = letters(site, "ended-worker")
    assert how in reason
    assert "2 times" in reason
    figure(f"a chunk that ends the process ({how}): set aside after 2 deaths, its neighbours are stored once")


def test_a_chunk_that_was_held_back_is_set_aside_and_not_the_one_that_lets_it_go(site: Running) -> None:
    send(site, "s.a", 66)
    # Flushed after an idle time, after a checkpoint that includes it.
    wait_until(lambda: letters(site, "ended-worker"), "it is set aside", timeout_s=120)
    send(site, "s.a", 1)
    wait_until(lambda: stored(site, "s.a") == b"\1\0", "the next one is stored", timeout_s=120)
    [reason] = letters(site, "ended-worker")
    assert "Segmentation fault" in reason
    with closing(SqlDeadLetters(site.home / "dead-letters.sqlite")) as dead:
        [letter] = dead.list()
        assert b"\x42\0" in dead.get(letter.id).payload


def test_a_worker_that_is_killed_from_outside_blames_no_chunk(site: Running) -> None:
    send(site, "d.a", 68)
    for _ in range(3):
        before = worker_of(site)
        assert before is not None
        time.sleep(0.2)  # any moment will do; most often the chunk is in progress
        os.kill(before, signal.SIGKILL)
        wait_until(partial(has_another_worker, site, before), "the next worker", timeout_s=60)
    wait_until(lambda: stored(site, "d.a") == b"\x44\0", "the chunk is stored", timeout_s=60)
    send(site, "d.a", 1)
    wait_until(lambda: stored(site, "d.a") == b"\x44\0\1\0", "and what follows", timeout_s=60)
    assert letters(site, "ended-worker") == []


def test_a_policy_whose_chunks_end_the_process_holds_no_neighbour_up_and_blames_none(
    site: Running, figure: Figure
) -> None:
    for number in range(3):
        send(site, "n", number + 1)
        send(site, "d.b", number + 1)
        send(site, "d.a", 66 if number % 2 else 67, number + 1)
    expected = b"\1\0\2\0\3\0"
    for stream in ("n", "d.b", "d.a"):
        wait_until(lambda name=stream: stored(site, name) == expected, f"{stream} is whole", timeout_s=200)  # type: ignore[misc]
    assert len(letters(site, "ended-worker")) == 3, "each chunk is a letter of its own"
    figure("3 chunks that end the process among 9 that do not: 3 set aside, the 9 stored once and in order")
