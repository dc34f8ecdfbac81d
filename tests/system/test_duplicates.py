"""A resent chunk is stored once, whichever process died in between or receives it."""

import socket
from itertools import count
from pathlib import Path

import msgpack
import pytest
from windvane.lab import connect

from tests.processes import Running, wait_until, windvane

TAG = "t"
RECORD = b"stored once\n"
PAYLOAD: bytes = msgpack.packb([1_790_000_000, {"message": RECORD}])
LAST: bytes = msgpack.packb([1_790_000_001, {"message": b"last"}])
# Only one checkpoint, at the end: the successor of a killed worker stores its chunks again.
NEVER = {"WINDVANE_WORKER_CHECKPOINT_INTERVAL_S": "3600"}


def send(gateway: Running, chunk_id: str, payload: bytes = PAYLOAD) -> None:
    """As fluentd sends it: a connection, a chunk, its ack."""
    with socket.create_connection(gateway.forward, timeout=30) as peer:
        peer.sendall(msgpack.packb([TAG, payload, {"size": 1, "chunk": chunk_id}]))
        expected = msgpack.packb({"ack": chunk_id})
        assert peer.recv(len(expected), socket.MSG_WAITALL) == expected


@pytest.mark.parametrize("known_by", ["chunk-id", "content"])
def test_a_chunk_is_stored_once_whichever_process_is_killed(tmp_path: Path, known_by: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "t.toml").write_text(
        f'[[policy]]\nreference = "{TAG}"\nformat = "raw"\nsuppress_repeats = "{known_by}"\n'
    )
    applied = windvane(home, "apply", str(home / "t.toml"))
    assert applied.returncode == 0, applied.stderr.decode()
    numbers = count()

    def again(gateway: Running) -> None:
        # It is recognized by content although every retry has a new ID, as with @fluent-org/logger.
        send(gateway, "the same" if known_by == "chunk-id" else f"try {next(numbers)}")

    def is_stored() -> bool:
        context = connect(home)
        return TAG in context.streams and context.streams[TAG].size >= len(RECORD)

    gateway, worker = Running("gateway", home), Running("worker", home, environ=NEVER)
    try:
        gateway.start()
        worker.start()
        again(gateway)
        again(gateway)
        wait_until(is_stored, "the chunk is stored")
        # A gateway that was killed does not remember it; the worker does.
        gateway.kill()
        gateway.start()
        again(gateway)
        # A worker that was killed rereads it, and three times.
        worker.kill()
        worker.start()
        again(gateway)
        # Another gateway, at another port: over the embedded log one replaces the other.
        assert gateway.stop() == 0
        gateway = Running("gateway", home, log=tmp_path / "another.log")
        gateway.start()
        again(gateway)
        # A worker that stopped normally has it in its checkpoint.
        assert worker.stop() == 0
        worker.start()
        again(gateway)
        send(gateway, "last", LAST)
        wait_until(lambda: connect(home).streams[TAG][:].endswith(b"last"), "the last chunk is stored")
        assert connect(home).streams[TAG][:] == RECORD + b"last"
    finally:
        gateway.stop()
        worker.stop()


def test_a_second_gateway_over_one_home_is_rejected(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with Running("gateway", home):
        second = windvane(home, "gateway", "--forward", "127.0.0.1:0", timeout_s=30)
    assert second.returncode != 0
    assert b"runs over" in second.stderr
