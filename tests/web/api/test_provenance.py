"""Where rows came from, over HTTP and on the command line, of a home that a worker wrote."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientSession
from click.testing import CliRunner
from windvane.bus import open_bus
from windvane.cli import main
from windvane.config import Settings
from windvane.lab import connect
from windvane.store.catalog.catalog import Catalog

from tests.processors.worker.test_worker import PCM, SPECTRUM, Home
from tests.web.test_openapi import DESCRIPTION, mismatches
from tests.web.test_tier import served


@pytest.fixture
async def processed(tmp_path: Path) -> AsyncIterator[Home]:
    """A home with a stream of three chunks, and the array `t:spectrum` of it."""
    bus = open_bus("embedded:", tmp_path)
    catalog = await Catalog.open(f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}")
    home = Home(tmp_path, bus, bus.producer(), catalog)
    await home.policy("p", tags=["t"], format="raw", pipeline=[PCM, SPECTRUM])
    for n in range(3):
        samples = np.random.default_rng(n).integers(-999, 999, 777).astype("<i2").tobytes()
        await home.publish("p", samples, chunk_id=f"id{n}".encode())
    async with home.working():
        await home.until_stored(3)
    yield home
    await catalog.close()
    await bus.close()


def described(template: str) -> dict[str, Any]:
    schema: dict[str, Any] = DESCRIPTION["paths"][template]["get"]["responses"]["200"]["content"]
    return dict(schema["application/json"]["schema"])


@pytest.mark.system
async def test_http_and_the_command_line_answer_the_same(processed: Home) -> None:
    settings = Settings(home=processed.path, web="127.0.0.1:0")
    async with served(settings) as address, ClientSession() as session:
        async with session.get(f"{address}/api/v1/arrays/t:spectrum/rows/30/origin") as answer:
            assert answer.status == 200, await answer.text()
            found = await answer.json()
        async with session.get(f"{address}/api/v1/arrays/t:spectrum/rows/3000/origin") as answer:
            assert answer.status == 404
        async with session.get(f"{address}/api/v1/arrays/t:none/rows/0/origin") as answer:
            assert answer.status == 404
        async with session.get(f"{address}/api/v1/streams/t/snapshot") as answer:
            lengths = await answer.json()
    assert mismatches(found, described("/api/v1/arrays/{ref}/rows/{row}/origin")) == []
    assert mismatches(lengths, described("/api/v1/streams/{ref}/snapshot")) == []
    assert found["bytes"] == {"start": 30 * 64, "stop": 30 * 64 + 128}
    assert [chunk["id"] for chunk in found["chunks"]] == ["id1"]
    assert found["policy"]["revision"] == 1
    assert lengths["size"] == 3 * 1554
    assert {each["reference"]: each["rows"] for each in lengths["arrays"]} == {
        "t:samples": 3 * 777,
        "t:spectrum": (3 * 777 - 64) // 32 + 1,
    }


def test_the_command_line_explains_and_computes_again(processed: Home) -> None:
    home = ["--home", str(processed.path)]
    explained = CliRunner().invoke(main, ["explain", "t:spectrum", "30", "--json", *home])
    assert explained.exit_code == 0, explained.output
    assert json.loads(explained.stdout)["bytes"] == {"start": 30 * 64, "stop": 30 * 64 + 128}
    last = CliRunner().invoke(main, ["explain", "t:spectrum", "-1", *home])
    assert last.exit_code == 0, last.output
    assert "t:spectrum row 70, " in last.stdout
    assert "id2, from s, arrived 1970" in last.stdout
    none = CliRunner().invoke(main, ["explain", "t:spectrum", "71", *home])
    assert none.exit_code == 1
    compared = CliRunner().invoke(main, ["verify", "--recompute", *home])
    assert compared.exit_code == 0, compared.output
    assert "t:spectrum: 71 of 71 rows compared, all equal" in compared.stdout
    sampled = CliRunner().invoke(
        main, ["verify", "--recompute", "t:samples", "--sample", "9", "--json", *home]
    )
    (one,) = json.loads(sampled.stdout)["arrays"]
    assert (one["array"], one["rows"], one["is_equal"]) == ("t:samples", 9, True)


async def test_a_snapshot_is_the_same_while_the_platform_appends(processed: Home) -> None:
    snapshot = connect(processed.path).snapshot("t")
    before = [
        snapshot.size,
        snapshot.read_range(0, 10_000),
        *(each[:].tobytes() for each in snapshot.values()),
    ]
    await processed.publish("p", b"\1\2" * 500)
    async with processed.working():
        await processed.until_stored(1)
    after = [
        snapshot.size,
        snapshot.read_range(0, 10_000),
        *(each[:].tobytes() for each in snapshot.values()),
    ]
    assert after == before
    assert len(snapshot["samples"]) == len(snapshot["samples"].times) == 3 * 777
    later = connect(processed.path).snapshot("t")
    assert (later.size, len(later["samples"])) == (3 * 1554 + 1000, 3 * 777 + 500)
    assert len(connect(processed.path).arrays["t:samples"]) == 3 * 777 + 500
