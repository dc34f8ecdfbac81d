"""Long lists are paged, and a page costs as much as it shows; lists mark streams that are behind."""

import asyncio
import os
import shutil
import time
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from windvane.runtime.telemetry import serve_on_socket
from windvane.web.telemetry import WebTelemetry
from windvane.web.tier_client import together
from windvane.web.worker_delays import Delays

from tests.store.files.resumed import resumed
from tests.web.served_home import Client, Home, StartClient, append, following

BEHIND = {
    "checkpoint_age_s": 41.0,
    "lag_chunks": 608,
    "behind": {"step": "condition", "reason": "1.1 s a chunk"},
}


def fill(home: Home, count: int) -> None:
    """Streams `s0000`, `s0001`, …, with two arrays each; nothing stays open."""
    for number in range(count):
        reference = f"s{number:04d}"
        stream = home.store.stream_writer(reference, attrs={"tag": reference, "policy": "any"})
        with resumed(stream) as writer:
            writer.append(b"abc", arrived_ns=1, chunk_id=None, events=1)
        for output in ("a", "b"):
            with resumed(
                home.store.array_writer(
                    f"{reference}:{output}", dtype=np.dtype("<f4"), row_shape=(), attrs={}
                )
            ) as array:
                append(array, np.zeros(2, "<f4"))


async def all_pages(client: Client, path: str) -> tuple[list[str], int]:
    """The references on all pages, and how many pages there are."""
    found, pages = [], 0
    while path:
        answer = await client.get(path)
        assert answer.status == 200
        found += [entry["reference"] for entry in await answer.json()]
        pages += 1
        path = following(answer)
    return found, pages


