import base64
from dataclasses import replace

import pytest
from windvane.store.databases.dead_letter import DeadLetter
from windvane.store.databases.dead_letters import SqlDeadLetters

from tests.web.served_home import Client, Home, following, problem


async def test_search_finds_by_a_part_of_the_title_in_any_case_and_is_current_at_once(
    client: Client, home: Home
) -> None:
    for reference, title in (("a", "Größe des Lagers"), ("b", "wind"), ("c", "LAGER")):
        await home.catalog.put("policy", reference, title=title, body={"n": reference})
    found = await (await client.get("/api/v1/search", params={"q": "lager"})).json()
    assert [document["reference"] for document in found] == ["a", "c"]
    assert found[0]["body"] == {"n": "a"}
    assert found[0]["modified"].endswith("Z")
    await home.catalog.delete("policy", "a")
    found = await (await client.get("/api/v1/search", params={"q": "GRÖSSE"})).json()
    assert found == []


async def test_search_by_type_and_state_in_pages(client: Client, home: Home) -> None:
    for number in range(4):
        await home.catalog.put("policy", f"p{number}", body={}, state="draft" if number == 1 else "published")
        await home.catalog.put("stream", f"s{number}", body={})

    async def all_of(query: str) -> list[str]:
        url, found = f"/api/v1/search?limit=2&{query}", []
        while url:
            answer = await client.get(url)
            found += [document["reference"] for document in await answer.json()]
            url = following(answer)
        return found

    assert await all_of("type=policy&state=published") == ["p0", "p2", "p3"]
    assert await all_of("") == [f"p{n}" for n in range(4)] + [f"s{n}" for n in range(4)]


async def test_an_unknown_type_is_a_problem_that_names_those_there_are(client: Client) -> None:
    assert "policy" in (await problem(await client.get("/api/v1/search?type=polcy"), 400))["detail"]


def letter(number: int, payload: bytes = b"\x92\x00\xc0") -> DeadLetter:
    return DeadLetter(
        code="no-policy",
        reason=f"no policy takes the tag t{number}",
        tag=f"t{number}",
        sender="127.0.0.1",
        policy=None,
        payload=payload,
        time_ns=number,
        detail="more",
    )


async def test_dead_letters_are_listed_newest_first_in_pages(client: Client, home: Home) -> None:
    for number in range(5):
        home.dead_letters.add(letter(number))
    first = await client.get("/api/v1/dead-letters?limit=3")
    second = await client.get(following(first))
    found = [*await first.json(), *await second.json()]
    assert [entry["tag"] for entry in found] == ["t4", "t3", "t2", "t1", "t0"]
    assert following(second) == ""
    assert found[0]["reason"] == "no policy takes the tag t4"
    assert (found[0]["time_ns"], found[0]["last_time_ns"]) == (4, 4)


async def test_a_dead_letter_shows_its_beginning_and_gives_all_its_bytes(client: Client, home: Home) -> None:
    payload = bytes(range(256)) * 40
    number = home.dead_letters.add(letter(1, payload))
    shown = await (await client.get(f"/api/v1/dead-letters/{number}")).json()
    excerpt = base64.b64decode(shown["excerpt"])
    assert payload.startswith(excerpt)
    assert len(excerpt) >= 1024
    assert (shown["size"], shown["detail"], shown["times"]) == (len(payload), "more", 1)
    answer = await client.get(f"/api/v1/dead-letters/{number}/payload")
    assert await answer.read() == payload
    assert answer.headers["Content-Disposition"].startswith("attachment")


async def test_a_dead_letter_is_shown_decoded_with_why_it_cannot_be_replayed(
    client: Client, home: Home
) -> None:
    payload = b"\x92\xce\x6a\xb1\x1d\x80\x81\xa1a\xc4\x02\xff\xfe"
    plain = home.dead_letters.add(letter(1, payload))
    failed = home.dead_letters.add(replace(letter(2, payload), code="step-failed", chunk_id=b"\xff"))
    shown = await (await client.get(f"/api/v1/dead-letters/{plain}")).json()
    assert shown["decoded"] == [
        '{"time": "2026-09-21T12:05:20.000000000Z", "record": {"a":"<2 bytes fffe>"}}'
    ]
    assert (shown["replayable"], shown["obstacle"], shown["chunk_id"]) == (True, None, None)
    shown = await (await client.get(f"/api/v1/dead-letters/{failed}")).json()
    assert (shown["replayable"], shown["chunk_id"]) == (False, "/w==")
    assert "archived already" in shown["obstacle"]
    listed = await (await client.get("/api/v1/dead-letters")).json()
    assert [entry["replayable"] for entry in listed] == [False, True]


async def test_a_dropped_dead_letter_is_gone(client: Client, home: Home) -> None:
    number = home.dead_letters.add(letter(1))
    answer = await client.delete(f"/api/v1/dead-letters/{number}")
    assert (answer.status, await answer.read()) == (204, b"")
    await problem(await client.delete(f"/api/v1/dead-letters/{number}"), 404)
    assert home.dead_letters.list() == []


async def test_a_page_of_another_origin_can_neither_drop_nor_replay(client: Client, home: Home) -> None:
    number = home.dead_letters.add(letter(1))
    stranger = {"Origin": "http://elsewhere.example"}
    await problem(await client.delete(f"/api/v1/dead-letters/{number}", headers=stranger), 403)
    await problem(await client.post(f"/api/v1/dead-letters/{number}/replay", headers=stranger), 403)
    assert len(home.dead_letters.list()) == 1


async def test_what_had_to_leave_is_in_the_status_and_the_metrics(client: Client, home: Home) -> None:
    small = SqlDeadLetters(home.path / "dead-letters.sqlite", max_bytes=2000)
    for number in range(6):
        small.add(letter(number, b"%d" % number * 500))
    kept = small.statistics()
    small.close()
    assert kept.evicted > 0
    status = await (await client.get("/api/v1/status")).json()
    max_bytes = home.dead_letters.statistics().max_bytes
    assert status["dead_letters"] == {
        **{"count": kept.count, "bytes": kept.bytes, "evicted": kept.evicted},
        "max_bytes": max_bytes,
    }
    page = await (await client.get("/metrics")).text()
    assert f'windvane_dead_letters_evicted_total{{tier="web"}} {kept.evicted}.0' in page
    assert f'windvane_dead_letters{{tier="web"}} {kept.count}.0' in page


@pytest.mark.parametrize("number", ["99", "x", "9" * 40, "-1", "²"])
async def test_a_dead_letter_that_is_not_kept_is_404(client: Client, number: str) -> None:
    await problem(await client.get(f"/api/v1/dead-letters/{number}"), 404)
    await problem(await client.delete(f"/api/v1/dead-letters/{number}"), 404)
