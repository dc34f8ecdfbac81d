import email
import email.policy
import hashlib
import tracemalloc

import numpy as np
import pytest
from yarl import URL

from tests.web.served_home import Client, Home, following, problem, quoted

WHOLE = bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("header", "first", "stop", "content_range"),
    [
        ("bytes=0-9", 0, 10, "bytes 0-9/1024"),
        ("bytes=1000-", 1000, 1024, "bytes 1000-1023/1024"),
        ("bytes=-24", 1000, 1024, "bytes 1000-1023/1024"),
        ("bytes=1020-9999", 1020, 1024, "bytes 1020-1023/1024"),
    ],
)
async def test_a_range_of_a_stream_is_those_bytes(
    client: Client, home: Home, header: str, first: int, stop: int, content_range: str
) -> None:
    home.stream("hub.one", WHOLE)
    answer = await client.get("/api/v1/streams/hub.one/data", headers={"Range": header})
    assert answer.status == 206
    assert answer.headers["Content-Range"] == content_range
    assert answer.content_length == stop - first
    assert await answer.read() == WHOLE[first:stop]


async def test_several_ranges_come_as_multipart(client: Client, home: Home) -> None:
    home.stream("hub.one", WHOLE)
    answer = await client.get("/api/v1/streams/hub.one/data", headers={"Range": "bytes=500-599,0-3,-2"})
    body = await answer.read()
    assert answer.status == 206
    assert answer.content_length == len(body)
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    parts = {part["Content-Range"]: part.get_payload(decode=True) for part in message.iter_parts()}
    assert parts == {
        "bytes 500-599/1024": WHOLE[500:600],
        "bytes 0-3/1024": WHOLE[:4],
        "bytes 1022-1023/1024": WHOLE[-2:],
    }


async def test_a_range_outside_is_416_and_says_how_long_the_stream_is(client: Client, home: Home) -> None:
    home.stream("hub.one", WHOLE)
    answer = await client.get("/api/v1/streams/hub.one/data", headers={"Range": "bytes=1024-"})
    members = await problem(answer, 416)
    assert answer.headers["Content-Range"] == "bytes */1024"
    assert members["size"] == 1024


async def test_without_a_range_all_bytes_come_and_the_etag_changes_as_the_stream_grows(
    client: Client, home: Home
) -> None:
    writer = home.stream("hub.one", WHOLE)
    before = await client.get("/api/v1/streams/hub.one/data")
    assert (before.status, await before.read()) == (200, WHOLE)
    assert before.headers["Accept-Ranges"] == "bytes"
    again = await client.get(
        "/api/v1/streams/hub.one/data", headers={"If-None-Match": before.headers["ETag"]}
    )
    assert (again.status, await again.read()) == (304, b"")
    writer.append(b"more", arrived_ns=9, chunk_id=None, events=1)
    after = await client.get(
        "/api/v1/streams/hub.one/data", headers={"If-None-Match": before.headers["ETag"]}
    )
    assert (after.status, await after.read()) == (200, WHOLE + b"more")
    assert after.headers["ETag"] != before.headers["ETag"]


async def test_an_interrupted_download_resumes_although_the_stream_grew(client: Client, home: Home) -> None:
    writer = home.stream("hub.one", WHOLE)
    first = await client.get("/api/v1/streams/hub.one/data", headers={"Range": "bytes=0-99"})
    writer.append(b"more", arrived_ns=9, chunk_id=None, events=1)
    rest = await client.get(
        "/api/v1/streams/hub.one/data",
        headers={"Range": "bytes=100-", "If-Range": first.headers["ETag"]},
    )
    assert rest.status == 206
    assert await first.read() + await rest.read() == WHOLE + b"more"


async def test_if_range_of_another_stream_gives_the_whole(client: Client, home: Home) -> None:
    home.stream("hub.one", WHOLE)
    home.stream("hub.two", WHOLE)
    other = await client.get("/api/v1/streams/hub.two/data", headers={"Range": "bytes=0-9"})
    answer = await client.get(
        "/api/v1/streams/hub.one/data",
        headers={"Range": "bytes=10-", "If-Range": other.headers["ETag"]},
    )
    assert (answer.status, await answer.read()) == (200, WHOLE)


async def test_head_says_how_long_without_sending(client: Client, home: Home) -> None:
    home.stream("hub.one", WHOLE)
    answer = await client.head("/api/v1/streams/hub.one/data", headers={"Range": "bytes=0-9"})
    assert (answer.status, answer.headers["Content-Length"], await answer.read()) == (200, "1024", b"")


async def test_what_retention_dropped_is_gone_and_the_rest_is_served(client: Client, home: Home) -> None:
    segment = 64 * 1024
    data = np.random.default_rng(7).bytes(3 * segment)
    writer = home.stream("old", data)
    writer.drop_before(segment)
    assert (await problem(await client.get("/api/v1/streams/old/data"), 410))["start"] == segment
    dropped = await client.get("/api/v1/streams/old/data", headers={"Range": "bytes=10-20"})
    assert (await problem(dropped, 416))["start"] == segment
    kept = await client.get("/api/v1/streams/old/data", headers={"Range": f"bytes={segment}-"})
    assert (kept.status, await kept.read()) == (206, data[segment:])


