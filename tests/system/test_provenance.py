"""Rows that were written by workers that were killed have an origin, and are equal if computed again."""

import json
import random
from pathlib import Path

from windvane.store.files.store import Store

from tests.processes import Running, windvane
from tests.system.disturbance import FAST_CHECKPOINTS, chunks_of, kill_while_sending, make_policy

CHUNKS = 60
STREAM = "park.t00"


async def test_kills_change_neither_origins_nor_rows(tmp_path: Path) -> None:
    make_policy(tmp_path, partitions=1)
    gateway = Running("gateway", tmp_path)
    worker = Running("worker", tmp_path, environ=FAST_CHECKPOINTS)
    await kill_while_sending(gateway, worker, {STREAM: chunks_of(STREAM, CHUNKS)}, rounds=3, seed=5)
    compared = windvane(tmp_path, "verify", "--recompute", "--json")
    assert compared.returncode == 0, compared.stderr.decode()
    arrays = json.loads(compared.stdout)["arrays"]
    assert arrays
    with Store(tmp_path / "store") as store, store.stream(STREAM) as stream:
        for each in arrays:
            row = random.Random(3).randrange(each["rows_total"])
            explained = windvane(tmp_path, "explain", each["array"], str(row), "--json")
            assert explained.returncode == 0, explained.stderr.decode()
            origin = json.loads(explained.stdout)
            assert origin["is_equal"]
            assert {chunk["sender"] for chunk in origin["chunks"]} == {"127.0.0.1"}
            first, last = origin["chunks"][0], origin["chunks"][-1]
            assert first["offset"] <= origin["direct"]["start"]
            assert origin["direct"]["stop"] <= last["offset"] + last["size"] <= stream.size
