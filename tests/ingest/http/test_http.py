"""HTTP ingest behind its real socket: what curl and forwarders post is durable with 204, else a problem."""

import asyncio
import gzip
import json
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import msgspec
import pytest
from windvane.config import GatewaySettings, HttpSettings, Settings
from windvane.ingest.http import routes as door
from windvane.records.events import iterate_events

from tests.ingest.test_gateway import EVENT, Site, running
from tests.processes import END_S

MIB = 1024 * 1024
RECORD = {"message": "hello", "rpm": 12.5}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0")) as site:
        await site.policy("logs", tags=["app.**"], limits={"chunk_bytes": 100_000})
        yield site


async def records(site: Site) -> list[tuple[str, dict[bytes, Any]]]:
    return [
        (chunk.tag, record)
        for chunk in await site.chunks("logs")
        for _, record in iterate_events(chunk.payload)
    ]


async def post(site: Site, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """The status, and the members of the problem if the answer is one."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with site.http() as http, http.post(path, data=body, headers=named) as answer:
        text = await answer.read()
        if answer.status >= 400:
            assert answer.content_type == "application/problem+json"
        problem = msgspec.json.decode(text) if text else {}
        return answer.status, {**problem, "Retry-After": answer.headers.get("Retry-After")}


needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


async def curl(site: Site, path: str, *options: str, stdin: bytes = b"") -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--max-time", "30", "--write-out", "%{stderr}%{http_code}"),
        *("--unix-socket", str(site.settings.run_dir / "gateway.sock"), f"http://gateway{path}", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    body, status = await asyncio.wait_for(process.communicate(stdin), END_S)
    assert process.returncode == 0, status
    return int(status), body


AS_JSON = ("-H", "Content-Type: application/json")


@needs_curl
@pytest.mark.system
@pytest.mark.parametrize(
    ("path", "options", "stdin"),
    [
        ("/ingest/logs/app/log", (*AS_JSON, "-d", '{"message":"hello","rpm":12.5}'), b""),
        ("/ingest/logs/app.log", ("-d", 'json={"message":"hello","rpm":12.5}'), b""),
        ("/ingest/logs?reference=app.log", ("--data-binary", "@-", *AS_JSON), json.dumps([RECORD]).encode()),
        (
            "/ingest/logs/app.log",
            (
                "--data-binary",
                "@-",
                "-H",
                "Content-Type: application/x-ndjson",
                "-H",
                "Content-Encoding: gzip",
            ),
            gzip.compress(json.dumps(RECORD).encode()),
        ),
        (
            "/ingest/logs",
            ("--data-binary", "@-", "-H", "Content-Type: application/msgpack", "-H", "Fluent-Tag: app.log"),
            msgpack.packb(RECORD),
        ),
        (
            "/ingest/logs/app.log",
            (
                "--data-binary",
                "@-",
                *AS_JSON,
                "-H",
                "Transfer-Encoding: chunked",
                "-H",
                "Expect: 100-continue",
            ),
            json.dumps(RECORD).encode(),
        ),
    ],
    ids=["in_http", "in_http form", "array", "gzip lines", "msgpack and header_tag", "chunked"],
)
async def test_what_curl_posts_is_durable(
    site: Site, path: str, options: tuple[str, ...], stdin: bytes
) -> None:
    assert await curl(site, path, *options, stdin=stdin) == (204, b"")
    assert await records(site) == [("app.log", {b"message": b"hello", b"rpm": 12.5})]


@needs_curl
@pytest.mark.system
async def test_curl_without_a_content_type_gets_a_hint(site: Site) -> None:
    status, body = await curl(site, "/ingest/logs/app.log", "-d", '{"a":1}')
    assert status == 422
    assert "Content-Type: application/json" in json.loads(body)["detail"]


async def test_fluent_bit_s_bodies_are_taken_with_their_times(site: Site) -> None:
    as_json = json.dumps([{"date": 1790000000.25, **RECORD}] * 2)
    assert (await post(site, "/ingest/logs/app.a?time_key=date", as_json, Content_Type="application/json"))[
        0
    ] == 204
    assert (await post(site, "/ingest/logs/app.b", EVENT * 2, Content_Type="application/msgpack"))[0] == 204
    by_tag = {chunk.tag: list(iterate_events(chunk.payload)) for chunk in await site.chunks("logs")}
    assert by_tag["app.a"] == [(1_790_000_000_250_000_000, {b"message": b"hello", b"rpm": 12.5})] * 2
    assert by_tag["app.b"] == [(1_790_000_000_000_000_007, {b"message": b"hello"})] * 2


async def test_a_large_batch_is_taken_whole(site: Site) -> None:
    await site.policy("batches", tags=["app.**"])
    body = "\n".join(json.dumps({"n": n, "text": "x" * 50}) for n in range(50_000))
    status, _ = await post(
        site,
        "/ingest/batches/app.log",
        gzip.compress(body.encode()),
        Content_Encoding="gzip",
        Content_Type="application/x-ndjson",
    )
    assert status == 204
    [chunk] = await site.chunks("batches")
    assert [record[b"n"] for _, record in iterate_events(chunk.payload)] == list(range(50_000))


REFUSED = [
    ("/ingest/logs/other", "{}", {}, 403, "tag-not-allowed"),
    ("/ingest/nobody/app.log", "{}", {}, 404, "no-policy"),
    ("/ingest/logs/app.log", '{"a":', {}, 422, "malformed"),
    ("/ingest/logs/app.log", '[{"a":1},2]', {}, 422, "malformed"),
    ("/ingest/logs/app.log?time_key=t", '{"t":"noon"}', {}, 422, "invalid-event"),
    ("/ingest/logs/app.log?time=noon", '{"a":1}', {}, 422, "bad-time"),
    ("/ingest/logs/app.log", json.dumps(["x" * 200_000]), {}, 422, "malformed"),
    ("/ingest/logs/app.log", json.dumps({"a": "x" * 200_000}), {}, 413, "too-large"),
    (
        "/ingest/logs/app.log",
        gzip.compress(b'{"a":1}', mtime=0)[:-4],
        {"Content_Encoding": "gzip"},
        422,
        "malformed",
    ),
    ("/ingest/logs/app.log", "{}", {"Content_Encoding": "br"}, 415, "unsupported-compression"),
    ("/ingest/logs/app.log", "a,b", {"Content_Type": "text/csv"}, 415, "unsupported-type"),
]


@pytest.mark.parametrize(("path", "body", "headers", "status", "code"), REFUSED)
async def test_a_rejected_body_is_kept_unchanged_and_counted_when_it_is_resent(
    site: Site, path: str, body: str | bytes, headers: dict[str, str], status: int, code: str
) -> None:
    headers = {"Content_Type": "application/json", **headers}
    for _ in range(2):
        found, problem = await post(site, path, body, **headers)
        assert (found, problem["code"], problem["status"]) == (status, code, status)
        assert problem["title"]
        assert problem["type"] == f"urn:windvane:problem:{code}"
    [letter] = site.letters().list()
    kept = site.letters().get(letter.id)
    assert kept.payload == (body if isinstance(body, bytes) else body.encode())
    assert (kept.code, kept.times, kept.tag) == (code, 2, path.split("/")[3].split("?")[0])
    assert kept.reason == problem["detail"]
    assert await site.chunks("logs") == []


@pytest.mark.parametrize("size", [1, 5000])
@pytest.mark.parametrize("padding", [bytes(512), b"\n", b"\r\n"], ids=["zeros", "LF", "CR LF"])
async def test_a_padded_gzip_body_is_read(site: Site, size: int, padding: bytes) -> None:
    body = gzip.compress(b'{"n":1}\n' * size) + padding
    headers = {"Content_Encoding": "gzip", "Content_Type": "application/x-ndjson"}
    status, problem = await post(site, "/ingest/logs/app.log", body, **headers)
    assert status == 204, problem
    assert [chunk.events for chunk in await site.chunks("logs")] == [size]


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip"])
async def test_a_decompression_bomb_does_not_pass(site: Site, encoding: str) -> None:
    before = _resident_bytes()
    bomb = gzip.compress(bytes(512 * MIB), compresslevel=9)
    for media_type in ("application/json", "application/octet-stream"):
        status, problem = await post(
            site, "/ingest/logs/app.log", bomb, Content_Encoding=encoding, Content_Type=media_type
        )
        assert (status, problem["code"]) == (413, "too-large")
    assert _resident_bytes() - before < 200 * MIB
    assert {letter.size for letter in site.letters().list()} == {len(bomb)}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_body_over_the_message_limit_is_not_read_and_its_head_is_kept(tmp_path: Path) -> None:
    small = GatewaySettings(max_message_bytes=MIB)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=small)) as site:
        await site.policy("logs", tags=["app.**"])
        status, problem = await post(site, "/ingest/logs/app.log", EVENT * 100_000)
        assert (status, problem["code"]) == (413, "too-large")
        [letter] = site.letters().list()
        assert (letter.size, letter.kept_bytes) == (len(EVENT) * 100_000, door.HEAD_BYTES)
        assert "only the first" in str(letter.obstacle)


async def test_over_its_budget_the_gateway_answers_503_and_reads_no_more(tmp_path: Path) -> None:
    tiny = GatewaySettings(max_message_bytes=MIB, pending_bytes=2 * MIB)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", gateway=tiny)) as site:
        await site.policy("logs", tags=["app.**"])
        go_on = asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b" " * (MIB - 1)
            await go_on.wait()

        waiting = [asyncio.ensure_future(post(site, "/ingest/logs/app.log", slowly())) for _ in range(4)]
        done, open_ones = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for answered in done:
            status, problem = answered.result()
            assert (status, problem["Retry-After"]) == (503, "2")
        go_on.set()
        # The accepted bodies are decided: blanks contain no events.
        assert {status for status, _ in await asyncio.gather(*open_ones)} <= {422, 503}
        assert (await post(site, "/ingest/logs/app.log", EVENT))[0] == 204


async def test_a_body_of_which_nothing_more_comes_is_given_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "BODY_IDLE_S", 0.05)
    go_on = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await go_on.wait()

    status, problem = await post(site, "/ingest/logs/app.log", stalls())
    go_on.set()
    assert status == 408
    assert "send it again" in problem["detail"]


async def test_a_body_that_breaks_off_stores_nothing(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        await asyncio.to_thread(peer.connect, str(site.settings.run_dir / "gateway.sock"))
        peer.sendall(b"POST /ingest/logs/app.log HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + EVENT)
    assert (await post(site, "/ingest/logs/app.log", EVENT))[0] == 204
    assert len(await site.chunks("logs")) == 1


async def test_the_same_chunk_under_its_idempotency_key_is_stored_once(site: Site) -> None:
    headers = {"Content_Type": "application/json", "Idempotency_Key": "chunk-7"}
    for _ in range(3):
        assert (await post(site, "/ingest/logs/app.log", json.dumps(RECORD), **headers))[0] == 204
    assert (await post(site, "/ingest/logs/app.log", "{}", **{**headers, "Idempotency_Key": "8"}))[0] == 204
    assert len(await site.chunks("logs")) == 2


async def test_over_a_policy_s_rate_the_answer_is_429_and_nothing_is_stored(site: Site) -> None:
    await site.policy("logs", tags=["app.**"], limits={"events_per_s": 0.001, "burst_s": 1000})
    headers = {"Content_Type": "application/json"}
    async with asyncio.timeout(10):
        while (await post(site, "/ingest/logs/app.log", "{}", **headers))[0] == 204:
            pass
    stored = len(await site.chunks("logs"))
    status, problem = await post(site, "/ingest/logs/app.log", "{}", **headers)
    assert status == 429
    assert int(problem["Retry-After"]) > 1
    assert len(await site.chunks("logs")) == stored
    assert site.letters().list() == []


async def test_requests_on_one_connection_are_answered_one_after_the_other(site: Site) -> None:
    async with site.http() as http:
        for status, body in ((204, EVENT), (422, b"\xc1"), (204, EVENT), (413, EVENT * 5000), (204, EVENT)):
            async with http.post("/ingest/logs/app.log", data=body) as answer:
                assert answer.status == status
    assert len(await site.chunks("logs")) == 3


async def test_many_clients_post_at_once(site: Site) -> None:
    connector = aiohttp.UnixConnector(str(site.settings.run_dir / "gateway.sock"), limit=50)
    async with aiohttp.ClientSession("http://gateway", connector=connector) as http:

        async def one(number: int) -> int:
            async with http.post(f"/ingest/logs/app.{number}", json=[{"n": number}] * 200) as answer:
                return answer.status

        assert set(await asyncio.gather(*map(one, range(100)))) == {204}
    assert sorted({tag for tag, _ in await records(site)}) == sorted(f"app.{n}" for n in range(100))


@pytest.mark.parametrize("depth", [255, 400, 990, 1_020, 3_000, 90_000])
@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "application/msgpack"]
)
async def test_records_nested_deeply_are_stored_or_rejected_and_others_are_stored(
    site: Site, kind: str, depth: int
) -> None:
    text = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    body = {
        "application/json": text,
        "application/x-www-form-urlencoded": b"json=" + text,
        "application/msgpack": b"\x81\xa1a" + b"\x91" * depth + b"\xc0",
    }[kind]
    status, problem = await post(site, "/ingest/logs?reference=app.deep", body, Content_Type=kind)
    assert status in (204, 400, 422), problem
    if status != 204:
        assert problem["code"] == ("invalid-event" if kind == "application/msgpack" else "malformed")
        assert "nested deeper than 800 levels" in problem["detail"]
    assert (await post(site, "/ingest/logs?reference=app.log", EVENT))[0] == 204


async def test_half_a_header_on_the_socket_is_given_up(tmp_path: Path) -> None:
    http = HttpSettings(header_timeout_s=0.3)
    async with running(Settings(home=tmp_path, forward="127.0.0.1:0", http=http)) as site:
        reader, writer = await asyncio.open_unix_connection(str(site.settings.run_dir / "gateway.sock"))
        writer.write(b"POST /ingest/logs HTTP/1.1\r\nX-Long: ")
        async with asyncio.timeout(60):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
        async with site.http() as session, session.get("/metrics") as answer:
            assert 'windvane_http_timeouts_total{kind="header"} 1.0' in await answer.text()