async def test_a_large_stream_is_sent_whole_with_bounded_memory(client: Client, home: Home) -> None:
    piece = np.random.default_rng(1).bytes(2 * 1024 * 1024)
    home.stream("large", *[piece] * 24)
    expected, found = hashlib.sha256(piece * 24), hashlib.sha256()
    await (await client.get("/api/v1/health")).read()
    tracemalloc.start()
    try:
        answer = await client.get("/api/v1/streams/large/data")
        async for part in answer.content.iter_any():
            found.update(part)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.digest() == expected.digest()
    assert peak_bytes < 8 * 1024 * 1024


async def test_a_stream_is_described(client: Client, home: Home) -> None:
    home.stream("voice", b"abc", b"defg", attrs={"tag": "voice", "policy": "sound"})
    home.array("voice:spectrum", np.zeros((2, 3)))
    answer = await client.get("/api/v1/streams/voice")
    assert await answer.json() == {
        "reference": "voice",
        "start": 0,
        "size": 7,
        "chunks": 2,
        "events": 4,
        "first_arrival": "1970-01-01T00:00:01.000000000Z",
        "last_arrival": "1970-01-01T00:00:02.000000000Z",
        "tag": "voice",
        "policy": "sound",
        "arrays": ["voice:spectrum"],
        "checkpoint_age_s": None,
        "lag_chunks": None,
        "behind": None,
        "failing": [],
        "alarm": None,
        "held_chunks": None,
        "late_events": None,
        "early_events": None,
        "inversions": None,
        "order_warning": None,
    }


async def test_an_empty_stream_has_no_arrivals_and_no_bytes(client: Client, home: Home) -> None:
    home.stream("quiet")
    found = await (await client.get("/api/v1/streams/quiet")).json()
    assert (found["size"], found["first_arrival"], found["last_arrival"]) == (0, None, None)
    answer = await client.get("/api/v1/streams/quiet/data")
    assert (answer.status, await answer.read()) == (200, b"")


@pytest.mark.parametrize("path", ["/api/v1/streams/nobody", "/api/v1/streams/nobody/data"])
async def test_a_stream_that_is_not_there_is_a_problem_that_names_it(client: Client, path: str) -> None:
    members = await problem(await client.get(path), 404)
    assert "nobody" in members["detail"]
    assert members["type"] == "urn:windvane:problem:stream-not-found"


@pytest.mark.parametrize("reference", ["a/b", "größe.Ω", "100%", "a b+c", "{x}", "%2F", ".hidden", "q?x=1#y"])
async def test_a_reference_may_hold_any_character(client: Client, home: Home, reference: str) -> None:
    home.stream(reference, reference.encode())
    [listed] = await (await client.get("/api/v1/streams")).json()
    assert listed["reference"] == reference
    path = "/api/v1/streams/" + quoted(reference)
    assert (await (await client.get(URL(path, encoded=True))).json())["reference"] == reference
    answer = await client.get(URL(f"{path}/data", encoded=True))
    assert await answer.read() == reference.encode()


async def test_the_list_comes_in_pages_that_lead_on(client: Client, home: Home) -> None:
    references = [f"t{number:02}" for number in range(7)]
    for reference in reversed(references):
        home.stream(reference, b"x")
    found, url = [], "/api/v1/streams?limit=3"
    pages = 0
    while url:
        answer = await client.get(url)
        found += [stream["reference"] for stream in await answer.json()]
        url = following(answer)
        pages += 1
    assert (found, pages) == (references, 3)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=many", "limit=1e3"])
async def test_an_empty_page_is_rejected(client: Client, query: str) -> None:
    assert "limit" in (await problem(await client.get(f"/api/v1/streams?{query}"), 400))["detail"]


@pytest.mark.parametrize(
    ("query", "first", "stop"),
    [
        ("start=1970-01-01T00:00:02Z", 100, 1024),
        ("start=1970-01-01T00:00:01.5Z&stop=1970-01-01T00:00:03Z", 100, 300),
        ("stop=1970-01-01T00:00:02Z", 0, 100),
        ("start=2026-11-01T00:00Z", 1024, 1024),
        ("start=1793491200000000000", 1024, 1024),
        ("start=-24", 1000, 1024),
        ("start=5&stop=1970-01-01T00:00:03Z", 5, 300),
        ("start=9&stop=3", 9, 9),
    ],
)
async def test_bytes_are_selected_by_time_of_arrival_or_by_offset(
    client: Client, home: Home, query: str, first: int, stop: int
) -> None:
    home.stream("hub.one", WHOLE[:100], WHOLE[100:300], WHOLE[300:])
    answer = await client.get(f"/api/v1/streams/hub.one/data?{query}", headers={"Range": "bytes=0-1"})
    assert answer.status == 200
    assert answer.headers["Windvane-Bytes"] == f"{first}:{stop}"
    assert answer.content_length == stop - first
    assert await answer.read() == WHOLE[first:stop]


@pytest.mark.parametrize("query", ["start=yesterday", "stop=1.5"])
async def test_bounds_that_are_not_valid_are_a_problem_that_names_them(
    client: Client, home: Home, query: str
) -> None:
    home.stream("hub.one", WHOLE)
    members = await problem(await client.get(f"/api/v1/streams/hub.one/data?{query}"), 400)
    assert members["detail"].startswith(f"{query.partition('=')[0]}: ")
    assert "RFC 3339" in members["detail"]
