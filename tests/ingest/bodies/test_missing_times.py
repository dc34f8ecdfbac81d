"""The gateway's status names the sources whose events have no times of their own."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from windvane.config import Settings
from windvane.ingest.bodies.formats import BodyFormat, events_of
from windvane.ingest.chunk import IncomingChunk, PostedBody
from windvane.ingest.missing_times import MAX_SOURCES, MissingTimes

from tests.ingest.http.test_http import post
from tests.ingest.test_gateway import EVENT, Site, running

JSON, TIMED = "application/json", "2026-11-27T08:15:00.123456789Z"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("logs", tags=["app.**"])
        yield site


async def named(site: Site) -> list[dict[str, Any]]:
    async with site.http() as http, http.get("/status") as answer:
        found: list[dict[str, Any]] = (await answer.json())["without_times"]
        return found


@pytest.mark.parametrize(
    ("path", "body", "content_type", "has_times"),
    [
        ("app.a", json.dumps({"a": 1}), JSON, False),
        # fluentd's http output: <inject> is ignored, so the field that the address names is not there.
        ("app.a?time_key=time", "\n".join([json.dumps({"a": 1})] * 3), "application/x-ndjson", False),
        ("app.a?time_key=time", json.dumps({"a": 1, "time": TIMED}), "application/x-ndjson", True),
        ("app.a?time=1790000000.5", json.dumps({"a": 1}), JSON, True),
        ("app.a", msgpack.packb({"a": 1}), "application/msgpack", False),
        ("app.a", msgpack.packb([1_790_000_000, {"a": 1}]), "application/msgpack", True),
        ("app.a", EVENT, "application/octet-stream", True),
        ("app.a", 'json={"a": 1}', "application/x-www-form-urlencoded", False),
        ("app.a", 'json={"a": 1}&time=1790000000', "application/x-www-form-urlencoded", True),
    ],
)
async def test_a_source_whose_events_have_no_times_is_named(
    site: Site, path: str, body: str | bytes, content_type: str, has_times: bool
) -> None:
    status, problem = await post(site, f"/ingest/logs/{path}", body, Content_Type=content_type)
    assert status == 204, problem
    found = [(one["policy"], one["tag"], one["chunks"]) for one in await named(site)]
    assert found == ([] if has_times else [("logs", "app.a", 1)])


async def test_a_source_is_forgotten_once_it_sends_times(site: Site) -> None:
    for number in (1, 2):
        large = gzip.compress(json.dumps([{"text": "x" * 1000}] * 100 * number).encode())
        assert (await post(site, "/ingest/logs/app.a", large, Content_Type=JSON, Content_Encoding="gzip"))[
            0
        ] == 204
    assert [one["chunks"] for one in await named(site)] == [2]
    timed = json.dumps({"a": 1, "time": TIMED})
    assert (await post(site, "/ingest/logs/app.a?time_key=time", timed, Content_Type=JSON))[0] == 204
    assert await named(site) == []


def test_what_is_remembered_is_bounded() -> None:
    missing = MissingTimes()
    format = BodyFormat(JSON)
    payload = events_of(b'{"a": 1}', format, arrived_ns=7, max_bytes=1000)
    for number in range(MAX_SOURCES + 5):
        body = PostedBody(b"", compression="text", format=format, arrived_ns=7)
        missing.take(
            IncomingChunk(sender="10.0.0.7", tag=f"t{number}", payload=b"", policy="p", body=body), payload
        )
    assert [one.tag for one in missing.listed()] == [f"t{number}" for number in range(5, MAX_SOURCES + 5)]
