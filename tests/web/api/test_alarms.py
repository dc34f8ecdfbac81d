"""Alarms over HTTP: lists, the actions of users, and the error messages for actions that are not allowed."""

import time
from typing import Any

import pytest
from windvane.store.catalog.alarm_book import AlarmBook

from tests.store.catalog.test_alarms import REFERENCE, event
from tests.web.served_home import Client, Home, following, problem, quoted

PATH = f"/api/v1/alarms/{quoted(REFERENCE)}"
HOUR_NS = 3600 * 1_000_000_000


@pytest.fixture
async def book(home: Home) -> AlarmBook:
    """With one alarm that is raised."""
    made = AlarmBook(home.catalog)
    await made.record(event(0, "raised", 1, values={"rms": 2.0}, leading="rms"))
    return made


async def act(client: Client, action: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{PATH}/{action}", json={"by": "ada", **body})
    assert answer.status == 200, await answer.text()
    alarm: dict[str, Any] = await answer.json()
    assert answer.headers["ETag"] == f'"{alarm["revision"]}"'
    return alarm


async def test_an_alarm_is_acknowledged_commented_shelved_and_cleared(
    client: Client, book: AlarmBook
) -> None:
    assert (await act(client, "acknowledge", text="seen"))["state"] == "acknowledged"
    assert (await act(client, "comment", text="bearing?"))["history"][-1]["text"] == "bearing?"
    before_ns = time.time_ns()
    shelved = await act(client, "shelve", for_s=3600)
    assert shelved["state"] == "shelved"
    assert before_ns + HOUR_NS <= shelved["shelved_until_ns"] <= time.time_ns() + HOUR_NS
    in_a_month = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() + 30 * 24 * 3600))
    longer = await act(client, "shelve", until=in_a_month)
    assert longer["shelved_until_ns"] > shelved["shelved_until_ns"]
    assert (await act(client, "unshelve"))["state"] == "acknowledged"
    cleared = await act(client, "clear", text="replaced")
    assert cleared["state"] == "cleared"
    assert [(entry["action"], entry["by"]) for entry in cleared["history"]] == [
        ("raised", "windvane"),
        ("acknowledged", "ada"),
        ("commented", "ada"),
        ("shelved", "ada"),
        ("shelved", "ada"),
        ("unshelved", "ada"),
        ("cleared", "ada"),
    ]
    shown = await (await client.get(PATH)).json()
    assert shown == cleared
    assert shown["values"] == {"rms": 2.0}


async def test_lists_are_by_state_and_stream_in_pages_the_last_change_first(
    client: Client, book: AlarmBook
) -> None:
    for row in range(5):
        reference = f"other:condition:01234567:{row}"
        await book.record(event(row, "raised", 2, alarm=reference, stream="other", row=row))
    await act(client, "clear")

    async def rows(query: str) -> list[tuple[str, int]]:
        url, found = f"/api/v1/alarms?limit=2&{query}", []
        while url:
            answer = await client.get(url)
            found += [(alarm["stream"], alarm["row"]) for alarm in await answer.json()]
            url = following(answer)
        return found

    others = [("other", row) for row in (4, 3, 2, 1, 0)]
    assert await rows("") == [("turbine.1", 41), *others]
    assert await rows("state=open") == others
    assert await rows("state=cleared&stream=turbine.1") == [("turbine.1", 41)]
    assert await rows("stream=turbine") == []
    [first, *_] = await (await client.get("/api/v1/alarms")).json()
    assert (first["entries"], first["last"]["action"]) == (2, "cleared")
    assert "open" in (await problem(await client.get("/api/v1/alarms?state=opened"), 400))["detail"]


async def test_an_unchanged_list_is_not_resent(client: Client, book: AlarmBook) -> None:
    etag = (await client.get("/api/v1/alarms")).headers["ETag"]
    again = await client.get("/api/v1/alarms", headers={"If-None-Match": etag})
    assert again.status == 304
    await act(client, "comment", text="x")
    assert (await client.get("/api/v1/alarms", headers={"If-None-Match": etag})).status == 200


async def test_with_if_match_an_alarm_that_has_changed_is_not_acted_on(
    client: Client, book: AlarmBook
) -> None:
    seen = (await client.get(PATH)).headers["ETag"]
    await book.record(event(1, "escalated", 2))
    answer = await client.post(f"{PATH}/clear", json={"by": "ada"}, headers={"If-Match": seen})
    assert "is at revision" in (await problem(answer, 412))["detail"]
    now = (await client.get(PATH)).headers["ETag"]
    answer = await client.post(f"{PATH}/clear", json={"by": "ada"}, headers={"If-Match": now})
    assert answer.status == 200


@pytest.mark.parametrize(
    ("action", "body", "status", "says"),
    [
        ("unshelve", {"by": "ada"}, 409, "is raised, not shelved"),
        ("comment", {"by": "ada"}, 409, "without a text"),
        ("acknowledge", {}, 422, "missing required field `by`"),
        ("acknowledge", {"by": "ada", "who": "x"}, 422, "unknown field `who`"),
        ("acknowledge", {"by": 7}, 422, "Expected `str`"),
        ("shelve", {"by": "ada"}, 422, "either for_s"),
        ("shelve", {"by": "ada", "for_s": 1, "until": "2100-01-01T00:00:00Z"}, 422, "either for_s"),
        ("shelve", {"by": "ada", "until": "2001-01-01T00:00:00Z"}, 409, "a time that is over"),
        ("shelve", {"by": "ada", "until": "tomorrow"}, 422, "Invalid RFC3339"),
        ("shelve", {"by": "ada", "until": "9000-01-01T00:00:00Z"}, 422, "a year at most"),
        ("shelve", {"by": "ada", "for_s": 1e300}, 422, "a year at most"),
        ("shelve", {"by": "ada", "for_s": -1}, 422, "> 0"),
    ],
)
async def test_what_cannot_be_done_is_a_problem_that_says_why(
    client: Client, book: AlarmBook, action: str, body: dict[str, Any], status: int, says: str
) -> None:
    assert says in (await problem(await client.post(f"{PATH}/{action}", json=body), status))["detail"]


async def test_other_bodies_and_alarms_that_are_not_there_are_problems(
    client: Client, book: AlarmBook
) -> None:
    await problem(await client.post(f"{PATH}/clear", data=b"by=ada"), 415)
    headers = {"Content-Type": "application/json"}
    await problem(await client.post(f"{PATH}/clear", data=b"{", headers=headers), 400)
    missing = "/api/v1/alarms/t:x:00:1"
    assert "no alarm" in (await problem(await client.get(missing), 404))["detail"]
    assert (
        "no alarm" in (await problem(await client.post(f"{missing}/clear", json={"by": "a"}), 404))["detail"]
    )
    foreign = await client.post(f"{PATH}/clear", json={"by": "a"}, headers={"Origin": "http://evil.example"})
    await problem(foreign, 403)
