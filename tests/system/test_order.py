"""Lines that arrive out of order, over both engines: SIGKILL while some are buffered, and an idle time at the
end.
"""

import json
import random
import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgpack
from windvane.lab import connect

from tests.kafka_broker import KafkaBroker
from tests.processes import Running, wait_until, windvane
from tests.system.disturbance import FAST_CHECKPOINTS

POLICIES = """
[[policy]]
reference = "lines"
format = "json"
reorder_s = {reorder_s}
pipeline = [{{ operation = "fields" }}]

[[policy]]
reference = "samples"
format = "raw"
pipeline = [{{ operation = "pcm", dtype = "int16", rate_hz = 100.0 }}]
"""
LINES = 90
BASE_S = 1_790_000_000
REORDER_S = 40
"""Longer than any pause of this machine, since a pause is an idle time too. There is a line for each second
of event time."""


def send(gateway: Running, tag: str, *events: tuple[int, Any]) -> None:
    """One chunk for each event, acked before the next: (number, record)."""
    with socket.create_connection(gateway.forward, timeout=30) as peer:
        for number, record in events:
            payload = msgpack.packb([BASE_S + number, record])
            peer.sendall(msgpack.packb([tag, payload, {"size": 1, "chunk": f"{tag}-{number}"}]))
            expected = msgpack.packb({"ack": f"{tag}-{number}"})
            assert peer.recv(len(expected), socket.MSG_WAITALL) == expected


def apply(home: Path, *, reorder_s: float) -> None:
    home.mkdir(exist_ok=True)
    (home / "policies.toml").write_text(POLICIES.format(reorder_s=reorder_s))
    applied = windvane(home, "apply", str(home / "policies.toml"))
    assert applied.returncode == 0, applied.stderr.decode()


def kill_while_lines_are_held(home: Path, *options: str, environ: dict[str, str], kills: int) -> None:
    """Sends lines out of order; the worker is killed while some are buffered. Then the stream is idle."""
    apply(home, reorder_s=REORDER_S)
    chance = random.Random(5)
    order = sorted(range(LINES), key=lambda n: n + chance.uniform(0, REORDER_S / 2))
    worker = Running("worker", home, *options, environ=environ)
    with Running("gateway", home, *options, environ=environ) as gateway:
        worker.start()
        for turn in range(kills):
            part = order[LINES * turn // kills : LINES * (turn + 1) // kills]
            send(gateway, "lines", *((n, {"n": n}) for n in part))
            wait_until(lambda: held_chunks(worker) > 0, "lines are held")
            worker.kill()
            worker.start()
        # Lines that are read after the edit could be late.
        wait_until(lambda: rows(home) + held_chunks(worker) == LINES and not lag(worker), "all are read")
        assert rows(home) < LINES
        apply(home, reorder_s=0.1)
        wait_until(lambda: rows(home) >= LINES, "all lines are stored")
        wait_until(lambda: held_chunks(worker) == 0, "nothing is held")
        assert worker.status()["late_events_total"] == 0
        assert worker.stop() == 0
    fields = connect(home).arrays["lines:fields"]
    assert fields[:, 0].tolist() == list(range(LINES))
    stored = connect(home).streams["lines"][:].splitlines()
    assert [json.loads(line)["record"]["n"] for line in stored] == list(range(LINES))


def held_chunks(worker: Running) -> int:
    """From the worker's status; after a start, from its checkpoint."""
    held: int = worker.status()["order"].get("lines", {}).get("held_chunks", 0)
    return held


def lag(worker: Running) -> int:
    """The number of unprocessed messages of the worker; at least one before it has its partition."""
    status = worker.status()
    messages: int = status["lag_messages"]
    return messages if status["partitions"] else max(messages, 1)


def rows(home: Path) -> int:
    arrays = connect(home).arrays
    return len(arrays["lines:fields"]) if "lines:fields" in arrays else 0


def test_kills_while_lines_are_held_and_silence_change_nothing(tmp_path: Path) -> None:
    kill_while_lines_are_held(tmp_path / "home", environ=FAST_CHECKPOINTS, kills=2)


def test_over_kafka_too(kafka: KafkaBroker, tmp_path: Path) -> None:
    environ = {**FAST_CHECKPOINTS, "WINDVANE_KAFKA_TOPIC_PREFIX": f"{kafka.prefix()}."}
    kill_while_lines_are_held(
        tmp_path / "home", "--bus", f"kafka://{kafka.bootstrap}", environ=environ, kills=1
    )


def test_the_api_says_what_came_late_or_out_of_order(tmp_path: Path) -> None:
    apply(home := tmp_path / "home", reorder_s=0.1)
    with Running("up", home, environ=FAST_CHECKPOINTS) as up:
        send(up, "lines", (100, {"n": 1}), (200, {"n": 2}), (90, {"n": 3}))
        send(up, "samples", (100, b"\0\0"), (99, b"\1\1"), (101, b"\2\2"))

        def stream(name: str) -> dict[str, Any]:
            with urlopen(f"{up.ready['web']}/api/v1/streams/{name}", timeout=30) as answer:
                found: dict[str, Any] = json.load(answer)
            return found

        wait_until(lambda: rows(home) == 3, "all lines are stored")
        wait_until(lambda: stream("lines")["late_events"] == 1, "the late line is counted")
        wait_until(lambda: stream("samples")["inversions"] == 1, "the chunk of samples is counted")
        wait_until(lambda: stream("lines")["held_chunks"] == 0, "nothing is held")
        assert stream("lines")["order_warning"] is None
        assert "reorder_s" in stream("samples")["order_warning"]
        with urlopen(f"{up.ready['web']}/api/v1/status", timeout=30) as answer:
            worker = json.load(answer)["workers"][""]
        assert worker["order"]["samples"]["warning"] == stream("samples")["order_warning"]
        assert worker["late_events_total"] == 1