@pytest.mark.parametrize("kind", ["streams", "arrays"])
async def test_pages_together_are_the_whole_list_in_its_order(client: Client, home: Home, kind: str) -> None:
    for reference in ("a", "a.b", "a b", "A", "ä", "x" * 300, "a%2Fb", "a/b", ".hidden", "a-b"):
        home.stream(reference, b"abc")
        for output in ("z", "a", "z.y"):
            home.array(f"{reference}:{output}", np.zeros(1))
    home.array("no stream:only an array", np.zeros(1))
    whole = getattr(home.store, kind)()
    for limit in (1, 2, 7, 1000):
        found, pages = await all_pages(client, f"/api/v1/{kind}?limit={limit}")
        assert found == whole
        assert pages == max(1, -(-len(whole) // limit))


async def test_a_page_opens_what_it_shows_and_nothing_else(start: StartClient, home: Home) -> None:
    fill(home, 300)
    telemetry = WebTelemetry()
    client = await start(telemetry=telemetry)
    for kind, total in (("streams", 300), ("arrays", 600)):
        before = telemetry.listed_total
        answer = await client.get(f"/api/v1/{kind}?limit=10&after=s0100")
        assert len(await answer.json()) == 10
        assert telemetry.listed_total - before == 10
        print(f"a page of 10 of {total} {kind}: {telemetry.listed_total - before} opened")
    answer = await client.get("/api/v1/streams?limit=10")
    assert answer.headers["Windvane-Matching"] == "300"


async def test_a_page_that_is_requested_again_opens_nothing_unless_it_has_changed(
    start: StartClient, home: Home
) -> None:
    fill(home, 20)
    settled_ns = time.time_ns() - 3600 * 10**9
    for description in home.store.root.glob("*/stream/meta.json"):
        os.utime(description, ns=(settled_ns, settled_ns))
    telemetry = WebTelemetry()
    client = await start(telemetry=telemetry)

    async def listed() -> tuple[list[Any], int]:
        before = telemetry.listed_total
        found = await (await client.get("/api/v1/streams")).json()
        return found, telemetry.listed_total - before

    assert (await listed())[1] == 20
    with resumed(home.store.stream_writer("s0003", attrs={"tag": "s0003", "policy": "any"})) as writer:
        writer.append(b"more", arrived_ns=2, chunk_id=None, events=1)
    found, opened = await listed()
    assert (found[3]["size"], found[3]["events"], opened) == (7, 2, 0)
    resumed(home.store.stream_writer("s0004", attrs={"tag": "s0004", "policy": "another"})).close()
    shutil.rmtree(home.store.root / "s0005")
    home.stream("s0005", b"anew")
    shutil.rmtree(home.store.root / "s0006")
    found, opened = await listed()
    assert (found[4]["policy"], found[5]["size"], found[6]["reference"]) == ("another", 4, "s0007")
    assert opened == 2


async def test_long_lists_hold_up_no_other_answer(client: Client, home: Home) -> None:
    fill(home, 400)
    lists = asyncio.gather(*(client.get("/api/v1/streams?limit=400") for _ in range(20)))
    worst_s, answered = 0.0, 0
    while not lists.done():
        began_s = time.perf_counter()
        assert (await client.get("/openapi.json")).status == 200
        worst_s = max(worst_s, time.perf_counter() - began_s)
        answered += 1
    assert [len(await answer.json()) for answer in await lists] == [400] * 20
    assert answered > 20  # they were sent between the lists, not after them
    print(f"next to 20 lists of 400 streams: {answered} answers, the longest took {worst_s * 1000:.0f} ms")


async def test_words_find_streams_on_all_pages(client: Client, home: Home) -> None:
    for reference in ("park.T01.blade", "park.T02.blade", "park.T02.tower"):
        home.stream(reference, b"abc")
    for words, expected in (
        ("t02", ["park.T02.blade", "park.T02.tower"]),
        ("BLADE+t0", ["park.T01.blade", "park.T02.blade"]),
        ("blade+tower", []),
        ("", ["park.T01.blade", "park.T02.blade", "park.T02.tower"]),
    ):
        found, _ = await all_pages(client, f"/api/v1/streams?limit=1&q={words}")
        assert found == expected


async def test_a_damaged_stream_is_listed_and_hides_no_other(client: Client, home: Home) -> None:
    for reference in ("one", "two", "three"):
        home.stream(reference, b"abc")
        home.array(f"{reference}:rows", np.zeros(1))
    (home.store.root / "two" / "stream" / "bytes" / "head").write_bytes(b"x" * 64)
    (home.store.root / "two" / "arrays" / "rows" / "meta.json").write_text("{")
    listed = await (await client.get("/api/v1/streams")).json()
    assert [entry["reference"] for entry in listed] == ["one", "three", "two"]
    assert "head" in listed[2]["behind"]["reason"]
    arrays = await (await client.get("/api/v1/arrays")).json()
    assert [entry["reference"] for entry in arrays] == ["one:rows", "three:rows"]


async def start_worker(home: Home, status: Any, name: str = "worker") -> None:
    """A worker's status server on its real socket."""
    app = web.Application()

    async def get_status(_request: web.Request) -> web.Response:
        return web.json_response(status)

    app.router.add_get("/status", get_status)
    runner = await serve_on_socket(app, home.run_dir / f"{name}.sock")
    home.opened.push_async_callback(runner.cleanup)


async def test_a_stream_that_is_behind_says_why_and_others_are_up_to_date(client: Client, home: Home) -> None:
    for reference in ("late", "on.time"):
        home.stream(reference, b"abc")
    await start_worker(home, {"checkpoint_age_s": 1.5, "streams_behind": {"late": BEHIND}})
    late, on_time = await (await client.get("/api/v1/streams")).json()
    assert {name: late[name] for name in BEHIND} == BEHIND
    assert (on_time["checkpoint_age_s"], on_time["lag_chunks"], on_time["behind"]) == (1.5, 0, None)
    one = await (await client.get("/api/v1/streams/late")).json()
    assert one == late


async def test_without_a_worker_nothing_is_claimed(client: Client, home: Home) -> None:
    home.stream("voice", b"abc")
    [entry] = await (await client.get("/api/v1/streams")).json()
    assert [entry[name] for name in BEHIND] == [None, None, None]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({}, (None, 0, None)),
        ({"checkpoint_age_s": "old", "streams_behind": []}, (None, 0, None)),
        ({"checkpoint_age_s": True, "streams_behind": {"late": 3}}, (None, 0, None)),
        ({"checkpoint_age_s": 2, "streams_behind": {"late": {}}}, (2, None, None)),
        (
            {"checkpoint_age_s": 2, "streams_behind": {"late": {"lag_chunks": -1, "behind": "x"}}},
            (2, None, None),
        ),
        ({"streams_behind": {"late": {"lag_chunks": 5.0, "behind": {"step": 1}}}}, (None, 5, None)),
        ({"streams_behind": {"late": {"behind": {"step": 1, "reason": "slow"}}}}, (None, None, ("", "slow"))),
    ],
)
def test_a_status_of_another_version_is_read_as_far_as_it_is_understood(status: Any, expected: Any) -> None:
    age_s, lag_chunks, behind = Delays({"": status}).of("late")
    assert (age_s, lag_chunks, behind and (behind.step, behind.reason)) == expected


def test_of_several_workers_the_one_that_names_a_stream_counts() -> None:
    delays = Delays(
        {
            "one": {"checkpoint_age_s": 1.0, "streams_behind": {"late": BEHIND}},
            "two": {"checkpoint_age_s": 3.0, "streams_behind": {}},
        }
    )
    assert delays.of("late")[:2] == (41.0, 608)
    assert delays.of("on.time") == (3.0, 0, None)


def test_statuses_of_several_workers_are_one() -> None:
    both = together(
        {
            "one": {
                "chunks_total": 3,
                "checkpoint_age_s": 1.0,
                "streams_behind": {"a": BEHIND},
                "troubles": [1],
            },
            "two": {
                "chunks_total": 4,
                "checkpoint_age_s": 3.0,
                "streams_behind": {"b": BEHIND},
                "troubles": [2],
            },
            "old": {"chunks_total": None, "streams_behind": "none"},
        }
    )
    assert both == {
        "chunks_total": 7,
        "checkpoint_age_s": 3.0,
        "streams_behind": {"a": BEHIND, "b": BEHIND},
        "troubles": [1, 2],
    }
